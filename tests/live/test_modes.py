"""Recordings in other modes than "trace", held against recordings of every call of the same programs.

Nothing may differ in what the programs do, either.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from calltrace.calltree import function_stats, summarize
from calltrace.edges import Context, call_graph
from calltrace.tracefile import TraceFile
from corpus import test_clang_format, test_cmake, test_ninja
from live.test_targets import HOOKS, TARGETS, Driver, is_hooked, windows_argument
from rig import corpus, targets, tracing, windows

# Exceptions, longjmp, fibers, jumps, callbacks, modules that are loaded again, threads that are killed.
CHOSEN = (
    "callbacks",
    "exceptions",
    "exit_nested",
    "fibers",
    "funclets",
    "hooked_calls",
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

    def run(self, mode: str = "", **options: str | int | list[str]) -> tuple[int, bytes]:
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


def flat(contexts: Iterable[Context]) -> list[Any]:
    return sorted((each.name, each.tail, each.calls, flat(each.others.values())) for each in contexts)


def counts(file: Path) -> dict[str, Any]:
    """How often what called what, by jumps and by the stack; and, thread by thread, what was called."""
    with TraceFile(file) as trace:
        summary = summarize(trace)
        assert summary.gaps == summary.lost == 0
        threads = [
            sorted((stat.name, stat.kind, stat.calls) for stat in summarize(trace, thread.index).stats)
            for thread in trace.threads
        ]
        return {
            "jumps": flat(call_graph(trace)),
            "stack": flat(call_graph(trace, by_stack=True)),
            "threads": sorted(threads),
            "ends": {cause: number for cause, number in summary.causes.items() if number},
            "orphans": summary.orphans,
            "deepest": summary.max_depth,
        }


@pytest.mark.parametrize("name", CHOSEN)
def test_counts_are_those_of_a_trace(driver: Driver, folder: Path, name: str) -> None:
    target = Target(name, driver, folder)
    plain = target.run()
    assert target.run("trace") == plain
    assert target.run("graph") == plain
    assert counts(target.trace("graph")) == counts(target.trace("trace"))


def times(contexts: Iterable[Context]) -> Iterator[Context]:
    for context in contexts:
        yield context
        yield from context.others.values()


@pytest.mark.parametrize("clock", ["tsc", "coarse"])
def test_counted_times_add_up(driver: Driver, folder: Path, clock: str) -> None:
    target = Target("callbacks", driver, folder)
    target.run("graph", clock=clock)
    with TraceFile(target.trace("graph")) as trace:
        for thread in trace.threads:
            summary = summarize(trace, thread.index)
            assert sum(stat.self_time for stat in summary.stats) <= summary.last_time - summary.first_time
        whole = call_graph(trace, by_stack=True)
        assert all(0 <= each.self_time <= each.total_time for each in times(whole))
        called = Counter[str]()
        for caller in whole:
            called.update({callee.name: callee.calls for callee in caller.others.values()})
        assert sum(called.values()) > 100
        for each in whole:  # all but what nobody called who is traced
            assert called[each.name] <= each.calls


def test_the_file_of_a_counted_program_does_not_grow(driver: Driver, folder: Path) -> None:
    target = Target("hooked_throws", driver, folder)
    target.run("graph", exclude=[])
    with TraceFile(target.trace("graph")) as trace:
        assert trace.index.units * trace.header.unit_size > 2 * trace.index.file_size
        assert trace.index.event_chunks == 0


JOBS = {
    "clang-format": (["-style=LLVM", "source.cpp"], test_clang_format.prepare, []),
    "cmake": (["-P", "script.cmake"], test_cmake.prepare, []),
    "ninja": (["-j1", "-k0", "-n", "-d", "explain"], test_ninja.prepare, [".ninja_log"]),
}


@pytest.mark.parametrize("name", JOBS)
def test_real_programs_are_recorded_alike(folder: Path, name: str) -> None:
    arguments, prepare, ignored = JOBS[name]
    job = tracing.Job(corpus.program(name), arguments, folder / "work", prepare, ignored_files=ignored)
    plain = job.plain()
    every, first, graph = (folder / f"{mode}.calltrace" for mode in ("every", "first", "graph"))
    assert job.traced(every, "--events", "functions") == plain
    assert job.traced(first, "--mode", "hits") == plain
    assert job.traced(graph, "--mode", "graph", "--events", "functions") == plain
    assert counts(graph) == counts(every)
    assert entered(first) == dict.fromkeys(entered(every), 1)
    assert len(entered(first)) > 400
