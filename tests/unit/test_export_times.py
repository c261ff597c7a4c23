"""Times as exports write them, held against exact fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from calltrace.export import perfetto, units
from calltrace.tracefile import TraceFile
from rig import readers, tracewriter
from rig.commands import exported
from rig.tracewriter import TraceWriter, Units

START = 1 << 41
LONGEST = 1 << 39  # ticks between two events: a clock of 40 bits tells no more
LATEST = (1 << 63) - 1  # of Perfetto's times
checked = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FREQUENCIES = st.sampled_from([1, 3, 10**7, 2_592_000_000, 3_141_592_653, 10**10]) | st.integers(1, 1 << 40)


def trace_of(path: Path, steps: list[int], hz: int) -> tuple[Path, list[int]]:
    """Calls of a function, at ticks since the beginning that lie so far apart."""
    units_written = Units(8, now=START)
    ticks = []
    for step in steps:
        units_written.now += step
        ticks.append(units_written.now - START)
        units_written.event(tracewriter.ENTER, 0)
    writer = TraceWriter(8, tsc_start=START, tsc_hz=hz)
    writer.module({"name": "m.exe"}, [(0x1000, 1, 1, 0, 0, tracewriter.NONE)])
    writer.thread(units_written, block_units=1)
    return writer.write(path), ticks


@checked
@given(steps=st.lists(st.integers(0, 5) | st.integers(0, LONGEST), min_size=1, max_size=20), hz=FREQUENCIES)
@example([1, 1, 9, 90, 900, 9000, 2 * 10**9, 1], 10**10)
def test_times_are_exact_to_a_tenth_of_a_nanosecond(tmp_path: Path, steps: list[int], hz: int) -> None:
    path, ticks = trace_of(tmp_path / "t", steps, hz)
    nanoseconds = [Fraction(tick * 10**9, hz) for tick in ticks]
    tenth = Fraction(1, 10)
    at = re.findall(r'"O","frame":0,"at":([^,}]+)', exported(path, "speedscope"))
    assert all(re.fullmatch(r"(0|[1-9]\d*)\.\d", text) for text in at)
    microseconds = re.findall(r'"ph":"B".*"ts":([^,}]+)', exported(path, "chrome"))
    assert all(re.fullmatch(r"(0|[1-9]\d*)\.\d{4}", text) for text in microseconds)
    with TraceFile(path) as trace:
        (file,) = perfetto.write(trace, tmp_path / "t.pftrace")
    packets = readers.perfetto_trace(file.read_bytes()).packet
    begun = [packet.timestamp for packet in packets if packet.track_event.type == 1]
    assert len(at) == len(microseconds) == len(begun) == len(ticks)
    for true, speedscope, chrome, time in zip(nanoseconds, at, microseconds, begun):
        # A half for rounding; a double has the rest of a second to some 10^-16 of it.
        assert abs(Fraction(speedscope) - true) <= tenth * 51 / 100
        assert abs(Fraction(chrome) * 1000 - true) <= tenth * 51 / 100
        assert -1 < time - true <= tenth or (time == LATEST and true > LATEST - 10**9)


def true_duration(ticks: int, hz: int) -> str:
    seconds = Fraction(ticks, hz)
    fitting = [each for each in (("s", 1, 3), ("ms", 10**3, 3), ("µs", 10**6, 2)) if seconds * each[1] >= 1]
    unit, per_second, decimals = (fitting or [("ns", 10**9, 0)])[0]
    value = seconds * per_second
    rounded = (value * 10**decimals + Fraction(1, 2)).__floor__()
    whole, rest = divmod(rounded, 10**decimals)
    return f"{whole:,}" + (f".{rest:0{decimals}}" if decimals else "") + f" {unit}"


@checked
@given(
    ticks=st.integers(0, 10**4) | st.integers(0, (1 << 64) - 1),
    hz=FREQUENCIES | st.integers(1, (1 << 63) - 1),
)
@example(999_999, 10**9)
@example(999_999_999, 10**9)
@example((1 << 64) - 1, 1)
def test_time_spans_are_told_in_the_unit_that_fits(tmp_path: Path, ticks: int, hz: int) -> None:
    path, _ = trace_of(tmp_path / "t", [0], hz)
    with TraceFile(path) as trace:
        assert units.duration(trace, ticks) == true_duration(ticks, hz)


def test_without_a_frequency_ticks_are_told(tmp_path: Path) -> None:
    path, _ = trace_of(tmp_path / "t", [1234567], 0)
    with TraceFile(path) as trace:
        assert units.duration(trace, 1234567) == "1,234,567 ticks"
    assert '"at":1234567}' in exported(path, "speedscope")
    assert '"ts":1234567}' in exported(path, "chrome")


@pytest.mark.parametrize(("before", "told"), [(0, "0.0000"), (5, "-0.0050"), (2 * 10**9, "-2000000.0000")])
def test_times_before_the_beginning_are_negative(tmp_path: Path, before: int, told: str) -> None:
    units_written = Units(8, now=START - before)
    units_written.event(tracewriter.ENTER, 0)
    writer = TraceWriter(8, tsc_start=START, tsc_hz=10**9)
    writer.module({"name": "m.exe"}, [(0x1000, 1, 1, 0, 0, tracewriter.NONE)])
    writer.thread(units_written)
    assert f'"ts":{told}}}' in exported(writer.write(tmp_path / "t"), "chrome")
