"""The stacks of a program that is being recorded, read by another process meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calltrace.calltree import summarize
from calltrace.model import Cause
from calltrace.stacks import Stack, stacks
from calltrace.tracefile import TraceFile
from rig import targets, tracing, windows

SECONDS = windows.HANGS
WAIT, CALLED = "KERNEL32.dll!WaitForSingleObject", "wait_for_end"
# Of each thread that waits in tests/targets/waiting.c, from the innermost frame on.
WAITING = sorted(
    [
        *([WAIT, CALLED, *["descend"] * levels, "keep_waiting"] for levels in (1, 2, 3)),
        [WAIT, CALLED, "inside", "fiber_body"],
    ]
)
STARTUP = {"__tmainCRTStartup", "mainCRTStartup", "WinMainCRTStartup"}


def is_settled(path: Path) -> bool:
    """Has each thread come to where it waits? It says so a moment before."""
    with TraceFile(path) as trace:
        found = [names(stack) for stack in stacks(trace)]
    return found[0][:1] == ["msvcrt.dll!getchar"] and len(waiting(found)) == len(WAITING)


@pytest.fixture
def recorded(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The waiting program, all its threads where they should be, while it is recorded; and the trace."""
    trace = tmp_path / "waiting.calltrace"
    options = getattr(request, "param", ["--max-size", "128M"])
    command = [tracing.CALLTRACE, "run", "--quiet", "-o", trace, *options, "--", targets.build("waiting")]
    windows.keep_wine_running()
    process = subprocess.Popen(
        command, env=windows.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline().split()[0] == b"process"
    deadline = time.monotonic() + SECONDS
    while not is_settled(trace):
        assert time.monotonic() < deadline, "not all threads come to wait"
    yield process, trace
    process.stdin.close()
    # Of what waits for room for its events, the end of calltrace is the end of waiting.
    process.terminate()
    process.wait(SECONDS)
    process.stdout.close()
    shutil.rmtree(tmp_path)


def names(stack: Stack) -> list[str]:
    return [frame.name.removeprefix("waiting!") for frame in stack.frames()]


def is_waiting(stack: list[str]) -> bool:
    return stack[:1] == [WAIT]


def waiting(found: list[list[str]]) -> list[list[str]]:
    return sorted(stack for stack in found if is_waiting(stack))


def check_waiting(told: Any) -> None:
    """What is told is what the source says of the threads that wait."""
    assert told["state"] == "cut"
    found = [
        [frame["name"].removeprefix("waiting!") for frame in thread["frames"]] for thread in told["threads"]
    ]
    main = [name for name in found[0] if name not in STARTUP]
    assert main == ["msvcrt.dll!getchar", "main"]
    assert waiting(found) == WAITING
    for thread in told["threads"]:
        for frame in thread["frames"]:
            if frame["name"] == WAIT:
                assert frame["call_site"].startswith("waiting+0x")
                assert (
                    int(frame["call_address"], 16) - int(frame["call_site"].split("+")[1], 16) == 0x140000000
                )


def test_every_host_sees_the_stacks_of_now(recorded: tuple[subprocess.Popen[bytes], Path]) -> None:
    _, trace = recorded
    done = tracing.calltrace("stacks", trace, "--json")
    assert done.returncode == 0, done.stderr
    check_waiting(json.loads(done.stdout))
    done = windows.python("-m", "calltrace", "stacks", windows.path(trace), "--json")
    assert done.returncode == 0, done.stderr
    check_waiting(json.loads(done.stdout))


def is_churning(stack: list[str]) -> bool:
    """Can a thread of the target that never rests be there?"""
    return not stack or (stack[-1] == "busy" and set(stack[:-1]) <= {"churn"} and len(stack) <= 10)


def check_whole(trace: TraceFile) -> None:
    """Nothing is missing between its beginning and where each thread is."""
    summary = summarize(trace)
    assert summary.orphans == summary.gaps == 0
    assert set(summary.unclosed) <= {Cause.CUT, Cause.SWITCHED}
    found = [names(stack) for stack in stacks(trace)]
    assert waiting(found) == WAITING
    assert all(is_churning(stack) for stack in found[1:] if not is_waiting(stack))


def test_a_file_that_grows_is_read_without_a_hole(recorded: tuple[subprocess.Popen[bytes], Path]) -> None:
    _, path = recorded
    with TraceFile(path) as trace:
        check_whole(trace)
    deadline = time.monotonic() + SECONDS
    sizes: list[int] = []
    while len(sizes) < 20 or sizes[-1] > sizes[-20]:  # until the trace is full
        assert time.monotonic() < deadline, "the trace never stops growing"
        with TraceFile(path) as trace:
            sizes.append(trace.index.units)
            assert trace.index.lost == trace.index.damaged_chunks == 0
            assert not trace.problems
            few = [thread.index for thread in trace.threads if thread.units < 1000]
            assert waiting([names(stack) for thread in few for stack in stacks(trace, thread)]) == WAITING
    assert sizes == sorted(sizes)
    with TraceFile(path) as trace:
        check_whole(trace)


@pytest.mark.parametrize(
    "recorded", [["--max-size", "24M", "--policy", "drop-oldest", "--clock", "tsc"]], indirect=True
)
def test_what_is_overwritten_meanwhile_is_told_as_lost(
    recorded: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, path = recorded
    for _ in range(12):
        with TraceFile(path) as trace:
            assert trace.index.damaged_chunks == 0
            found = list(stacks(trace))
            assert waiting([names(stack) for stack in found]) == WAITING
            for stack in found[1:]:
                frames = names(stack)
                # What lies below where the oldest events went is not known.
                if stack.incomplete and "busy" not in frames:
                    frames.append("busy")
                assert is_waiting(frames) or is_churning(frames)
    assert process.stdin
    process.stdin.close()
    assert process.wait(SECONDS) == 5
    with TraceFile(path) as trace:
        assert all(stack.cause == Cause.THREAD_EXIT for stack in list(stacks(trace))[1:])
