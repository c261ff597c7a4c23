"""Opens a trace file: its header, modules, threads and names.

The layouts below are those of native/include/trace_format.h and native/reader/reader.h; a test compiles a C
program that compares sizes and offsets. The chunks are walked by the native reader, so that a hostile or
truncated file is dealt with in one place.
"""

from __future__ import annotations

import bisect
import ctypes
import enum
import functools
import json
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, c_char, c_char_p, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from calltrace import native
from calltrace.errors import AccessRefused, BadTrace, CalltraceError, EngineError, FileMissing, UsageError
from calltrace.model import (
    NONE_ID,
    Cause,
    Clock,
    FunctionRecord,
    Mark,
    Module,
    NodeKind,
    Policy,
    SiteRecord,
    State,
    Thread,
    module_name,
    printable,
)

MAGIC = b"CALLTRC\0"
VERSION = 1
BLOCK = 0x10000
READER_ABI = 9
FUNCTION = struct.Struct("<IIHBBI")  # struct ct_function_record
SITE = struct.Struct("<IIII")
_NO_MEMORY = 1  # CT_READER_NO_MEMORY


class ChunkKind(enum.IntEnum):
    """enum ct_chunk_kind, as far as Python writes them."""

    LIVE = 1
    EVENTS = 2
    MODULE = 3
    INFO = 4
    GRAPH = 5


