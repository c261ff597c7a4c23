"""Lets the events of a trace through as a recording with budgets does, block by block."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from ctypes import c_char, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path

from calltrace import edges
from calltrace.model import Cause, Policy
from calltrace.tracefile import TraceFile, bits_of, reader_library
from rig.counted import END_CAUSES, FULL, LAST, blocks_of
from rig.tracewriter import BLOCK, EVENTS, HEADER, LIVE, TraceWriter

GRAPH = 5  # CT_CHUNK_GRAPH
KINDS = (0, 1)  # enum ct_muted_kind: functions, sites


@dataclass
class Budgeted:
    """What came of a trace: its blocks in order; by kind and id, how many calls were muted."""

    blocks: list[bytes] = field(default_factory=list)
    muted: dict[tuple[int, int], int] = field(default_factory=dict)
    counts: bytes = b""  # the payload of its GRAPH chunk


def with_budget(
    trace: TraceFile,
    calls: int,
    together: int = 64,
    look: Callable[[int, Budgeted], None] | None = None,
) -> Budgeted:
    """Of each function and call site, `calls` by thread are written.

    `together`: blocks in slots at a time; `look` is told after each such time how many blocks have come, and
    what its user would see.
    """
    library, status, place = reader_library(), c_uint32(), c_uint64()
    blocks = in_order(trace)
    graph, budget = library.ct_graph_open(), library.ct_budget_open(calls)
    through, bits = bits_of(edges.sites_of_traced_imports(trace))
    assert library.ct_graph_set_reader(graph, trace.reader, ctypes.addressof(through), bits)
    library.ct_graph_set_budget(graph, budget)
    made = Budgeted()

    def write(everything: bool) -> None:
        while block := library.ct_budget_block(budget, everything, ctypes.byref(place)):
            if not place.value:
                made.blocks.append(b"")
                place.value = len(made.blocks)
            made.blocks[place.value - 1] = ctypes.string_at(block, BLOCK)
            library.ct_budget_written(budget, block, place.value)

    for first in range(0, len(blocks), together):
        slots = [(c_char * BLOCK).from_buffer_copy(block) for block in blocks[first : first + together]]
        array = (c_void_p * len(slots))(*map(ctypes.addressof, slots))
        what = LAST if look is None else FULL
        for slot in slots:
            slot[4] = 3  # CT_EVENTS_LIVE | CT_EVENTS_FULL
        done = 0
        while done < len(slots):
            taken = library.ct_graph_take(graph, array, len(slots), what, ctypes.byref(status))
            assert taken
            assert not status.value
            done += taken
            write(False)
        if look:
            assert library.ct_budget_settle(budget, False)
            write(True)
            look(first + len(slots), made)
    assert library.ct_budget_settle(budget, True)
    write(True)
    for kind in KINDS:
        count = c_uint32()
        address = library.ct_budget_muted(budget, kind, ctypes.byref(count))
        numbers = (c_uint64 * count.value).from_address(address) if address else ()
        made.muted.update({(kind, at): number for at, number in enumerate(numbers) if number})
    size = c_uint64()
    data = library.ct_graph_write(graph, END_CAUSES.get(trace.state, Cause.CUT), ctypes.byref(size))
    made.counts = ctypes.string_at(data, size.value)
    library.ct_graph_free(data)
    library.ct_graph_close(graph)
    library.ct_budget_close(budget)
    return made


def in_order(trace: TraceFile) -> list[bytes]:
    """The blocks of events of a trace, in an order in which they may have come."""
    return sorted(blocks_of(trace.path.read_bytes()), key=lambda block: struct.unpack_from("<Q", block, 40))


def recorded(trace: TraceFile, calls: int, path: Path, *, counted: bool = True) -> Path:
    """The file that a recording with this budget leaves; without `counted` that of one that was cut off."""
    made, rest = with_budget(trace, calls), TraceWriter()
    muted: dict[str, list[list[int]]] = {"functions": [], "sites": []}
    for (kind, number), count in made.muted.items():
        muted[["functions", "sites"][kind]].append([number, count])
    rest.info({"options": {"mode": "trace", "budget": calls}})
    if counted:
        rest.info({"muted": muted})
        rest.chunk(GRAPH, made.counts)
    return file_of(trace, [*made.blocks, *rest.chunks], path, Policy.COUNT)


def file_of(trace: TraceFile, blocks: Sequence[bytes], path: Path, policy: Policy = Policy.BLOCK) -> Path:
    """A trace like that, but with these blocks of events, or other chunks, instead; its path."""
    file = trace.path.read_bytes()
    body = b"".join([*chunks_of(trace.path), *blocks])
    fields = list(HEADER.unpack_from(file))
    fields[6], fields[13] = policy, BLOCK + len(body)  # policy, append_end
    path.write_bytes(HEADER.pack(*fields).ljust(BLOCK, b"\0") + body)
    return path


def chunks_of(path: Path) -> list[bytes]:
    """The chunks of a file, but for those of events."""
    file, found, at = path.read_bytes(), [], BLOCK
    while at < len(file):
        kind, _, length = struct.unpack_from("<IIQ", file, at)
        if kind not in (EVENTS, LIVE):
            found.append(file[at : at + length])
        at += length or BLOCK
    return found
