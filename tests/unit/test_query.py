"""Parquet tables and SQL over them, held against threads that know what they did, and by other engines."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace import dispatch, extras
from calltrace.commands import Console
from calltrace.edges import call_graph
from calltrace.errors import AccessRefused, BadTrace, CalltraceError, EngineError, FileMissing, UsageError
from calltrace.export import csv, parquet
from calltrace.tracefile import TraceFile
from rig import simulated, tracewriter
from rig.commands import run
from rig.simulated import SimulatedThread, simulated_trace
from rig.tracewriter import TraceWriter, Units

NONE = tracewriter.NONE
checked = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_trace(path: Path, seed: int) -> tuple[Path, list[SimulatedThread]]:
    programs = [random.Random(seed + number).randbytes(2000) for number in range(3)]
    return simulated_trace(path, *programs)


def answers(path: Path, sql: str) -> list[list[object]]:
    """The rows that `query` shows."""
    lines = run(f'query --json "{path}" "{sql}"').splitlines()
    return [list(json.loads(line).values()) for line in lines]


def said(line: str) -> tuple[str, list[str]]:
    """What a command line shows, and what it tells beside."""
    out, told = io.StringIO(), list[str]()
    assert dispatch.run_line(line, Console(out, told.append)) == 0
    return out.getvalue(), told


# ---- the tables ----


@checked
@given(program=st.binary(max_size=1500), other=st.binary(max_size=300))
def test_frames_are_rows_as_they_were(tmp_path: Path, program: bytes, other: bytes) -> None:
    path, threads = simulated_trace(tmp_path / "t.calltrace", program, other)
    rows = answers(
        path,
        "SELECT thread, name, depth, time - duration, time, e.self FROM events e JOIN functions "
        "USING (trace, function) WHERE duration IS NOT NULL",
    )
    true = [
        [number, simulated.name(frame), frame.depth, frame.begin, frame.end, frame.self_time()]
        for number, thread in enumerate(threads)
        for frame in thread.frames()
    ]
    assert Counter(map(tuple, rows)) == Counter(map(tuple, true))
    calls = answers(path, "SELECT name, sum(calls)::BIGINT FROM functions WHERE calls > 0 GROUP BY name")
    assert dict(map(tuple, calls)) == Counter(row[1] for row in true)
    marks = answers(path, "SELECT value FROM events WHERE event = 'mark' ORDER BY thread, position")
    assert [mark for (mark,) in marks] == [mark for thread in threads for mark in thread.marks]


@pytest.mark.parametrize("unit_size", [4, 8])
def test_events_are_those_of_csv(tmp_path: Path, unit_size: int) -> None:
    program = random.Random(unit_size).randbytes(4000)
    path, _ = simulated_trace(tmp_path / "t.calltrace", program, program[:999], unit_size=unit_size)
    with TraceFile(path) as trace, (tmp_path / "t.csv").open("w", encoding="utf-8", newline="\n") as out:
        csv.write(trace, out)
        parquet.write(trace, tmp_path / "tables")
    from_csv = f"read_csv('{tmp_path}/t.csv', all_varchar=true)"
    columns = "thread, id, position, time, event, depth, module, printf('0x%x', rva), name, cause, value"
    tables = {table: f"'{tmp_path}/tables/{table}.parquet'" for table in parquet.TABLES}
    mine = (
        f"SELECT COLUMNS(*)::VARCHAR FROM (SELECT {columns} FROM {tables['events']} LEFT JOIN "
        f"{tables['functions']} USING (trace, function) JOIN {tables['threads']} USING (trace, thread))"
    )
    assert duckdb.sql(f"FROM {from_csv} EXCEPT ALL {mine}").fetchall() == []
    assert duckdb.sql(f"{mine} EXCEPT ALL FROM {from_csv}").fetchall() == []


def test_edges_are_the_calls_that_callees_tells(tmp_path: Path) -> None:
    path, _ = random_trace(tmp_path / "t.calltrace", 7)
    rows = answers(
        path,
        "SELECT a.name, b.name, tail, sum(e.calls)::BIGINT, sum(e.self)::BIGINT, sum(e.total)::BIGINT "
        "FROM edges e JOIN functions a ON a.function = caller JOIN functions b ON b.function = callee "
        "GROUP BY ALL",
    )
    with TraceFile(path) as trace:
        graph = call_graph(trace)
    true = [
        [caller.name, callee.name, callee.tail, callee.calls, callee.self_time, callee.total_time]
        for caller in graph
        for callee in caller.others.values()
    ]
    assert len(true) > 50
    assert sorted(map(tuple, rows)) == sorted(map(tuple, true))


def test_functions_that_were_not_called_are_told_too(tmp_path: Path) -> None:
    units = Units()
    units.event(tracewriter.ENTER, 1)
    units.event(tracewriter.LEAVE, 1)
    writer = TraceWriter()
    records = [(0x1000, 16, 1, 0, 0, NONE), (0x2000, 8, 1, 0, 0, NONE), (0x3000, 4, 1, 0, 1, NONE)]
    writer.module({"path": "C:\\a.exe", "names": [[0x2000, "f"]]}, records)
    writer.thread(units)
    path = writer.write(tmp_path / "t.calltrace")
    rows = answers(
        path, "SELECT name, module, rva, address, size, recorded, calls FROM functions ORDER BY rva"
    )
    assert rows == [
        ["a+0x1000", "a.exe", 0x1000, 0x140001000, 16, True, 0],
        ["a!f", "a.exe", 0x2000, 0x140002000, 8, True, 1],
        ["a+0x3000", "a.exe", 0x3000, 0x140003000, 4, False, 0],
    ]
    assert answers(path, "SELECT thread, id, events, lost, ticks_per_second FROM threads") == [
        [0, 1000, 2, 0, None]
    ]


def test_numbers_no_writer_gives_are_no_end(tmp_path: Path) -> None:
    units = Units(8)
    units.ext(tracewriter.API_ENTER, (1 << 64) - 1, (1 << 64) - 2)
    units.ext(tracewriter.MARK, (1 << 64) - 3)
    writer = TraceWriter(8, tsc_hz=(1 << 64) - 1, tsc_start=(1 << 64) - 1)
    writer.thread(units)
    path = writer.write(tmp_path / "t.calltrace")
    assert answers(path, "SELECT value FROM events WHERE value IS NOT NULL ORDER BY 1") == [
        [(1 << 64) - 3], [(1 << 64) - 2],
    ]  # fmt: skip
    assert answers(path, "SELECT address FROM functions") == [[(1 << 64) - 1]]


def test_counts_without_events_are_asked_too(demo_graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "graph.calltrace"
    shutil.copy(demo_graph, path)
    random_trace(tmp_path / "events.calltrace", 1)
    sql = (
        "SELECT name, sum(calls)::INT FROM functions WHERE trace = 'graph.calltrace' AND calls > 0 GROUP BY 1"
    )
    top = json.loads(run(f'top "{path}" --limit 0 --json'))["functions"]
    expected = Counter()
    for one in top:
        expected[one["name"]] += one["calls"]
    assert dict(map(tuple, answers(tmp_path, sql))) == expected
    edges = answers(
        path,
        "SELECT b.name, sum(e.calls)::INT FROM edges e JOIN functions a ON a.function = caller "
        "JOIN functions b ON b.function = callee WHERE a.name = 'demo!main' GROUP BY 1",
    )
    [main] = json.loads(run(f'callees "{path}" demo!main --json'))["functions"]
    assert len(edges) > 5
    assert dict(map(tuple, edges)) == {one["name"]: one["calls"] for one in main["callees"]}
    assert answers(path, "SELECT count(*) FROM events") == [[0]]
    assert answers(path, "SELECT count(*) FROM threads") == [[2]]


# ---- many traces, other engines ----


def folder_of_traces(folder: Path) -> dict[str, int]:
    """Three traces; how many frames each has."""
    frames = {}
    for number in range(3):
        path, threads = random_trace(folder / f"run{number}.calltrace", 10 * number)
        frames[path.name] = sum(len(thread.frames()) for thread in threads)
    return frames


def test_a_folder_of_traces_is_one_set_of_tables(tmp_path: Path) -> None:
    frames = folder_of_traces(tmp_path)
    rows = answers(tmp_path, "SELECT trace, count(*) FROM events WHERE duration IS NOT NULL GROUP BY 1")
    assert dict(map(tuple, rows)) == frames
    joined = answers(tmp_path, "SELECT count(*) FROM events JOIN functions USING (trace, function)")
    named = answers(tmp_path, "SELECT count(function) FROM events")
    assert joined == named


def test_a_distributed_engine_reads_the_same_files(tmp_path: Path) -> None:
    frames = folder_of_traces(tmp_path)
    expected = answers(
        tmp_path,
        "SELECT name, count(*), sum(duration)::BIGINT FROM events JOIN functions USING (trace, function) "
        "WHERE duration IS NOT NULL GROUP BY name ORDER BY name",
    )
    program = f"""
