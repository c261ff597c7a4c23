"""Stacks and columns of time: sums are those of the frames as they were, however few are told apart."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace.calltree import summarize
from calltrace.model import NOBODY
from calltrace.profile import Limits, Profile, profile
from calltrace.tracefile import TraceFile
from rig import simulated, tracewriter
from rig.simulated import Frame, SimulatedThread, simulated_trace
from rig.tracewriter import TraceWriter, Units

PROCESS_END = 6
PROGRAMS = st.binary(max_size=240) | st.integers(0, 1 << 32).map(
    lambda seed: random.Random(seed).randbytes(1000)
)
checked = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Place = tuple[object, ...]


def read(
    path: Path, limits: Limits, *, shown: tuple[int, ...] = (0, 1), by_calls: bool = False
) -> tuple[Profile, tuple[int, int]]:
    """What is told of a trace, and the times of its first and last frame."""
    with TraceFile(path) as trace:
        summary = summarize(trace)
        span = (summary.first_time, summary.last_time)
        return profile(trace, shown, span, by_calls, limits), span


def stacks_of(told: Profile) -> dict[Place, list[int]]:
    """Own weight, hidden weight and calls by the kinds and ids on the stack, below the thread's."""
    paths: list[Place] = []
    sums: dict[Place, list[int]] = defaultdict(lambda: [0, 0, 0])
    for stack in told.stacks:
        path = (*(() if stack.parent is None else paths[stack.parent]), (stack.kind, stack.id))
        assert (stack.kind == NOBODY) == (stack.parent is None)
        assert path not in sums
        paths.append(path)
        for at, value in enumerate((stack.self_weight, stack.hidden, stack.calls)):
            sums[path][at] += value
    return sums


def true_stacks(threads: list[SimulatedThread], by_calls: bool) -> dict[Place, list[int]]:
    """Own weight and calls; ids of the C API's addresses are numbers in the order of their use."""
    addresses: dict[int, int] = {}
    sums: dict[Place, list[int]] = defaultdict(lambda: [0, 0])

    def walk(frames: list[Frame], above: Place) -> None:
        for frame in frames:
            number = frame.id
            if frame.kind in (simulated.API_FUNCTION, simulated.API_CALL):
                number = addresses.setdefault(frame.id, len(addresses) + 1)
            path = (*above, (frame.kind, number))
            sums[path][0] += 1 if by_calls else frame.self_time()
            sums[path][1] += 1
            walk(frame.children, path)

    recorded = [thread for thread in threads if len(thread.units)]
    for number, thread in enumerate(recorded):
        walk(thread.roots, ((NOBODY, number),))
    return sums


def whole(sums: dict[Place, list[int]], path: Place) -> int:
    return sum(own + hidden for each, (own, hidden, _) in sums.items() if each[: len(path)] == path)


@checked
@given(st.lists(PROGRAMS, min_size=1, max_size=2), st.booleans())
def test_stacks_weigh_what_was_spent_in_them(tmp_path: Path, programs: list[bytes], by_calls: bool) -> None:
    _, threads = simulated_trace(tmp_path / "t", *programs, start=1000)
    told, _ = read(tmp_path / "t", Limits(), by_calls=by_calls)
    found = {path: sums for path, sums in stacks_of(told).items() if len(path) > 1}
    assert all(hidden == 0 for _, hidden, _ in found.values())
    # How the addresses of the C API are numbered is the reader's business.
    expected = true_stacks(threads, by_calls)
    assert sorted((len(path), own, calls) for path, (own, _, calls) in found.items()) == sorted(
        (len(path), own, calls) for path, (own, calls) in expected.items()
    )
    plain = (simulated.FUNCTION, simulated.CALL_NODE, NOBODY)

    def known(path: Place) -> bool:
        return all(kind in plain for kind, _ in path)  # type: ignore[misc]

    assert {path: [own, calls] for path, (own, _, calls) in found.items() if known(path)} == {
        path: sums for path, sums in expected.items() if known(path)
    }