class Chunk(ctypes.LittleEndianStructure):
    """struct ct_chunk."""

    _fields_ = (
        ("kind", c_uint32),
        ("flags", c_uint32),
        ("length", c_uint64),
        ("payload_size", c_uint64),
        ("reserved", c_uint64),
    )

    @classmethod
    def before(cls, kind: ChunkKind, payload_size: int) -> Chunk:
        """The header of a chunk with `payload_size` bytes behind it, in whole blocks."""
        length = -(-(ctypes.sizeof(cls) + payload_size) // BLOCK) * BLOCK
        return cls(kind, 0, length, payload_size)


class FileHeader(ctypes.LittleEndianStructure):
    """struct ct_file_header."""

    _fields_ = (
        ("magic", c_char * 8),
        ("version", c_uint32),
        ("header_size", c_uint32),
        ("block_size", c_uint32),
        ("unit_size", c_uint32),
        ("clock", c_uint32),
        ("policy", c_uint32),
        ("created_ns", c_uint64),
        ("tsc_start", c_uint64),
        ("tsc_hz", c_uint64),
        ("max_size", c_uint64),
        ("ring_start", c_uint64),
        ("ring_next", c_uint64),
        ("append_end", c_uint64),
        ("units_total", c_uint64),
        ("units_lost", c_uint64),
        ("threads", c_uint32),
        ("state", c_uint32),
        ("exit_code", c_uint32),
        ("process_id", c_uint32),
        ("tsc_end", c_uint64),
        ("blocked", c_uint32),
        ("stop", c_uint32),
        ("load_base", c_uint64),
        ("load_size", c_uint32),
        ("load_answer", c_uint32),
        ("load_path", c_uint16 * 508),
        ("pause", c_uint32),
        ("reserved", c_uint32),
    )


class Index(ctypes.LittleEndianStructure):
    """struct ct_index."""

    _fields_ = (
        ("file_size", c_uint64),
        ("event_chunks", c_uint64),
        ("hole_blocks", c_uint64),
        ("unknown_chunks", c_uint64),
        ("damaged_chunks", c_uint64),
        ("units", c_uint64),
        ("lost", c_uint64),
        ("modules", c_uint32),
        ("infos", c_uint32),
        ("threads", c_uint32),
        ("live_slots", c_uint32),
        ("truncated", c_uint32),
        ("reserved", c_uint32),
    )


class ModuleEntry(ctypes.LittleEndianStructure):
    """struct ct_module_entry; offsets are file offsets."""

    _fields_ = (
        ("base", c_uint64),
        ("load_tsc", c_uint64),
        ("functions", c_uint64),
        ("sites", c_uint64),
        ("json", c_uint64),
        ("size", c_uint32),
        ("index", c_uint32),
        ("first_function", c_uint32),
        ("function_count", c_uint32),
        ("first_site", c_uint32),
        ("site_count", c_uint32),
        ("json_size", c_uint32),
        ("reserved", c_uint32),
    )


class Span(ctypes.LittleEndianStructure):
    """struct ct_span."""

    _fields_ = (("offset", c_uint64), ("size", c_uint64))


class ThreadEntry(ctypes.LittleEndianStructure):
    """struct ct_thread_entry."""

    _fields_ = (
        ("index", c_uint32),
        ("id", c_uint32),
        ("units", c_uint64),
        ("lost", c_uint64),
        ("open_tsc", c_uint64),
    )


class TreeOptions(ctypes.LittleEndianStructure):
    """struct ct_tree_options."""

    _fields_ = (
        ("first_thread", c_uint32),
        ("thread_count", c_uint32),
        ("max_depth", c_uint32),
        ("window", c_uint32),
        ("limit", c_uint64),
        ("lookahead", c_uint64),
        ("functions", c_void_p),
        ("sites", c_void_p),
        ("function_bits", c_uint32),
        ("site_bits", c_uint32),
    )


class EdgeOptions(ctypes.LittleEndianStructure):
    """struct ct_edge_options."""

    _fields_ = (
        ("first_thread", c_uint32),
        ("thread_count", c_uint32),
        ("depth", c_uint32),
        ("callees", c_uint32),
        ("functions", c_void_p),
        ("sites", c_void_p),
        ("through", c_void_p),
        ("function_bits", c_uint32),
        ("site_bits", c_uint32),
        ("through_bits", c_uint32),
        ("flags", c_uint32),
        ("parts", c_void_p),
        ("part_count", c_uint32),
        ("limit", c_uint32),
    )


class ExportOptions(ctypes.LittleEndianStructure):
    """struct ct_export_options."""

    _fields_ = (
        ("format", c_uint32),
        ("process_id", c_uint32),
        ("start", c_uint64),
        ("hz", c_uint64),
        ("limit", c_uint64),
        ("timed", c_uint32),
        ("reserved", c_uint32),
        ("thread_ids", c_void_p),
    )


class Node(ctypes.LittleEndianStructure):
    """struct ct_node."""

    _fields_ = (("id", c_uint32), ("kind", c_uint32))


class Columns(ctypes.LittleEndianStructure):
    """struct ct_columns."""

    _fields_ = (
        ("thread", c_void_p),
        ("position", c_void_p),
        ("time", c_void_p),
        ("depth", c_void_p),
        ("node", c_void_p),
        ("value", c_void_p),
        ("duration", c_void_p),
        ("self", c_void_p),
        ("event", c_void_p),
        ("cause", c_void_p),
        ("has_node", c_void_p),
        ("has_value", c_void_p),
        ("closes", c_void_p),
        ("start", c_uint64),
    )


class MarkEntry(ctypes.LittleEndianStructure):
    """struct ct_mark."""

    _fields_ = (("position", c_uint64), ("thread", c_uint32), ("number", c_uint32))


class ProgramMark(ctypes.LittleEndianStructure):
    """struct ct_program_mark."""

    _fields_ = (
        ("number", c_uint64),
        ("time", c_uint64),
        ("position", c_uint64),
        ("thread", c_uint32),
        ("reserved", c_uint32),
    )


class Totals(ctypes.LittleEndianStructure):
    """struct ct_totals."""

    _fields_ = (
        ("units", c_uint64),
        ("events", c_uint64 * 8),
        ("ext", c_uint64 * 16),
        ("frames", c_uint64 * 4),
        ("causes", c_uint64 * len(Cause)),
        ("orphans", c_uint64),
        ("gaps", c_uint64),
        ("lost", c_uint64),
        ("short_times", c_uint64),
        ("first_time", c_uint64),
        ("last_time", c_uint64),
        ("max_depth", c_uint32),
        ("reserved", c_uint32),
    )


class Stat(ctypes.LittleEndianStructure):
    """struct ct_stat."""

    _fields_ = (("calls", c_uint64), ("self", c_uint64), ("total", c_uint64))


STEP = struct.Struct("<5Q3I4B")  # struct ct_step
LINE = struct.Struct("<5Q4I5B3x")  # struct ct_line
STACK = struct.Struct("<QIIBB6x")  # struct ct_stack
STACK_FRAME = struct.Struct("<QIB3x")  # struct ct_stack_frame
EDGE = struct.Struct("<3Q2IBB2xI")  # struct ct_edge
_GRAPH_HEADER = struct.Struct("<4I")  # struct ct_graph_header
GRAPH_ROW = struct.Struct("<3I4B6Q")  # struct ct_graph_row
GRAPH_SITE = 5  # CT_GRAPH_SITE: beside NodeKind, a call site for itself


class GraphThread(ctypes.LittleEndianStructure):
    """struct ct_graph_thread."""

    _fields_ = (
        ("index", c_uint32),
        ("id", c_uint32),
        ("units", c_uint64),
        ("lost", c_uint64),
        ("open_tsc", c_uint64),
        ("rows", c_uint32),
        ("reserved", c_uint32),
        ("totals", Totals),
    )


class GraphRow(NamedTuple):
    """struct ct_graph_row."""

    position: int
    caller: int
    id: int
    kind: int
    tail: int
    views: int
    reserved: int
    calls: int  # by jumps
    self_time: int
    total_time: int
    stack_calls: int
    stack_self: int
    stack_total: int


_Counted = tuple[GraphThread, list[GraphRow]]


def _in_order(counted: Sequence[_Counted], indexes: Sequence[int]) -> list[_Counted]:
    """First what was counted of the threads with these indexes, then the rest."""
    found = {about.index: (about, rows) for about, rows in counted}
    first = [found.pop(index, (GraphThread(index=index), [])) for index in indexes]
    return [*first, *found.values()]


def _check_rows(rows: Sequence[GraphRow]) -> None:
    """ValueError unless each edge leads from a place to a place."""
    places = {(row.kind, row.id) for row in rows if row.caller == NONE_ID}
    for number, row in enumerate(rows):
        known = row.position == number and row.kind <= GRAPH_SITE
        if row.caller != NONE_ID:
            known &= row.caller < len(rows) and rows[row.caller].caller == NONE_ID
            known &= (row.kind, row.id) in places
        if not known:
            raise ValueError


class Graph:
    """What a recording without events has counted: each thread with its rows."""

    def __init__(self, payload: memoryview | bytes) -> None:
        """Of a GRAPH chunk. ValueError if it contradicts itself, or another version wrote it."""
        try:
            thread_size, row_size, threads, addresses = _GRAPH_HEADER.unpack_from(payload)
            if (thread_size, row_size) != (ctypes.sizeof(GraphThread), GRAPH_ROW.size):
                raise ValueError
            at = _GRAPH_HEADER.size
            self.addresses: tuple[int, ...] = struct.unpack_from(f"<{addresses}Q", payload, at)
            at += 8 * addresses
            self.threads: list[tuple[GraphThread, list[GraphRow]]] = []
            for _ in range(threads):
                about = GraphThread.from_buffer_copy(payload, at)
                at += thread_size
                end = at + about.rows * row_size
                if end > len(payload):
                    raise ValueError
                rows = [GraphRow._make(row) for row in GRAPH_ROW.iter_unpack(payload[at:end])]
                _check_rows(rows)
                self.threads.append((about, rows))
                at = end
        except struct.error:
            raise ValueError from None


@functools.cache
def reader_library() -> ctypes.CDLL:
    """The native library with the types of the reader's functions declared.

    Raises EngineError if it is missing or of another version.
    """
    library = native.library()
    u32, pull = c_uint32, POINTER(c_uint32)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "abi": (u32, []),
        "snapshot": (c_void_p, [c_void_p, c_uint64, u32]),
        "snapshot_close": (None, [c_void_p]),
        "open": (c_void_p, [c_void_p, c_uint64, u32, c_void_p, POINTER(u32)]),
        "close": (None, [c_void_p]),
        "index": (None, [c_void_p, POINTER(Index)]),
        "module": (None, [c_void_p, u32, POINTER(ModuleEntry)]),
        "info": (None, [c_void_p, u32, POINTER(Span)]),
        "thread": (None, [c_void_p, u32, POINTER(ThreadEntry)]),
        "graph": (u32, [c_void_p, POINTER(Span)]),
        "set_marks": (u32, [c_void_p, c_void_p, u32]),
        "set_addresses": (u32, [c_void_p, c_void_p, u32]),
        "address": (c_uint64, [c_void_p, u32]),
        "units_read": (c_uint64, [c_void_p]),
        "steps_open": (c_void_p, [c_void_p, u32, u32]),
        "steps_next": (u32, [c_void_p, c_void_p, u32, pull]),
        "steps_close": (None, [c_void_p]),
        "tree_open": (c_void_p, [c_void_p, POINTER(TreeOptions)]),
        "tree_next": (u32, [c_void_p, c_void_p, u32, pull]),
        "tree_close": (None, [c_void_p]),
        "summary_open": (c_void_p, [c_void_p, u32, u32]),
        "summary_run": (u32, [c_void_p]),
        "summary_totals": (None, [c_void_p, POINTER(Totals)]),
        "summary_stats": (c_void_p, [c_void_p, u32, pull]),
        "summary_close": (None, [c_void_p]),
        "stacks_open": (c_void_p, [c_void_p, u32, u32]),
        "stacks_next": (u32, [c_void_p, c_void_p, pull]),
        "stacks_frames": (None, [c_void_p, c_void_p, c_void_p]),
        "stacks_close": (None, [c_void_p]),
        "edges_open": (c_void_p, [c_void_p, POINTER(EdgeOptions)]),
        "edges_run": (u32, [c_void_p]),
        "edges_of": (c_void_p, [c_void_p, pull]),
        "edges_close": (None, [c_void_p]),
        "moments_open": (c_void_p, [c_void_p, c_void_p, u32]),
        "moments_run": (u32, [c_void_p]),
        "moments_marks": (c_void_p, [c_void_p, pull]),
        "moments_positions": (c_void_p, [c_void_p]),
        "moments_close": (None, [c_void_p]),
        "export_open": (c_void_p, [c_void_p, POINTER(ExportOptions), POINTER(TreeOptions)]),
        "export_run": (u32, [c_void_p, POINTER(c_void_p), POINTER(c_uint64), POINTER(Node)]),
        "export_text": (u32, [c_void_p, POINTER(Node), c_char_p, u32]),
        "export_close": (None, [c_void_p]),
        "columns_open": (c_void_p, [c_void_p]),
        "columns_next": (u32, [c_void_p, POINTER(Columns), u32, pull]),
        "columns_nodes": (c_void_p, [c_void_p, pull]),
        "columns_stats": (c_void_p, [c_void_p, pull]),
        "columns_close": (None, [c_void_p]),
        "row_name": (c_char_p, [u32]),
        "duration": (u32, [c_uint64, c_uint64, c_void_p]),
    }
    prefixed = {f"reader_{name}": signature for name, signature in signatures.items()}
    prefixed.update(
        {
            "graph_open": (c_void_p, []),
            "graph_set_reader": (u32, [c_void_p, c_void_p, c_void_p, u32]),
            "graph_take": (u32, [c_void_p, c_void_p, u32, u32, pull]),
            "graph_write": (c_void_p, [c_void_p, u32, POINTER(c_uint64)]),
            "graph_free": (None, [c_void_p]),
            "graph_close": (None, [c_void_p]),
            "graph_set_budget": (None, [c_void_p, c_void_p]),
            "budget_open": (c_void_p, [u32]),
            "budget_settle": (u32, [c_void_p, u32]),
            "budget_block": (c_void_p, [c_void_p, u32, POINTER(c_uint64)]),
            "budget_written": (u32, [c_void_p, c_void_p, c_uint64]),
            "budget_muted": (c_void_p, [c_void_p, u32, pull]),
            "budget_close": (None, [c_void_p]),
        }
    )
    try:
        for name, (result, arguments) in prefixed.items():
            function = getattr(library, f"ct_{name}")
            function.restype = result
            function.argtypes = arguments
    except AttributeError as error:
        raise EngineError(f"the native engine has no trace reader ({error}): build it again") from None
    if library.ct_reader_abi() != READER_ABI:
        raise EngineError("the native engine is of another version than this program: build it again")
    return library


