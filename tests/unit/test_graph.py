"""What is counted block by block, while a program is recorded, is what readers of all its events say."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace.errors import BadTrace, UsageError
from calltrace.export import FORMATS
from calltrace.tracefile import Graph, TraceFile
from rig import counted, simulated, tracewriter
from rig.commands import run
from rig.simulated import SimulatedThread
from rig.tracewriter import TraceWriter, Units
from unit.test_fibers import FUNCTIONS, Fibers, open_trace

GRAPH = 5  # CT_CHUNK_GRAPH
NONE = tracewriter.NONE
SITE_TAIL = 1 << 31
COUNT = 2  # CT_POLICY_COUNT
TWO = [HealthCheck.function_scoped_fixture]


def simulate(path: Path, programs: list[bytes], unit_size: int, block_units: int | None = None) -> TraceFile:
    """A trace with a thread for each program."""
    writer = TraceWriter(unit_size)
    simulated.describe(writer)
    for number, program in enumerate(programs):
        thread = SimulatedThread(unit_size)
        thread.run(program)
        writer.thread(thread.units, number, block_units)
    return TraceFile(writer.write(path))


@settings(max_examples=50, deadline=None, suppress_health_check=TWO)
@given(
    programs=st.lists(st.binary(max_size=200), min_size=1, max_size=3),
    times=st.sampled_from([1, 1, 10]),
    unit_size=st.sampled_from([4, 8]),
    block_units=st.integers(8, 60),
    together=st.integers(1, 8),
)
def test_simulated_threads(
    tmp_path: Path, programs: list[bytes], times: int, unit_size: int, block_units: int, together: int
) -> None:
    repeated = [program * times for program in programs]
    with simulate(tmp_path / "t.calltrace", repeated, unit_size, block_units * times) as trace:
        counted.assert_counted(trace, together, looks=True)


@pytest.mark.parametrize("unit_size", [4, 8])
def test_more_contexts_than_are_kept(tmp_path: Path, unit_size: int) -> None:
    rng = random.Random(unit_size)
    deep = bytes((0, 1)) * 6000  # calls that alone are many contexts
    wide = bytes(
        rng.choice([0, 0, 0, 4, 7, 7, 7, 10]) if at % 2 == 0 else rng.randrange(256) for at in range(160_000)
    )
    with simulate(tmp_path / "t.calltrace", [deep + wide, wide], unit_size) as trace:
        counted.assert_counted(trace, together=2)


@settings(max_examples=40, deadline=None, suppress_health_check=TWO)
@given(
    program=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), max_size=80),
    unit_size=st.sampled_from([4, 8]),
)
def test_fibers(tmp_path: Path, program: list[tuple[int, int]], unit_size: int) -> None:
    fibers = Fibers(unit_size)
    for what, which in program:
        [fibers.enter, lambda _: fibers.leave(), fibers.switch][what](which)
    with open_trace(fibers.units, tmp_path / "t.calltrace") as trace:
        counted.assert_counted(trace, looks=True)


def scribble(units: Units, seed: int) -> None:
    """Events in no sensible order, or nearly none."""
    rng = random.Random(seed)
    order = rng.choice([0.0, 0.5, 0.9, 1.0])
    functions = rng.choice([2, FUNCTIONS])
    opened: list[tuple[int, int]] = []
    for _ in range(rng.randrange(400)):
        units.now += rng.choice([0, 1, 50, -3, 1 << 38])
        number = rng.randrange(functions)
        kind = rng.randrange(14)
        if kind < 4:
            units.event(tracewriter.ENTER, number)
            opened.append((rng.choice([tracewriter.LEAVE, tracewriter.LEAVE, tracewriter.TAIL]), number))
        elif kind < 9 and opened and rng.random() < order:
            units.event(*opened.pop())
        elif kind == 9:
            units.event(tracewriter.CALL, opened[-1][1] if opened and rng.random() < order else number)
            opened.append((tracewriter.RETURN, number))
        elif kind == 10:
            units.frame(rng.choice([0x1000, 0x2000, 0x7_0000_0000 + 8 * rng.randrange(99)]))
            units.event(rng.choice([tracewriter.ENTER, tracewriter.LAND, tracewriter.CALL]), number)
        elif kind == 11 and units.unit_size == 4:
            for _ in range(rng.choice([1, 1, 3])):
                units.whole(number)
        elif kind == 12:
            units.ext(rng.randrange(12), rng.randrange(1 << 12), rng.randrange(1 << 12))
        elif rng.random() > order:
            units.event(rng.randrange(8), rng.randrange(40))


def largest(work: Callable[[], object]) -> int:
    """How many KiB of memory this process has had at most while it did something."""
    Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: forget the largest so far
    work()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_memory_does_not_grow_with_the_contexts_that_were_met(tmp_path: Path) -> None:
    taken = []
    for functions in (1, 8):
        rng, units, stack = random.Random(1), Units(), list[int]()
        codes = array("I")
        for _ in range(600_000):
            if not stack or (len(stack) < 40 and rng.random() < 0.5):
                stack.append(rng.randrange(functions))
                codes.append(stack[-1] << 3 | tracewriter.ENTER)
            else:
                codes.append(stack.pop() << 3 | tracewriter.LEAVE)
        units.data, units.times = bytearray(codes.tobytes()), [0] * len(codes)
        with open_trace(units, tmp_path / "t.calltrace") as trace:
            taken.append(largest(lambda trace=trace: counted.count(trace, together=1)))
    assert taken[1] < taken[0] + 8192  # 200,000 contexts would be some 35 MB


def open_jumps(units: Units, path: Path, block_units: int | None = None) -> TraceFile:
    """One thread's trace. Function n holds call site n, which calls one function or any.

    It may be left by a jump: to any function, to one, or to none that is traced.
    """
    writer = TraceWriter(units.unit_size)
    starts = [0x1000 * (at + 1) for at in range(FUNCTIONS)]
    sites = [(start + 1, at, starts[at - 1] if at % 2 else 0, NONE) for at, start in enumerate(starts)]
    targets = [0, 0, *starts[2:5], *[start + 8 for start in starts[5:]]]
    sites += [
        (start + 9, at | SITE_TAIL, target, NONE) for at, (start, target) in enumerate(zip(starts, targets))
    ]
    names = [[start, name] for start, name in zip(starts, "abcdefgh")]
    functions = [(start, 16, 1, 0, 0, NONE) for start in starts]
    writer.module({"name": "m.exe", "names": names}, functions, sites)
    writer.thread(units, block_units=block_units)
    return TraceFile(writer.write(path))


@pytest.mark.parametrize("unit_size", [4, 8])
def test_events_in_no_order(tmp_path: Path, unit_size: int) -> None:
    for seed in range(80):
        units = Units(unit_size, now=1000)
        scribble(units, seed)
        with open_trace(units, tmp_path / "t.calltrace") as trace:
            counted.assert_counted(trace, looks=seed % 2 == 0)
        cut = 7 if seed % 8 == 0 else None
        with open_jumps(units, tmp_path / "t.calltrace", cut) as trace:
            counted.assert_counted(trace, together=1, looks=True)


@pytest.mark.parametrize("unit_size", [4, 8])
def test_long_runs(tmp_path: Path, unit_size: int) -> None:
    for seed in range(10):
        program = random.Random(seed).randbytes(2000)
        with simulate(tmp_path / "t.calltrace", [program * (seed % 3 + 1)], unit_size, 150) as trace:
            counted.assert_counted(trace, together=5, looks=True)


# ---- what the user sees ----


@pytest.fixture
def graph(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a recording without events that has these counts."""

    def made(payload: bytes, state: int = tracewriter.EXITED) -> Path:
        writer = TraceWriter(4, state, policy=COUNT)
        simulated.describe(writer)
        writer.info({"options": {"mode": "graph"}})
        if payload:
            writer.chunk(GRAPH, payload)
        return writer.write(tmp_path / "graph.calltrace")

    return made


