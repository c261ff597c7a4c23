"""The call tree as JSON: its lines, with all that is known of each frame."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace.calltree import Tree, TreeFilter
from calltrace.export.tree import write_tree_json
from calltrace.model import Cause
from calltrace.tracefile import TraceFile
from rig import tracewriter
from rig.commands import run
from rig.simulated import simulated_trace
from rig.tracewriter import TraceWriter, Units

NONE = tracewriter.NONE
NAMES = "abc"


def trace_of(units: Units, **fields: int) -> TraceWriter:
    """A trace of one thread with three functions, 16 bytes each."""
    writer = TraceWriter(units.unit_size, **fields)
    names = [[0x1000 + 16 * at, name] for at, name in enumerate(NAMES)]
    functions = [(0x1000 + 16 * at, 16, 1, 0, 0, NONE) for at in range(len(NAMES))]
    writer.module({"name": "m.exe", "names": names}, functions)
    writer.thread(units)
    return writer


def told(trace: TraceFile, window: int = 1 << 16) -> Any:
    out = io.StringIO()
    write_tree_json(trace, Tree(trace, TreeFilter(), window), out)
    return json.loads(out.getvalue())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs=st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_every_frame_of_every_thread_is_in_it(tmp_path: Path, programs: list[bytes]) -> None:
    path, threads = simulated_trace(tmp_path / "t.calltrace", *programs, unit_size=4)
    with TraceFile(path) as trace:
        found = told(trace)["threads"]
    assert [thread["index"] for thread in found] == [
        number for number, thread in enumerate(threads) if thread.units.data
    ]
    for thread in found:
        frames = [
            (line["depth"], line["kind"], line["ended"])
            for line in thread["lines"]
            if line["type"] == "frame"
            for _ in range(line["calls"])
        ]
        kinds = ("function", "call", "api_function", "api_call")
        assert frames == [
            (frame.depth, kinds[frame.kind], Cause(frame.cause).name.lower())
            for frame in threads[thread["index"]].frames()
        ]


def test_a_line_has_what_is_known_of_its_frame(tmp_path: Path) -> None:
    units = Units(8, now=1000)
    units.event(tracewriter.ENTER, 0)
    for _ in range(3):
        units.event(tracewriter.ENTER, 1)
        units.now += 5
        units.event(tracewriter.LEAVE, 1)
    units.ext(tracewriter.MARK, 9)
    units.event(tracewriter.ENTER, 1)
    units.now += 1
    units.event(tracewriter.TAIL, 1)
    units.event(tracewriter.ENTER, 2)
    units.event(tracewriter.LEAVE, 2)
    units.now += 2
    with TraceFile(trace_of(units, tsc_start=1000).write(tmp_path / "t.calltrace")) as trace:
        about = told(trace)
    assert about["clock"] == "tsc"
    assert about["limited"] is False
    [thread] = about["threads"]
    assert thread["id"] == 1000
    lines = thread["lines"]
    bases = {
        name: int(line["address"], 16) - 16 * NAMES.index(name)
        for line in lines
        if "address" in line
        for name in [line["name"][2:]]
    }
    assert len(set(bases.values())) == 1
    keys = ("depth", "type", "name", "calls", "ticks", "ended", "tail")
    assert [tuple(line.get(key) for key in keys) for line in lines] == [
        (0, "frame", "m!a", 1, 16, "process_end", None),
        (1, "frame", "m!b", 3, 15, "return", None),
        (1, "mark", "9", None, None, None, None),
        (1, "frame", "m!b", 1, 1, "tail", "m!c"),
        (1, "frame", "m!c", 1, 0, "return", None),
    ]


def test_an_end_that_comes_late_has_a_line_of_its_own(tmp_path: Path) -> None:
    units = Units()
    units.event(tracewriter.ENTER, 0)
    for _ in range(20):
        for number in (1, 2):
            units.event(tracewriter.ENTER, number)
            units.event(tracewriter.LEAVE, number)
    units.event(tracewriter.LEAVE, 0)
    with TraceFile(trace_of(units).write(tmp_path / "t.calltrace")) as trace:
        [thread] = told(trace, window=8)["threads"]
    first, *_, last = thread["lines"]
    assert (first["type"], first["name"], first["ended"], first["ticks"]) == ("frame", "m!a", None, None)
    assert (last["type"], last["name"], last["ended"], last["depth"]) == ("end", "m!a", "return", 0)
    assert len(thread["lines"]) == 42


def test_events_that_were_lost_are_a_line(tmp_path: Path) -> None:
    before, after = Units(), Units()
    before.event(tracewriter.ENTER, 0)
    after.event(tracewriter.ENTER, 2)
    writer = trace_of(before)
    writer.chunks.append(writer.events_block(bytes(after.data), first_unit=4))
    with TraceFile(writer.write(tmp_path / "t.calltrace")) as trace:
        [thread] = told(trace)["threads"]
    assert [(line["type"], line.get("lost")) for line in thread["lines"]] == [
        ("frame", None),
        ("gap", 3),
        ("frame", None),
    ]


def test_a_tree_too_deep_to_be_nested_can_be_read(tmp_path: Path) -> None:
    units = Units()
    for number in range(30_000):
        units.event(tracewriter.ENTER, number % 3)
    path = trace_of(units).write(tmp_path / "t.calltrace")
    about = json.loads(run(f'tree "{path}" --json --limit 20000'))
    assert about["limited"] is True
    assert [line["depth"] for line in about["threads"][0]["lines"]] == list(range(19_999))
