"""The user's breakpoints beside the trace, as often as tests/targets/breakpoints.c says each place runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rig import x64dbg
from rig.x64dbg_phases import RUNS, at, calls, expected, hits, phases, start


def counting() -> list[str]:
    """Commands that log each hit."""
    return [
        command
        for place in RUNS
        for command in (
            f"bp {at(place)}",
            f"SetBreakpointLog {at(place)}, hit:{place}.",
            f"SetBreakpointCondition {at(place)}, 0",
        )
    ]


@x64dbg.both
def test_the_target_runs_its_places_as_it_states(debugger: str) -> None:
    assert hits(phases(debugger, counting(), (), ())) == expected()


@x64dbg.both
def test_breakpoints_set_before_start_hit_as_often_with_the_trace_and_after_stop(
    debugger: str, tmp_path: Path
) -> None:
    trace = tmp_path / "t.calltrace"
    shown = phases(debugger, counting(), [start(trace)], ["calltrace stop"])
    assert hits(shown) == expected()
    recorded = calls(trace)
    for function in ("straight", "callee", "short_one", "next_to_it"):
        assert recorded[function] == RUNS[function][1]


@x64dbg.both
def test_breakpoints_set_beside_the_trace_hit_as_often_with_it_and_after_stop(
    debugger: str, tmp_path: Path
) -> None:
    shown = phases(debugger, [start(tmp_path / "t.calltrace")], counting(), ["calltrace stop"])
    assert hits(shown) == [{}, *expected()[1:]]


@x64dbg.both
@pytest.mark.parametrize("place", ["straight_fifth", "straight_turn", "straight_back", "straight_ret"])
def test_a_stop_tells_where_its_user_has_set_the_breakpoint_and_the_recording_can_be_stopped_there(
    debugger: str, tmp_path: Path, place: str
) -> None:
    trace = tmp_path / "t.calltrace"
    again = [f"bp {at(place)}", "run", "calltrace stacks", "calltrace stop", f"bc {at(place)}"]
    shown = phases(debugger, [start(trace), *again], (), ())
    stopped = [
        output for _, output in shown.commands if "INT3 breakpoint" in output and at(place).upper() in output
    ]
    assert len(stopped) == 1
    assert re.search(r"^  \d\d  breakpoints!straight", shown.said("calltrace stacks"), re.MULTILINE)
    assert calls(trace)["straight"] == 1


@x64dbg.only_real
@pytest.mark.parametrize("place", ["straight_fifth", "straight_back"])
def test_run_to_an_address_stops_there_beside_the_trace(tmp_path: Path, place: str) -> None:
    trace = tmp_path / "t.calltrace"
    there = f"run {at(place)}"
    shown = phases(x64dbg.REAL, [start(trace), there, "calltrace stacks", "sti"], ["calltrace stop"], ())
    assert "INT3 breakpoint at " in shown.said(there)
    assert at(place).upper() in shown.said(there)
    assert re.search(r"^  00  breakpoints!straight\b", shown.said("calltrace stacks"), re.MULTILINE)
    assert calls(trace)["straight"] == RUNS["straight"][0]
