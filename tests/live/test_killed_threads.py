"""Threads that are terminated, or suspended, in the middle of recording."""

from __future__ import annotations

from pathlib import Path

import pytest

from calltrace.calltree import summarize
from calltrace.model import Cause
from calltrace.tracefile import TraceFile
from rig import targets, tracing

THREADS = 80


@pytest.mark.parametrize(("clock", "mode"), [("none", "trace"), ("tsc", "trace"), ("none", "graph")])
def test_terminated_threads_leave_what_they_recorded_and_harm_nobody(
    tmp_path: Path, clock: str, mode: str
) -> None:
    file = tmp_path / "made.calltrace"
    words = ("--mode", mode, "--events", "functions", "--clock", clock, "--include", "thread_kills!step")
    program = targets.build("thread_kills")
    done = tracing.calltrace("run", "--quiet", "-o", file, *words, "--", program)
    assert done.returncode == 43, done.stderr.decode()
    *counts, quiet = done.stdout.decode().splitlines()
    assert quiet == f"quiet {4 * THREADS}"  # nobody counts while suspended

    with TraceFile(file) as trace:
        summary = summarize(trace)
        units = [thread.units for thread in trace.threads]
    assert summary.gaps == summary.lost == summary.orphans == 0
    assert set(summary.unclosed) <= {Cause.PROCESS_END}
    # A thread's start, then two units for each call; the last may lack one, or not be counted yet.
    assert len(units) == THREADS
    for count, found in zip(map(int, counts), units):
        assert abs(found - 1 - 2 * count) <= 1
