"""Functions without room for a jump at their start, entered through breakpoints.

Every call is recorded, and a program with int3s and an exception handler of its own notices nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from calltrace.calltree import summarize
from calltrace.export import report
from calltrace.model import Cause, Entry, State
from calltrace.tracefile import TraceFile
from live.test_session import Running, calls, file, run, session
from rig import targets, windows

THREADS, ROUNDS, LEVELS = 4, 200, 40
AS_PLAIN, EXIT_CODE = "wrong 0, own int3s all, others none", 9
# What tests/targets/packed.c says of itself: calls per thread and round, and how it has to be entered.
PACKED = {
    "nothing": (2, Entry.BREAKPOINT),
    "nothing_more": (2, Entry.BREAKPOINT),
    "zero": (1, Entry.BREAKPOINT),
    "jump": (1, Entry.BREAKPOINT),
    "identity": (1, Entry.BREAKPOINT),
    "target_of_jump": (2, Entry.BREAKPOINT),
    "loop_to_0": (1, Entry.JUMP),
    "loop_to_1": (1, Entry.BREAKPOINT),
    "loop_to_2": (1, Entry.BREAKPOINT),
    "loop_to_3": (1, Entry.BREAKPOINT),
    "loop_to_4": (1, Entry.BREAKPOINT),
    "call_at_0": (1, Entry.BREAKPOINT),
    "callee": (2, Entry.JUMP),
    "tail_call": (1, Entry.BREAKPOINT),
    "stops": (1, Entry.BREAKPOINT),
    "last": (2, Entry.BREAKPOINT),
}
__all__ = ["file"]  # the fixture


def test_the_program_does_what_it_says_of_itself() -> None:
    for place in ("first", "last"):
        done = windows.run([targets.build("packed"), str(ROUNDS), place])
        assert (done.stdout.decode().strip(), done.returncode) == (AS_PLAIN, EXIT_CODE)


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("clock", ["none", "tsc"])
def test_every_call_of_a_packed_function_is_recorded_and_unnoticed(
    file: Path, place: str, clock: str
) -> None:
    done = run("packed", str(ROUNDS), place, output=windows.path(file), events="functions", clock=clock)
    assert (done.stdout.decode().strip(), done.returncode) == (AS_PLAIN, EXIT_CODE), done.stderr.decode()
    expected = {name: number * THREADS * ROUNDS for name, (number, _) in PACKED.items()}
    expected["nothing"] += THREADS * LEVELS
    with TraceFile(file) as trace:
        [module] = trace.modules
        records = {module.names.get(record.rva): record for record in trace.functions(module)}
        assert not [record for record in records.values() if record.status and not record.thunk]
        assert {name: records[name].entry for name in PACKED} == {name: e for name, (_, e) in PACKED.items()}
        summary = summarize(trace)
        found = calls(summary)
        assert {name: found.get(name) for name in PACKED} == expected
        assert summary.orphans == summary.gaps == summary.lost == 0
        told = report.info(trace, summary)["modules"][0]
        assert told["functions"]["by_entry"]["breakpoint"] == len(told["breakpoints"])
        assert {place["name"] for place in told["breakpoints"]} >= {
            f"packed!{name}" for name, (_, entry) in PACKED.items() if entry is Entry.BREAKPOINT
        }
        assert summary.max_depth <= LEVELS + 2  # every call has its end, those that run into an int3 too


def test_a_function_without_unwind_data_can_be_recorded_alone(file: Path) -> None:
    done = run("packed", "20", "last", output=windows.path(file), include=["packed!zero"])
    assert (done.stdout.decode().strip(), done.returncode) == (AS_PLAIN, EXIT_CODE), done.stderr.decode()
    with TraceFile(file) as trace:
        assert calls(summarize(trace)) == {"zero": 20 * THREADS}


def test_packed_functions_are_left_alone_on_request(file: Path) -> None:
    done = run("packed", "20", "first", output=windows.path(file), events="functions", breakpoints=False)
    assert (done.stdout.decode().strip(), done.returncode) == (AS_PLAIN, EXIT_CODE), done.stderr.decode()
    with TraceFile(file) as trace:
        found = calls(summarize(trace))
    left = {name for name, (_, entry) in PACKED.items() if entry is not Entry.BREAKPOINT}
    assert {name for name in PACKED if name in found} == left


def test_a_program_busy_in_packed_functions_is_recorded_again_and_again_and_left_as_it_was(
    file: Path,
) -> None:
    running = Running("packed", "wait", "first")
    for attempt in range(4):
        made_now = file.with_suffix(f".{attempt}")
        done = session(
            "attach", {"output": windows.path(made_now)}, process_id=running.process_id, seconds=0.1
        )
        assert done.returncode == 0, done.stderr.decode()
        assert b"changed by others" not in done.stderr
        with TraceFile(made_now) as made:
            summary = summarize(made)
            assert made.state == State.STOPPED
            found = calls(summary)
            rounds = found["zero"]
            assert rounds > 100
            for name, (number, _) in PACKED.items():
                # each thread is somewhere in a round at the start and at the end
                assert abs(found[name] - number * rounds) <= 2 * number * THREADS, name
            assert summary.gaps == summary.lost == 0
            # a thread that is just being given a new block ends its recording by itself, a little later
            assert set(summary.unclosed) <= {Cause.STOPPED, Cause.RUNNING}
    assert running.end() == (AS_PLAIN, EXIT_CODE)
