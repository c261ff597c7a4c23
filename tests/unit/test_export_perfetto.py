"""Perfetto's protobuf, parsed by Perfetto's own definition and put together as its documentation says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace.export import perfetto
from calltrace.tracefile import TraceFile
from rig import readers, simulated, tracewriter
from rig.simulated import SimulatedThread, simulated_trace
from rig.tracewriter import TraceWriter, Units

HZ = 2 * 10**9
START = 1000
PROGRAMS = st.binary(max_size=1000)
checked = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Slice(NamedTuple):
    """A slice of a track, in nanoseconds; `end` is None if it is open where its file ends."""

    track: str
    name: str
    depth: int
    begin: int
    end: int | None


class Timeline:
    """What a reader of one file sees."""

    def __init__(self, path: Path) -> None:
        self.slices: list[Slice] = []
        self.instants: list[tuple[str, str, int]] = []
        self.processes: list[tuple[int, str]] = []
        self.annotations: Counter[str] = Counter()
        self._tracks: dict[int, str] = {}
        self._sequences: dict[int, tuple[dict[int, str], int]] = {}  # names by iid, and the default track
        self._open: dict[int, list[tuple[str, int]]] = {}
        trace = readers.perfetto_trace(path.read_bytes())
        for packet in trace.packet:
            self._take(packet)
        for uuid, frames in self._open.items():
            for depth, (name, begin) in enumerate(frames):
                self.slices.append(Slice(self._tracks[uuid], name, depth, begin, None))

    def _take(self, packet: Any) -> None:
        sequence = packet.trusted_packet_sequence_id
        assert sequence
        if packet.sequence_flags & packet.SEQ_INCREMENTAL_STATE_CLEARED:
            defaults = packet.trace_packet_defaults.track_event_defaults
            self._sequences[sequence] = ({}, defaults.track_uuid)
        if packet.HasField("track_descriptor"):
            self._describe(packet.track_descriptor)
        if packet.HasField("track_event"):
            assert packet.sequence_flags & packet.SEQ_NEEDS_INCREMENTAL_STATE
            names, uuid = self._sequences[sequence]
            for name in packet.interned_data.event_names:
                assert name.iid
                assert name.iid not in names
                names[name.iid] = name.name
            self._happen(packet.track_event, packet.timestamp, names, uuid)

    def _describe(self, descriptor: Any) -> None:
        if descriptor.HasField("process"):
            self.processes.append((descriptor.process.pid, descriptor.process.process_name))
            self._tracks[descriptor.uuid] = "process"
        else:
            assert self._tracks[descriptor.parent_uuid] == "process"
            assert descriptor.thread.pid == self.processes[0][0]
            self._tracks[descriptor.uuid] = f"{descriptor.thread.thread_name} {descriptor.thread.tid}"

    def _happen(self, event: Any, time: int, names: dict[int, str], uuid: int) -> None:
        track, frames = self._tracks[uuid], self._open.setdefault(uuid, [])
        if event.type == event.TYPE_SLICE_BEGIN:
            frames.append((names[event.name_iid], time))
        elif event.type == event.TYPE_SLICE_END:
            name, begin = frames.pop()
            assert begin <= time
            self.slices.append(Slice(track, name, len(frames), begin, time))
            for annotation in event.debug_annotations:
                assert annotation.name == "closed by"
                self.annotations[annotation.string_value] += 1
        else:
            assert event.type == event.TYPE_INSTANT
            self.instants.append((track, event.name, time))


def track(number: int) -> str:
    return f"thread {number} {1000 + 4 * number}"


def nanoseconds(ticks: int) -> int:
    return (ticks - START) * 10**9 // HZ


def true_slices(threads: list[SimulatedThread], unit_size: int) -> Counter[Slice]:
    slices: Counter[Slice] = Counter()
    for number, thread in enumerate(threads):
        for frame in thread.frames():
            times = (frame.begin, frame.end) if unit_size == 8 else (frame.opened, frame.closed)
            begin, end = map(nanoseconds, times) if unit_size == 8 else times
            slices[Slice(track(number), simulated.name(frame), frame.depth, begin, end)] += 1
    return slices


@pytest.mark.parametrize("unit_size", [4, 8])
@checked
@given(program=PROGRAMS, other=PROGRAMS)
def test_slices_are_the_frames(tmp_path: Path, unit_size: int, program: bytes, other: bytes) -> None:
    path, threads = simulated_trace(tmp_path / "t", program, other, unit_size=unit_size, start=START, hz=HZ)
    with TraceFile(path) as trace:
        (written,) = perfetto.write(trace, tmp_path / "t.pftrace")
    timeline = Timeline(written)
    if unit_size == 8:
        assert Counter(timeline.slices) == true_slices(threads, unit_size)
    else:  # when frames without an end of their own were closed, positions differ by what closed them
        begun = Counter(each._replace(end=None) for each in timeline.slices)
        true = true_slices(threads, unit_size)
        assert begun == Counter(each._replace(end=None) for each in true.elements())
    assert timeline.processes == [(4711, "simulated.exe")]
    marks = [(track(at), f"mark {mark}") for at, thread in enumerate(threads) for mark in thread.marks]
    assert [(where, text) for where, text, _ in timeline.instants] == marks
    causes = Counter(frame.cause for thread in threads for frame in thread.frames())
    assert timeline.annotations["open at process end"] == causes[simulated.PROCESS_END]
    assert sum(timeline.annotations.values()) == sum(causes.values()) - causes[simulated.RETURN]


@checked
@given(program=PROGRAMS, other=PROGRAMS, file_size=st.integers(1, 3000))
def test_each_file_of_a_split_trace_stands_by_itself(
    tmp_path: Path, program: bytes, other: bytes, file_size: int
) -> None:
    path, threads = simulated_trace(tmp_path / "t", program, other, start=START, hz=HZ)
    with TraceFile(path) as trace:
        written = perfetto.write(trace, tmp_path / "t.pftrace", file_size)
    assert written[:2] == [tmp_path / "t.pftrace", tmp_path / "t-2.pftrace"][: len(written)]
    ended: Counter[Slice] = Counter()
    open_before: list[Slice] = []
    for file in written:
        timeline = Timeline(file)
        ended.update(each for each in timeline.slices if each.end is not None)
        # What was open where the file before ended is there again, as it began.
        told = Counter(each._replace(end=None) for each in timeline.slices)
        assert not Counter(open_before) - told
        open_before = [each for each in timeline.slices if each.end is None]
        assert timeline.processes == [(4711, "simulated.exe")]
        file.unlink()
    assert not open_before
    assert ended == true_slices(threads, 8)


def test_names_and_gaps_are_told_as_they_are(tmp_path: Path) -> None:
    units = Units(8)
    units.event(tracewriter.ENTER, 0)
    units.now += 5
    writer = TraceWriter(8)
    odd = 'wörk "<\\>" ' + "x" * 300
    writer.module({"name": "d.exe", "names": [[0x1000, odd]]}, [(0x1000, 1, 1, 0, 0, tracewriter.NONE)])
    writer.thread(units)
    writer.chunks.append(writer.events_block(b"\x01" + bytes(7), first_unit=4, open_tsc=7, close_tsc=7))
    with TraceFile(writer.write(tmp_path / "t")) as trace:
        (written,) = perfetto.write(trace, tmp_path / "t.pftrace")
    timeline = Timeline(written)
    assert [each.name for each in timeline.slices] == [f"d!{odd}"] * 2
    assert timeline.annotations == {"open at a gap": 1, "open at process end": 1}
    assert [text for _, text, _ in timeline.instants] == ["gap: 3 events lost"]
