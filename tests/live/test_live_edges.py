"""Who called whom in real programs: as the call trees at the top of their sources say."""

from __future__ import annotations

from pathlib import Path

import pytest

from calltrace.edges import contexts
from calltrace.patterns import Pattern
from calltrace.tracefile import TraceFile
from rig import targets, tracing

QSORT, BSEARCH = "msvcrt.dll!qsort", "msvcrt.dll!bsearch"
# Function: callers, with "by a jump" where it is one. A million jumps from ping to pong and back.
TAIL_CALLS = {
    "one": {
        "direct by a jump": 2,
        "through_memory by a jump": 1,
        "through_register by a jump": 1,
        "through_table by a jump": 1,
        "short_jump by a jump": 1,
        "conditional by a jump": 1,
        "adds": 1,
    },
    "direct": {"main": 1, "over_two by a jump": 1},
    "adds": {"with_frame by a jump": 1},
    "ping": {"main": 2, "pong by a jump": 500_000},
    "pong": {"ping by a jump": 500_000},
    "stack_pointer": {"ping by a jump": 2},
}
CALLBACKS = {"compare": {BSEARCH: 2, QSORT: 1}, "compare_sorted": {QSORT: 1}}
WITHOUT_CALLS = {"compare": {"library": 2, "compare_sorted": 1}, "compare_sorted": {"library": 1}}
CALLEES_OF_COMPARE_SORTED = {QSORT: 1}


def told(trace: TraceFile, function: str, callees: bool = False) -> dict[str, int]:
    stem = trace.modules[0].stem
    (context,) = contexts(trace, [Pattern.parse(f"{stem}!{function}")], callees=callees)
    return {
        other.name.removeprefix(f"{stem}!") + (" by a jump" if other.tail else ""): other.calls
        for other in context.others.values()
    }


@pytest.mark.parametrize(
    ("program", "events", "expected"),
    [
        ("tail_calls", "functions", TAIL_CALLS),
        ("tail_calls", "all", TAIL_CALLS),
        ("callbacks", "all", CALLBACKS),
        ("callbacks", "functions", WITHOUT_CALLS),
    ],
)
def test_callers_are_those_of_the_source(
    tmp_path: Path, program: str, events: str, expected: dict[str, dict[str, int]]
) -> None:
    path = tmp_path / "t.calltrace"
    tracing.calltrace("run", "--quiet", "--events", events, "-o", path, "--", targets.build(program))
    with TraceFile(path) as trace:
        assert {function: told(trace, function) for function in expected} == expected
        if expected is CALLBACKS:
            assert told(trace, "compare_sorted", callees=True) == CALLEES_OF_COMPARE_SORTED
    path.unlink()
