"""Manual debugging beside the trace in the real engine: call stacks, breakpoints, steps, exceptions, ends."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from calltrace.calltree import summarize
from calltrace.model import State
from calltrace.tracefile import TraceFile
from rig import targets, windows, x64dbg
from rig.x64dbg_phases import RUNS, at, calls, hits, phases, start

pytestmark = x64dbg.only_real

HARDWARE = (
    "straight",
    "straight_ret",
    "callee",
    "turns",
)  # two entries, a body, and an entry that is looped to
ENDED = "Process stopped with exit code"


def session(script: Sequence[str], program: str, *arguments: str, **options: Path) -> x64dbg.Transcript:
    begin = x64dbg.init(targets.build(program), " ".join(arguments))
    return x64dbg.run([begin, *script], x64dbg.REAL, **options)


def said(shown: x64dbg.Transcript, command: str) -> list[str]:
    """What was logged each time a command was given."""
    return [output for given, output in shown.commands if given == command]


def hardware() -> list[str]:
    """Commands that log each hit."""
    return [
        command
        for place in HARDWARE
        for command in (
            f"bph {at(place)}",
            f"SetHardwareBreakpointLog {at(place)}, hit:{place}.",
            f"SetHardwareBreakpointCondition {at(place)}, 0",
        )
    ]


@pytest.mark.parametrize("before", [True, False], ids=["set before start", "set after start"])
def test_hardware_breakpoints_hit_as_often_as_untraced(tmp_path: Path, before: bool) -> None:
    # They are gone before a thread starts or ends: while any is set, Wine's server may then wait for itself,
    # with a trace or without.
    begin = start(tmp_path / "t.calltrace")
    first = [*hardware(), begin] if before else [begin, *hardware()]
    shown = phases(x64dbg.REAL, first, ["bphc", "calltrace stop"], [])
    assert hits(shown) == [{place: RUNS[place][0] for place in HARDWARE}, {}, {}]
    assert calls(tmp_path / "t.calltrace")["straight"] == RUNS["straight"][0]


HERE = "!where"
STEPS = (
    "rtr",  # from straight's first byte to its ret
    "sto",  # to who called it
    "run",  # to the breakpoint there again
    "run {straight_call}",
    "sti",  # into what it calls
    "run {straight_back}",
    "rtr",
    "sti",  # out of it
    "run",
    "bc {straight}",
    "run {straight_fifth}",  # in the middle of the jump to the copy
    "run {straight_call}",
    "sto",  # over the call
    "run {turns}",
    "run {turns_end}",
    "run {short_ret}",
    "run {next_to_it}",
)


def where(trace: Path | None = None) -> list[str]:
    """Which instructions steps from straight's first byte on end at."""
    steps = [re.sub(r"\{(\w+)\}", lambda place: at(place[1]), step) for step in STEPS]
    begin = [start(trace)] if trace else []
    script = [*begin, f"bp {at('straight')}", "run", HERE, *(line for step in steps for line in (step, HERE))]
    shown = phases(x64dbg.REAL, script, (), ())
    return said(shown, HERE)


