"""Marks that a program has set itself, through the C API: they bound parts of its trace, too.

Such a mark is a number in the events of one thread. There it is exact. Where the other threads were then is
told by the times of their events: exactly by --clock tsc, to some microseconds by --clock coarse, not at all
without a clock.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from ctypes import c_uint32, c_uint64
from dataclasses import dataclass, replace
from functools import partial

from calltrace.calltree import no_memory, read_through, thread_range
from calltrace.errors import UsageError
from calltrace.model import Clock, Mark
from calltrace.parts import Part, number_of
from calltrace.tracefile import ProgramMark, TraceFile, reader_library

_NAME = re.compile(r"(\d+)(?:#([1-9]\d*))?\Z")
_MOST_TOLD = 10  # numbers that the program did set, if it has not set the one that is asked for


@dataclass(frozen=True)
class _Set:
    """A mark as the program set it."""

    number: int
    time: int  # ticks; without a clock its position
    position: int  # units that its thread had recorded
    thread: int  # its index


def add(parts: Sequence[Part], trace: TraceFile) -> Iterator[str]:
    """Let the trace have those marks of its program that bound `parts`; what to tell of them.

    Reads the whole trace if any does; can be interrupted. UsageError if the program has set others, or if it
    is not known where its other threads were then; EngineError if memory runs out.
    """
    asked: dict[str, tuple[int, int]] = {}
    for name in (name for part in parts for name in part.bounds(trace)):
        told = _NAME.match(name)
        if told and number_of(trace, name) is None:
            asked[name] = int(told[1]), int(told[2] or 1)
    found = sorted(_read(trace, ())[0], key=lambda each: each.time) if asked else []
    if not found:
        return
    several = (
        len({thread.index for thread in trace.threads if thread.units} | {each.thread for each in found}) > 1
    )
    if several and trace.clock is Clock.NONE:
        raise UsageError(
            f"{trace.path} has no times: where its other threads were when the program set mark "
            f"{next(iter(asked))} is not known; record with --clock tsc"
        )
    chosen = set()
    for name, (number, which) in asked.items():
        at = _find(trace, found, name, number, which)
        chosen.add(at)
        if any(part.marks == name for part in parts) and at + 1 < len(found):
            chosen.add(at + 1)  # where that part ends
    _insert(trace, found, sorted(chosen))
    if several and trace.clock is Clock.COARSE:
        yield "threads other than the one that set a mark are parted to some microseconds: --clock coarse"


def _find(trace: TraceFile, found: Sequence[_Set], name: str, number: int, which: int) -> int:
    """The position of a mark in `found`."""
    same = [at for at, each in enumerate(found) if each.number == number]
    if len(same) >= which:
        return same[which - 1]
    numbers = list(dict.fromkeys(str(each.number) for each in found))
    told = ", ".join(numbers[:_MOST_TOLD]) + (" and others" if len(numbers) > _MOST_TOLD else "")
    raise UsageError(f"{trace.path} has no mark {name}: its program has set {told}")


def _name(found: Sequence[_Set], at: int) -> str:
    number = found[at].number
    which = sum(each.number == number for each in found[: at + 1])
    return str(number) if which == 1 else f"{number}#{which}"


def _insert(trace: TraceFile, found: Sequence[_Set], chosen: Sequence[int]) -> None:
    """Among the marks that the trace has."""
    timed = trace.clock is not Clock.NONE
    positions = _read(trace, [found[at].time for at in chosen] if timed else ())[1]
    added = []
    for number, at in enumerate(chosen):
        each = found[at]
        places = (
            {thread.index: positions[row][number] for row, thread in enumerate(trace.threads)}
            if timed
            else {}
        )
        places[each.thread] = each.position
        added.append(Mark(_name(found, at), each.time, places, by_program=True))

    def when(mark: Mark) -> tuple[int, bool]:
        # Without a clock there is one thread; the program's mark is itself in its events.
        place = mark.tsc if timed else mark.positions.get(found[0].thread, 0)
        return place, mark.by_program

    known: dict[int, int] = {}
    ordered = []
    for mark in sorted([*trace.marks, *added], key=when):
        # Set from a shell, one can be off by the few events recorded meanwhile; their order is known.
        known.update({thread: max(at, known.get(thread, 0)) for thread, at in mark.positions.items()})
        ordered.append(replace(mark, positions=dict(known)))
    trace.set_marks(ordered)


def _read(trace: TraceFile, times: Sequence[int]) -> tuple[list[_Set], list[list[int]]]:
    """The marks that the program set, and for each thread how many units it had recorded at `times`."""
    library = reader_library()
    array = (c_uint64 * len(times))(*times)
    handle = library.ct_reader_moments_open(trace.reader, array, len(times))
    if not handle:
        raise no_memory(trace)
    try:
        read_through(trace, *thread_range(trace, None), partial(library.ct_reader_moments_run, handle))
        count = c_uint32()
        address = library.ct_reader_moments_marks(handle, ctypes.byref(count))
        marks = (ProgramMark * count.value).from_address(address) if count.value else ()
        found = [_Set(mark.number, mark.time, mark.position, mark.thread) for mark in marks]
        size = len(trace.threads) * len(times)
        positions = (
            (c_uint64 * size).from_address(library.ct_reader_moments_positions(handle)) if size else ()
        )
        rows = [list(positions[at : at + len(times)]) for at in range(0, size, len(times) or 1)]
        return found, rows
    finally:
        library.ct_reader_moments_close(handle)
