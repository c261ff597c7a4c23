"""Tests run on what `make test` has set up, and say so where it is missing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from calltrace import recorder, wine
from calltrace.errors import FileMissing
from calltrace.tracefile import TraceFile

pytest.register_assert_rewrite("rig")  # before it is imported

from rig import targets, tracewriter, tracing  # noqa: E402
from rig.tracewriter import TraceWriter, Units  # noqa: E402


def pytest_sessionstart() -> None:
    try:
        wine.windows_python()
    except FileMissing as missing:
        pytest.exit(str(missing), returncode=2)
    wine.hold_addresses()


@pytest.fixture(scope="session")
def demo_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run of the demo, whose text has characters of several alphabets; marked in the middle."""
    trace = tmp_path_factory.mktemp("demo") / "demo.calltrace"
    done = tracing.calltrace(
        "run", "--quiet", "-o", trace, "--clock", "tsc", "--", targets.build("demo"), "2 * (3 + 4)"
    )
    assert done.returncode == 0, done.stderr
    with TraceFile(trace) as recorded:
        halves = {thread.index: thread.units // 2 for thread in recorded.threads}
    with closing(recorder.TraceFile.join(trace)) as joined:
        joined.mark("half", halves)
    return trace


@pytest.fixture(scope="session")
def demo_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the demo whose calls were counted."""
    trace = tmp_path_factory.mktemp("demo") / "graph.calltrace"
    words = ("run", "--quiet", "--mode", "graph", "-o", trace, "--", targets.build("demo"), "2 * (3 + 4)")
    done = tracing.calltrace(*words)
    assert done.returncode == 0, done.stderr
    return trace


@pytest.fixture(scope="session")
def long_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace whose tree takes many seconds to print: no two neighbours are equal, so none are joined."""
    units = Units()
    for number in range(400_000):
        units.event(tracewriter.ENTER, number % 50)
        units.event(tracewriter.LEAVE, number % 50)
    writer = TraceWriter()
    writer.thread(units)
    return writer.write(tmp_path_factory.mktemp("long") / "long.calltrace")
