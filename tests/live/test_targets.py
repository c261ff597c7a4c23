"""Small programs, one behaviour each, under every choice of events and clock.

What must come out is not taken from the engine: the source of each states its output, exit code and call tree
(rig.stated), the untraced run says how it behaves, and, where it is built with -finstrument-functions, the
compiler's hooks (targets/hooks.h) write down what was called in the very run that is traced.

The nine combinations of events and clock are shared out: three runs of each target have every value once, and
three targets in a row every combination.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from calltrace import wine
from calltrace.calltree import summarize
from calltrace.model import Cause
from calltrace.tracefile import TraceFile
from rig import coff, counted, hooks, recorded, stated, targets, windows
from rig.recorded import OwnTrees
from rig.stated import Line, Statement

MAIN = Path(__file__).parent / "targets_main.py"
EVENTS, CLOCKS = ("functions", "outward", "all"), ("none", "tsc", "coarse")
SECONDS = 60  # for one run

# How frames may end in a run that nobody cut short.
ORDERLY = {Cause.UNWOUND, Cause.THREAD_EXIT, Cause.PROCESS_END}


HOOKS = ("hook_", "__cyg_profile_func_")  # what the names in hooks.h begin with
ENDS_WITH_HOOK = {"", Cause.UNWOUND.text}


def is_hooked(name: str) -> bool:
    """Does the compiler write down what the target calls?"""
    return "-finstrument-functions" in targets.flags_of(name)


def stated_targets() -> dict[str, Statement]:
    """The targets whose sources state what must come out, or let the compiler's hooks do so."""
    found = {}
    for source in sorted(targets.SOURCES.iterdir()):
        if source.suffix in targets.COMPILERS:
            statement = stated.read(source) or (Statement() if is_hooked(source.stem) else None)
            if statement:
                found[source.stem] = statement
    return found


TARGETS = stated_targets()


class Driver:
    """A Windows Python that runs one program after another."""

    def __init__(self, folder: Path) -> None:
        windows.keep_wine_running()
        tree = MAIN.parent.parent.parent
        search = ";".join(windows.path(tree / part) for part in ("core", "tests"))
        self._errors = folder / f"driver{id(self)}"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                ["wine", str(wine.windows_python()), windows.path(MAIN)],
                env={**windows.environment(), "PYTHONPATH": search},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                text=True,
            )

    def run(self, job: dict[str, Any]) -> Any:
        """The answer to a job; AssertionError if there is none in time, which is this driver's end."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(job), file=self._process.stdin, flush=True)
        timer = threading.Timer(SECONDS, os.killpg, [self._process.pid, signal.SIGKILL])
        timer.start()
        answer = self._process.stdout.readline()
        timer.cancel()
        assert answer, f"{job}: no answer: {self._errors.read_text(errors='replace')[-2000:]}"
        return json.loads(answer)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> None:
        """No more jobs."""
        self._process.communicate()


@dataclass(frozen=True)
class Run:
    """What a run left behind."""

    exit_code: int
    stdout: bytes
    told: list[str]
    choice: tuple[str, str] = ("", "")  # events and clock of a traced one
    trace: Path = Path()
    hook_log: Path = Path()


class Rig:
    """Runs targets, several at a time."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(workers)
        self._drivers: SimpleQueue[Driver | None] = SimpleQueue()
        for _ in range(workers):
            self._drivers.put(None)  # to be started
        self.runs: dict[str, Future[list[Run]]] = {}

    def submit(self, name: str) -> None:
        """Build the target and run it untraced, then traced three times; `runs` has them in that order."""
        self.runs[name] = self._pool.submit(self._run_all, name, TARGETS[name])

    def end(self) -> None:
        """Give up what is still to be done."""
        for future in self.runs.values():
            future.cancel()
        self._pool.shutdown()
        while not self._drivers.empty():
            driver = self._drivers.get()
            if driver:
                driver.end()

    def _run_all(self, name: str, statement: Statement) -> list[Run]:
        program = targets.build(name)
        if statement.stripped:
            program = targets.stripped(program)
        job = {
            "program": windows.path(program),
            "arguments": [windows_argument(word) for word in statement.arguments],
        }
        driver = self._drivers.get()
        try:
            if driver is None or driver.ended:
                driver = Driver(self._folder)
            turn = list(TARGETS).index(name)
            return [self._run(driver, name, job, None, statement)] + [
                self._run(driver, name, job, (events, CLOCKS[(at + turn) % 3]), statement)
                for at, events in enumerate(EVENTS)
            ]
        finally:
            self._drivers.put(driver)

    def _run(
        self, driver: Driver, name: str, job: Any, choice: tuple[str, str] | None, statement: Statement
    ) -> Run:
        label = "-".join([name, *(choice or ("plain",))])
        output, trace, log = (self._folder / f"{label}.{kind}" for kind in ("stdout", "calltrace", "hooks"))
        options = choice and {
            "output": windows.path(trace),
            "events": choice[0],
            "clock": choice[1],
            "exclude": statement.exclude + [start + "*" for start in HOOKS if is_hooked(name)],
            "modules": statement.modules,
        }
        answer = driver.run(
            {
                **job,
                "stdout": windows.path(output),
                "trace": options,
                "environment": {"HOOK_LOG": windows.path(log)},
            }
        )
        return Run(answer["exit_code"], output.read_bytes(), answer["told"], choice or ("", ""), trace, log)


