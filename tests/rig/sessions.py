"""Whole sessions in a debugger, from the first instruction to the last, and what their traces tell."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from calltrace.calltree import summarize
from calltrace.model import State
from calltrace.tracefile import TraceFile
from rig import corpus, targets, tracing

RECORDED = re.compile(r"^  \d+  (.+?)(?:  .*)?$", re.MULTILINE)  # a frame of `stacks`
API_OF_END = "KERNEL32.dll!ExitProcess"
WRITES = "foreach(i RANGE 2)\n  file(WRITE written${i}.txt ${i})\nendforeach()\n"  # of the script for cmake

_OPEN = re.compile(r"  (still running when stopped|open at process end)$", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """A program, and an API in the middle of its work, on which a breakpoint stops it."""

    program: str
    arguments: tuple[str, ...]
    api: str
    threads: int

    def path(self) -> Path:
        """The program, compiled if it is one of tests/targets."""
        return corpus.program("cmake") if self.program == "cmake" else targets.build(self.program)


CASES = (
    Case("session_calls", ("30",), "msvcrt.dll!fflush", 1),
    Case("demo", ("2*(3+4)", "7/2"), "KERNEL32.dll!CreateThread", 2),
    Case("reference_threads", (), "KERNEL32.dll!SetEvent", 5),
    Case("cmake", ("-P", "writes.cmake"), "KERNEL32.dll!WriteFile", 1),
)


def place(api: str, between: str) -> str:
    """What a debugger calls an API that we call so, if it writes `between` module and function."""
    module, function = api.split(".dll!")
    return module.lower() + between + function


def tree(trace: Path) -> Counter[tuple[str, ...]]:
    """Each thread's call tree up to API_OF_END; how open frames end depends on who ended the recording."""
    done = tracing.calltrace("tree", "--limit", "0", trace)
    assert done.returncode == 0, done.stderr.decode()
    _, *threads = re.split(r"^thread \d+.*\n", _OPEN.sub("", done.stdout.decode()), flags=re.MULTILINE)
    return Counter(tuple(_up_to_end(thread.splitlines())) for thread in threads)


def _up_to_end(lines: list[str]) -> list[str]:
    ends = [number for number, line in enumerate(lines) if line.strip() == API_OF_END]
    return lines[: ends[0] + 1] if ends else lines


def called(trace: Path) -> set[str]:
    """The functions that a recording which was stopped has calls of."""
    with TraceFile(trace) as opened:
        assert opened.state == State.STOPPED
        return {stat.name for stat in summarize(opened).stats if stat.calls}


def own_calls(file: Path) -> dict[str, int]:
    """Calls of the functions of session_calls' own source, in a recording that was stopped."""
    with TraceFile(file) as trace:
        assert trace.state == State.STOPPED
        summary = summarize(trace)
        assert summary.orphans == summary.gaps == summary.lost == 0
        found = {stat.name.partition("!")[2]: stat.calls for stat in summary.stats}
    return {name: found[name] for name in ("main", "work", "leaf", "depth") if name in found}
