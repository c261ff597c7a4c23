"""The call tree that is read back is the one that was recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace.calltree import Tree, TreeFilter, steps, summarize
from calltrace.errors import UsageError
from calltrace.model import (
    LINE_TAIL_CALLEE,
    STEP_TAIL_CALLEE,
    Cause,
    Event,
    Ext,
    Line,
    LineType,
    NodeKind,
    Step,
    StepType,
)
from calltrace.patterns import Pattern
from calltrace.tracefile import TraceFile
from rig import simulated, tracewriter
from rig.simulated import SimulatedThread
from rig.tracewriter import TraceWriter, Units

NONE = tracewriter.NONE
random_runs = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Read = Callable[[TraceWriter], TraceFile]


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    opened: list[TraceFile] = []

    def open_trace(writer: TraceWriter) -> TraceFile:
        # A new file each time: the last one is still mapped.
        opened.append(TraceFile(writer.write(tmp_path / f"{len(opened)}.calltrace")))
        return opened[-1]

    yield open_trace
    for trace in opened:
        trace.close()


def trace_of(units: Units, **fields: int) -> TraceWriter:
    """A trace of one thread, whose functions 0 to 7 can be named, 6 being a funclet of 5 and 7 one of 6."""
    writer = TraceWriter(units.unit_size, **fields)
    functions = [(0x1000 * (at + 1), 16, 1, at >= 6, 0, at - 1 if at >= 6 else NONE) for at in range(8)]
    names = [[0x1000 * (at + 1), name] for at, name in enumerate("abcdefgh")]
    writer.module(
        {"name": "m.exe", "names": names}, functions, [(0x100 + at, at, 0, NONE) for at in range(4)]
    )
    writer.thread(units)
    return writer


def closes(trace: TraceFile) -> list[tuple[int, Cause]]:
    """Id and cause of each frame, in the order they were closed."""
    return [(step.id, Cause(step.cause)) for step in steps(trace) if step.type == StepType.CLOSE]


def shape(
    trace: TraceFile, chosen: TreeFilter | None = None, window: int = 1 << 16
) -> list[tuple[int, str, int]]:
    """Depth, name and calls of each line with a frame."""
    lines = Tree(trace, chosen or TreeFilter(), window)
    return [
        (line.depth, trace.node_name(line.kind, line.id).partition("!")[2], line.calls)
        for line in lines
        if line.type == LineType.FRAME
    ]


def calls(units: Units, text: str) -> Units:
    """`a` enters function 0, `A` leaves it, and so on."""
    for letter in text:
        if letter.islower():
            units.event(tracewriter.ENTER, ord(letter) - ord("a"))
        else:
            units.event(tracewriter.LEAVE, ord(letter) - ord("A"))
    return units


def frames_read(trace: TraceFile) -> list[tuple[int, ...]]:
    """Depth, kind, id, positions, times and cause of each frame, in the order they were opened."""
    frames: list[tuple[int, ...]] = []
    opened: list[tuple[int, Step]] = []
    for step in steps(trace):
        if step.type == StepType.OPEN:
            opened.append((len(frames), step))
            frames.append(())
        elif step.type == StepType.CLOSE:
            at, begin = opened.pop()
            assert (begin.kind, begin.id, begin.depth, begin.time) == (
                step.kind,
                step.id,
                step.depth,
                step.begin,
            )
            number = trace.address(step.id) if step.kind >= NodeKind.API_FUNCTION else step.id
            places = (begin.position, step.position, step.begin, step.time)
            frames[at] = (step.depth, step.kind, number, *places, step.cause)
    assert not opened
    return frames


def frames_made(thread: SimulatedThread) -> list[tuple[int, ...]]:
    """The same of a simulated thread. Without a clock, positions are times."""
    timed = thread.units.unit_size == 8
    return [
        (
            frame.depth,
            frame.kind,
            frame.id,
            frame.opened,
            frame.closed,
            frame.begin if timed else frame.opened,
            frame.end if timed else frame.closed,
            frame.cause,
        )
        for frame in thread.frames()
    ]


@random_runs
@given(
    program=st.binary(max_size=600),
    unit_size=st.sampled_from([4, 8]),
    block_units=st.integers(min_value=6, max_value=60),
    stack_top=st.sampled_from([0x1_0000_0100, 0x8000_0080, 0x14_FF00, 0x7FFF_FFFF_0000]),
    now=st.sampled_from([0, (1 << 40) - 3000, (7 << 40) + 12345]),
)
def test_frames_of_random_runs_are_read_as_they_were(
    read: Read, program: bytes, unit_size: int, block_units: int, stack_top: int, now: int
) -> None:
    thread = SimulatedThread(unit_size, stack_top, now)
    thread.run(program)
    writer = TraceWriter(unit_size, state=tracewriter.EXITED)
    simulated.describe(writer)
    writer.thread(thread.units, block_units=block_units)
    with read(writer) as trace:
        found = frames_read(trace)
        marks = [step.value for step in steps(trace) if step.type == StepType.MARK]
        summary = summarize(trace)
    thread.finish(Cause.PROCESS_END)
    made = frames_made(thread)
    end = len(thread.units)
    # The end of what was still open lies behind the last unit, its time is that of the last event.
    made = [
        (*frame[:4], end, frame[5], found[at][6], frame[7]) if frame[7] == Cause.PROCESS_END else frame
        for at, frame in enumerate(made)
    ]
    assert found == made
    assert marks == thread.marks
    assert summary.orphans == summary.gaps == 0
    assert summary.max_depth == max((frame[0] + 1 for frame in made), default=0)


@random_runs
@given(program=st.binary(max_size=600), block_units=st.integers(min_value=6, max_value=60))
def test_calls_and_times_of_functions_are_those_of_the_run(
    read: Read, program: bytes, block_units: int
) -> None:
    thread = SimulatedThread(8)
    thread.run(program)
    thread.finish(Cause.PROCESS_END)
    writer = TraceWriter(8)
    simulated.describe(writer)
    writer.thread(thread.units, block_units=block_units)
    with read(writer) as trace:
        stats = {stat.name: stat for stat in summarize(trace).stats if stat.kind == NodeKind.FUNCTION}
    made: dict[str, list[int]] = {}
    open_now: list[simulated.Frame] = []
    for frame in thread.frames():
        del open_now[frame.depth :]
        if frame.kind == simulated.FUNCTION:
            sums = made.setdefault(f"simulated!f{frame.id}", [0, 0, 0])
            sums[0] += 1
            sums[1] += frame.self_time()
            if all((other.kind, other.id) != (frame.kind, frame.id) for other in open_now):
                sums[2] += frame.end - frame.begin
        open_now.append(frame)
    assert {name: [stat.calls, stat.self_time, stat.total_time] for name, stat in stats.items()} == made


def fold(frames: list[simulated.Frame], lines: list[tuple[int, int, int, int, int]], level: int) -> None:
    """Lines of a tree (depth, kind, id, calls, cause), repeated leaf calls in one."""
    last: simulated.Frame | None = None
    for frame in frames:
        alike = last is not None and (last.kind, last.id) == (frame.kind, frame.id)
        plain = frame.kind <= simulated.CALL_NODE and not frame.children and frame.cause == Cause.RETURN
        if alike and plain:
            depth, kind, number, count, cause = lines[-1]
            lines[-1] = (depth, kind, number, count + 1, cause)
        else:
            lines.append((level, frame.kind, frame.id, 1, frame.cause))
            fold(frame.children, lines, level + 1)
        last = frame if plain else None


def lines_read(trace: TraceFile, lines: list[Line]) -> list[tuple[int, int, int, int, int]]:
    return [
        (
            line.depth,
            line.kind,
            trace.address(line.id) if line.kind >= NodeKind.API_FUNCTION else line.id,
            line.calls,
            line.cause,
        )
        for line in lines
        if line.type == LineType.FRAME
    ]


@random_runs
@given(program=st.binary(max_size=600), limit=st.integers(min_value=1, max_value=40))
def test_tree_lines_fold_repeated_leaf_calls_and_stop_at_the_limit(
    read: Read, program: bytes, limit: int
) -> None:
    # Jumps and marks, which part lines, are left to tests of their own.
    program = bytes(
        byte for pair in zip(program[::2], program[1::2]) if pair[0] % 16 not in (10, 14, 15) for byte in pair
    )
    thread = SimulatedThread(4)
    thread.run(program)
    thread.finish(Cause.PROCESS_END)
    writer = TraceWriter(4)
    simulated.describe(writer)
    writer.thread(thread.units)
    expected: list[tuple[int, int, int, int, int]] = []
    fold(thread.roots, expected, 0)
    with read(writer) as trace:
        whole = list(Tree(trace, TreeFilter()))
        tree = Tree(trace, TreeFilter(limit=limit))
        some = list(tree)
        assert lines_read(trace, whole) == expected
        assert some == whole[:limit]
        assert tree.limited == (len(whole) > limit)


def test_a_short_window_gives_lines_out_open_and_their_ends_later(read: Read) -> None:
    units = calls(Units(), "a" + "bcCB" * 20 + "A")
    with read(trace_of(units)) as trace:
        lines = list(Tree(trace, TreeFilter(), window=8))
        assert lines[1].type == LineType.FRAME
        assert lines[1].cause == Cause.NONE
        assert lines[-1].type == LineType.CLOSE
        assert (lines[-1].id, lines[-1].depth, lines[-1].cause) == (0, 0, Cause.RETURN)
        assert (lines[-1].begin, lines[-1].end) == (0, 81)
        assert [line.type for line in lines].count(LineType.FRAME) == 41


def test_depth_hides_deeper_frames_and_folds_what_then_looks_alike(read: Read) -> None:
    units = calls(Units(), "a" + "bcCB" * 3 + "A")
    with read(trace_of(units)) as trace:
        assert shape(trace, TreeFilter(depth=2)) == [(0, "a", 1), (1, "b", 3)]


def test_a_pattern_shows_matching_frames_with_all_inside_them(read: Read) -> None:
    units = calls(Units(), "abcCB" + "dbabBABD" + "A")
    with read(trace_of(units)) as trace:
        chosen = TreeFilter(functions=[Pattern.parse("m!b")])
        assert shape(trace, chosen) == [(0, "b", 1), (1, "c", 1), (0, "b", 1), (1, "a", 1), (2, "b", 1)]
        with pytest.raises(UsageError, match="matches m!nosuch"):
            Tree(trace, TreeFilter(functions=[Pattern.parse("m!nosuch")]))


def test_a_pattern_shows_calls_of_an_import(read: Read) -> None:
    units = Units()
    units.event(tracewriter.CALL, 0)
    units.event(tracewriter.RETURN, 0)
    units.event(tracewriter.CALL, 1)
    units.event(tracewriter.RETURN, 1)
    writer = TraceWriter()
    sites = [(0x10, 0, 0, 1), (0x20, 0, 0, 0)]
    writer.module({"name": "m.exe", "imports": ["A.dll!One", "B.dll!Two"]}, [], sites)
    writer.thread(units)
    with read(writer) as trace:
        lines = list(Tree(trace, TreeFilter(functions=[Pattern.parse("b!Tw*")])))
        assert [line.id for line in lines if line.type == LineType.FRAME] == [0]


def test_a_chosen_function_is_followed_to_its_tail_callee(read: Read) -> None:
    units = calls(Units(), "ab")
    units.event(tracewriter.TAIL, 1)
    calls(units, "cdDCeEA")
    with read(trace_of(units)) as trace:
        chosen = TreeFilter(functions=[Pattern.parse("m!b")])
        assert shape(trace, chosen) == [(0, "b", 1), (0, "c", 1), (1, "d", 1)]


def test_one_thread_is_chosen_by_index_or_system_id(read: Read) -> None:
    writer = trace_of(calls(Units(), "aA"))
    writer.thread(calls(Units(), "bB"), thread=5)
    with read(writer) as trace:
        assert shape(trace, TreeFilter(thread=5)) == shape(trace, TreeFilter(thread=1020)) == [(0, "b", 1)]
        with pytest.raises(UsageError, match="no thread 77"):
            Tree(trace, TreeFilter(thread=77))


def test_a_tail_call_names_where_it_went(read: Read) -> None:
    units = calls(Units(), "ab")
    units.event(tracewriter.TAIL, 1)
    calls(units, "cCA")
    with read(trace_of(units)) as trace:
        _, _, left, callee = Tree(trace, TreeFilter())
        assert (left.id, left.cause, left.tail_kind, left.tail_id) == (1, Cause.TAIL, NodeKind.FUNCTION, 2)
        assert (callee.id, callee.depth, callee.flags) == (2, 1, LINE_TAIL_CALLEE)


def test_a_call_after_the_return_of_a_tail_caller_is_not_its_callee(read: Read) -> None:
    units = calls(Units(), "ab")
    units.event(tracewriter.TAIL, 1)
    calls(units, "A")
    calls(units, "cC")
    with read(trace_of(units)) as trace:
        opened = [step for step in steps(trace) if step.type == StepType.OPEN]
        assert [step.flags & STEP_TAIL_CALLEE for step in opened] == [0, 0, 0]


def test_a_whole_unit_is_an_entry_and_a_return(read: Read) -> None:
    units = calls(Units(), "a")
    units.whole(1)
    calls(units, "bB")
    units.whole(2)
    with read(trace_of(units)) as trace:
        assert shape(trace) == [(0, "a", 1), (1, "b", 2), (1, "c", 1)]
        assert closes(trace) == [
            (1, Cause.RETURN),
            (1, Cause.RETURN),
            (2, Cause.RETURN),
            (0, Cause.PROCESS_END),
        ]
        events = summarize(trace).events
        assert (events[Event.ENTER], events[Event.LEAVE]) == (4, 3)


TAIL_SITE = 0x80000000  # CT_SITE_TAIL


@pytest.mark.parametrize(
    ("targets", "imported", "modules", "is_callee"),
    [
        ([0x3000], NONE, 1, True),  # the function that is entered next
        ([0x1000, 0x3000], NONE, 1, True),
        ([0x1000], NONE, 1, False),  # another one
        ([0x9000], NONE, 1, False),  # code that is no function we know
        ([0], NONE, 1, True),  # through a register: anywhere
        ([0], 0, 1, False),  # to an import, which is not traced
        ([0], 0, 2, True),  # to an import, which may be in the other module
    ],
)
def test_only_what_a_function_may_jump_to_is_its_tail_callee(
    read: Read, targets: list[int], imported: int, modules: int, is_callee: bool
) -> None:
    units = calls(Units(), "ab")
    units.event(tracewriter.TAIL, 1)
    calls(units, "cCA")
    writer = TraceWriter()
    functions = [(0x1000 * (at + 1), 16, 1, 0, 0, NONE) for at in range(3)]
    sites = [(0x2004, 1 | TAIL_SITE, target, imported) for target in targets]
    writer.module({"name": "m.exe", "imports": ["other.dll!f"]}, functions, sites)
    if modules > 1:
        writer.module({"name": "other.dll"}, base=0x180000000, index=1, first_function=3, first_site=9)
    writer.thread(units)
    with read(writer) as trace:
        _, _, left, callee = Tree(trace, TreeFilter())
        assert left.cause == Cause.TAIL
        assert bool(callee.flags & LINE_TAIL_CALLEE) is is_callee


def test_a_goto_of_the_c_api_names_its_target(read: Read) -> None:
    units = Units()
    units.ext(tracewriter.API_ENTER, 0x140001000, 0x500)
    units.ext(tracewriter.API_GOTO, 0x140002000, 0x510)
    with read(trace_of(units)) as trace:
        _, line = Tree(trace, TreeFilter())
        assert (line.kind, line.cause, line.value) == (NodeKind.API_FUNCTION, Cause.TAIL, 0x140002000)
        assert trace.node_name(line.kind, line.id) == "m!a"


def test_an_end_without_its_beginning_is_an_orphan_and_changes_nothing(read: Read) -> None:
    units = calls(Units(), "abC")
    units.event(tracewriter.RETURN, 3)
    units.event(tracewriter.TAIL, 4)
    units.ext(tracewriter.API_EXIT, 0x99, 0)
    units.ext(tracewriter.API_GOTO, 0x99, 0)
    calls(units, "BA")
    with read(trace_of(units)) as trace:
        assert closes(trace) == [(1, Cause.RETURN), (0, Cause.RETURN)]
        assert summarize(trace).orphans == 5


def test_a_call_tells_that_frames_above_its_function_have_ended(read: Read) -> None:
    units = calls(Units(), "abc")
    units.event(tracewriter.CALL, 0)  # held by a
    units.event(tracewriter.RETURN, 0)
    calls(units, "A")
    with read(trace_of(units)) as trace:
        assert closes(trace) == [
            (2, Cause.INFERRED),
            (1, Cause.INFERRED),
            (0, Cause.RETURN),
            (0, Cause.RETURN),
        ]


def test_a_call_tells_nothing_of_frames_of_the_c_api(read: Read) -> None:
    units = calls(Units(), "a")
    units.ext(tracewriter.API_ENTER, 0x99, 0)
    units.event(tracewriter.CALL, 0)
    units.event(tracewriter.RETURN, 0)
    units.ext(tracewriter.API_EXIT, 0x99, 0)
    calls(units, "A")
    with read(trace_of(units)) as trace:
        assert [cause for _, cause in closes(trace)] == [Cause.RETURN] * 3


def test_setjmp_that_returns_again_unwinds_to_its_caller(read: Read) -> None:
    units = calls(Units(), "a")
    units.event(tracewriter.CALL, 0)
    units.event(tracewriter.RETURN, 0)
    calls(units, "bc")
    units.event(tracewriter.CALL, 2)  # of longjmp, from c
    units.event(tracewriter.RETURN, 0)
    calls(units, "A")
    with read(trace_of(units)) as trace:
        assert [cause for _, cause in closes(trace)] == [
            Cause.RETURN,
            Cause.UNWOUND,
            Cause.UNWOUND,
            Cause.UNWOUND,
            Cause.RETURN,
        ]
        assert summarize(trace).orphans == 0


def test_landing_goes_on_in_the_topmost_frame_above_the_stack_pointer(read: Read) -> None:
    units = Units()
    for sp in (0x3000, 0x2000, 0x1000):
        units.frame(sp)
        units.event(tracewriter.ENTER, 5)
    calls(units, "a")
    units.frame(0x1800)
    units.event(tracewriter.LAND, 5)
    with read(trace_of(units)) as trace:
        assert closes(trace)[:2] == [(0, Cause.UNWOUND), (5, Cause.UNWOUND)]
        assert closes(trace)[2:] == [(5, Cause.PROCESS_END)] * 2


@pytest.mark.parametrize("unit_size", [4, 8])
def test_landing_without_a_frame_above_the_stack_pointer_is_an_orphan(read: Read, unit_size: int) -> None:
    units = Units(unit_size)
    units.frame(0x1000)
    units.event(tracewriter.ENTER, 5)
    units.frame(0x1000)
    units.event(tracewriter.LAND, 5)
    with read(trace_of(units)) as trace:
        assert closes(trace) == [(5, Cause.PROCESS_END)]
        assert summarize(trace).orphans == 1


def test_small_units_compare_stack_pointers_across_4_gigabytes(read: Read) -> None:
    units = Units(4)
    units.frame(0x1_0000_0010)
    units.event(tracewriter.ENTER, 5)
    calls(units, "a")
    units.frame(0xFFFF_FFF8)
    units.event(tracewriter.LAND, 5)
    with read(trace_of(units)) as trace:
        assert closes(trace)[0] == (0, Cause.UNWOUND)
        assert summarize(trace).orphans == 0


def test_a_funclet_unwinds_to_its_parent_and_opens_under_it(read: Read) -> None:
    units = Units()
    units.frame(0x2000)
    units.event(tracewriter.ENTER, 5)
    calls(units, "ab")
    units.frame(0x1F00)
    units.event(tracewriter.ENTER, 6)
    calls(units, "GF")
    with read(trace_of(units)) as trace:
        assert closes(trace) == [
            (1, Cause.UNWOUND),
            (0, Cause.UNWOUND),
            (6, Cause.RETURN),
            (5, Cause.RETURN),
        ]
        assert shape(trace)[-1] == (1, "g", 1)


def test_a_funclet_nested_in_another_has_the_same_frame(read: Read) -> None:
    units = Units()
    units.frame(0x2000)
    units.event(tracewriter.ENTER, 5)
    units.frame(0x1F00)
    units.event(tracewriter.ENTER, 6)
    calls(units, "a")
    units.frame(0x1F00)
    units.event(tracewriter.ENTER, 7)
    units.event(tracewriter.LEAVE, 7)
    units.frame(0x1E00)
    units.event(tracewriter.LAND, 6)
    calls(units, "bB")
    units.event(tracewriter.LEAVE, 6)
    units.event(tracewriter.LEAVE, 5)
    with read(trace_of(units)) as trace:
        assert closes(trace) == [
            (0, Cause.UNWOUND),
            (7, Cause.RETURN),
            (1, Cause.RETURN),
            (6, Cause.RETURN),
            (5, Cause.RETURN),
        ]
        assert summarize(trace).orphans == 0


def test_a_stack_pointer_and_its_enter_may_lie_in_two_blocks(read: Read) -> None:
    units = calls(Units(), "a")
    units.frame(0x2000)
    units.event(tracewriter.ENTER, 5)
    calls(units, "b")
    units.frame(0x1F00)
    units.event(tracewriter.LAND, 5)
    writer = trace_of(Units())
    writer.thread(units, block_units=2)
    with read(writer) as trace:
        assert closes(trace)[0] == (1, Cause.UNWOUND)
        assert summarize(trace).gaps == 0


@pytest.mark.parametrize("lost", [1, 3])
def test_a_gap_closes_what_is_open_and_reading_goes_on_behind_it(read: Read, lost: int) -> None:
    before, after = calls(Units(), "ab"), calls(Units(), "BAcC")
    writer = trace_of(before)
    writer.chunks.append(writer.events_block(bytes(after.data), first_unit=2 + lost))
    with read(writer) as trace:
        assert closes(trace) == [(1, Cause.GAP), (0, Cause.GAP), (2, Cause.RETURN)]
        gap = next(step for step in steps(trace) if step.type == StepType.GAP)
        assert (gap.value, gap.depth) == (lost, 0)
        summary = summarize(trace)
        assert (summary.gaps, summary.lost, summary.orphans) == (1, lost, 2)
        assert trace.threads[0].lost == lost


def test_a_stack_pointer_before_a_gap_belongs_to_nothing_behind_it(read: Read) -> None:
    units = Units()
    units.frame(0x2000)
    writer = trace_of(units)
    writer.chunks.append(writer.events_block(bytes(calls(Units(), "f").data), first_unit=2))
    units = Units()
    units.frame(0x1000)
    units.event(tracewriter.LAND, 5)
    writer.chunks.append(writer.events_block(bytes(units.data), first_unit=3))
    with read(writer) as trace:
        assert summarize(trace).orphans == 1
        assert closes(trace) == [(5, Cause.PROCESS_END)]


def test_a_ring_that_overwrote_its_oldest_blocks_begins_with_a_gap(read: Read) -> None:
    units = calls(Units(), "a" + "bB" * 12)
    writer = TraceWriter(policy=1)
    blocks = writer.blocks_of(units, block_units=5)
    # Blocks 3 and 4 were written over 0 and 1.
    writer.chunks += [blocks[3], blocks[4], blocks[2]]
    with read(writer) as trace:
        kinds = [step.type for step in steps(trace)]
        assert kinds[:2] == [StepType.THREAD, StepType.GAP]
        assert kinds.count(StepType.GAP) == 1
        assert trace.threads[0].lost == 10
        assert trace.threads[0].units == 15
        opened = [step.position for step in steps(trace) if step.type == StepType.OPEN]
        assert opened == [11, 13, 15, 17, 19, 21, 23]


def test_blocks_of_several_threads_mix_and_come_in_any_order(read: Read) -> None:
    writer = TraceWriter()
    one = writer.blocks_of(calls(Units(), "abBaA" * 6), thread=0, block_units=3)
    two = writer.blocks_of(calls(Units(), "cdDeE" * 6), thread=1, block_units=3)
    writer.chunks += [block for pair in zip(reversed(one), two) for block in pair]
    with read(writer) as trace:
        opened: dict[int, list[int]] = {}
        for step in steps(trace):
            if step.type == StepType.OPEN:
                opened.setdefault(step.thread, []).append(step.id)
        assert opened == {0: [0, 1, 0] * 6, 1: [2, 3, 4] * 6}
        assert summarize(trace).gaps == 0


def test_an_open_slot_ends_at_its_zero_unit_and_comes_last(read: Read) -> None:
    writer = TraceWriter()
    first, last = calls(Units(), "ab"), calls(Units(), "BA")
    writer.live([b"", writer.events_block(bytes(last.data), first_unit=2, closed=False)])
    writer.thread(first)
    with read(writer) as trace:
        assert closes(trace) == [(1, Cause.RETURN), (0, Cause.RETURN)]
        assert trace.threads[0].units == 4
        assert trace.index.live_slots == 2


def test_zeros_in_a_payload_do_not_end_an_open_slot(read: Read) -> None:
    writer = TraceWriter()
    units = calls(Units(), "a")
    units.ext(tracewriter.MARK, 0)
    calls(units, "A")
    writer.live([writer.events_block(bytes(units.data), closed=False)])
    with read(writer) as trace:
        assert closes(trace) == [(0, Cause.RETURN)]
        assert summarize(trace).ext[Ext.MARK] == 1


@pytest.mark.parametrize("closed", [True, False])
def test_a_slot_whose_copy_is_in_the_file_counts_once(read: Read, closed: bool) -> None:
    units = calls(Units(), "abBA")
    writer = TraceWriter()
    # Killed before the slot was emptied, or while it was: then the copy holds more.
    kept = bytes(units.data) if closed else bytes(units.data[:8])
    writer.live([writer.events_block(kept, closed=closed)])
    writer.thread(units)
    with read(writer) as trace:
        assert trace.threads[0].units == 4
        assert closes(trace) == [(1, Cause.RETURN), (0, Cause.RETURN)]
        assert trace.index.damaged_chunks == 0


def test_blocks_that_contradict_each_other_are_damage(read: Read) -> None:
    writer = trace_of(calls(Units(), "abBA"))
    writer.chunks.append(writer.events_block(bytes(calls(Units(), "cCdD").data), first_unit=2))
    with read(writer) as trace:
        assert trace.index.damaged_chunks == 1
        assert closes(trace) == [(1, Cause.RETURN), (0, Cause.RETURN)]


def test_zeros_inside_a_closed_block_are_a_gap(read: Read) -> None:
    units = calls(Units(), "ab")
    units.data += bytes(4 * 10)
    calls(units, "c")
    with read(trace_of(units)) as trace:
        assert closes(trace) == [(1, Cause.GAP), (0, Cause.GAP), (2, Cause.PROCESS_END)]
        assert summarize(trace).lost == 10


def test_an_unknown_extension_loses_the_rest_of_its_block(read: Read) -> None:
    units = calls(Units(), "a")
    units.ext(99, 1, 2)
    calls(units, "b")
    writer = trace_of(units)
    writer.chunks.append(writer.events_block(bytes(calls(Units(), "cC").data), first_unit=len(units)))
    with read(writer) as trace:
        assert closes(trace) == [(0, Cause.GAP), (2, Cause.RETURN)]
        assert summarize(trace).lost == len(units) - 1


@pytest.mark.parametrize(
    ("state", "ext", "cause"),
    [
        (tracewriter.EXITED, 0, Cause.PROCESS_END),
        (tracewriter.KILLED, 0, Cause.PROCESS_END),
        (tracewriter.STOPPED, 0, Cause.RUNNING),
        (tracewriter.RECORDING, 0, Cause.CUT),
        (tracewriter.STOPPED, tracewriter.STOP, Cause.STOPPED),
        (tracewriter.EXITED, tracewriter.THREAD_EXIT, Cause.THREAD_EXIT),
        (tracewriter.EXITED, tracewriter.RESET, Cause.RESET),
    ],
)
def test_frames_open_at_the_end_say_what_ended_them(read: Read, state: int, ext: int, cause: Cause) -> None:
    units = calls(Units(), "ab")
    if ext:
        units.ext(ext)
    with read(trace_of(units, state=state)) as trace:
        assert closes(trace) == [(1, cause), (0, cause)]
        assert summarize(trace).unclosed == {cause: 2}


def test_frames_open_where_a_file_was_truncated_are_cut(read: Read) -> None:
    writer = trace_of(calls(Units(), "ab"), append_end=1 << 30)
    with read(writer) as trace:
        assert trace.index.truncated
        assert closes(trace) == [(1, Cause.CUT), (0, Cause.CUT)]


def test_frames_of_a_live_slot_are_not_cut_by_a_truncated_file(read: Read) -> None:
    writer = TraceWriter(append_end=1 << 30)
    writer.live([writer.events_block(bytes(calls(Units(), "ab").data), closed=False)])
    with read(writer) as trace:
        assert closes(trace) == [(1, Cause.PROCESS_END), (0, Cause.PROCESS_END)]


def test_the_counter_may_turn_between_events_and_between_blocks(read: Read) -> None:
    turn = 1 << 40
    units = Units(8, now=5 * turn - 10)
    calls(units, "a")
    units.now += 20  # turns here
    calls(units, "b")
    units.now += turn - 1000 - (1 << 34)  # long, yet not a whole turn
    calls(units, "BA")
    units.now += 3 * turn  # between blocks
    calls(units, "cC")
    writer = TraceWriter(8)
    writer.thread(units, block_units=4)
    with read(writer) as trace:
        times = [step.time for step in steps(trace) if step.type in (StepType.OPEN, StepType.CLOSE)]
        assert times == units.times
        assert summarize(trace).short_times == 0


def test_a_pause_longer_than_the_counter_is_noticed(read: Read) -> None:
    units = calls(Units(8, now=1000), "a")
    units.now += (3 << 40) + 5
    calls(units, "A")
    writer = TraceWriter(8)
    writer.thread(units)
    with read(writer) as trace:
        assert [step.time for step in steps(trace) if step.type == StepType.CLOSE] == [1005]
        assert summarize(trace).short_times == 1


def test_a_clock_that_steps_back_a_little_stands_still(read: Read) -> None:
    units = Units(8, now=1 << 41)
    calls(units, "a")
    units.now -= 500
    calls(units, "b")
    units.now += 700
    calls(units, "BA")
    with read(trace_of(units)) as trace:
        times = [
            step.time - (1 << 41) for step in steps(trace) if step.type in (StepType.OPEN, StepType.CLOSE)
        ]
        assert times == [0, 0, 200, 200]


def test_total_time_counts_recursion_once(read: Read) -> None:
    units = Units(8)
    for letter, wait in (("a", 0), ("a", 10), ("a", 10), ("A", 10), ("A", 10), ("A", 10)):
        units.now += wait
        calls(units, letter)
    with read(trace_of(units)) as trace:
        (stat,) = summarize(trace).stats
        assert (stat.calls, stat.self_time, stat.total_time) == (3, 50, 50)


def test_events_are_counted_by_kind(read: Read) -> None:
    units = calls(Units(), "abBA")
    units.frame(0x1000)
    units.event(tracewriter.ENTER, 5)
    units.ext(tracewriter.THREAD_EXIT)
    with read(trace_of(units)) as trace:
        summary = summarize(trace)
        assert summary.events == {
            Event.FRAME: 1,
            Event.ENTER: 3,
            Event.LEAVE: 2,
            Event.TAIL: 0,
            Event.CALL: 0,
            Event.RETURN: 0,
            Event.LAND: 0,
            Event.EXT: 1,
        }
        assert summary.units == 7
        assert summary.ext[Ext.THREAD_EXIT] == 1
        assert summary.max_depth == 2


def test_endless_nesting_is_closed_and_named(read: Read) -> None:
    writer = TraceWriter()
    block = Units()
    for _ in range(tracewriter.BLOCK_UNITS[4]):
        block.event(tracewriter.ENTER, 1)
    count = (1 << 22) // len(block) + 1
    for at in range(count):
        writer.chunks.append(writer.events_block(bytes(block.data), first_unit=at * len(block)))
    with read(writer) as trace:
        summary = summarize(trace)
        assert summary.max_depth == 1 << 22
        assert summary.unclosed == {
            Cause.TOO_DEEP: 1 << 22,
            Cause.PROCESS_END: count * len(block) - (1 << 22),
        }


def test_a_block_with_numbers_beyond_all_sense_is_damage(read: Read) -> None:
    writer = trace_of(calls(Units(8), "aA"))
    data = bytes(calls(Units(8), "bB").data)
    writer.chunks.append(writer.events_block(data, first_unit=2, open_tsc=(1 << 64) - 5))
    writer.chunks.append(writer.events_block(data, first_unit=(1 << 64) - 5))
    with read(writer) as trace:
        assert trace.index.damaged_chunks == 2
        assert closes(trace) == [(0, Cause.RETURN)]


def marked(writer: TraceWriter, *marks: tuple[str, list[list[int]]]) -> TraceWriter:
    """The trace with named marks: for each the threads' indexes and positions."""
    told = [{"name": name, "tsc": number, "positions": rows} for number, (name, rows) in enumerate(marks)]
    writer.info({"marks": told[:1]})
    writer.info({"marks": told[1:]})
    return writer