def windows_argument(word: str) -> str:
    found = re.fullmatch(r"TARGET\((\w+)\)", word)
    return windows.path(targets.build(found[1])) if found else word


@pytest.fixture(scope="module")
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("targets"), os.cpu_count() or 1)
    wanted = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    for name in TARGETS:
        if name in wanted:
            made.submit(name)
    yield made
    made.end()


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_does_what_its_source_states(rig: Rig, name: str) -> None:
    plain, *traced = rig.runs[name].result()
    statement = TARGETS[name]
    names = own_functions(name, statement)
    assert plain.exit_code == statement.exit_code
    if statement.output is not None:
        assert plain.stdout.decode().replace("\r\n", "\n") == statement.output
    for run in traced:
        assert (run.exit_code, run.stdout) == (plain.exit_code, plain.stdout), (run.choice, run.told)
        check_trace(run, statement, names, is_hooked(name))
        with TraceFile(run.trace) as trace:  # what a recording of mode "graph" would have counted
            counted.assert_counted(trace)
        run.trace.unlink()


def check_trace(run: Run, statement: Statement, names: recorded.Names, hooked: bool) -> None:
    """The trace is whole, its trees are those stated and those of the hooks, and no function is missing."""
    events, _ = run.choice
    with TraceFile(run.trace) as trace:
        own = OwnTrees(trace, names)
        threads = own.threads(statement.calls())
        assert own.problems == [], run.choice
        stated_ends = {line.end for lines in statement.threads for line in lines}
        unclosed = set(summarize(trace).unclosed) - ORDERLY
        assert {cause.text for cause in unclosed} <= stated_ends, run.choice
        refused = own.refused()
        assert refused.keys() == statement.not_traced, (run.choice, refused)
    if statement.threads:
        expected = (
            statement.threads if events != "functions" else [*map(stated.without_calls, statement.threads)]
        )
        found = [thread.lines for thread in threads]
        if events == "functions":  # which has calls of SwitchToFiber, too
            found = [*map(stated.without_calls, found)]
        difference = stated.unmatched(expected, found)
        assert difference is None, f"{run.choice}: {difference}"
    if hooked:
        [program_names] = names.values()
        check_hooks(threads, hooks.threads(run.hook_log, program_names))


def check_hooks(threads: list[recorded.Thread], logged: list[recorded.Thread]) -> None:
    """Frame by frame, thread by thread, the trace has what the hooks saw."""
    found = [(thread.id, stated.without_calls(thread.lines)) for thread in threads]
    found = [(number, [line._replace(end=_left(line)) for line in lines]) for number, lines in found if lines]
    # A number that the system gives again names another thread; both lists are in order of their starts.
    by_number = sorted(found, key=lambda thread: thread[0])
    logged = sorted(logged, key=lambda thread: thread.id)
    assert [number for number, _ in by_number] == [thread.id for thread in logged]
    for (_, lines), thread in zip(by_number, logged):
        assert stated.difference(thread.lines, lines) is None, stated.difference(thread.lines, lines)


def _left(line: Line) -> str:
    return "" if line.end in ENDS_WITH_HOOK else hooks.OPEN


def own_functions(name: str, statement: Statement) -> recorded.Names:
    """The functions of the target's source, and of the modules traced with it."""
    made: dict[str, dict[int, str]] = {}
    for each in [name, *statement.modules]:
        program = targets.build(each)
        functions = coff.functions(program, targets.sources_of(each), targets.object_of(each))
        made[program.name.lower()] = {
            rva: text
            for (rva, _), text in zip(functions.items(), demangled(functions.values()))
            if not (is_hooked(each) and text.startswith(HOOKS))
        }
    return made


def demangled(names: Iterable[str]) -> list[str]:
    """C++ names as in the source, without parameters."""
    filtered = subprocess.run(
        ["x86_64-w64-mingw32-c++filt", "-p", "-n"],
        input="\n".join(names),
        capture_output=True,
        text=True,
        check=True,
    )
    return filtered.stdout.split("\n")
