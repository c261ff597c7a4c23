"""Time lines of which parts were lost, in any order and number: what begins ends, within what it began in."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace.export import FORMATS, perfetto
from calltrace.tracefile import TraceFile
from rig import readers, simulated
from rig.simulated import SimulatedThread
from rig.tracewriter import TraceWriter

DROP_OLDEST = 1
Event = tuple[object, object, bool, float]  # whose it is, what, whether it begins, when


def trace_with_gaps(path: Path, seed: int, unit_size: int) -> Path:
    """Two threads; of each block of twenty events about every other is gone, and they lie in any order."""
    rng = random.Random(seed)
    writer = TraceWriter(unit_size, policy=DROP_OLDEST)
    simulated.describe(writer)
    for number in range(2):
        thread = SimulatedThread(unit_size, now=1000)
        thread.run(rng.randbytes(1000))
        blocks = writer.blocks_of(thread.units, number, 20)
        kept = rng.sample(blocks, max(1, len(blocks) // 2))
        writer.chunks += kept
    return writer.write(path)


def of_speedscope(path: Path) -> Iterable[Event]:
    told = json.loads(path.read_text(encoding="utf-8"))
    readers.speedscope_validator()(told)
    for profile in told["profiles"]:
        for event in profile["events"]:
            assert profile["startValue"] <= event["at"] <= profile["endValue"]
            yield profile["name"], event["frame"], event["type"] == "O", event["at"]


def of_chrome(path: Path) -> Iterable[Event]:
    for event in json.loads(path.read_text(encoding="utf-8"))["traceEvents"]:
        if event["ph"] in "BE":
            yield event["tid"], event["name"], event["ph"] == "B", event["ts"]


def of_perfetto(path: Path) -> Iterable[Event]:
    for packet in readers.perfetto_trace(path.read_bytes()).packet:
        event = packet.track_event
        if event.type in (event.TYPE_SLICE_BEGIN, event.TYPE_SLICE_END):
            sequence = packet.trusted_packet_sequence_id
            yield sequence, None, event.type == event.TYPE_SLICE_BEGIN, packet.timestamp


READ = {"speedscope": of_speedscope, "chrome": of_chrome, "perfetto": of_perfetto}


@pytest.mark.parametrize("form", READ)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), unit_size=st.sampled_from([4, 8]))
def test_what_begins_ends(form: str, tmp_path: Path, seed: int, unit_size: int) -> None:
    out = tmp_path / form
    with TraceFile(trace_with_gaps(tmp_path / "t", seed, unit_size)) as trace:
        assert trace.index.lost
        if form == "perfetto":
            perfetto.write(trace, out)
        else:
            text = io.StringIO()
            FORMATS[form].write(trace, text)
            out.write_text(text.getvalue(), encoding="utf-8")
    stacks: dict[object, list[object]] = {}
    last: dict[object, float] = {}
    for whose, what, begins, at in READ[form](out):
        assert at >= last.get(whose, at)
        last[whose] = at
        stack = stacks.setdefault(whose, [])
        if begins:
            stack.append(what)
        else:
            assert stack.pop() == what
    assert len(stacks) == 2
    assert not any(stacks.values())
