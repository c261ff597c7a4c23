"""The call tree of a trace: its numbers, its lines, and what happened step by step.

All of it is pulled from the native reader in batches, so memory stays small and a reader can stop early.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_char, c_uint32
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from calltrace import graph
from calltrace.errors import EngineError, UsageError
from calltrace.model import Cause, Clock, Event, Ext, FunctionRecord, Line, Module, NodeKind, Step
from calltrace.patterns import Pattern, matches_any, reaches
from calltrace.tracefile import LINE, STEP, Stat, Totals, TraceFile, TreeOptions, bits_of, reader_library

_BATCH = 4096
_ALL_THREADS = 0xFFFFFFFF
MORE, END, LIMIT, NO_MEMORY, WANTS_TEXT, SPLIT = range(6)  # enum ct_pull
_WINDOW = 1 << 16  # lines held back until their ends are known
_LOOKAHEAD = 200_000_000  # steps behind the last line in which ends are still looked for: some seconds


class CallStat(NamedTuple):
    """Calls and times of one function, or of the calls to one import or callee."""

    name: str
    kind: NodeKind
    calls: int
    self_time: int  # ticks; 0 without a clock
    total_time: int  # ticks, recursion counted once; 0 without a clock
    address: int | None  # VA of the function, or of one of the calls


class FunctionStat(NamedTuple):
    """Calls and times of one function. Times are ticks; positions in a trace without a clock."""

    module: Module
    record: FunctionRecord
    calls: int
    self_time: int
    total_time: int  # recursion counted once


@dataclass(frozen=True)
class Summary:
    """A trace in numbers. Times are ticks."""

    units: int
    events: dict[Event, int]
    ext: dict[Ext, int]
    frames: dict[NodeKind, int]
    causes: dict[Cause, int]
    orphans: int
    gaps: int
    lost: int  # units
    short_times: int  # chunks
    first_time: int
    last_time: int
    max_depth: int
    stats: list[CallStat]

    @property
    def unclosed(self) -> dict[Cause, int]:
        """Frames without a recorded end, by why; only causes that occurred."""
        return {cause: count for cause, count in self.causes.items() if count and cause >= Cause.UNWOUND}


@dataclass(frozen=True)
class TreeFilter:
    """What of a trace is shown."""

    thread: int | None = None  # a thread's index or system id
    functions: Sequence[Pattern] = ()  # frames that are shown with all inside them; none: everything
    depth: int = 0  # levels; 0 = all
    limit: int = 0  # lines; 0 = all


def summarize(trace: TraceFile, thread: int | None = None) -> Summary:
    """Read the whole trace, or what one thread (index or system id) recorded.

    Can be interrupted between slices of some milliseconds. Raises UsageError for an unknown thread,
    EngineError if memory runs out.
    """
    with _read_whole(trace, thread) as (totals, counted):
        stats = [stat for kind in NodeKind for stat in _stats(trace, counted(kind), kind)]
    return Summary(
        units=totals.units,
        events={event: totals.events[event] for event in Event},
        ext={ext: totals.ext[ext] for ext in Ext},
        frames={kind: totals.frames[kind] for kind in NodeKind},
        causes={cause: totals.causes[cause] for cause in Cause},
        orphans=totals.orphans,
        gaps=totals.gaps,
        lost=totals.lost,
        short_times=totals.short_times,
        first_time=totals.first_time,
        last_time=totals.last_time,
        max_depth=totals.max_depth,
        stats=stats,
    )


def function_stats(trace: TraceFile) -> Iterator[FunctionStat]:
    """Each function that was called, by id: module after module, in the order of its records.

    Reads the whole trace first. Raises EngineError if memory runs out.
    """
    with _read_whole(trace, None) as (_, counted):
        for number, stat in counted(NodeKind.FUNCTION):
            found = trace.function(number) if stat.calls else None
            if found:
                yield FunctionStat(*found, stat.calls, stat.self, stat.total)


def node_stats(trace: TraceFile) -> Iterator[tuple[NodeKind, int, Stat]]:
    """Kind and id of all that was called, with what was counted.

    Reads the whole trace first. Raises EngineError if memory runs out.
    """
    with _read_whole(trace, None) as (_, counted):
        for kind in NodeKind:
            for number, stat in counted(kind):
                if stat.calls:
                    yield kind, number, stat


# By id, of one kind of frame; as long as what gave it is open.
_Counted = Callable[[NodeKind], Iterable[tuple[int, Stat]]]


@contextmanager
def _read_whole(trace: TraceFile, thread: int | None) -> Iterator[tuple[Totals, _Counted]]:
    """What has been read or, where nobody has kept the events, counted."""
    trace.need_counts()
    if trace.graph:
        yield graph.summary(trace.graph, *thread_range(trace, thread))
        return
    library = reader_library()
    first, count = thread_range(trace, thread)
    summary: int | None = library.ct_reader_summary_open(trace.reader, first, count)
    if not summary:
        raise no_memory(trace)
    try:
        read_through(trace, first, count, partial(library.ct_reader_summary_run, summary))
        totals = Totals()
        library.ct_reader_summary_totals(summary, ctypes.byref(totals))
        yield totals, partial(_counted, summary)
    finally:
        library.ct_reader_summary_close(summary)


def _counted(summary: int, kind: NodeKind) -> Iterable[tuple[int, Stat]]:
    count = c_uint32()
    address = reader_library().ct_reader_summary_stats(summary, kind, ctypes.byref(count))
    return enumerate((Stat * count.value).from_address(address) if address else ())


def _stats(trace: TraceFile, counted: Iterable[tuple[int, Stat]], kind: NodeKind) -> Iterator[CallStat]:
    # Sites that call the same thing are one line to the user.
    merged: dict[str, list[int]] = {}
    timed = trace.clock is not Clock.NONE
    for number, stat in counted:
        if stat.calls:
            sums = merged.setdefault(trace.node_name(kind, number), [0, 0, 0, number])
            sums[0] += stat.calls
            if timed:
                sums[1] += stat.self
                sums[2] += stat.total
    for name, (calls, self_time, total_time, node) in merged.items():
        yield CallStat(name, kind, calls, self_time, total_time, trace.node_address(kind, node))


def steps(trace: TraceFile, thread: int | None = None) -> Iterator[Step]:
    """What happened, thread by thread, in order; of one thread (index or system id), or all.

    Raises UsageError for an unknown thread or a trace without events, EngineError if memory runs out.
    """
    trace.need_events()
    library = reader_library()
    first, count = thread_range(trace, thread)
    handle = library.ct_reader_steps_open(trace.reader, first, count)
    if not handle:
        raise no_memory(trace)
    batch = (c_char * (_BATCH * STEP.size))()
    pull = c_uint32()
    try:
        with trace.reading(units_of(trace, first, count)) as tell:
            while pull.value == MORE:
                got = library.ct_reader_steps_next(handle, batch, _BATCH, ctypes.byref(pull))
                tell()
                yield from map(Step._make, STEP.iter_unpack(memoryview(batch).cast("B")[: got * STEP.size]))
    finally:
        library.ct_reader_steps_close(handle)
    if pull.value == NO_MEMORY:
        raise no_memory(trace)


class Tree:
    """The lines of a call tree; iterate once."""

    def __init__(self, trace: TraceFile, chosen: TreeFilter, window: int = _WINDOW) -> None:
        """Raises UsageError, before any line is read.

        That is for an unknown thread, patterns that match nothing, or a trace without events.
        """
        trace.need_events()
        self._trace = trace
        self.limited = False  # after the last line: were there more than the limit?
        first, count = thread_range(trace, chosen.thread)
        self.options = TreeOptions(  # of the native reader, as long as this lives
            first_thread=first,
            thread_count=count,
            max_depth=min(chosen.depth, 0xFFFFFFFF),
            window=min(chosen.limit + 4, window) if chosen.limit else window,
            limit=chosen.limit,
            lookahead=_LOOKAHEAD,
        )
        if chosen.functions:
            functions, sites = matching(trace, chosen.functions)
            self._bits = [bits_of(functions), bits_of(sites)]
            (function_bits, self.options.function_bits), (site_bits, self.options.site_bits) = self._bits
            self.options.functions = ctypes.addressof(function_bits)
            self.options.sites = ctypes.addressof(site_bits)

    def __iter__(self) -> Iterator[Line]:
        """Raises EngineError if memory runs out."""
        units = units_of(self._trace, self.options.first_thread, self.options.thread_count)
        with self._trace.reading(units) as tell:
            yield from self._lines(tell)

    def _lines(self, tell: Callable[[], None]) -> Iterator[Line]:
        library = reader_library()
        handle = library.ct_reader_tree_open(self._trace.reader, ctypes.byref(self.options))
        if not handle:
            raise no_memory(self._trace)
        batch = (c_char * (_BATCH * LINE.size))()
        pull = c_uint32()
        try:
            while pull.value == MORE:
                got = library.ct_reader_tree_next(handle, batch, _BATCH, ctypes.byref(pull))
                tell()
                yield from map(Line._make, LINE.iter_unpack(memoryview(batch).cast("B")[: got * LINE.size]))
        finally:
            library.ct_reader_tree_close(handle)
        if pull.value == NO_MEMORY:
            raise no_memory(self._trace)
        self.limited = pull.value == LIMIT


def matching(trace: TraceFile, patterns: Sequence[Pattern]) -> tuple[list[int], list[int]]:
    """Ids of the functions, and of the sites calling imports, that the patterns mean.

    Raises UsageError if there are none.
    """
    functions: list[int] = []
    sites: list[int] = []
    for module in trace.modules:
        if any(pattern.va is not None or pattern.matches_module(module.name) for pattern in patterns):
            records = list(trace.functions(module))
            sizes = reaches([(record.rva, record.size) for record in records])
            for number, (record, size) in enumerate(zip(records, sizes), module.first_function):
                name = module.names.get(record.rva)
                if matches_any(patterns, module.name, name, record.rva, module.base, size):
                    functions.append(number)
        imports = {at for at, imported in enumerate(module.imports) if _matches_import(patterns, imported)}
        if imports:
            found = enumerate(trace.sites(module), module.first_site)
            sites += [number for number, site in found if site.imported in imports]
    if not functions and not sites:
        wanted = ", ".join(pattern.text for pattern in patterns)
        raise UsageError(f"no function or import of {trace.path} matches {wanted}")
    return functions, sites


def _matches_import(patterns: Sequence[Pattern], imported: str) -> bool:
    module, _, function = imported.partition("!")
    named = [pattern for pattern in patterns if pattern.va is None and pattern.rva is None]
    return matches_any(named, module, function, 0, 0)


def thread_range(trace: TraceFile, thread: int | None) -> tuple[int, int]:
    """Position of the first thread to be read, and how many. An index goes before a system id."""
    if thread is None:
        return 0, _ALL_THREADS
    for numbers in ([one.index for one in trace.threads], [one.id for one in trace.threads]):
        if thread in numbers:
            return numbers.index(thread), 1
    raise UsageError(f"{trace.path} has no thread {thread}: `calltrace info` lists its threads")


def read_through(trace: TraceFile, first: int, count: int, run: Callable[[], int]) -> None:
    """Call `run`, which reads on for a while and gives an enum ct_pull, to the end of these threads.

    `on_read` is told. EngineError if memory runs out.
    """
    with trace.reading(units_of(trace, first, count)) as tell:
        pull = MORE
        while pull == MORE:
            pull = run()
            tell()
    if pull == NO_MEMORY:
        raise no_memory(trace)


def units_of(trace: TraceFile, first: int, count: int) -> int:
    """How many units were recorded by `count` threads from position `first` on."""
    return sum(one.units for one in trace.threads[first : first + count])


def no_memory(trace: TraceFile) -> EngineError:
    return EngineError(f"not enough memory to read {trace.path}")
