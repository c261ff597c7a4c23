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
from calltrace.model import STEP_OTHERS, STEP_RESUMED, STEP_TAIL_CALLEE, Cause, NodeKind, StepType
from calltrace.tracefile import TraceFile
from rig import simulated, tracewriter
from rig.budgeted import Budgeted, file_of, in_order, with_budget
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
    between: list[tuple[int, ...]] = field(default_factory=list)  # what is told of no frame
    muted: Counter[tuple[int, int]] = field(default_factory=Counter)
    others: int = 0  # muted, without saying what


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
            if step.flags & STEP_OTHERS:
                assert step.id > 1
                told.others += step.value
            else:
                told.muted[step.kind, step.id] += step.value
        elif step.type != StepType.THREAD:
            told.between.append((step.type, time, step.id, step.kind, step.value, step.depth))
    return found


def assert_part(part: list[Frame], whole: list[Frame]) -> None:
    """All of `part` is in `whole`, in its order; what was entered by a jump there may not be known for it."""
    rest = iter(whole)
    for frame in part:
        wanted = frame.path()
        same = next((each for each in rest if each.path() == wanted), None)
        assert same, wanted
        assert same.callee or not frame.callee or not frame.begin  # without times it may be another


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
        assert left.between == told.between
        assert_part(left.frames, told.frames)
        firsts, every = calls(left), calls(told)
        for node, number in every.items():
            assert firsts[node] >= (min(number, budget) if node[0] <= NodeKind.CALL else number)
        less = every - firsts
        assert left.muted <= less
        assert sum(left.muted.values()) + left.others == sum(less.values())
        muted += less
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


@pytest.mark.parametrize("unit_size", [4, 8])
def test_the_same_functions_throw_catch_and_jump_again_and_again(tmp_path: Path, unit_size: int) -> None:
    which = [0, 12, 13, 76, 77, 140, 204]  # functions, catchers, where they land; whose ends are lost
    for seed in range(40):
        rng = random.Random(seed)
        what = rng.choice([range(16), [0, 1, 4, 6, 7, 8, 10, 11], [0, 1, 2, 8, 11, 11]])
        program = bytes(rng.choice(each) for _ in range(600) for each in (what, which))
        with simulate([program], unit_size, 50, tmp_path / "t.calltrace") as trace:
            assert_budgeted(trace, BUDGETS[seed % len(BUDGETS)], tmp_path / "short.calltrace")


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


def test_what_the_c_api_closes_is_not_open(tmp_path: Path) -> None:
    f, g, units = 0, 1, Ticking(8)
    units.event(tracewriter.ENTER, f)
    for _ in range(2):
        units.event(tracewriter.CALL, f)
        units.event(tracewriter.RETURN, f)
    units.event(tracewriter.ENTER, g)
    units.ext(tracewriter.API_ENTER, 0x1234, 0)
    units.event(tracewriter.ENTER, f)
    units.ext(tracewriter.API_EXIT, 0x1234, 0)
    units.event(tracewriter.CALL, f)  # by the first f: so g has ended unseen
    units.event(tracewriter.RETURN, f)
    units.event(tracewriter.LEAVE, g)
    with open_trace(units, tmp_path / "t.calltrace") as trace:
        [told] = assert_budgeted(trace, 2, tmp_path / "short.calltrace").values()
    assert told.between[-1][0] == StepType.ORPHAN


def test_where_a_jump_leads_is_written(tmp_path: Path) -> None:
    units = Ticking(8)
    for _ in range(3):
        units.event(tracewriter.ENTER, 0)
        units.event(tracewriter.LEAVE, 0)
    units.ext(tracewriter.API_ENTER, 0x1234, 0)
    units.ext(tracewriter.API_GOTO, 0x5678, 0)
    units.event(tracewriter.ENTER, 0)
    units.event(tracewriter.LEAVE, 0)
    with open_trace(units, tmp_path / "t.calltrace") as trace:
        [told] = assert_budgeted(trace, 1, tmp_path / "short.calltrace").values()
    assert [(frame.kind, frame.callee) for frame in told.frames] == [(0, False), (2, False), (0, True)]


def test_calls_by_who_was_entered_before_have_a_budget(tmp_path: Path) -> None:
    units = Ticking(4)
    units.ext(tracewriter.THREAD_START)
    for _ in range(9):  # by function 0, which is open unseen
        units.event(tracewriter.CALL, 0)
        units.event(tracewriter.ENTER, 1)
        units.event(tracewriter.LEAVE, 1)
        units.event(tracewriter.RETURN, 0)
    with open_trace(units, tmp_path / "t.calltrace") as trace:
        [told] = assert_budgeted(trace, 2, tmp_path / "short.calltrace").values()
    assert calls(told) == {(NodeKind.CALL, 0): 2, (NodeKind.FUNCTION, 1): 2}


