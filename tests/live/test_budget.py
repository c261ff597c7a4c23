"""Recordings with budgets, held against recordings of every call of the same programs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from calltrace.calltree import steps
from calltrace.export import report
from calltrace.model import STEP_RESUMED, StepType
from calltrace.tracefile import BLOCK, TraceFile
from corpus import test_cmake
from live.test_modes import CHOSEN, Target, counts, driver, folder
from live.test_targets import Driver
from rig import corpus, tracing

__all__ = ["driver", "folder"]  # fixtures
BUDGET = 3
# One takes long; another's threads have begun, or not, when its process ends.
LEFT_OUT = ("tail_calls", "callbacks")
SEVERAL_THREADS = ("plugin_host", "thread_crowd_killed")  # whose order differs from run to run

Path_ = tuple[str, ...]


def stacks_opened(file: Path) -> list[list[Path_]]:
    """Thread by thread, each frame that was opened, with the names of those below it."""
    found: list[list[Path_]] = []
    stack: list[str] = []
    with TraceFile(file) as trace:
        for step in steps(trace):
            if step.type == StepType.THREAD:
                found.append([])
            elif step.type == StepType.OPEN:
                stack.append(trace.node_name(step.kind, step.id))
                if not step.flags & STEP_RESUMED:
                    found[-1].append(tuple(stack))
            elif step.type == StepType.CLOSE:
                stack.pop()
    return found


def muted(file: Path) -> Counter[str]:
    with TraceFile(file) as trace:
        found = Counter[str]()
        for kind, numbers in trace.muted.items():
            for number, calls in numbers.items():
                found[trace.node_name(kind, number)] += calls
        return found


def assert_budgeted(every: Path, some: Path, budget: int, in_order: bool) -> None:
    """What is in the second file is what is in the first, but for what was muted."""
    assert counts(some) == counts(every)
    whole, part = stacks_opened(every), stacks_opened(some)
    called, left = (Counter(path[-1] for thread in each for path in thread) for each in (whole, part))
    assert muted(some) == called - left
    assert left.keys() == called.keys()
    assert len(part) == len(whole)
    if not in_order:
        return
    for all_frames, frames in zip(whole, part):
        rest = iter(all_frames)
        assert all(path in rest for path in frames)
        of_thread = Counter(path[-1] for path in frames)
        for name, calls in Counter(path[-1] for path in all_frames).items():
            assert of_thread[name] >= min(calls, budget)


@pytest.mark.parametrize("name", [name for name in CHOSEN if name not in LEFT_OUT])
def test_first_calls_are_recorded_and_all_are_counted(driver: Driver, folder: Path, name: str) -> None:
    target = Target(name, driver, folder)
    plain = target.run()
    assert target.run("trace") == plain
    every = target.trace("trace").rename(folder / "every.calltrace")
    assert target.run("trace", budget=BUDGET) == plain
    assert_budgeted(every, target.trace("trace"), BUDGET, name not in SEVERAL_THREADS)


def test_a_real_program_leaves_a_small_file(folder: Path) -> None:
    job = tracing.Job(corpus.program("cmake"), ["-P", "script.cmake"], folder / "work", test_cmake.prepare)
    plain = job.plain()
    every, some = folder / "every.calltrace", folder / "some.calltrace"
    assert job.traced(every, "--events", "functions") == plain
    assert job.traced(some, "--events", "functions", "--budget", str(BUDGET)) == plain
    assert counts(some) == counts(every)
    with TraceFile(every) as one, TraceFile(some) as other:
        assert other.index.units < one.index.units / 10
    told = json.loads(tracing.shell("info", some, "--json"))
    assert told["budget"] == BUDGET
    assert told["muted"]["calls"] == sum(muted(some).values()) > 1_000_000


def test_events_without_room_are_counted_and_told(driver: Driver, folder: Path) -> None:
    target = Target("tail_calls", driver, folder)
    plain = target.run()
    assert target.run("trace") == plain
    every = target.trace("trace").rename(folder / "every.calltrace")
    with TraceFile(every) as trace:
        base = trace.index.file_size - trace.index.event_chunks * BLOCK
    assert target.run("trace", budget=10**9, max_size=base + 3 * BLOCK) == plain
    some = target.trace("trace")
    assert counts(some) == counts(every)
    with TraceFile(some) as trace, TraceFile(every) as whole:
        assert 0 < trace.index.event_chunks <= 3
        assert trace.header.units_lost == whole.index.units - trace.index.units
        assert not trace.index.truncated
        [told] = report.missing(trace)
        assert told.endswith(f"{trace.header.units_lost:,} events lost where there was no room")