def test_steps_end_where_they_end_untraced(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    untraced = where()
    assert where(trace) == untraced
    assert len(set(untraced)) > len(STEPS) // 2
    recorded = calls(trace)
    assert (recorded["straight"], recorded["callee"], recorded["turns"]) == (9, 9, 6)


def test_the_call_stack_is_that_of_an_untraced_session(tmp_path: Path) -> None:
    stops = ["bp session_calls:depth", "run", "!callstack", "run", "run", "!callstack "]
    stops += ["bc session_calls:depth", "bp msvcrt:exit", "run", "!callstack  "]
    untraced = session(stops, "session_calls", "7")
    traced = session([start(tmp_path / "t.calltrace"), *stops, "calltrace stacks"], "session_calls", "7")
    for command in ("!callstack", "!callstack ", "!callstack  "):
        assert traced.said(command) == untraced.said(command)
    depths = [len(traced.said(command).splitlines()) for command in ("!callstack", "!callstack ")]
    assert depths[1] == depths[0] + 2
    assert untraced.said("!callstack").startswith("session_calls.")


def test_the_call_stack_passes_through_copies_that_stay_behind_after_stop(tmp_path: Path) -> None:
    stops = ["bp session_calls:depth", "run", "run"]
    untraced = session([*stops, "!callstack"], "session_calls", "7")
    begin = start(tmp_path / "t.calltrace")
    traced = session([begin, *stops, "calltrace stop", "!callstack"], "session_calls", "7")
    assert traced.said("!callstack") == untraced.said("!callstack")


def stops_at_exceptions(script: Sequence[str]) -> x64dbg.Transcript:
    return session([*script, *["run"] * 6, *["erun"] * 3], "seh")


def test_exceptions_are_told_as_untraced_and_passed_on(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    untraced, traced = stops_at_exceptions([]), stops_at_exceptions([start(trace)])
    chance = re.compile(r"^(?:First|Last) chance exception on .*$", re.MULTILINE)
    told = [
        [line for _, output in each.commands for line in chance.findall(output)]
        for each in (untraced, traced)
    ]
    assert told[0] == told[1]
    assert len(told[0]) >= 3
    ends = [
        [line for _, text in each.commands for line in re.findall(f"{ENDED} .*", text)]
        for each in (untraced, traced)
    ]
    assert ends[0] == ends[1] != []


def test_int3s_of_the_debugger_are_neither_copied_nor_overwritten(tmp_path: Path) -> None:
    places = ("straight", "straight_turn", "straight_back", "turns")
    looks = [f"!raw {at(place)}" for place in places]
    points = [f"bp {at(place)}" for place in places]
    begin = start(tmp_path / "t.calltrace")
    script = [
        *points,
        *looks,
        begin,
        *looks,
        "calltrace stop",
        *looks,
        *(f"bc {at(place)}" for place in places),
    ]
    shown = phases(x64dbg.REAL, [*script, *looks], (), ())
    for look in looks:
        before, traced, stopped, gone = said(shown, look)
        assert before.startswith("cc")
        assert traced.startswith("cc")
        assert stopped == before
        assert not gone.startswith("cc")


def test_a_target_that_is_started_again_has_its_breakpoints_and_can_be_recorded_again(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    again = x64dbg.init(targets.build("session_calls"), "7")
    points = ["bp session_calls:depth", "bp session_calls:leaf", "run"]  # on jumps to copies
    script = [start(trace), *points, again, "calltrace tree --function main", "run"]
    script += ["!click Start as last time", "bc session_calls:leaf", "run", "calltrace stacks"]
    shown = session([*script, "bc session_calls:depth", "run"], "session_calls", "7")
    assert f"the recorded program has ended; its trace is {windows.path(trace)}" in shown.commands[5][1]
    assert "session_calls!work" in shown.commands[6][1]
    assert "INT3 breakpoint at <session_calls.leaf>" in shown.commands[7][1]
    assert f"replacing {windows.path(trace)}" in shown.said("!click Start as last time")
    assert re.search(r"^  \d\d  session_calls!main\b", shown.said("calltrace stacks"), re.MULTILINE) is None
    assert f"{ENDED} 0xB (11)" in shown.commands[-1][1]
    with TraceFile(trace) as second:
        assert second.state == State.EXITED
        counts = {stat.name: stat.calls for stat in summarize(second).stats}
    assert counts["session_calls!leaf"] == 7  # it stood at the first


def test_a_target_that_is_detached_goes_on_as_if_untraced(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    shown = session([start(trace), "bp session_calls:depth", "run", "detach"], "session_calls", "7")
    assert re.search("the recorded program (has ended|was let go)", shown.said("detach"))
    with TraceFile(trace) as recorded:
        assert recorded.state in (State.EXITED, State.KILLED)
        counts = {stat.name: stat.calls for stat in summarize(recorded).stats}
    assert counts["session_calls!leaf"] == 7


def test_the_database_keeps_how_a_program_was_recorded(tmp_path: Path) -> None:
    trace, folder = tmp_path / "t.calltrace", tmp_path / "x64dbg"
    with x64dbg.installation(x64dbg.REAL) as program:
        shutil.copytree(program.parent, folder, symlinks=True)
    points = ["bp session_calls:leaf", "bp session_calls:work", "bpd session_calls:work"]
    first = [start(trace) + " session_calls!leaf", *points, "run", "run", "stop"]
    session(first, "session_calls", "7", installed=folder)
    second = ["calltrace top", "run", "!click Start as last time", "run", "calltrace top "]
    shown = session(second, "session_calls", "7", installed=folder)
    assert re.search(r"^ +1  session_calls!leaf", shown.said("calltrace top"), re.MULTILINE)
    assert (
        "INT3 breakpoint at <session_calls.leaf>" in shown.commands[2][1]
    )  # not of `work`, disabled by its user
    assert "session_calls.exe: 1 of " in shown.said("!click Start as last time")
    other = session(["calltrace top", "!click Start as last time"], "demo", installed=folder)
    assert other.said("calltrace top").startswith("calltrace: nothing has been recorded in this session")
    assert other.said("!click Start as last time") == "calltrace: this program has not been recorded yet\n"