class TraceFile:
    """An open trace. Close it, or use it in a ``with`` statement."""

    def __init__(self, path: Path | str, under_way: bool = False, counted: bool = True) -> None:
        """Map the file and index its chunks.

        `under_way`: it is known to be recorded still; else a trace without an end may have been cut off.
        `counted`: of a recording without events the counts are wanted, too.

        A trace that is still being recorded is taken as it is now: what its threads record from here on is
        not seen. Raises FileMissing, AccessRefused, BadTrace (no trace, later version, cut off), EngineError.
        """
        self.path = Path(path)
        self.under_way = under_way
        # Told while it is read: how many units are done, and of how many.
        self.on_read: Callable[[int, int], None] = lambda done, whole: None
        self._map = _mapped(self.path)
        self._pin: _Pin | None = None
        self._reader = 0
        try:
            self.header = _checked_header(self.path, self._map)
            self._library = reader_library()
            self._open()
            self.index = Index()
            self._library.ct_reader_index(self._reader, ctypes.byref(self.index))
            self.problems: list[str] = []  # what is damaged, one line each
            self.info = self._read_info()
            self.modules = [self._read_module(at) for at in range(self.index.modules)]
            self.graph: Graph | None = None  # what was counted, if events were not, or not all, kept
            self.count_as(self._read_graph() if counted else None)
            self.set_marks(self._read_marks())
        except BaseException:
            self.close()
            raise
        self._by_function = sorted(
            (module.first_function, at) for at, module in enumerate(self.modules) if module.function_count
        )
        self._by_site = sorted(
            (module.first_site, at) for at, module in enumerate(self.modules) if module.site_count
        )
        self._names: dict[tuple[int, int], str] = {}

    def _open(self) -> None:
        snapshot = None
        if self.state is State.RECORDING:
            with _Pin(self._map) as pin:
                snapshot = self._library.ct_reader_snapshot(pin.address, len(self._map), True)
            if not snapshot:
                raise _open_failure(self.path, _NO_MEMORY)
            # What has left the slots since lies behind the end of the first mapping.
            self._map.close()
            try:
                self._map = _mapped(self.path)
            except CalltraceError:
                self._library.ct_reader_snapshot_close(snapshot)
                raise
        self._pin = _Pin(self._map)
        status = c_uint32()
        address, size = self._pin.address, len(self._map)
        self._reader = self._library.ct_reader_open(address, size, True, snapshot, ctypes.byref(status)) or 0
        if not self._reader:
            if snapshot:
                self._library.ct_reader_snapshot_close(snapshot)
            raise _open_failure(self.path, status.value)

    def __enter__(self) -> TraceFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the file; readers that were opened from it must be closed before."""
        if self._reader:
            self._library.ct_reader_close(self._reader)
            self._reader = 0
        if self._pin:
            self._pin.release()
            self._pin = None
        self._map.close()

    @contextmanager
    def reading(self, units: int) -> Iterator[Callable[[], None]]:
        """So many units are about to be read: call what it gives now and then, and `on_read` is told."""
        before = int(self._library.ct_reader_units_read(self._reader))
        try:
            yield lambda: self.on_read(
                self._library.ct_reader_units_read(self._reader) - before,
                units,
            )
        finally:
            self.on_read(units, units)

    @property
    def reader(self) -> int:
        """The native reader's handle."""
        return self._reader

    @property
    def clock(self) -> Clock:
        """What the times of events come from. Anything unknown is as good as a time stamp counter."""
        return Clock(self.header.clock) if self.header.clock in set(Clock) else Clock.TSC

    @property
    def policy(self) -> Policy:
        """What was done when there was no room."""
        return Policy(self.header.policy) if self.header.policy in set(Policy) else Policy.BLOCK

    @property
    def budget(self) -> int:
        """How many calls of each function are events, in each thread, while all are counted; 0: all are."""
        return _number(_dict(self.info.get("options")).get("budget"))

    @property
    def counts_only(self) -> bool:
        """Whether there are no events, but what was counted of them."""
        return self.graph is not None and not self.budget

    @property
    def counting_option(self) -> str:
        """By which option of its recording calls were counted, if they were."""
        return "--budget" if self.budget else "--mode graph"

    @property
    def muted(self) -> dict[NodeKind, dict[int, int]]:
        """How many calls of what are counted, and no events: of functions, and of call sites, by id."""
        told = _dict(self.info.get("muted"))
        return {
            kind: {_number(row[0]): _number(row[1]) for row in _rows(told.get(name), 2)}
            for kind, name in ((NodeKind.FUNCTION, "functions"), (NodeKind.CALL, "sites"))
        }

    def need_counts(self) -> None:
        """UsageError if calls were counted, and it is not known how many they are."""
        if self.policy is Policy.COUNT and self.graph is None:
            raise UsageError(
                f"{self.path} has no counts: they are written when its recording ends, and lost if the "
                "calltrace that records ends before; `tree` and `stacks` show its events"
            )

    def need_events(self) -> None:
        """UsageError if the trace has counts only, and nobody knows in what order things happened."""
        if self.counts_only:
            raise UsageError(
                f"{self.path} was recorded with --mode graph and knows no order of calls: `top`, `callers`, "
                "`callees` and `query` tell what it counted, `export` writes callgrind, dot, parquet, "
                "coverage and scripts"
            )

    @property
    def name(self) -> str:
        """What the file is called, without its folder, fit to be shown and written."""
        return printable(self.path.name)

    @property
    def mode(self) -> str:
        """What was recorded: "trace", or as TraceOptions.mode says. Without a word there is every event."""
        return _text(_dict(self.info.get("options")).get("mode")) or "trace"

    @property
    def state(self) -> State:
        """How the recording ended."""
        return State(self.header.state) if self.header.state in set(State) else State.RECORDING

    def functions(self, module: Module) -> Iterator[FunctionRecord]:
        """Every function of the module, in the order of their ids."""
        entry = self._entry(module)
        end = entry.functions + module.function_count * FUNCTION.size
        with memoryview(self._map) as view, view[entry.functions : end] as records:
            for record in FUNCTION.iter_unpack(records):
                yield FunctionRecord._make(record)

    def sites(self, module: Module) -> Iterator[SiteRecord]:
        """Every call site of the module, in the order of their ids."""
        entry = self._entry(module)
        end = entry.sites + module.site_count * SITE.size
        with memoryview(self._map) as view, view[entry.sites : end] as records:
            for record in SITE.iter_unpack(records):
                yield SiteRecord._make(record)

    def function(self, function_id: int) -> tuple[Module, FunctionRecord] | None:
        """The function with this id; None if no module of the trace has it."""
        at = bisect.bisect_right(self._by_function, (function_id, len(self.modules))) - 1
        if at < 0:
            return None
        module = self.modules[self._by_function[at][1]]
        position = function_id - module.first_function
        if position >= module.function_count:
            return None
        offset = self._entry(module).functions + position * FUNCTION.size
        return module, FunctionRecord._make(FUNCTION.unpack_from(self._map, offset))

    def site(self, site_id: int) -> tuple[Module, SiteRecord] | None:
        """The call site with this id; None if no module of the trace has it."""
        at = bisect.bisect_right(self._by_site, (site_id, len(self.modules))) - 1
        if at < 0:
            return None
        module = self.modules[self._by_site[at][1]]
        position = site_id - module.first_site
        if position >= module.site_count:
            return None
        offset = self._entry(module).sites + position * SITE.size
        return module, SiteRecord._make(SITE.unpack_from(self._map, offset))

    def positions(self) -> dict[int, int]:
        """By thread index: how many units it has recorded so far."""
        return {thread.index: thread.units + thread.lost for thread in self.threads}

    def node_name(self, kind: int, node_id: int) -> str:
        """What a frame is called: a function's name, what a call site calls, or an address of the C API."""
        key = (kind, node_id)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self._node_name(kind, node_id)
        return name

    def _node_name(self, kind: int, node_id: int) -> str:
        if kind == NodeKind.FUNCTION:
            function = self.function(node_id)
            return function[0].place(function[1].rva) if function else f"function #{node_id}"
        if kind == NodeKind.CALL:
            site = self.site(node_id)
            return site_name(*site) if site else f"call #{node_id}"
        name = self.address_name(self.address(node_id))
        return f"call {name}" if kind == NodeKind.API_CALL else name

    def node_address(self, kind: int, node_id: int) -> int | None:
        """The VA of a frame's function, or of the call instruction it stands for; None if it is not known."""
        if kind in (NodeKind.API_FUNCTION, NodeKind.API_CALL):
            return self.address(node_id) or None
        found = self.function(node_id) if kind == NodeKind.FUNCTION else self.site(node_id)
        return found[0].base + found[1].rva if found else None

    def mark_name(self, number: int, value: int) -> str:
        """What a mark is called: named mark `number`, from 1 on; if that is 0, the `value` given to it."""
        return self.marks[number - 1].name if number else str(value)

    def address(self, node_id: int) -> int:
        """The VA behind the id of a frame of the C API; 0 if there were too many of them."""
        return int(self._library.ct_reader_address(self._reader, node_id))

    def address_name(self, va: int) -> str:
        """A VA as ``module!function`` or ``module+0xRVA``, else as a number."""
        for module in self.modules:
            if module.base <= va < module.base + module.size:
                return module.place(va - module.base)
        return f"{va:#x}"

    def _entry(self, module: Module) -> ModuleEntry:
        return self._entries[module.first_function, module.first_site, module.index]

    @functools.cached_property
    def _entries(self) -> dict[tuple[int, int, int], ModuleEntry]:
        entries = (self._module_entry(at) for at in range(self.index.modules))
        return {(entry.first_function, entry.first_site, entry.index): entry for entry in entries}

    def _module_entry(self, at: int) -> ModuleEntry:
        entry = ModuleEntry()
        self._library.ct_reader_module(self._reader, at, ctypes.byref(entry))
        return entry

    def _read_module(self, at: int) -> Module:
        entry = self._module_entry(at)
        told = self._json(entry.json, entry.json_size, f"the description of module {entry.index}")
        path = _text(told.get("path"))
        return Module(
            index=entry.index,
            base=entry.base,
            size=entry.size,
            path=path,
            name=_text(told.get("name")) or module_name(path) or f"module{entry.index}",
            load_tsc=entry.load_tsc,
            first_function=entry.first_function,
            function_count=entry.function_count,
            first_site=entry.first_site,
            site_count=entry.site_count,
            timestamp=_number(told.get("timestamp")),
            checksum=_number(told.get("checksum")),
            names={_number(row[0]): _text(row[1]) for row in _rows(told.get("names"), 2)},
            imports=tuple(_text(name) for name in _list(told.get("imports"))),
            statuses={
                int(status): _text(text)
                for status, text in _dict(told.get("statuses")).items()
                if status.isdecimal()
            },
            refusals={_number(row[0]): _number(row[2]) for row in _rows(told.get("refusals"), 3)},
            plan=_dict(told.get("plan")),
            events=_text(told.get("events")),
            pdb=_dict(told.get("pdb")),
            named_by=_text(told.get("named_by")),
        )

    def _read_info(self) -> dict[str, Any]:
        # Later chunks know better: the last is written when recording has ended. Each mark is in one of them.
        told: dict[str, Any] = {}
        marks: list[Any] = []
        span = Span()
        for at in range(self.index.infos):
            self._library.ct_reader_info(self._reader, at, ctypes.byref(span))
            chunk = self._json(span.offset, span.size, f"INFO chunk {at}")
            marks += _list(chunk.pop("marks", None))
            told.update(chunk)
        return {**told, "marks": marks}

    def _read_graph(self) -> Graph | None:
        if self.header.policy != Policy.COUNT:
            return None
        span = Span()
        if not self._library.ct_reader_graph(self._reader, ctypes.byref(span)):
            if self.budget:
                return None
            if self.state is State.RECORDING:
                raise BadTrace(
                    f"{self.path} has no counts yet: they are written when the recording ends or is paused, "
                    "and lost if the calltrace that records ends before"
                )
            raise BadTrace(f"{self.path} is damaged: its counts are missing")
        try:
            with memoryview(self._map) as view, view[span.offset : span.offset + span.size] as payload:
                return Graph(payload)
        except ValueError:
            raise BadTrace(f"{self.path} is damaged, or another version has written it: its counts") from None

    def count_as(self, graph: Graph | None) -> None:
        """Let these be the counts of a recording that has not all events."""
        self.graph = graph
        if graph:
            array = (c_uint64 * len(graph.addresses))(*graph.addresses)
            if not self._library.ct_reader_set_addresses(self._reader, array, len(array)):
                raise _open_failure(self.path, _NO_MEMORY)
        if graph and self.counts_only:
            self.index.units = sum(about.units for about, _ in graph.threads)
            self.index.lost = sum(about.lost for about, _ in graph.threads)
        self.threads = self._read_threads()

    def _read_threads(self) -> list[Thread]:
        entries: list[ThreadEntry | GraphThread] = []
        if self.graph and self.counts_only:
            entries += [about for about, _ in self.graph.threads]
        else:
            for at in range(self.index.threads):
                entry = ThreadEntry()
                self._library.ct_reader_thread(self._reader, at, ctypes.byref(entry))
                entries.append(entry)
            if self.graph:
                self.graph.threads = _in_order(self.graph.threads, [entry.index for entry in entries])
        return [Thread(entry.index, entry.id, entry.units, entry.lost, entry.open_tsc) for entry in entries]

    def _read_marks(self) -> list[Mark]:
        marks: list[Mark] = []
        for told in map(_dict, self.info.pop("marks")):
            positions = {_number(row[0]): _number(row[1]) for row in _rows(told.get("positions"), 2)}
            marks.append(Mark(_text(told.get("name")), _number(told.get("tsc")), positions))
        return marks

    def set_marks(self, marks: Sequence[Mark]) -> None:
        """Let these, in order of time, be the marks that bound parts. EngineError if memory runs out."""
        self.marks = marks
        entries = [
            MarkEntry(position, thread, number)
            for number, mark in enumerate(marks, 1)
            for thread, position in mark.positions.items()
        ]
        array = (MarkEntry * len(entries))(*entries)
        if not self._library.ct_reader_set_marks(self._reader, array, len(entries)):
            raise _open_failure(self.path, _NO_MEMORY)

    def _json(self, offset: int, size: int, what: str) -> dict[str, Any]:
        try:
            told = json.loads(self._map[offset : offset + size].decode())
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            self.problems.append(f"{what} is damaged")
            return {}
        return told