def test_what_needs_an_order_of_events_is_refused_in_one_line(demo_graph: Path, tmp_path: Path) -> None:
    for verb in ("tree", "stacks"):
        with pytest.raises(UsageError, match=r"--mode graph and knows no order of calls: `top`"):
            run(f"{verb} {demo_graph}")
    with pytest.raises(UsageError, match="one level of callers and callees: leave out --depth"):
        run(f"callers {demo_graph} demo!main --depth 2")
    for name, form in FORMATS.items():
        made = tmp_path / f"demo{form.suffix}"
        if form.of_counts:
            run(f"export {name} {demo_graph} -o {made}")
            assert b"demo" in (made / "functions.parquet" if made.is_dir() else made).read_bytes()
        else:
            with pytest.raises(UsageError, match="knows no order of calls"):
                run(f"export {name} {demo_graph} -o {made}")
            assert not made.exists()
    assert {name for name, form in FORMATS.items() if form.of_counts} >= {"callgrind", "dot", "drcov"}


def test_damaged_counts_are_one_line(graph: Callable[..., Path], demo_graph: Path) -> None:
    with pytest.raises(BadTrace, match="its counts are missing"):
        TraceFile(graph(b""))
    with pytest.raises(BadTrace, match="has no counts yet: they are written when the recording ends"):
        TraceFile(graph(b"", tracewriter.RECORDING))
    with TraceFile(demo_graph) as trace:
        assert trace.graph
    whole = payload_of(demo_graph)
    Graph(whole)
    rng = random.Random(1)
    for size in [0, 3, 16, 17, *(rng.randrange(len(whole)) for _ in range(20)), len(whole) - 1]:
        with pytest.raises(BadTrace, match="damaged, or another version has written it: its counts"):
            TraceFile(graph(whole[:size] or b"\0"))
    for _ in range(60):  # whatever is in it, it is told or refused
        bad = bytearray(whole)
        bad[rng.randrange(min(len(bad), 2000))] ^= 1 << rng.randrange(8)
        try:
            with TraceFile(graph(bytes(bad))) as trace:
                counted.numbers(trace)
        except BadTrace:
            pass


def payload_of(file: Path) -> bytes:
    data, at = file.read_bytes(), tracewriter.BLOCK
    while int.from_bytes(data[at : at + 4], "little") != GRAPH:
        at += int.from_bytes(data[at + 8 : at + 16], "little") or tracewriter.BLOCK
    size = int.from_bytes(data[at + 16 : at + 24], "little")
    return data[at + 32 : at + 32 + size]
