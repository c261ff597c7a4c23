"""A simulated thread that calls, returns, jumps and throws, and knows its own call tree.

It is the reader's oracle: the same run gives the units that a recorder would have written, and the frames as
they truly were.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rig import tracewriter
from rig.tracewriter import Units

FUNCTION, CALL_NODE, API_FUNCTION, API_CALL = range(4)
RETURN, TAIL, UNWOUND, INFERRED, PROCESS_END = 1, 2, 3, 4, 6

PLAIN = range(0, 12)  # ids of functions nothing can land in
LANDABLE = range(12, 20)  # each ENTER is preceded by its stack pointer
FUNCLETS = range(20, 28)  # one for each landable function
FUNCTION_COUNT = 28
SITES = 2 * FUNCTION_COUNT  # two in each function
API_ADDRESSES = (0x140001000, 0x7FFE00001234, 0x1)


@dataclass
class Frame:
    """A frame as it truly was; positions are of the units that opened and closed it."""

    kind: int
    id: int  # of the C API: the address
    depth: int
    sp: int
    opened: int
    begin: int = 0  # time
    closed: int = -1
    end: int = 0
    cause: int = 0
    children: list[Frame] = field(default_factory=list)

    def all(self) -> Iterator[Frame]:
        """This frame and those below it, in the order they were opened."""
        yield self
        for child in self.children:
            yield from child.all()

    def self_time(self) -> int:
        """Time in it and in none of its children."""
        return self.end - self.begin - sum(child.end - child.begin for child in self.children)


def name(frame: Frame) -> str:
    """What the reader calls it, by what `describe` writes."""
    if frame.kind == FUNCTION:
        return f"simulated!f{frame.id}"
    if frame.kind == CALL_NODE:
        return f"call at simulated+{0x2000 + 5 * frame.id:#x}"
    address = {0x140001000: "simulated!f0", 0x7FFE00001234: "0x7ffe00001234", 1: "0x1"}[frame.id]
    return address if frame.kind == API_FUNCTION else f"call {address}"


def funclet_parent(function: int) -> int:
    """Whose handler a funclet is."""
    return function - len(LANDABLE)


class SimulatedThread:
    """Runs a program made of bytes: each picks what happens next."""

    def __init__(self, unit_size: int = 4, stack_top: int = 0x1_0000_0800, now: int = 0) -> None:
        self.units = Units(unit_size, now)
        self.roots: list[Frame] = []
        self.stack: list[Frame] = []
        self.sp = stack_top
        self.marks: list[int] = []
        self.mark_positions: list[int] = []

    def run(self, program: bytes) -> None:
        """What the bytes say, one pair after the other."""
        for what, which in zip(program[::2], program[1::2]):
            self.units.now += which * which
            self._act(what, which)

    def finish(self, cause: int) -> None:
        """The thread's story ends here, for every frame that is still open."""
        while self.stack:
            self._pop(cause, self.units.times[-1] if self.units.times else 0)

    def frames(self) -> list[Frame]:
        """Every frame, in the order they were opened."""
        return [frame for root in self.roots for frame in root.all()]

    def _act(self, what: int, which: int) -> None:
        top = self.stack[-1] if self.stack else None
        choice = what % 16
        if choice < 4:
            self._enter(which % 20)
        elif choice < 6 and top and top.kind == FUNCTION:
            self._call(top, which)
        elif choice < 10 and top:
            self._leave(top)
        elif choice == 10 and top and top.kind == FUNCTION:
            self._event(tracewriter.TAIL, top.id)
            self._pop(TAIL)
            self._enter(which % 20)
        elif choice == 11:
            self._throw(which)
        elif choice == 12:
            self._lose_ends(which)
        elif choice == 13:
            address = API_ADDRESSES[which % len(API_ADDRESSES)]
            kind, event = [(API_FUNCTION, tracewriter.API_ENTER), (API_CALL, tracewriter.API_CALL)][which % 2]
            self.units.ext(event, address, 0x1000 + which)
            self._push(kind, address, units=1 + 2 * (8 // self.units.unit_size))
        elif choice == 14:
            self.mark_positions.append(len(self.units))
            self.units.ext(tracewriter.MARK, which << 33)
            self.marks.append(which << 33)
        elif top and top.kind == API_FUNCTION:
            self.units.ext(tracewriter.API_GOTO, API_ADDRESSES[which % len(API_ADDRESSES)], 0)
            self._pop(TAIL, units=1 + 2 * (8 // self.units.unit_size))

    def _leave(self, top: Frame) -> None:
        if top.kind == FUNCTION:
            self._event(tracewriter.LEAVE, top.id)
            self._pop(RETURN)
        elif top.kind == CALL_NODE:
            self._event(tracewriter.RETURN, top.id)
            self._pop(RETURN)
        else:
            event = tracewriter.API_EXIT if top.kind == API_FUNCTION else tracewriter.API_RET
            self.units.ext(event, top.id, 0)
            self._pop(RETURN, units=1 + 2 * (8 // self.units.unit_size))

    def _enter(self, function: int) -> None:
        if function in LANDABLE:
            self.units.frame(self._next_sp())
        self._event(tracewriter.ENTER, function)
        self._push(FUNCTION, function)

    def _throw(self, which: int) -> None:
        """An exception, caught by a landable frame: in the frame itself, or in its funclet."""
        catchers = [
            at for at, frame in enumerate(self.stack) if frame.kind == FUNCTION and frame.id in LANDABLE
        ]
        if not catchers:
            return
        at = catchers[which % len(catchers)]
        catcher = self.stack[at]
        inside = catcher.sp - 16  # in the catcher's own part of the stack
        self.units.frame(inside)
        if which & 64:
            self._event(tracewriter.LAND, catcher.id)
        else:
            self._event(tracewriter.ENTER, catcher.id + len(LANDABLE))
        while len(self.stack) > at + 1:
            self._pop(UNWOUND)
        if not which & 64:
            self._push(FUNCTION, catcher.id + len(LANDABLE))

    def _call(self, caller: Frame, which: int) -> None:
        site = 2 * caller.id + which % 2
        self._event(tracewriter.CALL, site)
        self._push(CALL_NODE, site)

    def _lose_ends(self, which: int) -> None:
        """Some frames end unrecorded; the one below them returns, makes a call, or is jumped back into."""
        at = len(self.stack) - 2 - which % 3
        if at < 0:
            return
        left = self.stack[at]
        if which & 128 and left.kind == FUNCTION:
            above = self.stack[at + 1 :]
            alike = any((frame.kind, frame.id) == (left.kind, left.id) for frame in above)
            if alike or any(frame.kind > CALL_NODE for frame in above):
                return  # nobody can tell whose call it is
            site = 2 * left.id + which % 2
            again = which & 64 and all((frame.kind, frame.id) != (CALL_NODE, site) for frame in self.stack)
            self._event(tracewriter.RETURN if again else tracewriter.CALL, site)
            while len(self.stack) > at + 1:
                self._pop(UNWOUND if again else INFERRED)
            if not again:
                self._push(CALL_NODE, site)
            return
        if any((frame.kind, frame.id) == (left.kind, left.id) for frame in self.stack[at + 1 :]):
            return  # its end would be taken for theirs: nobody can tell
        units = 1
        if left.kind in (API_FUNCTION, API_CALL):
            units += 2 * (8 // self.units.unit_size)
            event = tracewriter.API_EXIT if left.kind == API_FUNCTION else tracewriter.API_RET
            self.units.ext(event, left.id, 0)
        else:
            self._event(tracewriter.LEAVE if left.kind == FUNCTION else tracewriter.RETURN, left.id)
        while len(self.stack) > at + 1:
            self._pop(INFERRED, units=units)
        self._pop(RETURN, units=units)

    def _event(self, event: int, number: int) -> None:
        self.units.event(event, number)

    def _next_sp(self) -> int:
        return (self.stack[-1].sp if self.stack else self.sp) - 64

    def _push(self, kind: int, number: int, units: int = 1) -> None:
        frame = Frame(
            kind, number, len(self.stack), self._next_sp(), len(self.units) - units, begin=self.units.now
        )
        (self.stack[-1].children if self.stack else self.roots).append(frame)
        self.stack.append(frame)

    def _pop(self, cause: int, time: int | None = None, units: int = 1) -> None:
        frame = self.stack.pop()
        frame.closed = len(self.units) - units
        frame.end = self.units.now if time is None else time
        frame.cause = cause


def describe(writer: tracewriter.TraceWriter) -> None:
    """Append the module whose functions and sites the simulated threads use."""
    functions = [(0x1000 + 16 * number, 16, 1, 0, 0, tracewriter.NONE) for number in (*PLAIN, *LANDABLE)] + [
        (0x1000 + 16 * number, 16, 1, 1, 0, funclet_parent(number)) for number in FUNCLETS
    ]
    sites = [(0x2000 + 5 * number, number // 2, 0, tracewriter.NONE) for number in range(SITES)]
    names = [[0x1000 + 16 * number, f"f{number}"] for number in range(FUNCTION_COUNT)]
    writer.module({"name": "simulated.exe", "names": names}, functions, sites)


def simulated_trace(
    path: Path,
    *programs: bytes,
    unit_size: int = 8,
    start: int = 0,
    hz: int = 10**9,
    command_line: str = "",
) -> tuple[Path, list[SimulatedThread]]:
    """A trace with a thread for each program, and the threads; the process ends in the midst of all.

    With units of 8 bytes it has a clock, which is at `start` when the threads begin.
    """
    clock = {"tsc_start": start, "tsc_hz": hz} if unit_size == 8 else {}
    writer = tracewriter.TraceWriter(unit_size, **clock)
    describe(writer)
    if command_line:
        writer.info({"command_line": command_line})
    threads = []
    for number, program in enumerate(programs):
        thread = SimulatedThread(unit_size, now=start)
        thread.run(program)
        thread.finish(PROCESS_END)
        writer.thread(thread.units, number)
        threads.append(thread)
    return writer.write(path), threads


def golden_trace(path: Path, threads: int, unit_size: int = 8) -> Path:
    """A trace of threads to which everything happens, as random numbers that never change have it."""
    programs = [random.Random(number).randbytes(2000) for number in range(threads)]
    command_line = '"C:\\wörk\\simulated.exe" 1+2'
    clock = {"start": 1000, "hz": 3_141_592_653}
    return simulated_trace(path, *programs, unit_size=unit_size, **clock, command_line=command_line)[0]
