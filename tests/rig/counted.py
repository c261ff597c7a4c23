"""Counts what the events of a trace say, block by block as a recording without events does."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from ctypes import c_char, c_uint32, c_uint64, c_void_p
from typing import Any

from calltrace import edges
from calltrace.calltree import function_stats, summarize
from calltrace.edges import Context, call_graph
from calltrace.model import Cause, State
from calltrace.tracefile import EdgeOptions, Graph, TraceFile, bits_of, reader_library
from rig.tracewriter import BLOCK, EVENTS, LIVE

END_CAUSES = {State.EXITED: Cause.PROCESS_END, State.KILLED: Cause.PROCESS_END, State.STOPPED: Cause.RUNNING}
EVERY_THREAD = 0xFFFFFFFF
FULL, LOOK, LAST = range(3)  # enum ct_graph_taken


def blocks_of(file: bytes) -> list[bytes]:
    """The blocks of events in a whole file, in any order."""
    found, at = [], BLOCK
    while at < len(file):
        kind, _, length = struct.unpack_from("<IIQ", file, at)
        if kind == EVENTS:
            found.append(file[at : at + BLOCK])
        elif kind == LIVE:
            slots = (file[slot : slot + BLOCK] for slot in range(at + BLOCK, at + length, BLOCK))
            found += [slot for slot in slots if int.from_bytes(slot[:4], "little") == EVENTS]
        at += length or BLOCK
    return found


def count(trace: TraceFile, together: int = 64, looks: bool = False) -> Graph:
    """Of the events of a trace. `together`: blocks in slots at a time.

    `looks`: what was counted is written down after these, and then the modules become known once more.
    """
    library, status, size = reader_library(), c_uint32(), c_uint64()
    blocks = sorted(blocks_of(trace.path.read_bytes()), key=lambda block: struct.unpack_from("<Q", block, 40))
    graph = library.ct_graph_open()
    through, bits = bits_of(edges.sites_of_traced_imports(trace))

    def know() -> None:
        assert library.ct_graph_set_reader(graph, trace.reader, ctypes.addressof(through), bits)

    def written() -> bytes:
        data = library.ct_graph_write(graph, END_CAUSES.get(trace.state, Cause.CUT), ctypes.byref(size))
        payload = ctypes.string_at(data, size.value)
        library.ct_graph_free(data)
        return payload

    know()
    for first in range(0, len(blocks), together):
        slots = [(c_char * BLOCK).from_buffer_copy(block) for block in blocks[first : first + together]]
        array = (c_void_p * len(slots))(*map(ctypes.addressof, slots))
        assert library.ct_graph_take(graph, array, len(slots), LAST, ctypes.byref(status)) == len(slots)
        assert all(slot.raw == bytes(BLOCK) for slot in slots)  # the target's again
        if looks:
            Graph(written())
            know()
    payload = written()
    library.ct_graph_close(graph)
    return Graph(payload)


def numbers(trace: TraceFile) -> list[Any]:
    """All that counts can tell, in an order of its own."""
    callers = EdgeOptions(thread_count=EVERY_THREAD, depth=1, flags=edges.ALL)
    views = [
        call_graph(trace),
        call_graph(trace, by_stack=True),
        edges._merged(trace, edges._counted(trace, callers)),
    ]
    threads = [summarize(trace, thread.index) for thread in trace.threads]
    return [trace.threads, summarize(trace), threads, list(function_stats(trace)), *map(in_order, views)]


def in_order(contexts: Sequence[Context]) -> list[Any]:
    """Contexts that can be compared."""
    return sorted(
        (each.name, each.tail, each.calls, each.self_time, each.total_time, in_order([*each.others.values()]))
        for each in contexts
    )


def assert_counted(trace: TraceFile, together: int = 64, looks: bool = False) -> None:
    """Counting, the same numbers come out as by reading the events."""
    read = numbers(trace)
    trace.count_as(count(trace, together, looks))
    for counted, told in zip(numbers(trace), read):
        assert counted == told
