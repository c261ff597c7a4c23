"""The user's breakpoints beside the trace, as often as tests/targets/breakpoints.c says each place runs."""

from __future__ import annotations

import functools
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from rig import targets, tracing, windows, x64dbg

# Place -> how often it runs in each phase.
RUNS = {
    "straight": (3, 3, 3),
    "straight_fifth": (3, 3, 3),  # in the middle of the jump to the copy
    "straight_turn": (12, 12, 12),
    "straight_call": (3, 3, 3),
    "callee": (3, 3, 3),
    "straight_back": (3, 3, 3),
    "straight_ret": (3, 3, 3),
    "turns": (10, 10, 10),
    "turns_end": (2, 2, 2),
    "short_one": (4, 4, 4),
    "short_ret": (4, 4, 4),
    "next_to_it": (4, 4, 4),
    "next_ret": (4, 4, 4),
    "serve_turn": (3, 6, 6),
    "padding": (0, 0, 0),
}
EXIT = "Process stopped with exit code 0x7 "


@functools.cache
def symbols() -> dict[str, int]:
    """The VAs in the program, which is loaded where it wants to be."""
    listed = subprocess.run(
        ["x86_64-w64-mingw32-nm", targets.build("breakpoints")], capture_output=True, text=True, check=True
    )
    found = re.findall(r"^([0-9a-f]+) \w (\w+)$", listed.stdout, re.MULTILINE)
    return {name: int(address, 16) for address, name in found}


def at(place: str) -> str:
    return f"{symbols()[place]:x}"


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


def start(trace: Path) -> str:
    return f"calltrace start -o {windows.path(trace)}"


def phases(debugger: str, *commands: Sequence[str]) -> x64dbg.Transcript:
    """A session that gives the commands of each phase at its beginning, and lets the program end."""
    script = [x64dbg.init(targets.build("breakpoints")), f"bp {at('phase')}", "run"]
    for given in commands:
        script += [*given, "run"]
    shown = x64dbg.run([*script, "run"], debugger)
    assert not shown.has_target
    assert EXIT in shown.commands[-1][1]
    return shown


def hits(shown: x64dbg.Transcript) -> list[dict[str, int]]:
    """What was logged in each phase."""
    said = [output for command, output in shown.commands if command == "run"][1:4]
    return [dict(Counter(re.findall(r"hit:(\w+)\.", output))) for output in said]


def expected() -> list[dict[str, int]]:
    """What the target states."""
    return [{place: runs[phase] for place, runs in RUNS.items() if runs[phase]} for phase in range(3)]


def calls(trace: Path) -> dict[str, int]:
    """How often each function was called, says the trace."""
    done = tracing.calltrace("top", "--limit", "0", trace)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r" ([\d,]+)  \w+!(\w+)$", done.stdout.decode(), re.MULTILINE)
    return {name: int(count.replace(",", "")) for count, name in rows}


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