@checked
@given(PROGRAMS, st.integers(2, 12), st.integers(1, 6))
def test_what_is_not_told_apart_counts_for_the_caller(
    tmp_path: Path, program: bytes, most: int, depth: int
) -> None:
    _, [thread] = simulated_trace(tmp_path / "t", program, start=1000)
    exact, _ = read(tmp_path / "t", Limits())
    told, _ = read(tmp_path / "t", Limits(stacks=most, depth=depth))
    found, true = stacks_of(told), stacks_of(exact)
    assert len(told.stacks) <= most + 1 + depth  # and the thread, and what is open
    assert max((len(path) for path in found), default=1) <= depth + 1
    root = ((NOBODY, 0),)
    assert whole(found, root) == whole(true, root) == sum(frame.self_time() for frame in thread.frames())
    for path, (own, _, calls) in found.items():
        # Never more than it was. A stack that was taken out once and came back begins anew.
        assert own <= true[path][0]
        assert calls <= true[path][2]
        assert whole(found, path) <= whole(true, path)


def test_the_largest_stacks_stay(tmp_path: Path) -> None:
    units = Units(8)
    for number in range(2000):
        units.event(tracewriter.ENTER, 0)
        units.event(tracewriter.ENTER, 1 + number)
        units.now += 1000 if number % 100 == 0 else 1
        units.event(tracewriter.LEAVE, 1 + number)
        units.event(tracewriter.LEAVE, 0)
    writer = TraceWriter(8)
    functions = [(0x1000 + 16 * number, 1, 1, 0, 0, tracewriter.NONE) for number in range(2001)]
    writer.module({"name": "d.exe"}, functions)
    writer.thread(units)
    told, _ = read(writer.write(tmp_path / "t"), Limits(stacks=100))
    large = {stack.id for stack in told.stacks if stack.self_weight == 1000}
    assert large == set(range(1, 2001, 100))
    assert sum(stack.self_weight + stack.hidden for stack in told.stacks) == 20 * 1000 + 1980


def true_columns(
    thread: SimulatedThread, span: tuple[int, int], ticks: int, limits: Limits
) -> tuple[Counter[int], dict[tuple[int, int], Counter[tuple[int, int]]]]:
    """Calls begun by column; time by level and column, of each frame's function or call."""
    calls: Counter[int] = Counter()
    spent: dict[tuple[int, int], Counter[tuple[int, int]]] = defaultdict(Counter)
    for frame in thread.frames():
        calls[min((frame.begin - span[0]) // ticks, limits.columns - 1)] += 1
        if frame.depth >= limits.levels:
            continue
        for column in range(limits.columns):
            first = span[0] + column * ticks
            begin, end = max(frame.begin, first), min(frame.end, first + ticks)
            if begin < end:
                spent[frame.depth, column][frame.kind, frame.id] += end - begin
    return calls, spent


@checked
@given(PROGRAMS, st.integers(1, 9), st.integers(1, 5))
def test_columns_belong_to_what_filled_most_of_them(
    tmp_path: Path, program: bytes, columns: int, levels: int
) -> None:
    _, [thread] = simulated_trace(tmp_path / "t", program, start=1000)
    limits = Limits(columns=columns, levels=levels)
    told, span = read(tmp_path / "t", limits)
    assert told.column_ticks * columns > span[1] - span[0]
    calls, spent = true_columns(thread, span, told.column_ticks, limits)
    assert {column.column: column.calls for column in told.columns} == dict(calls)
    assert [
        (cell.level, cell.column) for cell in sorted(told.cells, key=lambda cell: (cell.level, cell.column))
    ] == (sorted(spent))
    for cell in told.cells:
        there = spent[cell.level, cell.column]
        assert cell.time == max(there.values())
        if cell.kind in (simulated.FUNCTION, simulated.CALL_NODE):
            assert there[cell.kind, cell.id] == cell.time


def test_columns_are_of_the_threads_asked_for(tmp_path: Path) -> None:
    programs = [random.Random(number).randbytes(400) for number in (1, 2)]
    simulated_trace(tmp_path / "t", *programs, start=1000)
    both, _ = read(tmp_path / "t", Limits())
    second, _ = read(tmp_path / "t", Limits(), shown=(1,))
    assert {cell.thread for cell in both.cells} == {column.thread for column in both.columns} == {0, 1}
    assert second.cells == [cell for cell in both.cells if cell.thread == 1]
    assert second.columns == [column for column in both.columns if column.thread == 1]
    assert second.stacks == both.stacks


def test_without_a_clock_each_thread_has_its_own_time(tmp_path: Path) -> None:
    program = random.Random(3).randbytes(600)
    _, [thread] = simulated_trace(tmp_path / "t", program, unit_size=4)
    told, _ = read(tmp_path / "t", Limits(columns=5), by_calls=True)
    assert sum(stack.self_weight for stack in told.stacks) == len(thread.frames())
    assert sum(column.calls for column in told.columns) == len(thread.frames())
