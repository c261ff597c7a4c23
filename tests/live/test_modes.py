"""Recordings in other modes than "trace", held against recordings of every call of the same programs.

Nothing may differ in what the programs do, either.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from calltrace.calltree import function_stats, summarize
from calltrace.tracefile import TraceFile
from corpus import test_clang_format, test_cmake, test_ninja
from live.test_targets import HOOKS, TARGETS, Driver, is_hooked, windows_argument
from rig import corpus, targets, tracing, windows

# Exceptions, longjmp, fibers, jumps, callbacks, modules that are loaded again, threads that are killed.
CHOSEN = (
    "callbacks",
    "exceptions",
    "exit_from_thread",
    "fibers",
    "funclets",
    "hooked_random",
    "jump_tables",
    "longjmps",
    "plugin_host",
    "seh",
    "short_procedures",
    "tail_calls",
    "thread_crowd_killed",
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    made = Driver(tmp_path_factory.mktemp("driver"))
    yield made
    made.end()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path)  # traces are large


@dataclass
class Target:
    """One of tests/targets, run in one mode after another."""

    name: str
    driver: Driver
    folder: Path

    def trace(self, mode: str) -> Path:
        return self.folder / f"{mode}.calltrace"

    def run(self, mode: str = "", **options: str) -> tuple[int, bytes]:
        """Exit code and output; without a mode untraced."""
        statement = TARGETS[self.name]
        program = targets.build(self.name)
        if statement.stripped:
            program = targets.stripped(program)
        output = self.folder / "stdout"
        trace = {
            "output": windows.path(self.trace(mode)),
            "mode": mode,
            "exclude": statement.exclude + [start + "*" for start in HOOKS if is_hooked(self.name)],
            "modules": statement.modules,
            **options,
        }
        answer = self.driver.run(
            {
                "program": windows.path(program),
                "arguments": [windows_argument(word) for word in statement.arguments],
                "stdout": windows.path(output),
                "trace": trace if mode else None,
                "environment": {"HOOK_LOG": windows.path(self.folder / "hooks")},
            }
        )
        return answer["exit_code"], output.read_bytes()


def entered(file: Path) -> dict[tuple[str, int], int]:
    """How often each function was entered: by module and RVA."""
    with TraceFile(file) as trace:
        summary = summarize(trace)
        assert summary.gaps == summary.lost == 0
        found: dict[tuple[str, int], int] = {}
        for stat in function_stats(trace):  # a module that is loaded again has its functions again
            key = stat.module.name, stat.record.rva
            found[key] = found.get(key, 0) + stat.calls
        return found


@pytest.mark.parametrize("name", CHOSEN)
def test_first_entries_are_of_the_functions_that_a_trace_has(driver: Driver, folder: Path, name: str) -> None:
    target = Target(name, driver, folder)
    plain = target.run()
    assert target.run("trace", events="functions") == plain
    assert target.run("hits") == plain
    every, first = (entered(target.trace(mode)) for mode in ("trace", "hits"))
    assert first.keys() == every.keys()
    with TraceFile(target.trace("hits")) as trace:
        assert all(stat.calls == 1 for stat in function_stats(trace))


JOBS = {
    "clang-format": (["-style=LLVM", "source.cpp"], test_clang_format.prepare, []),
    "cmake": (["-P", "script.cmake"], test_cmake.prepare, []),
    "ninja": (["-j1", "-k0", "-n", "-d", "explain"], test_ninja.prepare, [".ninja_log"]),
}


@pytest.mark.parametrize("name", JOBS)
def test_real_programs_have_the_first_entries_of_a_trace(folder: Path, name: str) -> None:
    arguments, prepare, ignored = JOBS[name]
    job = tracing.Job(corpus.program(name), arguments, folder / "work", prepare, ignored_files=ignored)
    plain = job.plain()
    every, first = folder / "every.calltrace", folder / "first.calltrace"
    assert job.traced(every, "--events", "functions") == plain
    assert job.traced(first, "--mode", "hits") == plain
    assert entered(first) == dict.fromkeys(entered(every), 1)
    assert len(entered(first)) > 400
