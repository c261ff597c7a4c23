"""C++ exceptions thrown through and caught in traced frames, on several threads at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from calltrace.calltree import Tree, TreeFilter
from calltrace.model import Cause, LineType
from calltrace.tracefile import TraceFile
from rig import targets, tracing
from rig.tracing import Job

THREADS = 4
OWN_FUNCTIONS = ("turns", "turn", "middle", "thrower", "descend", "note", "recover", "release")

Frame = tuple[int, str, bool]  # depth, function, unwound


def expected_turn(n: int) -> Iterator[Frame]:
    """What throws.cpp says of one turn."""
    yield 1, "turn", False
    if n % 4 == 3:
        yield from ((2 + depth, "descend", True) for depth in range(8))
        yield from ((2 + depth + 1, "release", False) for depth in reversed(range(8)))
    else:
        yield 2, "middle", n % 4 != 0
        yield 3, "thrower", n % 4 != 0
        if n % 4 == 2:
            yield 3, "note", False
        yield 3, "release", False
    if n % 4 != 0:
        yield 2, "recover", False


def expected_frames(turns: int) -> Iterator[Frame]:
    """All threads', one after the other."""
    four = [frame for n in range(4) for frame in expected_turn(n)]
    for _ in range(THREADS):
        yield 0, "turns", False
        yield from itertools.chain.from_iterable(itertools.repeat(four, turns // 4))


def recorded_frames(trace: TraceFile) -> Iterator[Frame]:
    names: dict[int, str] = {}
    for line in Tree(trace, TreeFilter()):
        if line.type == LineType.FRAME:
            if line.id not in names:
                names[line.id] = trace.node_name(line.kind, line.id).partition("!")[2]
            frame = line.depth, names[line.id], line.cause == Cause.UNWOUND
            yield from itertools.repeat(frame, line.calls)


@pytest.mark.parametrize("events", ["functions", "outward"])
def test_100000_exceptions_leave_the_program_as_it_was(tmp_path: Path, events: str) -> None:
    job = Job(targets.build("throws"), [str(THREADS), "25000"], tmp_path / "work")
    trace = tmp_path / "all.calltrace"
    assert job.traced(trace, "--events", events) == job.plain()

    report = tracing.info(trace)
    assert report["gaps"]["count"] == 0
    assert report["frames"]["orphans"] == 0
    assert report["frames"]["unclosed"].keys() <= {"unwound", "process_end", "thread_exit"}


def test_the_tree_shows_each_of_1000000_exceptions_where_it_was_thrown_and_caught(tmp_path: Path) -> None:
    turns = 250_000  # as many throws, for of four turns two throw once and one twice
    trace = tmp_path / "own.calltrace"
    job = Job(targets.build("throws"), [str(THREADS), str(turns)], tmp_path / "work")
    only = [word for name in OWN_FUNCTIONS for word in ("--include", f"throws!{name}")]
    assert job.traced(trace, "--events", "functions", *only) == job.plain()

    with TraceFile(trace) as opened:
        pairs = itertools.zip_longest(recorded_frames(opened), expected_frames(turns))
        differing = ((number, *pair) for number, pair in enumerate(pairs) if pair[0] != pair[1])
        assert next(differing, None) is None  # number of a frame, as recorded, as throws.cpp says