@pytest.mark.parametrize("pause", [1, 1 << 39, 1 << 41, 1 << 45, 1 << 50])
def test_times_are_those_of_all_events_whatever_was_muted_meanwhile(tmp_path: Path, pause: int) -> None:
    units = Ticking(8)
    units.event(tracewriter.ENTER, 0)
    for turn in range(40):
        for number in (0, 1):
            units.event(tracewriter.ENTER, number)
            units.event(tracewriter.LEAVE, number)
        if turn % 10 == 9:  # again something new, of which all of this is known to be part
            units.event(tracewriter.ENTER, 2)
            units.event(tracewriter.TAIL, 2)
            units.now += pause
            units.event(tracewriter.ENTER, 3)
            units.now += pause
            units.event(tracewriter.LEAVE, 3)
        units.now += pause
    with ordered_trace(units, tmp_path / "t.calltrace", 1) as trace:
        assert_budgeted(trace, 1, tmp_path / "short.calltrace")


def test_more_frames_than_can_be_held_back_are_written(tmp_path: Path) -> None:
    deep, held, units = 66_000, 65_536, Ticking(4)
    for event in (tracewriter.ENTER, tracewriter.LEAVE):
        for _ in range(deep):
            units.event(event, 0)
    with open_trace(units, tmp_path / "t.calltrace") as trace:
        made = with_budget(trace, 1)
        with TraceFile(file_of(trace, made.blocks, tmp_path / "short.calltrace")) as short:
            found, whole = (
                [(step.type, step.id, step.depth, step.cause) for step in steps(each)]
                for each in (short, trace)
            )
    written = held + 1
    assert made.muted == {(0, 0): deep - written}
    assert [each for each in found if each[0] != StepType.MUTED] == [
        each for each in whole if each[2] < written
    ]


def test_functions_that_jump_from_one_to_the_other_for_ever_are_muted(tmp_path: Path) -> None:
    turns, units = 5000, Ticking(8)
    units.event(tracewriter.ENTER, 9)
    for turn in range(turns):
        units.event(tracewriter.ENTER, 4 + turn % 3)
        units.event(tracewriter.TAIL, 4 + turn % 3)
        units.event(tracewriter.ENTER, 7)
        units.event(tracewriter.TAIL, 7)
    units.event(tracewriter.ENTER, 8)
    units.event(tracewriter.LEAVE, 8)
    units.event(tracewriter.LEAVE, 9)
    with ordered_trace(units, tmp_path / "t.calltrace", 1000) as trace:
        [told] = assert_budgeted(trace, 2, tmp_path / "short.calltrace").values()
    assert sum(calls(told).values()) < 25
    last = told.frames[-5:]
    assert [frame.id for frame in last][1::2] == [7, 7]
    assert last[-1].id == 8
    assert all(frame.callee for frame in last[1:])


# ---- exactly which calls are written ----


@dataclass
class Call:
    """A call that was made in order, to nothing but a return or a jump."""

    kind: int
    id: int
    depth: int
    begin: int
    within: bool  # its budget
    children: list[Call] = field(default_factory=list)
    behind: Call | None = None  # what left by a jump right before
    left: bool = False
    open: bool = True
    written: bool = False
    forced: bool = False  # only since a jump led to it


FUNCTIONS = 60
LEFT_LIMIT = 4  # in native/reader/budget.c
JUMPS = {0: [1], 2: [3, 4]}  # where functions can jump to; others may jump to any


def find_written(siblings: list[Call]) -> None:
    """By what calltrace promises: see native/reader/budget.c."""
    for each in siblings:
        find_written(each.children)
        by = each.behind
        each.forced = not each.within and by is not None and by.written and not by.forced
        each.written = each.within or each.open or each.forced
        each.written |= any(child.written for child in each.children)
    for each in [each for each in siblings if each.written]:
        call, held = each, 0
        while call.written and call.behind and not call.behind.written and held < LEFT_LIMIT:
            jumped = call.behind
            led = call.kind == NodeKind.CALL or call.id in JUMPS.get(jumped.id, [call.id])
            jumped.written = led
            call, held = jumped, held + 1


class OrderedThread:
    """Calls functions, which hold call sites of the same number, and returns in order."""

    def __init__(self, unit_size: int, budget: int) -> None:
        self.units = Ticking(unit_size)
        self.roots: list[Call] = []
        self.stack: list[Call] = []
        self._budget = budget
        self._seen = Counter[tuple[int, int]]()
        self.jumped: Call | None = None  # by the unit before

    def act(self, what: int, which: int) -> None:
        top = self.stack[-1] if self.stack else None
        if what < 4:
            self._open(NodeKind.FUNCTION, which, tracewriter.ENTER)
        elif what == 4 and top and top.kind == NodeKind.FUNCTION:
            self._open(NodeKind.CALL, top.id, tracewriter.CALL)
        elif what == 5 and top and top.kind == NodeKind.FUNCTION:
            self._close(tracewriter.TAIL)
            self.jumped, top.left = top, True
        elif top:
            self._close(tracewriter.LEAVE if top.kind == NodeKind.FUNCTION else tracewriter.RETURN)

    def calls(self, among: list[Call]) -> Iterator[Call]:
        for each in among:
            yield each
            yield from self.calls(each.children)

    def _open(self, kind: int, number: int, event: int) -> None:
        self.units.event(event, number)
        self._seen[kind, number] += 1
        within = self._seen[kind, number] <= self._budget
        call = Call(kind, number, len(self.stack), self.units.now, within, behind=self.jumped)
        (self.stack[-1].children if self.stack else self.roots).append(call)
        self.stack.append(call)
        self.jumped = None

    def _close(self, event: int) -> None:
        self.jumped = None
        self.units.event(event, self.stack[-1].id)
        self.stack.pop().open = False


