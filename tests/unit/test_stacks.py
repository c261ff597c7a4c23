"""The stacks that are read are those the threads had, also of a trace that is being recorded meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from calltrace import tracefile
from calltrace.calltree import steps
from calltrace.errors import UsageError
from calltrace.model import NodeKind, StepType
from calltrace.stacks import stacks
from calltrace.tracefile import TraceFile
from rig import simulated, tracewriter
from rig.commands import run
from rig.simulated import Frame, SimulatedThread
from rig.tracewriter import BLOCK, TraceWriter, Units

NONE = tracewriter.NONE
IN_THE_MIDDLE = (tracewriter.RECORDING, tracewriter.EXITED, tracewriter.STOPPED, tracewriter.KILLED)
random_runs = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def expected(stack: list[Frame]) -> Iterator[tuple[int, int, int | None]]:
    """Kind and id of each frame, innermost first, and the site of the call that a function stands for."""
    frames = list(reversed(stack))
    skip = False
    for frame, below in zip(frames, [*frames[1:], None]):
        if skip:
            skip = False
            continue
        called = frame.kind == simulated.FUNCTION and below is not None and below.kind == simulated.CALL_NODE
        skip = called
        yield frame.kind, frame.id, below.id if called and below else None


def found(trace: TraceFile, thread: int) -> Iterator[tuple[int, int, int | None]]:
    (stack,) = stacks(trace, thread)
    for frame in stack.frames():
        if frame.kind == NodeKind.FUNCTION:
            assert frame.address is not None
            node = (frame.address - 0x140001000) // 16
            site = None if frame.call_address is None else (frame.call_address - 0x140002000) // 5
            yield frame.kind, node, site
        elif frame.kind == NodeKind.CALL:
            assert frame.call_address is not None
            yield frame.kind, (frame.call_address - 0x140002000) // 5, None
        else:
            assert frame.address is not None
            yield frame.kind, frame.address, None


@random_runs
@given(
    st.lists(st.binary(max_size=120), min_size=1, max_size=3),
    st.sampled_from([4, 8]),
    st.sampled_from(IN_THE_MIDDLE),
    st.integers(8, 60),
    st.booleans(),
)
def test_the_stack_is_the_one_the_thread_had(
    tmp_path: Path,
    programs: list[bytes],
    unit_size: int,
    state: int,
    block_units: int,
    last_in_slot: bool,
) -> None:
    threads = [SimulatedThread(unit_size) for _ in programs]
    writer = TraceWriter(unit_size, state)
    simulated.describe(writer)
    slots = []
    for number, (thread, program) in enumerate(zip(threads, programs)):
        thread.run(program)
        blocks = writer.blocks_of(thread.units, number, block_units)
        if blocks and last_in_slot:
            slots.append(blocks.pop())
        writer.chunks += blocks
    writer.live(slots)
    path = writer.write(tmp_path / "t.calltrace")
    with TraceFile(path) as trace:
        assert trace.index.damaged_chunks == trace.index.lost == 0
        for number, thread in enumerate(threads):
            if len(thread.units):
                assert list(found(trace, number)) == list(expected(thread.stack))


# ---- files that are written to while they are opened ----


RECORD, CLOSE, CLOSE_AND_OPEN = b"\0\0", b"\3\0", b"\3\x40"  # acts of a thread
BEGIN, BEGIN_SECOND, END = b"\4\0", b"\4\x81", b"\6\0"  # of the writer, or of a thread in its place


class Recorder:
    """Writes blocks as the recorder does, and stops anywhere: a thread's n-th unit is ENTER of n."""

    SLOTS = 6

    def __init__(self, threads: int) -> None:
        self.units = [0] * threads  # written by each thread
        self.slots: list[tuple[int, int, int, bool] | None] = [None] * self.SLOTS  # thread, first, end, full
        self.file: list[tuple[int, int, int, bool]] = []  # thread, first, end, whole
        self.seen = [False] * threads

    def act(self, what: int, which: int) -> None:
        """A thread records, or goes to another block; or the writer begins or ends to write one."""
        thread = which % len(self.units)
        open_slot = next(
            (at for at, slot in enumerate(self.slots) if slot and slot[0] == thread and not slot[3]), None
        )
        if what % 8 < 3:
            if open_slot is None:
                if None not in self.slots:
                    return
                open_slot = self._free(which)
                self.slots[open_slot] = (thread, self.units[thread], self.units[thread], False)
            slot = self.slots[open_slot]
            assert slot
            self.units[thread] += 1 + which % 5
            self.slots[open_slot] = (thread, slot[1], self.units[thread], False)
        elif what % 8 == 3 and open_slot is not None:
            slot = self.slots[open_slot]
            assert slot
            if which & 64 and None in self.slots and slot[1] < slot[2]:
                self.slots[self._free(which)] = (thread, slot[2], slot[2], False)
                self.slots[open_slot] = (*slot[:3], True)
            elif slot[1] < slot[2]:
                self.slots[open_slot] = (*slot[:3], True)  # the thread is over, or writes the block itself
        elif what % 8 < 6:
            full = [slot for slot in self.slots if slot and slot[3]]
            pending = {(thread, first) for thread, first, _, _ in self.file}
            full = [slot for slot in full if slot[:2] not in pending]
            if full:  # the writer takes the oldest; a thread that finds no free slot, its own
                taken = full[which % len(full)] if which & 128 else min(full, key=lambda slot: slot[1])
                self.file.append((*taken[:3], False))
        else:
            for at, (thread, first, end, whole) in enumerate(self.file):
                if not whole:
                    self.file[at] = (thread, first, end, True)
                    self.slots[self.slots.index((thread, first, end, True))] = None
                    break

    def _free(self, which: int) -> int:
        free = [at for at, slot in enumerate(self.slots) if slot is None]
        return free[which % len(free)]

    def write(self, path: Path, blocks: int) -> Path:
        """The file as it is now, seen by who mapped it when so many blocks were written or begun; of one that
        is half written only the header is there."""
        writer = TraceWriter(state=tracewriter.RECORDING, threads=len(self.units))
        slots = [b"" if slot is None else self._block(writer, *slot[:3], slot[3]) for slot in self.slots]
        writer.live(slots)
        for thread, first, end, whole in self.file[:blocks]:
            block = self._block(writer, thread, first, end, True)
            writer.chunks.append(block if whole else block[:64].ljust(BLOCK, b"\0"))
        return writer.write(path)

    def _block(self, writer: TraceWriter, thread: int, first: int, end: int, closed: bool) -> bytes:
        units = Units()
        for number in range(first, end):
            units.event(tracewriter.ENTER, number)
        return writer.events_block(
            bytes(units.data), thread, first, closed and first < end, open_tsc=first + 1
        )


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 4), st.lists(st.binary(max_size=120), min_size=4, max_size=4))
@example(1, [RECORD + CLOSE, BEGIN + END, b"", b""])  # its last block leaves its slot
@example(1, [RECORD + CLOSE, BEGIN + END, RECORD + CLOSE + BEGIN, b""])  # and the next one is half written
@example(1, [RECORD, b"", (RECORD + CLOSE + BEGIN + END) * 2, b""])  # it goes on in the block that was read
@example(1, [RECORD + CLOSE_AND_OPEN + RECORD + CLOSE + BEGIN_SECOND + END, b"", b"", b""])  # one waits
def test_what_is_recorded_meanwhile_makes_no_holes(tmp_path: Path, threads: int, acts: list[bytes]) -> None:
    recorder = Recorder(threads)
    paths = []
    for name in ("first", "then"):  # what is mapped before the slots are read, and after
        for part in range(2):  # until it is mapped, and until it is read
            moves = acts.pop(0)
            for what, which in zip(moves[::2], moves[1::2]):
                recorder.act(what, which)
            if not part:
                blocks = len(recorder.file)
                if not paths:
                    complete = list(recorder.units)
        paths.append(recorder.write(tmp_path / f"{name}.calltrace", blocks))
    mapped = tracefile._mapped
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracefile, "_mapped", lambda _: mapped(paths.pop(0)))
        trace = TraceFile(tmp_path / "first.calltrace")
    with trace:
        assert not paths
        assert trace.index.damaged_chunks == trace.index.lost == 0
        read = {thread.index: thread.units for thread in trace.threads}
        for thread, (least, most) in enumerate(zip(complete, recorder.units)):
            assert least <= read.get(thread, 0) <= most
            if thread in read:
                entered = [step.id for step in steps(trace, thread) if step.type == StepType.OPEN]
                assert entered == list(range(read[thread]))