def site_name(module: Module, site: SiteRecord) -> str:
    """What a call site calls: an import, a function, or what cannot be known beforehand."""
    if site.imported != NONE_ID and site.imported < len(module.imports):
        return module.imports[site.imported]
    if site.target:
        return f"call {module.place(site.target)}"
    return f"call at {module.stem}+{site.rva:#x}"


class _Pin:
    """The address of a mapping's bytes, and what keeps it valid."""

    class _Buffer(ctypes.Structure):
        # Py_buffer of Python's C API. ctypes' own from_buffer wants a mapping that can be written to.
        _fields_ = (
            ("buf", c_void_p),
            ("obj", c_void_p),
            ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t),
            ("readonly", ctypes.c_int),
            ("ndim", ctypes.c_int),
            ("format", c_void_p),
            ("shape", c_void_p),
            ("strides", c_void_p),
            ("suboffsets", c_void_p),
            ("internal", c_void_p),
        )

    def __init__(self, mapping: mmap.mmap) -> None:
        self._buffer = self._Buffer()
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(mapping), ctypes.byref(self._buffer), 0)

    @property
    def address(self) -> int:
        return int(self._buffer.buf)

    def __enter__(self) -> _Pin:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(self._buffer))


def bits_of(ids: Sequence[int]) -> tuple[ctypes.Array[c_uint8], int]:
    """A set of ids as one bit each, and how many bits there are."""
    count = max(ids, default=-1) + 1
    bits = bytearray(count // 8 + 1)
    for number in ids:
        bits[number // 8] |= 1 << number % 8
    return (c_uint8 * len(bits)).from_buffer(bits), count


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < ctypes.sizeof(FileHeader):
                raise _too_short(path, file.read(len(MAGIC)))
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise FileMissing(f"no such file: {path}") from None
    except IsADirectoryError:
        raise FileMissing(f"{path} is a folder: name a trace file") from None
    except PermissionError:
        # What Windows says of a folder, too.
        if path.is_dir():
            raise FileMissing(f"{path} is a folder: name a trace file") from None
        raise AccessRefused(f"{path} cannot be read: permission denied") from None
    except OSError as error:
        raise AccessRefused(f"{path} cannot be read: {error.strerror or error}") from None


def _too_short(path: Path, start: bytes) -> BadTrace:
    if start and MAGIC.startswith(start):
        return BadTrace(f"{path} is cut off within its header: nothing of the trace is left")
    return BadTrace(f"{path} is not a calltrace trace")


def _checked_header(path: Path, mapping: mmap.mmap) -> FileHeader:
    header = FileHeader.from_buffer_copy(mapping[: ctypes.sizeof(FileHeader)])
    if mapping[: len(MAGIC)] != MAGIC:
        raise BadTrace(f"{path} is not a calltrace trace")
    if header.version != VERSION:
        raise BadTrace(
            f"{path} is of trace version {header.version}, this calltrace reads version {VERSION}: "
            "open it with the calltrace that recorded it"
        )
    return header


def _open_failure(path: Path, status: int) -> BadTrace | EngineError:
    if status == _NO_MEMORY:
        return EngineError(f"not enough memory to index {path}")
    return BadTrace(f"{path} is damaged: the sizes in its header make no sense")


def _text(value: Any) -> str:
    return printable(value) if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any, width: int) -> Iterator[list[Any]]:
    return (row for row in _list(value) if isinstance(row, list) and len(row) >= width)
