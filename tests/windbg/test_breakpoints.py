"""Manual debugging beside the trace in the real engine: breakpoints, steps, and ways to end.

tests/targets/breakpoints.c states how often each place runs; an untraced session is held to that, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from rig import targets, tracing, windbg, windows

# Place -> how often it runs in each phase.
RUNS = {
    "straight": (3, 3, 3),
    "straight_fifth": (3, 3, 3),
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
    "serve": (0, 1, 0),  # the first thread enters it before the breakpoint is set
    "serve_turn": (3, 6, 6),
    "padding": (0, 0, 0),
}
PADDING = 25
COUNTERS = {
    place: number for number, place in enumerate([*RUNS, "written"])
}  # pseudo-registers $t0, $t1, ...
REPORT = '.printf "hits {}\\n", {}'.format(
    " ".join(["%d"] * len(COUNTERS)), ", ".join(f"@$t{number}" for number in COUNTERS.values())
)
FORGET = "; ".join(f"r $t{number} = 0" for number in COUNTERS.values())


def at(place: str) -> str:
    return f"{targets.symbols('breakpoints')[place]:#x}"


def counting(kind: str = "bp {}", places: Sequence[str] = tuple(RUNS)) -> list[str]:
    """Commands that count hits; `kind` has room for the address."""
    return [
        f'{kind.format(at(place))} "r $t{COUNTERS[place]} = @$t{COUNTERS[place]} + 1; gc"' for place in places
    ]


def start(trace: Path) -> str:
    return f"!calltrace start -o {windows.path(trace)}"


def phases(*commands: Sequence[str], arguments: Sequence[str] = ()) -> windbg.Transcript:
    """A session that gives the commands of each phase at its beginning, and lets the rest run."""
    script = [windbg.LOAD, f"bp {at('phase')}", "g"]
    for given in commands:
        script += [*given, "g", REPORT, FORGET]
    return windbg.run([*script, "bc *", "g"], [targets.build("breakpoints"), *arguments], timeout=40)


def hits(shown: windbg.Transcript) -> list[dict[str, int]]:
    """What was counted in each phase."""
    lines = [output.split()[1:] for command, output in shown.commands if command == REPORT]
    return [dict(zip(COUNTERS, map(int, line))) for line in lines]


def expected(places: Sequence[str] = tuple(RUNS)) -> list[dict[str, int]]:
    """What the target states."""
    return [{place: RUNS[place][phase] if place in places else 0 for place in COUNTERS} for phase in range(3)]


def check_ended(shown: windbg.Transcript) -> None:
    """The program has come to its end and printed what it prints untraced."""
    assert not shown.has_target
    assert shown.stdout == b"195 8\r\n"


def calls(trace: Path) -> dict[str, int]:
    """How often each function was called, says the trace."""
    done = tracing.calltrace("top", "--limit", "0", trace)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r" ([\d,]+)  \w+!(\w+)$", done.stdout.decode(), re.MULTILINE)
    return {name: int(count.replace(",", "")) for count, name in rows}


def test_the_target_runs_its_places_as_it_states() -> None:
    shown = phases(counting(), (), ())
    assert hits(shown) == expected()
    check_ended(shown)


def test_breakpoints_set_before_start_hit_as_often_with_the_trace_and_after_stop(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    shown = phases(counting(), [start(trace)], ["!calltrace stop"])
    assert hits(shown) == expected()
    check_ended(shown)
    recorded = calls(trace)
    for function in ("straight", "callee", "short_one", "next_to_it"):
        assert recorded[function] == RUNS[function][1]
    assert (recorded["turns"], recorded["serve"]) == (2, 1)


def test_breakpoints_set_beside_the_trace_hit_as_often_with_it_and_after_stop(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    shown = phases([start(trace)], counting(), ["!calltrace stop"])
    assert hits(shown) == [expected([])[0], *expected()[1:]]
    check_ended(shown)


def test_breakpoints_hit_as_often_in_a_second_recording_and_while_one_is_paused(tmp_path: Path) -> None:
    first, second = tmp_path / "1.calltrace", tmp_path / "2.calltrace"
    again = ["!calltrace stop", start(second) + " --clock tsc", "bl"]
    shown = phases([*counting(), start(first)], again, ["!calltrace pause"])
    assert hits(shown) == expected()
    check_ended(shown)


SOFTWARE = {
    "straight": "bm breakpoints*!straight",
    "straight_fifth": "bu {}",
    "straight_turn": "bp {} 0n20",  # the 20th time, and each time from then on
    "straight_back": "bp /1 {}",
    "callee": "~1 bp {}",  # by a thread that does not call it
    "serve_turn": "~1 bp {}",  # by the first of two
    "turns": "~0 bp {}",
}
HARDWARE = {"turns": "ba e1 {}", "turns_end": "ba e1 {}", "written": "ba w4 {}", "straight_ret": "ba e1 {}"}


def check_kinds(plain: windbg.Transcript, traced: windbg.Transcript, hit: set[str]) -> None:
    assert hits(traced) == hits(plain)
    assert {place for phase in hits(plain) for place in phase if phase[place]} == hit
    for command, output in plain.commands:
        if command == "bl":
            assert output in [listed for given, listed in traced.commands if given == "bl"]
    check_ended(plain)
    check_ended(traced)


def test_kinds_of_breakpoints_hit_as_often_as_untraced(tmp_path: Path) -> None:
    commands = [line for place, kind in SOFTWARE.items() for line in counting(kind, [place])]
    commands.append("bu nosuch!function")
    plain = phases(commands, ["bl"], ["bl"])
    traced = phases([*commands, start(tmp_path / "t.calltrace")], ["bl"], ["!calltrace stop", "bl"])
    check_kinds(plain, traced, set(SOFTWARE) - {"callee"})


def test_hardware_breakpoints_hit_as_often_as_untraced(tmp_path: Path) -> None:
    # They are gone before the recorder's thread ends. While any is set, Wine asks for the debug registers of
    # a thread that traps; if another thread's debug event has just stopped the process, it waits for itself,
    # and for ever. So it does without a trace.
    commands = [line for place, kind in HARDWARE.items() for line in counting(kind, [place])]
    clear = "bc 1; bc 2; bc 3; bc 4"
    plain = phases(commands, ["bl"], [clear])
    traced = phases([*commands, start(tmp_path / "t.calltrace")], ["bl"], [clear, "!calltrace stop"])
    check_kinds(plain, traced, set(HARDWARE))


def test_a_stop_tells_where_its_user_has_set_the_breakpoint(tmp_path: Path) -> None:
    """And while the target stands still `bl` has what he typed; so it is with one that a command sets."""
    set_by_command = f'bp {at("callee")} "bp {at("straight_back")}; bc 2; gc"'
    shown = phases(
        [
            f"bp {at('straight_turn')}",
            set_by_command,
            start(tmp_path / "t.calltrace"),
            "bl",
            "g",
            "bl",
            "bc 1",
            "g",
            "bl",
        ],
        ["bc 1 2"],
        ["!calltrace stop"],
    )
    listed = [output for command, output in shown.commands if command == "bl"]
    assert listed[0] == listed[1]
    for place in ("straight_turn", "straight_back"):
        address = f"{targets.symbols('breakpoints')[place]:016x}"
        told = [output for _, output in shown.commands if f"is at {address}" in output]
        assert told
        assert "Breakpoint 1 hit\n" in told[0]
    assert f"{targets.symbols('breakpoints')['straight_back']:016x}" in listed[2].replace("`", "")
    check_ended(shown)


HERE = '.printf "%y\\n", @rip'
STEPS = (
    "gu",  # from straight's first byte to who called it
    "g",  # to the breakpoint there again
    "pc",  # to its call
    "t",  # into callee
    "gu",  # out of it
    "p",  # one instruction on
    "pt",  # to its ret
    "p",  # to who called it
    "pct",  # to the next call or return of that
    "t",  # into straight
)
ADDRESSES = (
    "straight_fifth",  # in the middle of the jump to the copy
    "straight_turn",
    "straight_turn",
    "callee",
    "straight_ret",
    "turns",
    "turns_end",
    "short_ret",
    "next_to_it",
)


def where(steps: Sequence[str], trace: Path | None = None) -> list[str]:
    """Names of the places that steps from straight's first byte on end at."""
    script = [start(trace)] if trace else []
    script += [f"bp {at('straight')}", "g", HERE, *(line for step in steps for line in (step, HERE))]
    shown = phases((), [*script, "bc 1"], ())
    check_ended(shown)
    # Without their addresses; a copy of what has no name shows as `module!+0x...`.
    return [output.replace("!+", "+").split("(")[0] for command, output in shown.commands if command == HERE]


