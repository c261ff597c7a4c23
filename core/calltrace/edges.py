"""Who calls a function, and what it calls: exact counts and times, by calling context.

A call whose callee is traced is the edge from the caller to that function. A function that was entered by a
jump is called by the one that jumped, whose frame it replaced. A callback is called by the call of what
called it back.
"""

from __future__ import annotations

import ctypes
import heapq
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from ctypes import c_uint32
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from calltrace import graph
from calltrace.calltree import LIMIT, MORE, NO_MEMORY, matching, no_memory, thread_range, units_of
from calltrace.errors import UsageError
from calltrace.model import NOBODY, NONE_ID, NodeKind, module_stem
from calltrace.patterns import Pattern
from calltrace.tracefile import EDGE, EdgeOptions, Graph, TraceFile, bits_of, reader_library

LEVELS = 64  # CT_EDGE_LEVELS
ALL, BY_STACK = 1, 2  # enum ct_edge_flags
_CONTEXTS = 1_000_000  # told apart at most; some 500 MB
NOBODY_NAME = "code not traced"


@dataclass
class Context:
    """A function or call in its context. Times are ticks; positions in a trace without a clock."""

    name: str
    tail: bool  # the callee was entered by a jump that replaced its caller's frame
    address: int | None = None  # VA of the function, or of one of the calls
    calls: int = 0
    self_time: int = 0
    total_time: int = 0  # recursion within the context counted once
    others: dict[tuple[str, bool], Context] = field(default_factory=dict)  # its callers, or callees

    def add(self, calls: int, self_time: int, total_time: int) -> None:
        """Count further calls."""
        self.calls += calls
        self.self_time += self_time
        self.total_time += total_time


class Edge(NamedTuple):
    """struct ct_edge. Times as in Context."""

    calls: int
    self_time: int
    total_time: int
    parent: int  # position of the caller's edge, or NONE_ID: a function or call by itself
    id: int
    kind: int  # NodeKind
    tail: int
    part: int  # of the trace, where parts are told apart


