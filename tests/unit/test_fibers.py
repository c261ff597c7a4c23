"""A thread that goes on with another stack: its frames are left, and gone on with, as its fibers did."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calltrace.calltree import steps, summarize
from calltrace.export import csv, text
from calltrace.model import STEP_RESUMED, Cause, NodeKind, StepType
from calltrace.tracefile import TraceFile
from rig import tracewriter
from rig.tracewriter import TraceWriter, Units

NONE = tracewriter.NONE
FUNCTIONS = 8
LEFT, RETURNED = "left", "returned"


def open_trace(units: Units, path: Path) -> TraceFile:
    """One thread's trace; function n is called by its own name, a..h, and holds call site n."""
    writer = TraceWriter(units.unit_size)
    functions = [(0x1000 * (at + 1), 16, 1, 0, 0, NONE) for at in range(FUNCTIONS)]
    names = [[0x1000 * (at + 1), name] for at, name in enumerate("abcdefgh")]
    sites = [(0x1001 + 0x1000 * at, at, 0, 0) for at in range(FUNCTIONS)]
    writer.module({"name": "m.exe", "names": names, "imports": ["K.dll!SwitchToFiber"]}, functions, sites)
    writer.thread(units)
    return TraceFile(writer.write(path))


class Fibers:
    """Writes what the fibers of a thread record, and what a reader should find in it."""

    def __init__(self, unit_size: int) -> None:
        self.units = Units(unit_size)
        self.stacks: dict[int, list[tuple[int, int]]] = {0: []}  # fiber: open frames, kind and id
        self.running = 0
        self.told: list[tuple[object, ...]] = []

    def enter(self, function: int) -> None:
        self._open(NodeKind.FUNCTION, function, False)
        self.units.event(tracewriter.ENTER, function)

    def leave(self) -> None:
        if self.stacks[self.running]:
            self.units.event(tracewriter.LEAVE, self.stacks[self.running][-1][1])
            self._close(RETURNED)

    def switch(self, to: int) -> None:
        """From whatever function is innermost; a fiber that runs for the first time enters a function."""
        stack = self.stacks[self.running]
        if to == self.running or not stack:
            return
        site = stack[-1][1]
        self._stack_pointer()
        self.units.event(tracewriter.CALL, site)
        self._open(NodeKind.CALL, site, False)
        for kind, node in reversed(stack):
            self.told.append((LEFT, kind, node))
        self.running = to
        if to not in self.stacks:
            self.stacks[to] = []
            self.enter(to % FUNCTIONS)
            return
        for kind, node in self.stacks[to]:
            self.told.append(("open", kind, node, True))
        self._stack_pointer()
        self.units.event(tracewriter.RETURN, self.stacks[to][-1][1])
        self._close(RETURNED)

    def _stack_pointer(self) -> None:
        # Each call of a fiber's function moves its stack pointer; before and after the call that switches
        # it is the same.
        calls = sum(kind == NodeKind.FUNCTION for kind, _ in self.stacks[self.running])
        self.units.frame(0x7_0001_0000 * (self.running + 1) - 0x40 * calls)

    def _open(self, kind: NodeKind, node: int, resumed: bool) -> None:
        self.stacks[self.running].append((kind, node))
        self.told.append(("open", kind, node, resumed))

    def _close(self, why: str) -> None:
        self.told.append((why, *self.stacks[self.running].pop()))


def read_back(trace: TraceFile) -> list[tuple[object, ...]]:
    """As in Fibers.told; frames open at the end are left out."""
    found: list[tuple[object, ...]] = []
    for step in steps(trace):
        if step.type == StepType.OPEN:
            found.append(("open", step.kind, step.id, bool(step.flags & STEP_RESUMED)))
        elif step.type == StepType.CLOSE and step.cause != Cause.PROCESS_END:
            found.append(
                ({Cause.SWITCHED: LEFT, Cause.RETURN: RETURNED}[Cause(step.cause)], step.kind, step.id)
            )
        else:
            assert step.type in (StepType.THREAD, StepType.CLOSE)
    return found