def test_a_block_that_is_overwritten_before_it_is_read_is_a_gap(tmp_path: Path) -> None:
    writer = TraceWriter(state=tracewriter.RECORDING, policy=1)
    units = Units()
    for number in range(30):
        units.event(tracewriter.ENTER, number)
    blocks = writer.blocks_of(units, block_units=10)
    writer.chunks += blocks[:2]
    writer.live(blocks[2:])
    path = writer.write(tmp_path / "ring.calltrace")
    with TraceFile(path) as trace:
        other = writer.events_block(bytes(units.data[:40]), thread=1)
        with path.open("r+b") as file:
            file.seek(2 * BLOCK)
            file.write(other)
        (stack,) = stacks(trace)
        assert stack.incomplete
        assert [frame.name for frame in stack.frames()] == [f"function #{id}" for id in range(29, 19, -1)]


# ---- what the user sees ----


def small(units: Units, state: int = tracewriter.EXITED) -> TraceWriter:
    """Functions main, f and g; sites: main calls f, an import, and through a pointer; f calls g."""
    writer = TraceWriter(units.unit_size, state)
    names = [[0x1000, "main"], [0x2000, "f"], [0x3000, "g"]]
    sites = [(0x1010, 0, 0x2000, NONE), (0x1020, 0, 0, 0), (0x1030, 0, 0, NONE), (0x2010, 1, 0x3000, NONE)]
    told = {"name": "m.exe", "names": names, "imports": ["K.dll!Wait"]}
    writer.module(told, [(rva, 16, 1, 0, 0, NONE) for rva, _ in names], sites)
    writer.thread(units)
    return writer