def test_steps_end_where_they_end_untraced(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    untraced = where(STEPS)
    assert where(STEPS, trace) == untraced
    assert len(set(untraced)) > len(STEPS) // 2
    recorded = calls(trace)
    assert (recorded["straight"], recorded["callee"], recorded["turns"]) == (6, 6, 4)  # to the end


def test_go_to_an_address_ends_where_it_ends_untraced(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    steps = ["bc 1", *(f"g {at(place)}" for place in ADDRESSES)]
    untraced = where(steps)
    assert where(steps, trace) == untraced
    assert len(set(untraced)) == len(set(ADDRESSES)) + 1
    recorded = calls(trace)
    assert (recorded["straight"], recorded["callee"], recorded["turns"]) == (6, 6, 4)


def test_go_to_an_address_in_a_jump_hurts_nothing_however_often_breakpoints_are_put_in(
    tmp_path: Path,
) -> None:
    """Conditional breakpoints are hit, and put in anew, while the engine's own one waits in the jump."""
    steps = [*counting(places=["callee", "turns", "short_ret"]), "bc 1", f"g {at('padding')}"]
    shown = phases((), [start(tmp_path / "t.calltrace"), *steps, FORGET], ())
    check_ended(shown)
    jump = [start(tmp_path / "j.calltrace"), *counting(places=["turns"]), f"bp {at('callee')}", "g", "bc 2"]
    shown = phases((), [*jump, f"g {at('straight_fifth')}", "r rip", f"g {at('straight_fifth')}"], ())
    check_ended(shown)


def ended(trace: Path) -> str:
    """How the recording ended, says the trace."""
    done = tracing.calltrace("info", trace)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.decode().splitlines() if line.startswith("ended ")]
    return line[len("ended ") :].strip()


def recorded_until(trace: Path, *last: str, arguments: Sequence[str] = ()) -> windbg.Transcript:
    """A session that is recorded from the first phase on, and gives the commands `last` in the second."""
    script = [windbg.LOAD, f"bp {at('phase')}", "g", f"bp {at('straight_back')}", start(trace)]
    script += ["g", "g", "g", "g", *last]
    return windbg.run(script, [targets.build("breakpoints"), *arguments], timeout=40)


def test_a_target_that_is_detached_goes_on_as_if_untraced(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    shown = recorded_until(trace, ".detach")
    check_ended(shown)
    assert "recording" not in ended(trace)
    assert calls(trace)["straight"] >= 3


@pytest.mark.parametrize("command", [".kill", "q"])
def test_a_target_that_is_killed_leaves_its_trace(command: str, tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    recorded_until(trace, command)
    assert ended(trace).startswith("terminated")
    recorded = calls(trace)
    assert (recorded["straight"], recorded["callee"], recorded["turns"]) == (3, 3, 2)


@pytest.mark.parametrize(
    ("argument", "go", "end"),
    [("crash", "gN", "terminated, exit code 3221225509"), ("exit", "g", "by itself, exit code 5")],
)
def test_a_target_that_ends_in_the_middle_leaves_its_trace(
    argument: str, go: str, end: str, tmp_path: Path
) -> None:
    trace = tmp_path / "t.calltrace"
    shown = recorded_until(trace, "bc *", "g", go, go, arguments=[argument])
    assert not shown.has_target
    assert ended(trace) == end
    recorded = calls(trace)
    assert (recorded["straight"], recorded["callee"], recorded["turns"], recorded["serve"]) == (6, 6, 4, 1)


def test_the_next_target_of_the_debugger_can_be_recorded(tmp_path: Path) -> None:
    first, second = tmp_path / "1.calltrace", tmp_path / "2.calltrace"
    program = windows.path(targets.build("breakpoints"))
    create = [".detach", f".create {program}", windbg.LOAD]  # extensions go with the last target
    again = [f"bp {at('phase')}", "g", f"bp {at('straight_back')}", start(second), "g", "g", "g", "g"]
    shown = recorded_until(first, *create, *again, "!calltrace stop", "bc *", "g")
    assert not shown.has_target
    assert shown.stdout == 2 * b"195 8\r\n"
    assert "recording" not in ended(first).split(",")[0].replace("recording was stopped", "")
    assert ended(second).startswith("recording was stopped")
    assert calls(second)["straight"] == 3