def what_happened(trace: TraceFile) -> list[str]:
    """The names of what was entered and left, and of marks, in order."""
    told = {StepType.OPEN: "{}", StepType.CLOSE: "/{}", StepType.MARK: "-- {}", StepType.GAP: "gap"}
    names = [
        trace.mark_name(step.id, step.value) if step.type == StepType.MARK else "abcdefgh"[step.id]
        for step in steps(trace)
    ]
    return [told[StepType(s.type)].format(name) for s, name in zip(steps(trace), names) if s.type in told]


def test_named_marks_stand_where_their_threads_were(read: Read) -> None:
    units = Units()
    units.event(tracewriter.ENTER, 0)
    units.frame(0x1000)
    units.event(tracewriter.ENTER, 1)
    units.ext(tracewriter.MARK, 77)  # of the program's own
    units.event(tracewriter.LEAVE, 1)
    units.event(tracewriter.LEAVE, 0)
    assert len(units) == 8
    writer = trace_of(units)
    writer.thread(calls(Units(), "cC"), 1)
    places = [("first", 0), ("in a", 1), ("within an event", 2), ("in b", 6), ("also in b", 6), ("last", 8)]
    marks = [(name, [[0, at], [7, 1]]) for name, at in places]
    with read(marked(writer, *marks, ("elsewhere", [[1, 1]]))) as trace:
        assert [mark.name for mark in trace.marks] == [name for name, _ in (*places, ("elsewhere", 0))]
        assert what_happened(trace) == [
            *["-- first", "a", "-- in a", "b", "-- within an event", "-- 77", "-- in b", "-- also in b"],
            *["/b", "/a", "-- last", "c", "-- elsewhere", "/c"],
        ]
        assert shape(trace) == [(0, "a", 1), (1, "b", 1), (0, "c", 1)]
        lines = [line for line in Tree(trace, TreeFilter(depth=1)) if line.type == LineType.MARK]
        # The program's own lie where nothing is shown; a name is for all to see.
        assert [(line.depth, trace.mark_name(line.id, line.value)) for line in lines] == [
            (0, "first"),
            (1, "in a"),
            (1, "within an event"),
            (1, "in b"),
            (1, "also in b"),
            (0, "last"),
            (1, "elsewhere"),
        ]


