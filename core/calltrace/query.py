"""SQL over traces, by DuckDB: their tables are written once, as Parquet beside each trace, and then read.

The tables and their columns: see calltrace.export.parquet. A trace that is still being recorded, or whose
recorder died, has no end that its tables could be known to hold: they are written anew each time.
"""

from __future__ import annotations

import glob
import itertools
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from calltrace import extras
from calltrace.errors import AccessRefused, FileMissing, UsageError
from calltrace.export import parquet
from calltrace.model import State
from calltrace.tracefile import TraceFile

_MEMORY = "1GB"  # of DuckDB's; what takes more goes to the disk
_ROWS = 1000  # that the widths of columns are made for
_WIDEST = 100  # characters
_SECONDS = 0.1  # between looks at what may interrupt: not all hosts wake who waits

Result = tuple[Sequence[str], Iterator[tuple[Any, ...]]]  # names of the columns, and the rows


def traces_in(path: Path) -> list[Path]:
    """The trace, or those in the folder. Raises FileMissing if it has none."""
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.glob("*.calltrace") if each.is_file())
    if not found:
        raise FileMissing(f"{path} has no trace: none of its files is called *.calltrace")
    return found


def run(
    traces: Sequence[TraceFile], sql: str, use: Callable[[Result], None], tell: Callable[[str], None]
) -> None:
    """Answer `sql` over the tables of all these traces; `use` takes the result. Can be interrupted.

    Raises UsageError if the SQL is wrong, EngineError without DuckDB, pyarrow or memory.
    """
    duckdb = extras.package("duckdb", "query")
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="calltrace")))
        folders = [_tables(trace, scratch / str(at), tell) for at, trace in enumerate(traces)]
        connection = duckdb.connect(
            config={"memory_limit": _MEMORY, "temp_directory": str(scratch / "spilled")}
        )
        opened.callback(connection.close)
        connection.execute("SET enable_progress_bar = false")
        for table in parquet.TABLES:
            files = ", ".join(_quoted(glob.escape(str(folder / f"{table}.parquet"))) for folder in folders)
            connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet([{files}])")
        awaited = _Awaited(connection, opened.enter_context(ThreadPoolExecutor(1)))
        try:
            awaited(lambda: connection.execute(sql))
            names = _distinct([column[0] for column in connection.description or ()])
            use((names, _rows(awaited, connection) if names else iter(())))
        except duckdb.Error as error:
            told = str(error).partition("LINE 1:")[0]  # what follows shows the place in several lines
            raise UsageError(f"query: {' '.join(told.split())}") from None


def _tables(trace: TraceFile, scratch: Path, tell: Callable[[str], None]) -> Path:
    """The folder with the trace's tables; `scratch` where none can be beside it."""
    folder = trace.path.with_suffix(".parquet")
    if trace.state is State.RECORDING:
        folder = scratch
    elif parquet.is_current(folder, trace.path):
        return folder
    try:
        tell(f"writing the tables of {trace.name}")
        parquet.write(trace, folder)
    except AccessRefused:
        folder = scratch
        parquet.write(trace, folder)
    return folder


def _quoted(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


def _distinct(names: Sequence[str]) -> list[str]:
    """The names of a result's columns, of which SQL may give one to several."""
    made: list[str] = []
    for name in names:
        taken = (each for each in itertools.count(1) if f"{name}_{each}" not in (*names, *made))
        made.append(name if name not in made else f"{name}_{next(taken)}")
    return made


class _Awaited:
    """Calls DuckDB in a thread of its own: at work it looks at no signal, as the caller's thread then can."""

    def __init__(self, connection: Any, executor: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._executor = executor

    def __call__(self, call: Callable[[], Any]) -> Any:
        made = self._executor.submit(call)
        try:
            while not wait([made], _SECONDS).done:
                pass
            return made.result()
        finally:
            if not made.done():
                self._connection.interrupt()


def _rows(awaited: _Awaited, connection: Any) -> Iterator[tuple[Any, ...]]:
    while True:
        rows = awaited(lambda: connection.fetchmany(_ROWS))
        if not rows:
            return
        yield from rows


def write(result: Result, limit: int, out: TextIO) -> None:
    """Write the result as a table, up to `limit` rows (0: all)."""
    names, rows = result
    shown = itertools.islice(rows, limit) if limit else rows
    texts = [tuple(map(_text, row)) for row in itertools.islice(shown, _ROWS)]
    widths = [min(max(map(len, column)), _WIDEST) for column in zip(names, *texts)]
    if names:
        _write_line(names, widths, out)
    for row in texts:
        _write_line(row, widths, out)
    for values in shown:
        _write_line(tuple(map(_text, values)), widths, out)
    if limit and next(rows, None) is not None:
        out.write(f"limit of {limit:,} rows reached: --limit 0 shows all\n")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _write_line(texts: Sequence[str], widths: Sequence[int], out: TextIO) -> None:
    out.write("  ".join(text.ljust(width) for text, width in zip(texts, widths)).rstrip() + "\n")


def write_json(result: Result, out: TextIO) -> None:
    """Write an object for each row, a line each. Infinity, and what is not a number, are null."""
    names, rows = result
    for row in rows:
        told = {name: _plain(value) for name, value in zip(names, row)}
        out.write(json.dumps(told, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def _plain(value: Any) -> Any:
    """The value as JSON has it, which knows no decimals and no numbers that are none."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, Decimal):
        value = float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
