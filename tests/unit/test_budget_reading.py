"""What users are shown of a recording with a budget: all that was counted, and where calls are missing."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest

from calltrace import dispatch
from calltrace.commands import Console
from calltrace.errors import CalltraceError, UsageError
from calltrace.export import FORMATS, To
from calltrace.tracefile import TraceFile
from rig import reports, tracewriter
from rig.budgeted import file_of, in_order, recorded
from rig.commands import run
from rig.counted import numbers
from rig.simulated import simulated_trace
from rig.tracewriter import CALL, ENTER, LEAVE, RETURN, TraceWriter, Units
from unit.test_fibers import FUNCTIONS

NONE = tracewriter.NONE
A, B, C, D, E, F, G, H = range(FUNCTIONS)


def write_calls(path: Path) -> Path:
    """a calls many functions, and an import; in the last but one call of b something new happens."""
    units = Units(4)
    units.ext(tracewriter.THREAD_START)

    def call(function: int, *inner: int) -> None:
        units.event(ENTER, function)
        for each in inner:
            call(each)
        units.event(LEAVE, function)

    units.event(ENTER, A)
    for _ in range(1203):
        call(B, C)
    call(B, C, D)
    call(B)
    for _ in range(4):
        units.event(CALL, A)
        units.event(RETURN, A)
    for function in (E, F, G, H):
        call(function)
    for function in (C, E, E, F, F, G, H, H):
        call(function)
    units.event(LEAVE, A)
    writer = TraceWriter(4)
    functions = [(0x1000 * (at + 1), 16, 1, 0, 0, NONE) for at in range(FUNCTIONS)]
    names = [[0x1000 * (at + 1), name] for at, name in enumerate("abcdefgh")]
    sites = [(0x1001, A, 0, 0)]
    writer.module({"name": "m.exe", "names": names, "imports": ["K.dll!Sleep"]}, functions, sites)
    writer.thread(units)
    return writer.write(path)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The recording of those calls with a budget of one."""
    with TraceFile(write_calls(tmp_path / "every.calltrace")) as every:
        return recorded(every, 1, tmp_path / "some.calltrace")


def said(line: str) -> tuple[str, list[str]]:
    """What a command shows, and what it says beside that."""
    out, beside = io.StringIO(), []
    assert dispatch.run_line(line, Console(out, beside.append)) == 0
    return out.getvalue(), beside


MUTED = (
    "recorded with --budget 1: 2,417 calls of 7 functions muted, which `top`, `callers` and `callees` count"
)


def test_the_tree_says_where_calls_are_missing(trace: Path) -> None:
    shown, beside = said(f"tree {trace}")
    assert shown.splitlines()[1:] == [
        "  m!a",
        "    m!b",
        "      m!c",
        "    -- muted here or deeper: m!c \N{MULTIPLICATION SIGN}1,203 --",
        "    -- muted here or deeper: m!b \N{MULTIPLICATION SIGN}1,202 --",
        "    m!b",
        "      m!d",
        "    -- muted here or deeper: m!b --",
        "    K.dll!Sleep",
        "    -- muted here or deeper: K.dll!Sleep \N{MULTIPLICATION SIGN}3 --",
        "    m!e",
        "    m!f",
        "    m!g",
        "    m!h",
        "    -- muted here or deeper: m!e \N{MULTIPLICATION SIGN}2 --",
        "    -- muted here or deeper: m!f \N{MULTIPLICATION SIGN}2 --",
        "    -- muted here or deeper: m!h \N{MULTIPLICATION SIGN}2 --",
        "    -- muted here or deeper: 2 calls of 2 others --",
    ]
    assert beside == [MUTED]
    one_level, _ = said(f"tree {trace} --depth 2")
    assert "m!d" not in one_level
    assert "m!b \N{MULTIPLICATION SIGN}1,202 --" in one_level
    assert said(f"tree {trace} --function m!b")[0].splitlines()[1:] == [
        "  m!b",
        "    m!c",
        "  -- muted here or deeper: m!b \N{MULTIPLICATION SIGN}1,202 --",
        "  m!b",
        "    m!d",
        "  -- muted here or deeper: m!b --",
    ]


def test_the_tree_as_json_tells_the_same(trace: Path) -> None:
    lines = json.loads(run(f"tree {trace} --json"))["threads"][0]["lines"]
    muted = [line for line in lines if line["type"] == "muted"]
    assert muted[0] == {
        "depth": 1,
        "type": "muted",
        "calls": 1203,
        "name": "m!c",
        "kind": "function",
        "address": "0x140003000",
    }
    assert muted[-1] == {"depth": 1, "type": "muted", "calls": 2, "others": 2}
    assert sum(line["calls"] for line in muted) == 2417


def test_info_lists_what_was_muted(trace: Path) -> None:
    shown = run(f"info {trace}").splitlines()
    at = shown.index("budget           1 call of each function or import, in each thread")
    assert shown[at + 1 : at + 4] == [
        "muted            2,417 calls of 7, which are counted",
        "                          1,204  m!c",
        "                          1,203  m!b",
    ]
    told = json.loads(run(f"info {trace} --json"))
    assert told["budget"] == 1
    assert told["muted"]["calls"] == 2417
    assert {"name": "K.dll!Sleep", "calls": 3} in told["muted"]["functions"]
    assert told["events"]["enter"] == 1 + 1205 + 1205 + 1 + 3 + 3 + 2 + 3  # all of them