def recorded(text: str, unit_size: int = 4) -> Units:
    """`m f g` enter main, f and g, capitals leave them; 0 to 3 call from a site; x: the thread ends."""
    units = Units(unit_size)
    for letter in text:
        units.now += 100
        if letter in "mfg":
            units.event(tracewriter.ENTER, "mfg".index(letter))
        elif letter in "MFG":
            units.event(tracewriter.LEAVE, "MFG".index(letter))
        elif letter == "x":
            units.ext(tracewriter.THREAD_EXIT)
        else:
            units.event(tracewriter.CALL, int(letter))
    return units


def shown(text: str, tmp_path: Path, state: int = tracewriter.EXITED, options: str = "") -> list[str]:
    path = small(recorded(text), state).write(tmp_path / "t.calltrace")
    return run(f'stacks "{path}" {options}').splitlines()


def test_frames_are_numbered_from_the_innermost_and_say_where_they_were_called(tmp_path: Path) -> None:
    assert shown("m0f3g", tmp_path) == [
        "thread 0 (id 1000), when the process ended, as of its event 5",
        "  00  m!g  called at m+0x2010",
        "  01  m!f  called at m+0x1010",
        "  02  m!main",
    ]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("m1f", ["00  m!f", "01  K.dll!Wait  called at m+0x1020", "02  m!main"]),  # a callback
        ("m1", ["00  K.dll!Wait  called at m+0x1020", "01  m!main"]),
        ("m2f", ["00  m!f  called at m+0x1030", "01  m!main"]),
        ("m2", ["00  call at m+0x1030", "01  m!main"]),
        (
            "m0g",
            ["00  m!g", "01  call m!f  called at m+0x1010", "02  m!main"],
        ),  # f is not recorded, and calls g
        ("m", ["00  m!main"]),
        ("mM", ["no open frame"]),
    ],
)
def test_a_call_is_a_frame_unless_its_callee_is_one(tmp_path: Path, text: str, rows: list[str]) -> None:
    assert [row.strip() for row in shown(text, tmp_path)[1:]] == rows


