"""C++ exceptions thrown through and caught in traced frames, on several threads at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import targets, tracing
from rig.tracing import Job

THREADS, TURNS = 4, 25_000
OWN_FUNCTIONS = ("turns", "turn", "middle", "thrower", "descend", "note", "recover", "release")

Line = tuple[int, str, bool]  # depth, function, unwound by an exception


def expected_turn(n: int) -> Iterator[Line]:
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


def expected_thread(turns: int) -> Iterator[Line]:
    yield 0, "turns", False
    for n in range(turns):
        yield from expected_turn(n)


def recorded_threads(text: str) -> list[list[Line]]:
    """The call trees of `calltrace export --format text`, those of threads that ran turns."""
    threads: list[list[Line]] = []
    for line in text.splitlines():
        if line.startswith("thread "):
            threads.append([])
            continue
        if line == "  end of throws!turns":  # a frame too long to know its end when it began
            continue
        found = re.fullmatch(r"( +)throws!(\w+)(?:  goes on)?( +unwound by exception)?", line)
        assert found, line
        threads[-1].append((len(found[1]) // 2 - 1, found[2], found[3] is not None))
    return [lines for lines in threads if lines]


@pytest.mark.parametrize("events", ["functions", "outward"])
def test_100000_exceptions_leave_the_program_as_it_was(tmp_path: Path, events: str) -> None:
    job = Job(targets.build("throws"), [str(THREADS), str(TURNS)], tmp_path / "work")
    trace = tmp_path / "all.calltrace"
    assert job.traced(trace, "--events", events) == job.plain()

    report = tracing.info(trace)
    assert report["gaps"]["count"] == 0
    assert report["frames"]["orphans"] == 0
    assert report["frames"]["unclosed"].keys() <= {"exception", "process_end", "thread_exit"}


def test_the_tree_shows_each_exception_where_it_was_thrown_and_caught(tmp_path: Path) -> None:
    trace = tmp_path / "own.calltrace"
    job = Job(targets.build("throws"), [str(THREADS), str(TURNS)], tmp_path / "work")
    only = [word for name in OWN_FUNCTIONS for word in ("--include", f"throws!{name}")]
    assert job.traced(trace, "--events", "functions", *only) == job.plain()

    done = tracing.calltrace("export", "--format", "text", trace)
    assert done.returncode == 0, done.stderr.decode()
    threads = recorded_threads(done.stdout.decode())
    expected = list(expected_thread(TURNS))
    assert len(threads) == THREADS
    for lines in threads:
        assert lines == expected