@pytest.mark.parametrize("unit_size", [4, 8])
@pytest.mark.parametrize("block_units", [None, 3])
def test_named_marks_change_nothing_else(read: Read, unit_size: int, block_units: int | None) -> None:
    units = calls(Units(unit_size), "abcCBdDA" * 3)
    plain, writer = TraceWriter(unit_size), TraceWriter(unit_size)
    for each in (plain, writer):
        each.thread(units, block_units=block_units)
    marks = [(str(at), [[0, at]]) for at in range(len(units) + 1)]
    with read(plain) as before, read(marked(writer, *reversed(marks))) as after:
        found = list(steps(after))
        assert [step for step in found if step.type != StepType.MARK] == list(steps(before))
        told = [(step.position, after.mark_name(step.id, 0)) for step in found if step.type == StepType.MARK]
        assert told == [(at, str(at)) for at in range(len(units) + 1)]


def test_a_mark_behind_lost_events_comes_behind_the_gap(read: Read) -> None:
    writer = trace_of(calls(Units(), "a"))
    units = calls(Units(), "bB")
    writer.chunks.append(writer.events_block(bytes(units.data), first_unit=10))
    with read(marked(writer, ("lost", [[0, 5]]), ("behind", [[0, 11]]), ("never", [[0, 99]]))) as trace:
        assert what_happened(trace) == ["a", "/a", "gap", "-- lost", "b", "-- behind", "/b"]


def test_a_mark_behind_half_an_event_comes_before_its_thread_ends(read: Read) -> None:
    units = calls(Units(), "a")
    units.frame(0x1000)  # and what it belongs to was cut off
    with read(marked(trace_of(units), ("end", [[0, len(units)]]))) as trace:
        assert what_happened(trace) == ["a", "-- end", "/a"]


def test_marks_that_are_none_are_left_out(read: Read) -> None:
    for told in (5, [5], [{"name": 3, "positions": [["x"], 7, [0, -1], [1 << 80, "y"]]}], {"name": "x"}):
        writer = trace_of(calls(Units(), "aA"))
        writer.info({"marks": told})
        with read(writer) as trace:
            assert [step for step in what_happened(trace) if step[:2] != "--"] == ["a", "/a"]
