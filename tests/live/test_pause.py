"""Recordings that are paused from another shell: meanwhile the program's code is its own, byte for byte."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pefile
import pytest

from calltrace.calltree import summarize
from calltrace.tracefile import TraceFile
from rig import targets, tracing, windows


class Program:
    """tests/targets/pauses.c while it is recorded."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.works = 0

    def _say(self, line: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def work(self) -> bytes:
        """Call step three times; how its code begins."""
        self.works += 1
        code, steps = self._say("work").split()
        assert int(steps) == 9 * self.works
        return bytes.fromhex(code)

    def load(self) -> None:
        """Load the plugin anew."""
        assert self._say(f"load {windows.path(targets.build('session_plugin'))}") == "4"


@contextmanager
def recorded(trace: Path, *options: str) -> Iterator[Program]:
    words = [tracing.CALLTRACE, "run", "--quiet", "-o", trace, *options, "--", targets.build("pauses")]
    with subprocess.Popen(
        [str(word) for word in words],
        env=windows.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        program = Program(process)
        program.work()
        yield program
        assert process.stdin
        process.stdin.close()
        assert process.wait(windows.HANGS) == 3


def own_code() -> bytes:
    """How the code of step begins in the program's file."""
    with pefile.PE(str(targets.build("pauses")), fast_load=True) as image:
        return bytes(image.get_data(targets.symbols("pauses")["step"] - image.OPTIONAL_HEADER.ImageBase, 8))


def calls(trace: Path) -> dict[str, int]:
    with TraceFile(trace) as opened:
        summary = summarize(opened)
        assert summary.orphans == summary.gaps == summary.lost == 0
        return {stat.name.partition("!")[2]: stat.calls for stat in summary.stats}


@pytest.mark.parametrize("mode", ["trace", "graph"])
def test_while_paused_the_program_runs_its_own_code_and_nothing_is_recorded(
    tmp_path: Path, mode: str
) -> None:
    trace = tmp_path / "t.calltrace"
    with recorded(trace, "--mode", mode) as program:
        assert program.work() != own_code()
        tracing.shell("pause", trace)
        assert calls(trace)["step"] == 6
        assert program.work() == own_code()
        assert program.work() == own_code()
        assert calls(trace)["step"] == 6  # main, which does not end, is recorded all the while
        with TraceFile(trace, counted=False) as opened:
            assert opened.header.tsc_hz  # times are told in seconds already
        tracing.shell("resume", trace)
        assert program.work() != own_code()
    found = calls(trace)
    assert (found["work"], found["step"]) == (3, 9)
    with TraceFile(trace) as opened:
        marks = [mark.name for mark in opened.marks]
    assert marks == (["paused", "resumed"] if mode == "trace" else [])


def test_a_module_that_is_loaded_while_paused_is_recorded_after_that(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    with recorded(trace, "--modules", "session_plugin.dll") as program:
        tracing.shell("pause", trace)
        program.load()
        tracing.shell("resume", trace)
        program.load()
    found = calls(trace)
    assert (found["plugin_work"], found["plugin_step"]) == (1, 2)


def test_what_cannot_be_paused_is_told(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"

    def told(verb: str) -> str:
        done = tracing.calltrace(verb, trace)
        assert done.returncode == 64
        assert done.stdout == b""
        return done.stderr.decode().replace(str(trace), "TRACE").strip()

    with recorded(trace) as program:
        assert told("resume") == "calltrace: TRACE is not paused"
        tracing.shell("pause", trace)
        assert told("pause") == "calltrace: TRACE is paused already"
        program.work()
    assert told("pause") == "calltrace: TRACE is finished: nothing is recorded any more"
    assert told("resume") == "calltrace: TRACE is finished: nothing is recorded any more"
