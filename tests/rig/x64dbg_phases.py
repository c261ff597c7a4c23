"""Sessions of x64dbg with the program breakpoints, which does the same in each of three phases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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


def at(place: str) -> str:
    return f"{targets.symbols('breakpoints')[place]:x}"


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