def test_csv_and_columns_have_rows_for_what_was_muted(trace: Path, tmp_path: Path) -> None:
    run(f"export csv {trace} -o {tmp_path / 't.csv'}")
    rows = [row.split(",") for row in (tmp_path / "t.csv").read_text().splitlines()]
    muted = [dict(zip(rows[0], row)) for row in rows if row[4] == "muted"]
    assert [(row["name"], row["value"], row["depth"]) for row in muted[:2]] == [
        ("m!c", "1203", "1"),
        ("m!b", "1202", "1"),
    ]
    assert (muted[-1]["name"], muted[-1]["value"]) == ("", "2")
    asked = run(f"query {trace} \"SELECT sum(value) FROM events WHERE event = 'muted'\" --json")
    assert list(json.loads(asked).values()) == [2417]
    counted = run(f"query {trace} \"SELECT calls FROM functions WHERE name = 'm!c'\" --json")
    assert json.loads(counted) == {"calls": 1205}


def test_what_is_counted_is_all(tmp_path: Path) -> None:
    programs = [random.Random(number).randbytes(2000) for number in range(3)]
    path, _ = simulated_trace(tmp_path / "every.calltrace", *programs)
    with TraceFile(path) as every:
        some = recorded(every, 1, tmp_path / "some.calltrace")
        with TraceFile(some) as trace:
            assert trace.index.units < every.index.units
            for told, counted in zip(numbers(every)[1:], numbers(trace)[1:]):
                assert counted == told
    covered = [run(f"export offsets {file}").splitlines() for file in (path, some)]
    assert covered[0] == covered[1]


def test_every_format_is_written_and_says_what_its_events_are(trace: Path, tmp_path: Path) -> None:
    for name, form in FORMATS.items():
        made = tmp_path / f"demo{form.suffix}"
        _, beside = said(f"export {name} {trace} -o {made}")
        assert beside == ([MUTED] if not form.of_counts or form.to is To.PATH else [])
        assert form.to is To.PATH or b"m!d" in made.read_bytes() or form.of_counts


def test_the_report_has_all_calls_and_says_what_its_stacks_are(trace: Path) -> None:
    page = trace.with_suffix(".html")
    run(f"report {trace}")
    text = page.read_text(encoding="utf-8")
    assert "Recorded by --budget 1: 2,417 calls were muted." in text
    assert [calls for name, calls, *_ in reports.read(page).functions() if name == "m!c"] == [1205]


def test_what_cannot_be_told_is_refused_in_one_line(trace: Path) -> None:
    for line, why in (
        (f"callers {trace} m!c --depth 2", "with --budget and knows one level of callers and callees"),
        (f"diff {trace}@a {trace}@b", "recorded with --budget, which counts without regard to marks"),
        (f"loop m!d --from-trace {trace}", "recorded with --budget: it does not have every call"),
    ):
        with pytest.raises(UsageError, match=why):
            run(line)


def test_without_counts_there_are_events_still(tmp_path: Path) -> None:
    with TraceFile(write_calls(tmp_path / "every.calltrace")) as every:
        cut = recorded(every, 1, tmp_path / "cut.calltrace", counted=False)
    shown, beside = said(f"tree {cut}")
    assert "    -- muted here or deeper: m!b \N{MULTIPLICATION SIGN}1,202 --" in shown.splitlines()
    assert beside[-1].endswith("further calls of a function in a thread are muted; how many is not known")
    for verb in ("top", "info", "callers", "diff"):
        words = {"callers": f"{cut} m!c", "diff": f"{cut} {cut}"}.get(verb, str(cut))
        with pytest.raises(UsageError, match=r"has no counts: they are written when its recording ends"):
            run(f"{verb} {words}")


def test_a_thread_without_events_is_counted(tmp_path: Path) -> None:
    programs = [bytes([0, 1, 6, 0]) * 5, bytes([0, 2, 6, 0]) * 7]
    path, _ = simulated_trace(tmp_path / "every.calltrace", *programs)
    with TraceFile(path) as every, TraceFile(recorded(every, 1, tmp_path / "all.calltrace")) as trace:
        kept = [block for block in in_order(trace) if block[32:36] == b"\1\0\0\0"]
        some = file_of(trace, kept, tmp_path / "some.calltrace", trace.policy)
    with TraceFile(some) as trace:
        assert [thread.index for thread in trace.threads] == [1]
    top = {row.split()[-1]: row.split()[-2] for row in run(f"top {some}").splitlines()[1:]}
    assert top == {"simulated!f1": "5", "simulated!f2": "7"}
    assert run(f"top {some} --thread 1").split()[-1] == "simulated!f2"
    with pytest.raises(CalltraceError, match="has no thread 0"):
        run(f"top {some} --thread 0")
