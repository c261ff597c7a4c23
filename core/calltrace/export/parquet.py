"""Apache Parquet, for DuckDB, pandas, Polars, Dask, Spark and the like: a folder with four tables.

Every table has the column ``trace``, the trace file's name, so that the tables of many traces can be read as
one; of a recording with ``--mode graph`` that of events is empty. Times are ticks of the clock, in a trace
without a clock events. Null: there is none.

``events.parquet``, a row for each event, as in CSV, thread by thread in order:

- ``thread``: index in ``threads``; ``position``: events this thread recorded before
- ``time``: ticks since recording began; null without a clock
- ``event``: ``enter``, ``leave``, ``call``, ``return``, ``tail``, ``unwind`` and so on, as in CSV
- ``depth``: frames open below; ``function``: number in ``functions``
- ``cause``: how a frame was closed, ``duration`` from its begin, ``self`` of it in none of its callees
- ``value``: of a mark that the program made; units lost in a gap; call-site VA of a frame of the C API; calls
  that a budget left out (``muted``)

``functions.parquet``, a row for everything that events name, and each function found:

- ``function``: its number, in this trace alone; ``name``
- ``kind``: ``function``, ``call`` (a call site), ``api-function``, ``api-call``, ``mark``
- ``module``, ``rva``, ``address`` (VA): of the function, or of the call instruction; ``size``: bytes
- ``recorded``: whether the function is instrumented
- ``calls``, ``self``, ``total`` (recursion counted once)

``edges.parquet``, a row for each caller and what it called, as `callees` tells: ``caller`` and ``callee``
(numbers in ``functions``), ``tail`` (entered by a jump), ``calls``, ``self``, ``total`` of the callee there.

``threads.parquet``: ``thread``, ``id`` (the system's), ``events``, ``lost``, ``ticks_per_second``.

A distributed engine reads the tables of all traces in a folder as they are, each file a task of its own at
least: ``dask.dataframe.read_parquet("traces/*.parquet/events.parquet")``, in Spark
``spark.read.parquet("traces/*.parquet/events.parquet")``. On a cluster the folder is one that all workers
see, or a bucket (``s3://...``), and Dask is told of it by
``dask.distributed.Client("tcp://scheduler:8786")``.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ctypes import c_uint32
from pathlib import Path
from typing import Any

from calltrace import extras
from calltrace.calltree import MORE, NO_MEMORY, no_memory, node_stats, units_of
from calltrace.edges import Edge, edges_in_slices
from calltrace.errors import AccessRefused
from calltrace.export.csv import cause_name, place
from calltrace.export.files import created
from calltrace.export.native import TextKind, nodes_of
from calltrace.model import NONE_ID, Cause, Clock, NodeKind, State, printable
from calltrace.tracefile import Columns, Stat, TraceFile, reader_library

TABLES = ("events", "functions", "edges", "threads")
_VERSION = 1  # of what is written
_SOURCE = "_source.json"  # what the tables were made of: engines leave out names that begin like this
_ROWS = 1 << 20  # of events in memory at a time, which become one row group
_ROW_NAMES = 29  # CT_ROWS
_LARGEST = (1 << 63) - 1
_DELTAS = ("thread", "position", "time", "depth", "function", "value", "duration", "self")
_SEARCHED = ("thread", "position", "time", "function", "duration")  # whose limits each row group tells


def write(trace: TraceFile, folder: Path) -> list[Path]:
    """Write the tables into `folder`, which is made unless it exists; their paths.

    Raises EngineError without pyarrow or memory, FileMissing or AccessRefused if they cannot be written.
    """
    tables = _Tables(trace, folder)
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise AccessRefused(f"cannot create {printable(str(folder))}: Arrow opens UTF-8 names only") from None
    created(folder, trace.path, lambda path: path.mkdir(exist_ok=True))
    try:
        tables.write()
        if trace.state is not State.RECORDING:
            (folder / _SOURCE).write_bytes(json.dumps(_source(trace.path)).encode())
    except OSError as error:
        raise AccessRefused(f"cannot write into {folder}: {error.strerror or error}") from None
    finally:
        tables.clean_up()
    return [folder]


def is_current(folder: Path, trace: Path) -> bool:
    """Were the folder's tables written of the trace as it is now, which is complete?"""
    try:
        told = json.loads((folder / _SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(told == _source(trace)) and all((folder / f"{table}.parquet").is_file() for table in TABLES)


def _source(trace: Path) -> dict[str, Any]:
    status = trace.stat()
    return {
        "version": _VERSION,
        "trace": trace.name,
        "size": status.st_size,
        "milliseconds": status.st_mtime_ns // 10**6,
    }


class _Tables:
    """The tables of one trace."""

    def __init__(self, trace: TraceFile, folder: Path) -> None:
        self._trace = trace
        self._folder = folder
        self._arrow = extras.package("pyarrow", "parquet")
        self._parquet = extras.package("pyarrow.parquet", "parquet")
        self._numbers: dict[tuple[int, int], int] = {}
        self._stats: dict[tuple[int, int], Stat] = {}  # by kind and id, of what was called

    def write(self) -> None:
        """Write all tables."""
        edges = self._write_counts() if self._trace.counts_only else self._write_events()
        for edge in edges:
            self._number(edge.kind, edge.id)
        for module in self._trace.modules:
            for number in range(module.first_function, module.first_function + module.function_count):
                self._number(NodeKind.FUNCTION, number)
        self._write_rows("functions", self._functions())
        self._write_rows("edges", self._edges(edges))
        self._write_rows("threads", self._threads())
        (self._folder / _SOURCE).unlink(missing_ok=True)
        for table in TABLES:
            self._path(table).replace(self._folder / f"{table}.parquet")

    def clean_up(self) -> None:
        """Take away what is not a whole table."""
        for table in TABLES:
            self._path(table).unlink(missing_ok=True)

    def _number(self, kind: int, number: int) -> int:
        return self._numbers.setdefault((kind, number), len(self._numbers))

    # ---- events ----

    def _write_events(self) -> Sequence[Edge]:
        """The native reader makes a part while the one before is written; in between it counts the edges."""
        arrow, library = self._arrow, reader_library()
        slices, edges = edges_in_slices(self._trace), None
        handle = library.ct_reader_columns_open(self._trace.reader)
        if not handle:
            raise no_memory(self._trace)
        pull, batch, schema = c_uint32(MORE), _Batch(arrow, self._trace), self._event_schema()
        options: dict[str, Any] = {
            "use_dictionary": [name for name in schema.names if name not in _DELTAS],
            "column_encoding": dict.fromkeys(_DELTAS, "DELTA_BINARY_PACKED"),
            "write_statistics": list(_SEARCHED),
            "store_schema": False,
        }
        try:
            with (
                self._parquet.ParquetWriter(str(self._path("events")), schema, **options) as writer,
                ThreadPoolExecutor(1) as executor,
                self._trace.reading(2 * units_of(self._trace, 0, len(self._trace.threads))) as tell,
            ):
                writing: Future[None] | None = None
                while pull.value == MORE:
                    batch.turn()
                    rows = library.ct_reader_columns_next(handle, batch.columns, _ROWS, ctypes.byref(pull))
                    if pull.value == NO_MEMORY:
                        raise no_memory(self._trace)
                    arrays = batch.arrays(rows)
                    if writing:
                        writing.result()
                    made = arrow.record_batch(arrays, schema=schema)
                    writing = executor.submit(writer.write_batch, made, row_group_size=_ROWS)
                    tell()
                    while edges is None and not writing.done():
                        edges = _next(slices)
                        tell()
                while edges is None:
                    edges = _next(slices)
                    tell()
                if writing:
                    writing.result()
            nodes = nodes_of(library.ct_reader_columns_nodes, handle)
            for kind, number in nodes:
                self._number(kind, number)
            self._stats = dict(zip(nodes, _stats_of(handle)))
            if self._trace.graph:  # not all calls are events
                self._stats = {(kind, number): stat for kind, number, stat in node_stats(self._trace)}
            return edges
        finally:
            library.ct_reader_columns_close(handle)

    def _write_counts(self) -> Sequence[Edge]:
        """Of counts without events; the table of these is there, and empty."""
        empty = self._event_schema().empty_table()
        self._parquet.write_table(empty, str(self._path("events")), store_schema=False)
        for kind, number, stat in node_stats(self._trace):
            self._number(kind, number)
            self._stats[kind, number] = stat
        slices, edges = edges_in_slices(self._trace), None
        while edges is None:
            edges = _next(slices)
        return edges

    def _event_schema(self) -> Any:
        arrow = self._arrow
        text = arrow.dictionary(arrow.int8(), arrow.string())
        return arrow.schema(
            [
                arrow.field("trace", text, nullable=False),
                arrow.field("thread", arrow.int32(), nullable=False),
                arrow.field("position", arrow.int64(), nullable=False),
                arrow.field("time", arrow.int64()),
                arrow.field("event", text, nullable=False),
                arrow.field("depth", arrow.int32(), nullable=False),
                arrow.field("function", arrow.int32()),
                arrow.field("cause", text),
                arrow.field("value", arrow.uint64()),
                arrow.field("duration", arrow.int64()),
                arrow.field("self", arrow.int64()),
            ]
        )

    # ---- the small tables ----

    def _functions(self) -> dict[str, tuple[Any, list[Any]]]:
        arrow, trace = self._arrow, self._trace
        columns: dict[str, tuple[Any, list[Any]]] = {
            "function": (arrow.int32(), []),
            "kind": (arrow.string(), []),
            "name": (arrow.string(), []),
            "module": (arrow.string(), []),
            "rva": (arrow.int64(), []),
            "address": (arrow.uint64(), []),
            "size": (arrow.int64(), []),
            "recorded": (arrow.bool_(), []),
            "calls": (arrow.int64(), []),
            "self": (arrow.int64(), []),
            "total": (arrow.int64(), []),
        }
        for (kind, number), at in self._numbers.items():
            module, rva, name = place(trace, kind, number)
            found = trace.function(number) if kind == NodeKind.FUNCTION else None
            stat = self._stats.get((kind, number), Stat())
            mark = kind == TextKind.MARK
            row = (
                at,
                "mark" if mark else NodeKind(kind).name.lower().replace("_", "-"),
                name,
                module or None,
                int(rva, 16) if rva else None,
                None if mark else trace.node_address(kind, number),
                found[1].size if found else None,
                not found[1].status if found else None,
                *(min(value, _LARGEST) for value in (stat.calls, stat.self, stat.total)),
            )
            for (_, values), value in zip(columns.values(), row):
                values.append(value)
        return columns

    def _edges(self, edges: Sequence[Edge]) -> dict[str, tuple[Any, list[Any]]]:
        arrow = self._arrow
        called = [edge for edge in edges if edge.parent != NONE_ID]
        callers = [edges[edge.parent] for edge in called]
        return {
            "caller": (arrow.int32(), [self._number(edge.kind, edge.id) for edge in callers]),
            "callee": (arrow.int32(), [self._number(edge.kind, edge.id) for edge in called]),
            "tail": (arrow.bool_(), [bool(edge.tail) for edge in called]),
            "calls": (arrow.int64(), [min(edge.calls, _LARGEST) for edge in called]),
            "self": (arrow.int64(), [min(edge.self_time, _LARGEST) for edge in called]),
            "total": (arrow.int64(), [min(edge.total_time, _LARGEST) for edge in called]),
        }

    def _threads(self) -> dict[str, tuple[Any, list[Any]]]:
        arrow, threads = self._arrow, self._trace.threads
        timed = self._trace.clock is not Clock.NONE and self._trace.header.tsc_hz
        hz = min(self._trace.header.tsc_hz, _LARGEST) if timed else None
        return {
            "thread": (arrow.int32(), [_signed(thread.index) for thread in threads]),
            "id": (arrow.int64(), [thread.id for thread in threads]),
            "events": (arrow.int64(), [min(thread.units, _LARGEST) for thread in threads]),
            "lost": (arrow.int64(), [min(thread.lost, _LARGEST) for thread in threads]),
            "ticks_per_second": (arrow.int64(), [hz] * len(threads)),
        }

    def _write_rows(self, table: str, columns: dict[str, tuple[Any, list[Any]]]) -> None:
        arrow = self._arrow
        count = len(next(iter(columns.values()))[1])
        arrays = {"trace": arrow.array([self._trace.name] * count, arrow.string())}
        arrays.update({name: arrow.array(values, form) for name, (form, values) in columns.items()})
        self._parquet.write_table(arrow.table(arrays), str(self._path(table)), store_schema=False)

    def _path(self, table: str) -> Path:
        """Where the table is until all of them are whole: others may read, or write, those in the folder."""
        return self._folder / f"_{table}-{os.getpid()}.part"


def _signed(number: int) -> int:
    """As the native reader's columns have it."""
    return number - (1 << 32) if number >= 1 << 31 else number


def _next(slices: Generator[None, None, Sequence[Edge]]) -> Sequence[Edge] | None:
    """Reads on; the edges when that was the last slice."""
    try:
        next(slices)
    except StopIteration as end:
        edges: Sequence[Edge] = end.value
        return edges
    return None


def _stats_of(columns: int) -> list[Stat]:
    """Calls and times by node."""
    count = c_uint32()
    address = reader_library().ct_reader_columns_stats(columns, ctypes.byref(count))
    stats = (Stat * count.value).from_address(address) if address else ()
    return [Stat.from_buffer_copy(stat) for stat in stats]


class _Batch:
    """Rows of events in memory that the native reader fills and Arrow has."""

    def __init__(self, arrow: Any, trace: TraceFile) -> None:
        self._arrow = arrow
        self._timed = trace.clock is not Clock.NONE
        name_of: Callable[[int], bytes | None] = reader_library().ct_reader_row_name
        names = [(name_of(row) or b"").decode() for row in range(_ROW_NAMES)]
        self._traces = arrow.array([trace.name])
        self._events = arrow.array(names)
        self._causes = arrow.array([cause_name(cause) for cause in Cause])
        self._buffers, self._others = self._allocate(), self._allocate()
        self.columns = Columns(start=trace.header.tsc_start if self._timed else 0)

    def turn(self) -> None:
        """Take other memory for the next rows: that of those before is Arrow's, until it has written them."""
        self._buffers, self._others = self._others, self._buffers
        for name, buffer in self._buffers.items():
            setattr(self.columns, name, buffer.address)

    def _allocate(self) -> dict[str, Any]:
        sizes = dict.fromkeys(("thread", "depth", "node"), 4 * _ROWS)
        sizes.update(dict.fromkeys(("position", "time", "value", "duration", "self"), 8 * _ROWS))
        sizes.update(dict.fromkeys(("event", "cause"), _ROWS))
        sizes.update(dict.fromkeys(("has_node", "has_value", "closes"), _ROWS // 8))
        return {name: self._arrow.allocate_buffer(size) for name, size in sizes.items()}

    def arrays(self, rows: int) -> list[Any]:
        """The rows, column by column as the schema has them."""
        arrow = self._arrow

        def column(form: Any, name: str, valid: str | None = None) -> Any:
            buffers = [self._buffers[valid] if valid else None, self._buffers[name]]
            return arrow.Array.from_buffers(form, rows, buffers)

        def text(numbers: Any, texts: Any) -> Any:
            return arrow.DictionaryArray.from_arrays(numbers, texts)

        i8, i32, i64 = arrow.int8(), arrow.int32(), arrow.int64()
        return [
            text(arrow.repeat(arrow.scalar(0, i8), rows), self._traces),
            column(i32, "thread"),
            column(i64, "position"),
            column(i64, "time") if self._timed else arrow.nulls(rows, i64),
            text(column(i8, "event"), self._events),
            column(i32, "depth"),
            column(i32, "node", "has_node"),
            text(column(i8, "cause", "closes"), self._causes),
            column(arrow.uint64(), "value", "has_value"),
            column(i64, "duration", "closes"),
            column(i64, "self", "closes"),
        ]