def test_each_thread_says_how_it_ended(tmp_path: Path) -> None:
    ends = {
        tracewriter.EXITED: "when the process ended",
        tracewriter.KILLED: "when the process ended",
        tracewriter.STOPPED: "when recording was stopped",
        tracewriter.RECORDING: "so far, or where the trace is cut",
    }
    for state, text in ends.items():
        assert shown("mf", tmp_path, state)[0] == f"thread 0 (id 1000), {text}, as of its event 2"
    assert shown("mfx", tmp_path)[0] == "thread 0 (id 1000), when the thread ended, as of its event 3"
    # Callbacks of the thread's end run behind it.
    assert shown("mxgG", tmp_path) == [
        "thread 0 (id 1000), when the thread ended, as of its event 4",
        "  no open frame",
    ]


def test_frames_of_a_suspended_fiber_are_not_on_the_stack(tmp_path: Path) -> None:
    units = recorded("m")
    units.frame(0x1000)
    units.event(tracewriter.CALL, 1)
    units.event(tracewriter.ENTER, 1)
    path = small(units).write(tmp_path / "t.calltrace")
    assert run(f'stacks "{path}"').splitlines()[1:] == ["  00  m!f"]


def test_where_events_were_lost_the_stack_says_that_it_may_go_on(tmp_path: Path) -> None:
    writer = small(Units())
    units = recorded("m")
    writer.chunks.append(writer.events_block(bytes(units.data)))
    writer.chunks.append(writer.events_block(bytes(recorded("f").data), first_unit=7))
    path = writer.write(tmp_path / "t.calltrace")
    assert run(f'stacks "{path}"').splitlines() == [
        "thread 0 (id 1000), when the process ended, as of its event 8",
        "  00  m!f",
        "  perhaps further frames: events of this thread were lost",
    ]


def test_limit_times_and_threads(tmp_path: Path) -> None:
    assert shown("mfgfg", tmp_path, options="--limit 2")[1:] == [
        "  00  m!g",
        "  01  m!f",
        "  further frames: --limit 0 shows all",
    ]
    assert len(shown("mfgfg", tmp_path, options="--limit 0 --thread 1000")) == 6
    with pytest.raises(UsageError, match="has no thread 7"):
        shown("m", tmp_path, options="--thread 7")
    timed = small(recorded("m0f", 8)).write(tmp_path / "timed.calltrace")
    assert run(f'stacks "{timed}"').splitlines()[1:] == [
        "  00  m!f  0 ns  called at m+0x1010",
        "  01  m!main  200 ns",
    ]


def test_json_has_the_addresses(tmp_path: Path) -> None:
    path = small(recorded("m0f3", 8)).write(tmp_path / "t.calltrace")
    told = json.loads(run(f'stacks "{path}" --json'))
    assert told["state"] == "exited"
    (thread,) = told["threads"]
    frames = thread.pop("frames")
    assert thread == {"index": 0, "id": 1000, "events": 4, "ended": "process_end", "incomplete": False}
    assert [tuple(frame.values()) for frame in frames] == [
        ("call m!g", "call", None, "m+0x2010", "0x140002010", 0),
        ("m!f", "function", "0x140002000", "m+0x1010", "0x140001010", 100),
        ("m!main", "function", "0x140001000", None, None, 300),
    ]
