"""Manual debugging beside the trace in the real engine: breakpoints, steps, and ways to end.

tests/targets/breakpoints.c states how often each place runs; an untraced session is held to that, too.
"""

from __future__ import annotations

import functools
import re
import subprocess
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


@functools.cache
def symbols() -> dict[str, int]:
    """The VAs in the program, which is loaded where it wants to be."""
    listed = subprocess.run(
        ["x86_64-w64-mingw32-nm", targets.build("breakpoints")], capture_output=True, text=True, check=True
    )
    found = re.findall(r"^([0-9a-f]+) \w (\w+)$", listed.stdout, re.MULTILINE)
    return {name: int(address, 16) for address, name in found}


def at(place: str) -> str:
    return f"{symbols()[place]:#x}"


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


@pytest.mark.parametrize("kinds", [SOFTWARE, HARDWARE], ids=["software", "hardware"])
def test_kinds_of_breakpoints_hit_as_often_as_untraced(kinds: dict[str, str], tmp_path: Path) -> None:
    commands = [line for place, kind in kinds.items() for line in counting(kind, [place])]
    commands.append("bu nosuch!function")
    plain = phases(commands, ["bl"], ["bl"])
    traced = phases([*commands, start(tmp_path / "t.calltrace")], ["bl"], ["!calltrace stop", "bl"])
    assert hits(traced) == hits(plain)
    assert {place for phase in hits(plain) for place in phase if phase[place]} == set(kinds) - {"callee"}
    assert [output for command, output in traced.commands if command == "bl"] == [
        output for command, output in plain.commands if command == "bl"
    ]
    check_ended(plain)
    check_ended(traced)