@pytest.mark.parametrize("unit_size", [4, 8])
@settings(max_examples=200, deadline=None)
@given(program=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), max_size=80))
def test_frames_are_left_and_gone_on_with_as_the_fibers_were(
    unit_size: int, program: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    fibers = Fibers(unit_size)
    for what, which in program:
        [fibers.enter, lambda _: fibers.leave(), fibers.switch][what](which)
    with open_trace(fibers.units, tmp_path_factory.mktemp("fibers") / "t.calltrace") as trace:
        assert read_back(trace) == fibers.told
        summary = summarize(trace)
        new = [told for told in fibers.told if told[0] == "open" and not told[3]]
        assert sum(summary.frames.values()) == len(new)
        assert sum(stat.calls for stat in summary.stats) == len(new)
        suspended = sum(len(stack) for fiber, stack in fibers.stacks.items() if fiber != fibers.running)
        assert summary.causes[Cause.SWITCHED] == suspended
        assert summary.orphans == 0


def ping_pong() -> Units:
    fibers = Fibers(4)
    fibers.enter(0)
    fibers.switch(1)
    fibers.enter(2)
    fibers.switch(0)
    fibers.leave()
    return fibers.units


def test_the_tree_says_where_a_stack_is_left_and_gone_on_with(tmp_path: Path) -> None:
    with open_trace(ping_pong(), tmp_path / "t.calltrace") as trace:
        out = io.StringIO()
        text.write(trace, out)
        lines = out.getvalue().splitlines()
    assert lines[1:] == [
        "  m!a  left to another fiber",
        "    K.dll!SwitchToFiber  left to another fiber",
        "  m!b  left to another fiber",
        "    m!c  left to another fiber",
        "      K.dll!SwitchToFiber  left to another fiber",
        "  m!a  goes on",
        "    K.dll!SwitchToFiber  goes on",
    ]


def test_csv_tells_leaving_a_stack_from_leaving_a_function(tmp_path: Path) -> None:
    with open_trace(ping_pong(), tmp_path / "t.calltrace") as trace:
        out = tmp_path / "t.csv"
        with out.open("w", encoding="utf-8") as file:
            csv.write(trace, file)
    events = [row.split(",")[4] for row in out.read_text(encoding="utf-8").splitlines()[1:]]
    assert events == [
        "enter", "call", "suspend", "suspend",
        "enter", "enter", "call", "suspend", "suspend", "suspend",
        "resume", "resume", "return", "leave",
    ]  # fmt: skip


def test_a_fiber_that_ended_is_forgotten_where_its_stack_is_used_again(tmp_path: Path) -> None:
    units = Units(4)
    for _ in range(2):  # the second fiber at the same place is another one
        units.event(tracewriter.ENTER, 0)
        units.frame(0x1000)
        units.event(tracewriter.CALL, 0)
        units.event(tracewriter.ENTER, 1)
        units.event(tracewriter.LEAVE, 1)
    units.frame(0x1000)
    units.event(tracewriter.RETURN, 0)
    units.event(tracewriter.LEAVE, 0)
    with open_trace(units, tmp_path / "t.calltrace") as trace:
        summary = summarize(trace)
        assert summary.orphans == 0
        assert summary.causes[Cause.SWITCHED] == 2  # the first one's


def test_a_return_to_a_stack_that_nobody_knows_is_an_orphan(tmp_path: Path) -> None:
    units = Units(4)
    units.event(tracewriter.ENTER, 0)
    units.frame(0x1000)
    units.event(tracewriter.CALL, 0)
    units.frame(0x2000)
    units.event(tracewriter.RETURN, 3)
    with open_trace(units, tmp_path / "t.calltrace") as trace:
        summary = summarize(trace)
        assert summary.orphans == 1
        assert summary.causes[Cause.SWITCHED] == 2