class _Edges(Sequence[Edge]):
    """As the native reader made them: there may be millions, and as tuples they take ten times the room."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def __len__(self) -> int:
        return len(self._raw) // EDGE.size

    def __getitem__(self, at: Any) -> Any:
        return Edge._make(EDGE.unpack_from(self._raw, range(len(self))[at] * EDGE.size))

    def __iter__(self) -> Iterator[Edge]:
        return map(Edge._make, EDGE.iter_unpack(self._raw))


class Caller(NamedTuple):
    """Calls of a function, or of what a call leads to, by one caller. Times as in Context."""

    name: str
    caller: str
    tail: bool  # as of Context
    calls: int
    self_time: int
    total_time: int


class Calls(NamedTuple):
    """How often something was called in a part of a trace, and with callers, by whom."""

    part: int
    node: tuple[int, int]  # NodeKind and id
    calls: int
    caller: tuple[int, int] | None = None  # NodeKind, or NOBODY, and id
    tail: bool = False  # entered by a jump that replaced its caller's frame


def contexts(
    trace: TraceFile, patterns: Sequence[Pattern], *, callees: bool, depth: int = 1, thread: int | None = None
) -> list[Context]:
    """Each function or import meant that was called, with up to LEVELS levels of callers or callees.

    Reads the whole trace; can be interrupted. Raises UsageError for an unknown thread, patterns that match
    nothing, a depth beyond LEVELS, or one at which there are too many contexts; EngineError if memory runs
    out.
    """
    if not 1 <= depth <= LEVELS:
        raise UsageError(f"a depth of {depth} is out of range: 1 to {LEVELS} levels can be told apart")
    first, count = thread_range(trace, thread)
    options = EdgeOptions(first_thread=first, thread_count=count, depth=depth, callees=callees)
    options.limit = _CONTEXTS if depth > 1 else 0
    functions, sites = matching(trace, patterns)
    return _merged(trace, _counted(trace, options, functions, sites))


def call_graph(trace: TraceFile, *, by_stack: bool = False) -> list[Context]:
    """Every function and call of the trace, with what it calls one level down.

    `by_stack`: a function that was entered by a jump counts as called by the caller of the one that jumped,
    and the way to a callee as its caller's own time. So times add up: without recursion a function's total is
    its own and its callees' totals. Memory grows with the number of different calls, not with the trace.
    Raises EngineError if memory runs out.
    """
    options = _all_edges(trace, callees=True, depth=1, flags=BY_STACK if by_stack else 0)
    return _merged(trace, _counted(trace, options))


def callers(trace: TraceFile) -> dict[str, list[tuple[str, int]]]:
    """Of each function or call by its name: what called it how often, the most first.

    Errors as of `call_graph`.
    """
    found: dict[str, list[tuple[str, int]]] = {}
    for caller in call_graph(trace):
        counts = Counter[str]()
        for callee in caller.others.values():
            counts[callee.name] += callee.calls
        for name, calls in counts.items():
            found.setdefault(name, []).append((caller.name, calls))
    return {name: sorted(called_by, key=lambda one: (-one[1], one[0])) for name, called_by in found.items()}


def largest_calls(trace: TraceFile, limit: int) -> tuple[list[Caller], int]:
    """Up to `limit` calls by different callers, that took most time first, and how many there are in all.

    Callers of one name are one, where there are no more than the limit. Errors as of `call_graph`.
    """
    found = _counted(trace, _all_edges(trace, callees=False, depth=1))
    calls = (edge for edge in found if edge.parent != NONE_ID)
    largest = heapq.nlargest(limit, calls, key=lambda edge: (edge.total_time, edge.calls))
    sums: dict[tuple[str, str, bool], list[int]] = {}
    for edge in largest:
        called = found[edge.parent]
        caller = NOBODY_NAME if edge.kind == NOBODY else trace.node_name(edge.kind, edge.id)
        key = trace.node_name(called.kind, called.id), caller, bool(edge.tail)
        sum_of = sums.setdefault(key, [0, 0, 0])
        for at, value in enumerate((edge.calls, edge.self_time, edge.total_time)):
            sum_of[at] += value
    merged = len(largest) - len(sums)
    count = sum(edge.parent != NONE_ID for edge in found) - merged
    made = [Caller(*key, *values) for key, values in sums.items()]
    return sorted(made, key=lambda one: (-one.total_time, -one.calls, one)), count


def edges_in_slices(trace: TraceFile) -> Generator[None, None, Sequence[Edge]]:
    """Who called what, by id, in the end; pauses after each slice of some milliseconds.

    How far it is, is for the caller to tell. Raises EngineError if memory runs out.
    """
    return (yield from _in_slices(trace, _all_edges(trace, callees=True, depth=1)))


def calls_by_part(trace: TraceFile, parts: Sequence[int], *, callers: bool) -> Iterator[Calls]:
    """What was called in parts of a trace, in the order in which it first was, thread by thread.

    `parts` numbers the part before the first named mark, and behind each. Reads the whole trace; can be
    interrupted. Raises EngineError if memory runs out.
    """
    array = (c_uint32 * len(parts))(*parts)
    options = _all_edges(trace, callees=False, depth=1 if callers else 0)
    options.parts, options.part_count = ctypes.addressof(array), len(parts)
    found = _counted(trace, options)
    for edge in found:
        node = edge.kind, edge.id
        if not edge.calls or callers != (edge.parent != NONE_ID):
            continue
        if not callers:
            yield Calls(edge.part, node, edge.calls)
        else:
            called = found[edge.parent]
            yield Calls(edge.part, (called.kind, called.id), edge.calls, node, bool(edge.tail))


def _all_edges(trace: TraceFile, *, callees: bool, depth: int, flags: int = 0) -> EdgeOptions:
    first, count = thread_range(trace, None)
    return EdgeOptions(
        first_thread=first, thread_count=count, depth=depth, callees=callees, flags=ALL | flags
    )


def _counted(
    trace: TraceFile, options: EdgeOptions, functions: Sequence[int] = (), sites: Sequence[int] = ()
) -> Sequence[Edge]:
    slices = _in_slices(trace, options, functions, sites)
    with trace.reading(units_of(trace, options.first_thread, options.thread_count)) as tell:
        while True:
            try:
                next(slices)
                tell()
            except StopIteration as end:
                found: Sequence[Edge] = end.value
                return found


def _in_slices(
    trace: TraceFile, options: EdgeOptions, functions: Sequence[int] = (), sites: Sequence[int] = ()
) -> Generator[None, None, Sequence[Edge]]:
    trace.need_counts()
    if trace.graph:
        yield
        return _of_counts(trace, trace.graph, options, functions, sites)
    bits = [bits_of(functions), bits_of(sites), bits_of(sites_of_traced_imports(trace))]
    for name, (array, size) in zip(("function", "site", "through"), bits):
        setattr(options, name if name == "through" else f"{name}s", ctypes.addressof(array))
        setattr(options, f"{name}_bits", size)
    library = reader_library()
    handle = library.ct_reader_edges_open(trace.reader, ctypes.byref(options))
    if not handle:
        raise no_memory(trace)
    try:
        pull = MORE
        while pull == MORE:
            pull = library.ct_reader_edges_run(handle)
            yield
        if pull == NO_MEMORY:
            raise no_memory(trace)
        if pull == LIMIT:
            raise UsageError(
                f"{trace.path}: more than {options.limit:,} different chains of calls: give a smaller --depth"
            )
        number = c_uint32()
        address = library.ct_reader_edges_of(handle, ctypes.byref(number))
        raw = ctypes.string_at(address, number.value * EDGE.size) if address else b""
        return _Edges(raw)
    finally:
        library.ct_reader_edges_close(handle)


def _of_counts(
    trace: TraceFile, counts: Graph, options: EdgeOptions, functions: Sequence[int], sites: Sequence[int]
) -> list[Edge]:
    if options.depth > 1:
        raise UsageError(
            f"{trace.path} was recorded with {trace.counting_option} and knows one level of callers and "
            "callees: leave out --depth"
        )
    ids = {NodeKind.FUNCTION: set(functions), NodeKind.CALL: set(sites)}

    def chosen(kind: int, number: int) -> bool:
        return bool(options.flags & ALL) or number in ids.get(NodeKind(kind), ())

    threads = options.first_thread, options.thread_count
    if options.callees:
        view = graph.BY_STACK if options.flags & BY_STACK else graph.BY_JUMPS
        found = graph.callees(counts, *threads, view, chosen)
    else:
        found = graph.callers(counts, *threads, chosen)
    part = (c_uint32 * options.part_count).from_address(options.parts)[0] if options.part_count else 0
    # without callers, those of a level more are left out
    return [Edge(*edge, part) for edge in found if options.depth or edge[3] == NONE_ID]


def _merged(trace: TraceFile, edges: Sequence[Edge]) -> list[Context]:
    """Contexts by name: sites that call the same thing are one to the user."""
    roots: dict[tuple[str, bool], Context] = {}
    made: list[Context] = []
    for calls, self_time, total_time, parent, node, kind, tail, _ in edges:
        name, address = NOBODY_NAME, None
        if kind != NOBODY:
            name, address = trace.node_name(kind, node), trace.node_address(kind, node)
        among = roots if parent == NONE_ID else made[parent].others
        context = among.setdefault((name, bool(tail)), Context(name, bool(tail), address))
        context.add(calls, self_time, total_time)
        made.append(context)
    return list(roots.values())


def sites_of_traced_imports(trace: TraceFile) -> list[int]:
    """Ids of call sites of imports that lie in a traced module, where the function itself is called."""
    if len(trace.modules) < 2:
        return []
    traced = {(module.stem.lower(), name) for module in trace.modules for name in module.names.values()}
    found: list[int] = []
    for module in trace.modules:
        imports = set()
        for at, imported in enumerate(module.imports):
            library, _, function = imported.partition("!")
            if (module_stem(library).lower(), function) in traced:
                imports.add(at)
        if imports:
            sites = enumerate(trace.sites(module), module.first_site)
            found += [number for number, site in sites if site.imported in imports]
    return found
