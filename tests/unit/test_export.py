"""What exporters and reports write."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from calltrace.calltree import summarize
from calltrace.export import report
from calltrace.tracefile import TraceFile
from rig import readers, simulated, tracewriter
from rig.commands import exported
from rig.simulated import SimulatedThread, simulated_trace
from rig.tracewriter import TraceWriter, Units

NONE = tracewriter.NONE


def random_trace(path: Path, unit_size: int) -> tuple[Path, list[SimulatedThread]]:
    programs = [random.Random(number).randbytes(4000) for number in range(3)]
    return simulated_trace(path, *programs, unit_size=unit_size, start=1000, hz=2 * 10**6)


@pytest.mark.parametrize("unit_size", [4, 8])
def test_chrome_events_nest_and_keep_their_times(tmp_path: Path, unit_size: int) -> None:
    path, threads = random_trace(tmp_path / "t", unit_size)
    events: list[dict[str, Any]] = json.loads(exported(path, "chrome"))["traceEvents"]
    for number, thread in enumerate(threads):
        open_names: list[str] = []
        begins: list[float] = []
        last = 0.0
        for event in (event for event in events if event["tid"] == 1000 + 4 * number and event["ph"] != "M"):
            assert event["ts"] >= last
            last = event["ts"]
            if event["ph"] == "B":
                open_names.append(event["name"])
                begins.append(event["ts"])
            elif event["ph"] == "E":
                open_names.pop()
        assert not open_names
        made = [
            (frame.begin - 1000) / 2 if unit_size == 8 else float(frame.opened) for frame in thread.frames()
        ]
        assert begins == pytest.approx(made)


@pytest.mark.parametrize("unit_size", [4, 8])
def test_slices_in_devtools_are_the_frames(tmp_path: Path, unit_size: int) -> None:
    path, threads = random_trace(tmp_path / "t", unit_size)
    out = tmp_path / "t.json"
    out.write_text(exported(path, "chrome"), encoding="utf-8")
    seen = readers.chrome_threads(out)
    assert [thread[:3] for thread in seen] == [(4711, 1000 + 4 * at, f"thread {at}") for at in range(3)]
    for (*_, slices), thread in zip(seen, threads):
        found = Counter((name, round(begin, 3), round(length, 3)) for name, begin, length in slices)
        if unit_size == 8:
            times = [((frame.begin - 1000) / 2, (frame.end - frame.begin) / 2) for frame in thread.frames()]
        else:  # positions; where a frame without an end of its own ends, is told elsewhere
            found = Counter((name, begin, 0) for name, begin, _ in found.elements())
            times = [(frame.opened, 0) for frame in thread.frames()]
        assert found == Counter((simulated.name(frame), *both) for frame, both in zip(thread.frames(), times))


def test_csv_has_a_row_for_each_event(tmp_path: Path) -> None:
    units = Units(8, now=1000)
    units.event(tracewriter.ENTER, 0)
    units.now += 5
    units.event(tracewriter.CALL, 0)
    units.ext(tracewriter.MARK, 9)
    units.now += 5
    units.event(tracewriter.LEAVE, 0)
    units.event(tracewriter.LEAVE, 0)
    units.ext(tracewriter.API_ENTER, 0x140001000, 0x77)
    writer = TraceWriter(8, tsc_start=1000)
    told = {"name": "demo.exe", "names": [[0x1000, 'odd, "name"']], "imports": ["K.dll!F"]}
    writer.module(told, [(0x1000, 1, 1, 0, 0, NONE)], [(0x1004, 0, 0, 0)])
    writer.thread(units)
    rows = list(csv.reader(io.StringIO(exported(writer.write(tmp_path / "t"), "csv"))))
    odd = 'demo!odd, "name"'
    assert rows[1:] == [
        ["0", "1000", "0", "0", "enter", "0", "demo.exe", "0x1000", odd, "", ""],
        ["0", "1000", "1", "5", "call", "1", "demo.exe", "0x1004", "K.dll!F", "", ""],
        ["0", "1000", "2", "5", "mark", "2", "", "", "", "", "9"],
        ["0", "1000", "4", "10", "unwind", "1", "demo.exe", "0x1004", "K.dll!F", "inferred", ""],
        ["0", "1000", "4", "10", "leave", "0", "demo.exe", "0x1000", odd, "return", ""],
        ["0", "1000", "5", "10", "orphan-leave", "0", "demo.exe", "0x1000", odd, "", ""],
        ["0", "1000", "6", "10", "api-enter", "0", "", "", odd, "", str(0x77)],
        ["0", "1000", "9", "10", "unwind", "0", "", "", odd, "process-end", ""],
    ]
    assert rows[0] == (
        [
            "thread",
            "thread_id",
            "position",
            "time",
            "event",
            "depth",
            "module",
            "rva",
            "name",
            "cause",
            "value",
        ]
    )


def test_text_shows_causes_times_and_places(tmp_path: Path) -> None:
    units = Units(8)
    units.frame(0x9000)
    units.event(tracewriter.ENTER, 0)
    units.event(tracewriter.ENTER, 1)
    units.event(tracewriter.CALL, 0)
    units.now += 1600
    units.frame(0x8000)
    units.event(tracewriter.LAND, 0)
    units.event(tracewriter.ENTER, 1)
    units.event(tracewriter.TAIL, 1)
    units.event(tracewriter.ENTER, 2)
    units.now += 2_000_000
    units.event(tracewriter.LEAVE, 2)
    units.event(tracewriter.ENTER, 1)
    units.event(tracewriter.TAIL, 1)
    units.ext(tracewriter.MARK, 3)
    writer = TraceWriter(8, state=tracewriter.STOPPED)
    names = [[0x1000, "main"], [0x2000, "f"], [0x3000, "g"]]
    writer.module({"name": "demo.exe", "names": names}, [(rva, 1, 1, 0, 0, NONE) for rva, _ in names])
    writer.thread(units)
    writer.chunks.append(writer.events_block(b"\x11" + bytes(7), first_unit=len(units) + 5))
    assert exported(writer.write(tmp_path / "t"), "text").splitlines() == [
        "thread 0 (id 1000)",
        "  demo!main  2.002 ms  open at a gap",
        "    demo!f  1.60 µs  unwound",
        "      call #0  1.60 µs  unwound",
        "    demo!f  0 ns  tail → demo!g",
        "    demo!g  2.000 ms",
        "    demo!f  0 ns  tail → code not traced",
        "    -- mark 3 --",
        "  -- gap: 5 events lost --",
        "  demo!g  0 ns  still running",
    ]


def told_of(path: Path) -> dict[str, Any]:
    out = io.StringIO()
    with TraceFile(path) as trace:
        report.write_info_json(trace, summarize(trace), out)
    told = json.loads(out.getvalue())
    assert isinstance(told, dict)
    return told


def planned_trace(path: Path) -> Path:
    """A module with functions of every fate, two threads of which one lost events."""
    writer = TraceWriter(
        8, state=tracewriter.KILLED, exit_code=3, tsc_start=10**9, tsc_end=3 * 10**9, units_lost=4
    )
    writer.info({"command_line": "demo.exe 1+2"})
    functions = [
        (0x1000, 16, 1, 0, 0, NONE),
        (0x2000, 16, 1 | 2, 0, 0, NONE),
        (0x3000, 2, 1, 0, 1, NONE),
        (0x3100, 2, 1 | 128, 0, 1, NONE),
        (0x4000, 9, 2, 0, 2, NONE),
        (0x5000, 9, 1, 4, 15, NONE),
        (0x6000, 6, 2, 2, 14, NONE),
    ]
    told = {
        "path": "C:\\demo.exe",
        "timestamp": 0x1234ABC,
        "pdb": {"path": "C:\\made\\demo.pdb", "guid": "863D276C-DE92-3E6D-4C4C-44205044422E", "age": 3},
        "named_by": "C:\\symbols\\demo.pdb",
        "names": [[0x1000, "main"]],
        "statuses": {"1": "no room for a jump", "15": "left out"},
        "refusals": [[0x3000, 1, 0x3001]],
    }
    writer.module(told, functions, [(0x1004, 0, 0, NONE)])
    units = Units(8, now=10**9)
    units.event(tracewriter.ENTER, 0)
    writer.thread(units)
    units = Units(8, now=10**9)
    units.event(tracewriter.LEAVE, 0)
    writer.chunks.append(writer.events_block(bytes(units.data), 1, first_unit=4))
    return writer.write(path)


def test_info_as_json_has_the_keys_that_are_promised(tmp_path: Path) -> None:
    path = planned_trace(tmp_path / "t")
    told = told_of(path)
    assert (told["file"], told["format"], told["size"]) == (str(path), 1, path.stat().st_size)
    assert (told["state"], told["exit_code"], told["process_id"]) == ("killed", 3, 4711)
    assert (told["clock"], told["policy"], told["seconds"]) == ("tsc", "block", 2.0)
    assert told["created"] == "2023-11-14T22:13:20+00:00"
    assert told["recording"] == {"command_line": "demo.exe 1+2"}
    (module,) = told["modules"]
    assert module["name"] == "demo.exe"
    assert module["base"] == "0x140000000"
    assert module["call_sites"] == 1
    assert module["pdb"]["age"] == 3
    assert (module["named"], module["named_by"]) == (1, "C:\\symbols\\demo.pdb")
    functions = module["functions"]
    assert (functions["found"], functions["instrumented"]) == (7, 2)
    assert (functions["refused"], functions["filtered"], functions["thunks"]) == (3, 1, 1)
    assert functions["by_source"] == {
        "pdata": 5, "call": 3, "export": 0, "entry": 0, "tls": 0, "guard": 0, "pointer": 0, "symbol": 1,
        "jump": 0, "handler": 0, "gap": 0,
    }  # fmt: skip
    assert module["pdata_groups"] == {"found": 5, "wanted": 4, "instrumented": 2, "share": 0.5}
    assert [(row["reason"], row["count"]) for row in module["refusals"]] == [
        ("no room for a jump", 2),
        ("status 2", 1),
    ]
    assert module["refusals"][0]["functions"] == [
        {"name": "demo+0x3000", "address": "0x140003000", "rva": "0x3000", "instruction_rva": "0x3001"},
        {"name": "demo+0x3100", "address": "0x140003100", "rva": "0x3100", "instruction_rva": None},
    ]
    assert told["threads"] == [
        {"index": 0, "id": 1000, "units": 1, "lost": 0},
        {"index": 1, "id": 1004, "units": 1, "lost": 4},
    ]
    assert told["events"]["total"] == 2
    assert (told["events"]["enter"], told["events"]["leave"]) == (1, 1)
    assert told["frames"]["unclosed"] == {"process_end": 1}
    assert (told["frames"]["functions"], told["frames"]["max_depth"], told["frames"]["orphans"]) == (1, 1, 1)
    assert told["gaps"] == {"count": 1, "units_lost": 4, "recorder_units_lost": 4}
    assert told["health"] == {
        "truncated": False,
        "damaged_chunks": 0,
        "unknown_chunks": 0,
        "hole_blocks": 0,
        "short_times": 0,
        "problems": [],
    }


def test_info_for_a_reader_names_what_was_refused_and_lost(tmp_path: Path) -> None:
    out = io.StringIO()
    with TraceFile(planned_trace(tmp_path / "t")) as trace:
        report.write_info(trace, summarize(trace), out)
    text = out.getvalue()
    for part in (
        "terminated, exit code 3",
        "2.000 s, clock tsc",
        "command line     demo.exe 1+2",
        "  file           C:\\demo.exe, time stamp 0x01234abc",
        "  pdb            C:\\made\\demo.pdb, 863D276C-DE92-3E6D-4C4C-44205044422E, age 3",
        "7 found by 5 .pdata, 3 direct calls, 1 symbols",
        "  named          1 of 7, by C:\\symbols\\demo.pdb",
        "  instrumented   2 of 5 (40.00 %)",
        "  .pdata groups  2 of 4 (50.00 %)",
        "  left out       1 by the patterns given",
        "  thunks         1, whose",
        "      2  no room for a jump",
        "id 1004, 1 unit, 4 lost",
        "1 open at process end",
        "gaps             1, 4 events lost",
    ):
        assert part in text


def test_top_with_a_clock_goes_by_time(tmp_path: Path) -> None:
    units = Units(8)
    units.event(tracewriter.ENTER, 0)
    for _ in range(3):
        units.event(tracewriter.ENTER, 1)
        units.now += 1000
        units.event(tracewriter.LEAVE, 1)
    units.now += 7000
    units.event(tracewriter.LEAVE, 0)
    writer = TraceWriter(8)
    names = [[0x1000, "main"], [0x2000, "f"]]
    writer.module({"name": "demo.exe", "names": names}, [(rva, 1, 1, 0, 0, NONE) for rva, _ in names])
    writer.thread(units)
    out = io.StringIO()
    with TraceFile(writer.write(tmp_path / "t")) as trace:
        report.write_top(trace, summarize(trace), 0, out)
    assert [line.split() for line in out.getvalue().splitlines()[1:]] == [
        ["7.00", "µs", "70.00", "%", "10.00", "µs", "1", "demo!main"],
        ["3.00", "µs", "30.00", "%", "3.00", "µs", "3", "demo!f"],
    ]
