"""What budgets leave of a recording is read as the same calls, but for those that were muted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace.calltree import steps
from calltrace.model import STEP_OTHERS, STEP_RESUMED, STEP_TAIL_CALLEE, NodeKind, StepType
from calltrace.tracefile import TraceFile
from rig import simulated, tracewriter
from rig.budgeted import file_of, with_budget
from rig.simulated import SimulatedThread
from rig.tracewriter import TraceWriter, Units
from unit.test_fibers import Fibers, open_trace

SLOW = [HealthCheck.function_scoped_fixture]
BUDGETS = [1, 2, 5]


class Ticking(Units):
    """Units no two of which are at the same time."""

    def event(self, event: int, number: int) -> None:
        self.now += 1
        super().event(event, number)


@dataclass
class Frame:
    """A frame as a reader tells it. Its begin and depth tell it from all others of its thread."""

    kind: int
    id: int
    begin: int
    parent: Frame | None
    resumed: bool
    callee: bool  # entered by a jump
    end: int = 0
    cause: int = 0
    children: list[Frame] = field(default_factory=list)

    @property
    def key(self) -> tuple[object, ...]:
        return (self.kind, self.id, self.begin, self.end, self.cause, self.resumed)

    def path(self) -> tuple[object, ...]:
        """All that is to be the same in both traces."""
        return (*(self.parent.path() if self.parent else ()), self.key)


@dataclass
class Told:
    """What a reader tells of one thread."""

    frames: list[Frame] = field(default_factory=list)
    others: list[tuple[int, ...]] = field(default_factory=list)
    muted: Counter[tuple[int, int]] = field(default_factory=Counter)


def read(trace: TraceFile, timed: bool) -> dict[int, Told]:
    """By thread index."""
    found: dict[int, Told] = {}
    stack: list[Frame] = []
    for step in steps(trace):
        told = found.setdefault(trace.threads[step.thread].index, Told())
        time = step.time if timed else 0
        if step.type == StepType.OPEN:
            parent = stack[-1] if stack else None
            flags = (bool(step.flags & flag) for flag in (STEP_RESUMED, STEP_TAIL_CALLEE))
            frame = Frame(step.kind, step.id, time, parent, *flags)
            told.frames.append(frame)
            stack.append(frame)
            if parent:
                parent.children.append(frame)
        elif step.type == StepType.CLOSE:
            frame = stack.pop()
            frame.end, frame.cause = time, step.cause
        elif step.type == StepType.MUTED:
            assert not step.flags & STEP_OTHERS
            told.muted[step.kind, step.id] += step.value
        elif step.type != StepType.THREAD:
            told.others.append((step.type, time, step.id, step.kind, step.value, step.depth))
    return found


def is_part(part: list[tuple[object, ...]], whole: list[tuple[object, ...]]) -> bool:
    """Whether all of `part` is in `whole`, in its order."""
    rest: Iterator[tuple[object, ...]] = iter(whole)
    return all(each in rest for each in part)


def calls(told: Told) -> Counter[tuple[int, int]]:
    return Counter((frame.kind, frame.id) for frame in told.frames if not frame.resumed)


def assert_budgeted(trace: TraceFile, budget: int, path: Path, together: int = 64) -> dict[int, Told]:
    """What every trace with budgets has to be; what is told of it by thread."""
    timed = trace.header.unit_size == 8
    made = with_budget(trace, budget, together)
    whole = read(trace, timed)
    with TraceFile(file_of(trace, made.blocks, path)) as short:
        found = read(short, timed)
        assert short.index.damaged_chunks == 0
    muted = Counter[tuple[int, int]]()
    for index, told in whole.items():
        left = found.get(index, Told())
        assert left.others == told.others
        assert is_part([frame.path() for frame in left.frames], [frame.path() for frame in told.frames])
        assert calls(left) + left.muted == calls(told)
        firsts = calls(left)
        for node, number in calls(told).items():
            assert firsts[node] >= (min(number, budget) if node[0] <= NodeKind.CALL else number)
        muted += left.muted
    assert made.muted == dict(muted)
    return found


def simulate(programs: list[bytes], unit_size: int, block_units: int, path: Path) -> TraceFile:
    writer = TraceWriter(unit_size)
    simulated.describe(writer)
    for number, program in enumerate(programs):
        thread = SimulatedThread(unit_size)
        thread.units = Ticking(unit_size)
        thread.run(program)
        writer.thread(thread.units, number, block_units)
    return TraceFile(writer.write(path))


PROGRAMS = st.lists(st.binary(max_size=400), min_size=1, max_size=2)


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(
    programs=PROGRAMS,
    unit_size=st.sampled_from([4, 8]),
    budget=st.sampled_from(BUDGETS),
    block_units=st.integers(8, 60),
    together=st.integers(1, 8),
)
def test_simulated_threads(
    tmp_path: Path, programs: list[bytes], unit_size: int, budget: int, block_units: int, together: int
) -> None:
    with simulate(programs, unit_size, block_units, tmp_path / "t.calltrace") as trace:
        assert_budgeted(trace, budget, tmp_path / "short.calltrace", together)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(
    program=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), max_size=120),
    unit_size=st.sampled_from([4, 8]),
    budget=st.sampled_from(BUDGETS),
)
def test_fibers(tmp_path: Path, program: list[tuple[int, int]], unit_size: int, budget: int) -> None:
    fibers = Fibers(unit_size)
    fibers.units = Ticking(unit_size)
    for what, which in program:
        [fibers.enter, lambda _: fibers.leave(), fibers.switch][what](which)
    with open_trace(fibers.units, tmp_path / "t.calltrace") as trace:
        assert_budgeted(trace, budget, tmp_path / "short.calltrace")


def scribble(units: Units, seed: int) -> None:
    """Events in no sensible order, or nearly none, in few functions and long times."""
    rng = random.Random(seed)
    order = rng.choice([0.5, 0.9, 0.97, 1.0])
    functions = rng.choice([2, 8])
    opened: list[tuple[int, int]] = []
    for _ in range(rng.randrange(600)):
        units.now += rng.choice([0, 1, 50, 1 << 38]) if order < 1 else 1
        number = rng.randrange(functions)
        kind = rng.randrange(14)
        if rng.random() < order:
            kind = rng.choice([0, 4, 4, 9, 11])
        if kind < 4:
            units.event(tracewriter.ENTER, number)
            end = rng.choice([tracewriter.LEAVE, tracewriter.LEAVE, tracewriter.TAIL])
            opened.append((end, number))
        elif kind < 9 and opened and rng.random() < order:
            units.event(*opened.pop())
        elif kind == 9 and (not opened or opened[-1][0] == tracewriter.RETURN) and rng.random() < order:
            continue  # calls are made by functions
        elif kind == 9:
            number = opened[-1][1] if opened and rng.random() < order else number
            units.event(tracewriter.CALL, number)
            opened.append((tracewriter.RETURN, number))
        elif kind == 10:
            units.frame(rng.choice([0x1000, 0x2000, 0x7_0000_0000 + 8 * rng.randrange(99)]))
            units.event(rng.choice([tracewriter.ENTER, tracewriter.LAND, tracewriter.CALL]), number)
        elif kind == 11 and units.unit_size == 4:
            for _ in range(rng.choice([1, 1, 3])):
                units.whole(number)
        elif kind == 12:
            units.ext(rng.randrange(11), rng.randrange(1 << 12), rng.randrange(1 << 12))
        elif rng.random() > order:
            units.event(rng.randrange(8), rng.choice([*range(11), 12, 30]))  # 11: no recorder writes that


@pytest.mark.parametrize("unit_size", [4, 8])
def test_events_in_no_order(tmp_path: Path, unit_size: int) -> None:
    for seed in range(150):
        units = Ticking(unit_size, now=1000)
        scribble(units, seed)
        with open_trace(units, tmp_path / "t.calltrace") as trace:
            assert_budgeted(trace, BUDGETS[seed % len(BUDGETS)], tmp_path / "short.calltrace")