def ordered_trace(units: Units, path: Path, block_units: int) -> TraceFile:
    writer = TraceWriter(units.unit_size)
    functions = [(0x1000 * (at + 1), 16, 1, 0, 0, tracewriter.NONE) for at in range(FUNCTIONS)]
    sites = [(0x1001 + 0x1000 * at, at, 0, tracewriter.NONE) for at in range(FUNCTIONS)]
    jumps = [(source, to) for source, targets in JUMPS.items() for to in targets]
    sites += [
        (0x1008 + 0x1000 * source + at, source | 1 << 31, 0x1000 * (to + 1), tracewriter.NONE)
        for at, (source, to) in enumerate(jumps)
    ]
    writer.module({"name": "m.exe"}, functions, sites)
    writer.thread(units, 0, block_units)
    return TraceFile(writer.write(path))


def test_nothing_else_is_written(tmp_path: Path) -> None:
    for seed in range(120):
        rng = random.Random(seed)
        budget = BUDGETS[seed % len(BUDGETS)]
        thread = OrderedThread(8, budget)
        mix = rng.choice([[0, 0, 0, 0, 4, 5, 5, 6, 6, 6, 6, 7], [0, 5, 5, 5, 5, 5, 6], [0, 0, 4, 6, 6]])
        for _ in range(rng.randrange(600)):
            jumped = thread.jumped and rng.random() < 0.7
            what = 0 if jumped else rng.choice(mix)
            thread.act(what, rng.randrange(4) if rng.random() < 0.95 else rng.randrange(FUNCTIONS))
        assert_written(thread, budget, rng.randrange(8, 60), tmp_path)


def assert_written(thread: OrderedThread, budget: int, block_units: int, tmp_path: Path) -> None:
    find_written(thread.roots)
    wanted = [(call.kind, call.id, call.begin) for call in thread.calls(thread.roots) if call.written]
    with ordered_trace(thread.units, tmp_path / "t.calltrace", block_units) as trace:
        found = assert_budgeted(trace, budget, tmp_path / "short.calltrace").get(0, Told())
    assert [(frame.kind, frame.id, frame.begin) for frame in found.frames] == wanted


# ---- while it is recorded ----


def open_frames(trace: TraceFile) -> dict[int, list[tuple[int, int, int]]]:
    """What is open at the end, by thread index: the innermost last."""
    timed = trace.header.unit_size == 8
    found: dict[int, list[tuple[int, int, int]]] = {}
    for step in steps(trace):
        stack = found.setdefault(trace.threads[step.thread].index, [])
        if step.type == StepType.OPEN:
            stack.append((step.kind, step.id, step.time if timed else 0))
        elif step.type == StepType.CLOSE and step.cause != Cause.PROCESS_END:
            stack.pop()
    return {index: stack for index, stack in found.items() if stack}


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(
    programs=PROGRAMS,
    unit_size=st.sampled_from([4, 8]),
    budget=st.sampled_from(BUDGETS),
    together=st.integers(1, 3),
)
def test_what_is_open_is_seen_at_any_time(
    tmp_path: Path, programs: list[bytes], unit_size: int, budget: int, together: int
) -> None:
    with simulate(programs, unit_size, 20, tmp_path / "t.calltrace") as trace:
        blocks = in_order(trace)

        def look(count: int, made: Budgeted) -> None:
            whole = file_of(trace, blocks[:count], tmp_path / "whole.calltrace")
            short = file_of(trace, made.blocks, tmp_path / "short.calltrace")
            with TraceFile(whole) as one, TraceFile(short) as other:
                assert open_frames(other) == open_frames(one)

        looked = with_budget(trace, budget, together, look)
        with TraceFile(file_of(trace, looked.blocks, tmp_path / "short.calltrace")) as short:
            found, whole = read(short, unit_size == 8), read(trace, unit_size == 8)
        for index, told in whole.items():
            left = found.get(index, Told())
            assert left.between == told.between
            assert_part(left.frames, told.frames)
            less = calls(told) - calls(left)
            assert sum(left.muted.values()) + left.others == sum(less.values())
