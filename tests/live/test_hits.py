"""Recordings of first entries: each function that was entered is there once, and its hook is gone afterwards.

What ran is held against recordings of every call; that nothing is noticed, against untraced runs and what the
sources say of their programs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from calltrace.calltree import Summary, function_stats, summarize
from calltrace.model import NodeKind, State
from calltrace.tracefile import TraceFile
from live.test_entries import AS_PLAIN, EXIT_CODE, PACKED
from live.test_session import Running, file, run, session
from rig import targets, windows

THREADS, CALLS = 8, 1000  # of tests/targets/first_entries.c
NOP = "0f"
__all__ = ["file"]  # the fixture


def functions(summary: Summary, trace: TraceFile) -> dict[int, str]:
    """The functions of the program that were entered: RVA -> name without the module's."""
    base = trace.modules[0].base
    return {
        stat.address - base: stat.name.rpartition("!")[2]
        for stat in summary.stats
        if stat.kind == NodeKind.FUNCTION and stat.address is not None
    }


def hits(file: Path) -> dict[int, str]:
    """The functions in a recording of first entries, where each may be once only."""
    with TraceFile(file) as trace:
        summary = summarize(trace)
        assert trace.mode == "hits"
        assert summary.orphans == summary.gaps == summary.lost == 0
        assert not summary.unclosed
        assert summary.max_depth == 1
        assert {stat.calls for stat in function_stats(trace)} == {1}
        return functions(summary, trace)


def entered(file: Path) -> dict[int, str]:
    """The functions in a recording of every call."""
    with TraceFile(file) as trace:
        return functions(summarize(trace), trace)


@pytest.mark.parametrize("clock", ["none", "tsc", "coarse"])
def test_first_entries_are_those_of_all_functions_in_a_trace_of_every_call(file: Path, clock: str) -> None:
    every = file.with_suffix(".every")
    outputs = []
    for output, mode in ((every, "trace"), (file, "hits")):
        done = run(
            "session_calls", "1000", output=windows.path(output), events="functions", clock=clock, mode=mode
        )
        assert done.returncode == 11, done.stderr.decode()
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert hits(file) == entered(every)
    assert {"leaf", "depth", "work", "main"} <= set(hits(file).values())


def code_seen(stdout: bytes) -> dict[str, str]:
    """What first_entries tells: "NAME before" or "NAME after" -> how its code was, and the calls' sum."""
    return dict(line.split(": ") for line in stdout.decode().splitlines())


def test_code_is_as_before_once_it_was_entered_or_a_jump_past_the_hook(file: Path) -> None:
    numbers = CALLS * (CALLS - 1) // 2
    sums = {
        "aligned": THREADS * (numbers + CALLS),
        "straddling": THREADS * (numbers + 2 * CALLS),
        "cramped": THREADS * numbers,
        "hemmed_in": THREADS * numbers,
    }
    plain = windows.run([targets.build("first_entries")])
    assert plain.returncode == 3
    assert code_seen(plain.stdout) == {
        **{f"{name} before": "own" for name in sums},
        **{f"{name} after": f"own, {total}" for name, total in sums.items()},
    }
    done = run("first_entries", output=windows.path(file), mode="hits")
    assert done.returncode == 3, done.stderr.decode()
    assert code_seen(done.stdout) == {
        "aligned before": "e9",
        "straddling before": "e9",
        "cramped before": "eb",
        "hemmed_in before": "cc",
        "aligned after": f"own, {sums['aligned']}",
        "straddling after": f"jump to {NOP}, {sums['straddling']}",  # no one aligned store covers its start
        "cramped after": f"own, {sums['cramped']}",
        "hemmed_in after": f"own, {sums['hemmed_in']}",
    }
    assert {*sums, "main", "work"} <= set(hits(file).values())


@pytest.mark.parametrize("place", ["first", "last"])
def test_packed_functions_are_each_recorded_once_and_unnoticed(file: Path, place: str) -> None:
    done = run("packed", "200", place, output=windows.path(file), mode="hits")
    assert (done.stdout.decode().strip(), done.returncode) == (AS_PLAIN, EXIT_CODE), done.stderr.decode()
    assert set(PACKED) <= set(hits(file).values())


def test_a_busy_program_is_recorded_again_and_again_and_left_as_it_was(file: Path) -> None:
    running = Running("packed", "wait", "first")
    for attempt in range(4):
        made_now = file.with_suffix(f".{attempt}")
        mode = ("hits", "trace")[attempt % 2]
        done = session(
            "attach",
            {"output": windows.path(made_now), "mode": mode},
            process_id=running.process_id,
            seconds=0.1,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert b"changed by others" not in done.stderr
        if mode == "hits":
            assert set(PACKED) <= set(hits(made_now).values())
            with TraceFile(made_now) as trace:
                assert trace.state == State.STOPPED
        else:
            assert set(PACKED) <= set(entered(made_now).values())
    assert running.end() == (AS_PLAIN, EXIT_CODE)