import json
import dask
import dask.dataframe as dd
dask.config.set(scheduler="threads")
events = dd.read_parquet({str(tmp_path / "*.parquet" / "events.parquet")!r})
functions = dd.read_parquet({str(tmp_path / "*.parquet" / "functions.parquet")!r})
closed = events[events.duration.notnull()]
by_trace = closed.groupby("trace").size().compute()
named = closed.merge(functions[["trace", "function", "name"]], on=["trace", "function"])
by_name = named.groupby("name").duration.agg(["count", "sum"]).compute().sort_index()
rows = [[name, int(row["count"]), int(row["sum"])] for name, row in by_name.iterrows()]
print(json.dumps([events.npartitions, by_trace.to_dict(), rows]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    partitions, by_trace, rows = json.loads(done.stdout)
    assert partitions >= 3  # each file, at least, is a task of its own
    assert by_trace == frames
    assert rows == expected


# ---- what is kept beside the trace ----


def test_tables_are_written_once_and_again_when_the_trace_changes(tmp_path: Path) -> None:
    path, _ = random_trace(tmp_path / "t.calltrace", 1)
    count = f'query --json "{path}" "SELECT count(*) AS n FROM events"'
    first, told = said(count)
    assert told == ["writing the tables of t.calltrace"]
    assert said(count) == (first, [])
    random_trace(path, 2)
    os.utime(path, ns=(0, 10**18))
    second, told = said(count)
    assert told == ["writing the tables of t.calltrace"]
    assert second != first
    (tmp_path / "t.parquet" / "edges.parquet").unlink()
    assert said(count) == (second, told)


def test_a_trace_that_is_recorded_still_is_read_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "t.calltrace"
    for calls in (1, 2):
        units = Units()
        for _ in range(calls):
            units.event(tracewriter.ENTER, 0)
            units.event(tracewriter.LEAVE, 0)
        writer = TraceWriter(state=tracewriter.RECORDING)
        writer.module({"name": "m.exe"}, [(0x1000, 1, 1, 0, 0, NONE)])
        writer.thread(units)
        writer.write(path)
        os.utime(path, ns=(0, 10**18))  # what is written through a mapping need not change it
        assert answers(path, "SELECT calls FROM functions") == [[calls]]
    assert not path.with_suffix(".parquet").exists()


def test_tables_that_cannot_be_beside_the_trace_are_elsewhere(tmp_path: Path) -> None:
    path, threads = random_trace(tmp_path / "t.calltrace", 1)
    path.with_suffix(".parquet").write_text("in the way")
    frames = sum(len(thread.frames()) for thread in threads)
    assert answers(path, "SELECT count(duration) FROM events") == [[frames]]
    with pytest.raises(AccessRefused, match=r"cannot create .*t\.parquet"):
        run(f'export parquet "{path}"')


def test_tables_that_cannot_be_replaced_stay_as_they_are(tmp_path: Path) -> None:
    path, threads = random_trace(tmp_path / "t.calltrace", 1)
    folder = path.with_suffix(".parquet")
    (folder / "threads.parquet" / "in the way").mkdir(parents=True)
    frames = sum(len(thread.frames()) for thread in threads)
    assert answers(path, "SELECT count(duration) FROM events") == [[frames]]
    with pytest.raises(AccessRefused, match=r"cannot write into .*t\.parquet: .*directory"):
        run(f'export parquet "{path}"')
    assert not list(folder.glob("_*"))


def test_paths_with_signs_of_patterns_and_sql_are_paths(tmp_path: Path) -> None:
    folder = tmp_path / "it's [a] * wörk"
    folder.mkdir()
    path, threads = random_trace(folder / "x [1].calltrace", 1)
    frames = sum(len(thread.frames()) for thread in threads)
    assert answers(path, "SELECT count(duration) FROM events") == [[frames]]


# ---- what is shown ----


def test_an_answer_is_a_table(tmp_path: Path) -> None:
    path, _ = random_trace(tmp_path / "t.calltrace", 1)
    sql = "SELECT 1 AS one, 'a b' AS two, NULL AS three UNION ALL SELECT 200, 'c', 3"
    assert run(f'query "{path}" "{sql}"') == "one  two  three\n1    a b\n200  c    3\n"
    twice = json.loads(run(f'query --json "{path}" "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a"'))
    assert twice == {"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}
    shown = run(f'query --limit 2 "{path}" "FROM range(5)"')
    assert shown == "range\n0\n1\nlimit of 2 rows reached: --limit 0 shows all\n"
    assert run(f'query --limit 5 "{path}" "FROM range(5)"').splitlines() == ["range", *"01234"]
    assert len(run(f'query --limit 0 "{path}" "FROM range(2500)"').splitlines()) == 2501


def test_json_has_numbers_that_every_reader_takes(tmp_path: Path) -> None:
    path, _ = random_trace(tmp_path / "t.calltrace", 1)
    values = "0.5 AS a, 'nan'::DOUBLE AS b, ['inf'::FLOAT, 2] AS c, {'x': 1.25} AS d, 1::HUGEINT << 100 AS e"

    def refuse(text: str) -> None:
        raise AssertionError(text)

    told = json.loads(run(f'query --json "{path}" "SELECT {values}"'), parse_constant=refuse)
    assert told == {"a": 0.5, "b": None, "c": [None, 2.0], "d": {"x": 1.25}, "e": 1 << 100}


# ---- what README says ----


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
README = Path(__file__).parents[2] / "README.md"


def test_the_tables_have_the_columns_that_readme_names(tmp_path: Path) -> None:
    path, _ = random_trace(tmp_path / "t.calltrace", 1)
    run(f'export parquet "{path}"')
    told = dict(re.findall(r"^- `(\w+)`: ([\w, ]+)", README.read_text(encoding="utf-8"), re.M))
    for table in parquet.TABLES:
        columns = pyarrow.parquet.read_schema(path.with_suffix(".parquet") / f"{table}.parquet").names
        assert ["trace", *re.findall(r"\w+", told[table].partition("(")[0])] == columns
    # All that the module's own text, in turn, says of them.
    assert parquet.__doc__
    for column in {name for line in told.values() for name in re.findall(r"\w+", line)}:
        assert f"``{column}``" in parquet.__doc__


def test_the_program_for_a_distributed_engine_in_readme_runs(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    folder_of_traces(tmp_path / "traces")
    expected = answers(tmp_path / "traces", "SELECT count(*) FROM events")
    [program] = [
        block
        for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
        if "dask" in block
    ]
    here = "".join(line for line in program.splitlines(True) if "Client" not in line)
    command = [sys.executable, "-c", here + "print(len(events))"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == expected[0][0]


# ---- what goes wrong ----


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT nix FROM events", "query: Binder Error: .*nix.*"),
        ("SELEC 1", "query: Parser Error: .*SELEC.*"),
        ("SELECT 'a'::INT", "query: Conversion Error: .*"),
    ],
)
def test_wrong_sql_is_told_in_one_line(tmp_path: Path, sql: str, message: str) -> None:
    path, _ = random_trace(tmp_path / "t.calltrace", 1)
    with pytest.raises(UsageError, match=rf"^{message}\Z") as caught:
        run(f'query "{path}" "{sql}"')
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(sin(a.i * b.i)) FROM range(2000000) a(i), range(2000000) b(i)",
        "SELECT a.i FROM range(2000000) a(i), range(2000000) b(i) WHERE sin(a.i * b.i) > 2",
    ],
    ids=["computing", "fetching"],
)
def test_an_endless_question_can_be_interrupted(tmp_path: Path, sql: str) -> None:
    path, _ = random_trace(tmp_path / "t.calltrace", 1)
    run(f'export parquet "{path}"')
    program = (
        "import duckdb, _thread, sys, threading\n"
        "from rig.commands import run\n"
        "threading.Timer(1, _thread.interrupt_main).start()\n"
        "try: run(sys.argv[1])\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    command = [sys.executable, "-c", program, f'query "{path}" "{sql}"']
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_a_folder_without_traces_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="has no trace"):
        run(f'query "{tmp_path}" "SELECT 1"')


def test_one_bad_trace_in_a_folder_is_named(tmp_path: Path) -> None:
    folder_of_traces(tmp_path)
    (tmp_path / "run1.calltrace").write_bytes(b"no trace" * 1000)
    with pytest.raises(BadTrace, match=r"run1\.calltrace is not a calltrace trace"):
        run(f'query "{tmp_path}" "SELECT 1"')


@pytest.mark.parametrize(
    ("missing", "line", "extra"),
    [("pyarrow", "export parquet", "parquet"), ("duckdb", "query", "query"), ("pyarrow", "query", "parquet")],
)
def test_a_package_that_is_missing_is_named_with_the_way_out(
    tmp_path: Path, missing: str, line: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = random_trace(tmp_path / "t.calltrace", 1)
    monkeypatch.setitem(sys.modules, missing, None)
    sql = ' "SELECT 1"' if line == "query" else ""
    with pytest.raises(EngineError, match=rf"has no {missing} .*`pip install calltrace\[{extra}\]`"):
        run(f'{line} "{path}"{sql}')
    assert not path.with_suffix(".parquet").exists()
    with pytest.raises(CalltraceError):
        extras.package("no_such_package", "query")


def test_tables_are_what_arrow_reads(tmp_path: Path) -> None:
    path, _ = random_trace(tmp_path / "t.calltrace", 1)
    run(f'export parquet "{path}"')
    for table in parquet.TABLES:
        read = pyarrow.parquet.read_table(path.with_suffix(".parquet") / f"{table}.parquet")
        read.validate(full=True)
        assert read.num_rows
        assert set(read["trace"].to_pylist()) == {"t.calltrace"}
