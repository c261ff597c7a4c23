"""Whole recordings of small programs whose calls are known: what the trace says, what the programs notice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from calltrace.calltree import Summary, summarize
from calltrace.errors import NotTraceable, UsageError
from calltrace.model import Cause, State
from calltrace.tracefile import TraceFile
from rig import targets, windows
from rig.running import Running

MAIN = Path(__file__).parent / "session_main.py"


def session(verb: str, trace: dict[str, Any], **words: Any) -> subprocess.CompletedProcess[bytes]:
    return windows.python(MAIN, verb, json.dumps({**words, "trace": trace}), timeout=100)


def run(program: str, *arguments: str, **trace: Any) -> subprocess.CompletedProcess[bytes]:
    return session("run", trace, program=windows.path(targets.build(program)), arguments=arguments)


def calls(summary: Summary) -> dict[str, int]:
    """Calls by function, names without their modules."""
    return {stat.name.partition("!")[2]: stat.calls for stat in summary.stats}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "made.calltrace"
    shutil.rmtree(tmp_path)  # traces are large


@pytest.mark.parametrize("clock", ["none", "tsc", "coarse"])
@pytest.mark.parametrize("events", ["functions", "outward", "all"])
def test_every_call_of_a_program_is_recorded(file: Path, events: str, clock: str) -> None:
    done = run("session_calls", "1000", output=windows.path(file), events=events, clock=clock)
    assert done.returncode == 11, done.stderr.decode()
    assert done.stdout.split()[0] == b"499500"
    with TraceFile(file) as trace:
        summary = summarize(trace)
        assert trace.state == State.EXITED
        found = calls(summary)
        assert (found["leaf"], found["depth"], found["work"], found["main"]) == (1000, 50, 1, 1)
        assert summary.orphans == summary.gaps == summary.lost == 0


def test_a_program_that_ends_itself_the_hard_way_leaves_a_whole_trace(file: Path) -> None:
    done = run("session_calls", "100000", "hard", output=windows.path(file), clock="tsc")
    assert done.returncode == 77
    with TraceFile(file) as trace:
        summary = summarize(trace)
        assert trace.state == State.KILLED
        assert trace.header.exit_code == 77
        assert calls(summary)["leaf"] == 100000
        assert summary.gaps == summary.lost == 0


def test_only_chosen_functions_are_recorded(file: Path) -> None:
    run("session_calls", "10", output=windows.path(file), include=["*!leaf", "*!depth"], exclude=["*!depth"])
    with TraceFile(file) as trace:
        assert calls(summarize(trace)) == {"leaf": 10}


def test_modules_loaded_later_are_recorded_from_their_first_instruction(file: Path) -> None:
    plugin = targets.build("session_plugin")
    done = run(
        "session_loader", windows.path(plugin), "3", output=windows.path(file), modules=["session_plug*"]
    )
    assert done.returncode == 9, done.stderr.decode()
    assert done.stdout.split()[2:] == [b"10000"] * 3
    with TraceFile(file) as trace:
        summary = summarize(trace)
        found = calls(summary)
        assert [module.name for module in trace.modules] == ["session_loader.exe"] + [
            "session_plugin.dll"
        ] * 3
        assert found["plugin_work"] == 3
        assert found["plugin_step"] == found["plugin_nothing"] == 3 * 101  # once in DllMain
        assert found["spin"] > 0
        assert summary.orphans == summary.gaps == summary.lost == 0


def test_modules_loaded_later_are_left_alone_unless_asked_for(file: Path) -> None:
    plugin = targets.build("session_plugin")
    done = run("session_loader", windows.path(plugin), "3", output=windows.path(file), modules=["other.dll"])
    assert done.returncode == 9, done.stderr.decode()
    with TraceFile(file) as trace:
        assert [module.name for module in trace.modules] == ["session_loader.exe"]


@pytest.fixture
def running() -> Iterator[Running]:
    process = Running("port_threads")
    yield process
    process.end()


IN_ORDER = ("rounds some, wrong 0, debugged 0", 5)


def test_a_running_program_is_recorded_for_a_while_and_left_as_it_was(file: Path, running: Running) -> None:
    for attempt in range(3):
        made_now = file.with_suffix(f".{attempt}")
        trace = {"output": windows.path(made_now)}
        done = session("attach", trace, process_id=running.process_id, seconds=0.3)
        assert done.returncode == 0, done.stderr.decode()
        with TraceFile(made_now) as made:
            summary = summarize(made)
            assert made.state == State.STOPPED
            assert calls(summary)["fibonacci"] > 10000
            assert summary.gaps == summary.lost == 0
            if attempt == 0:
                # A thread that stood behind a first byte goes on in a copy that it did not enter.
                assert summary.orphans <= 4
            assert set(summary.unclosed) <= {Cause.STOPPED}
    assert running.end() == IN_ORDER


def test_a_trace_is_free_when_its_recording_has_ended(file: Path, running: Running) -> None:
    trace = {"output": windows.path(file)}
    for _ in range(2):
        assert session("attach", trace, process_id=running.process_id, seconds=0.1).returncode == 0
        with TraceFile(file) as made:
            assert calls(summarize(made))["fibonacci"] > 1000
    moved = windows.run(
        ["cmd", "/c", f"move {windows.path(file)} {windows.path(file.with_suffix('.moved'))}"]
    )
    assert moved.returncode == 0, moved.stdout
    assert running.end() == IN_ORDER


def test_a_running_program_that_cannot_be_prepared_is_left_as_it_was(file: Path, running: Running) -> None:
    trace = {"output": windows.path(file), "include": ["!!"]}
    done = session("attach", trace, process_id=running.process_id, seconds=0.1)
    assert done.returncode == UsageError.exit_code
    again = session(
        "attach", {"output": windows.path(file.with_suffix(".2"))}, process_id=running.process_id, seconds=0.1
    )
    assert again.returncode == 0, again.stderr.decode()
    with TraceFile(file.with_suffix(".2")) as made:
        assert calls(summarize(made))["fibonacci"] > 1000
    assert running.end() == IN_ORDER


def attached(running: Running, file: Path, **trace: Any) -> subprocess.Popen[bytes]:
    """A recording of unlimited time that is under way."""
    words = {"process_id": running.process_id, "trace": {"output": windows.path(file), **trace}}
    python = windows.path(windows.wine.windows_python())
    search = windows.path(MAIN.parent.parent.parent / "core")
    process = subprocess.Popen(
        ["wine", python, windows.path(MAIN), "attach", json.dumps(words)],
        env={**windows.environment(), "PYTHONPATH": search},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr
    while b"Ctrl+C ends the recording" not in process.stderr.readline():
        assert process.poll() is None
    return process


def test_a_trace_that_is_being_recorded_is_not_overwritten(file: Path, running: Running) -> None:
    process = attached(running, file)
    done = run("exit_code", output=windows.path(file))
    assert done.returncode == 77
    assert b"a program is being recorded into it" in done.stderr
    other = {"output": windows.path(file.with_suffix(".other"))}
    done = session("attach", other, process_id=running.process_id, seconds=0.1)
    assert done.returncode == NotTraceable.exit_code
    assert b"is being recorded already" in done.stderr
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    with TraceFile(file) as made:
        assert made.state == State.STOPPED
        assert calls(summarize(made))["fibonacci"] > 1000
    assert running.end() == IN_ORDER


def test_a_program_that_loads_modules_all_the_while_can_be_left(file: Path) -> None:
    loader = Running("session_loader", windows.path(targets.build("session_plugin")), "10000")
    process = attached(loader, file, modules=["session_plugin"])
    with ThreadPoolExecutor() as pool:
        ending = pool.submit(loader.end)  # now it begins to load
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        output, exit_code = ending.result()
    assert process.returncode == 0, errors.decode()
    assert output.split() == ["10000"] * 10000
    assert exit_code == 9
    with TraceFile(file) as made:
        names = [module.name for module in made.modules]
        assert names == ["session_loader.exe"] + ["session_plugin.dll"] * (len(names) - 1)
        assert 1 < len(names) < 10000
        assert made.state == State.STOPPED
        assert summarize(made).orphans == 0


def test_ctrl_c_ends_the_recording_and_not_the_program(file: Path, running: Running) -> None:
    process = attached(running, file)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0
    with TraceFile(file) as trace:
        assert trace.state == State.STOPPED
        assert calls(summarize(trace))["fibonacci"] > 10000
    assert running.end() == IN_ORDER


def test_a_program_that_ends_while_it_is_recorded_ends_the_recording(file: Path, running: Running) -> None:
    process = attached(running, file)
    assert running.end() == IN_ORDER
    process.communicate(timeout=30)
    assert process.returncode == 0
    with TraceFile(file) as trace:
        assert trace.state == State.EXITED
        assert trace.header.exit_code == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"output": r"Z:\no\such\folder\file"}, "FileMissing: cannot create "),
        ({"include": ["!!"]}, "UsageError: "),
    ],
)
def test_a_program_that_cannot_be_prepared_never_runs(
    file: Path, words: dict[str, Any], message: str
) -> None:
    done = run("session_calls", "10", **{"output": windows.path(file), **words})
    lines = done.stderr.decode().splitlines()
    assert done.stdout == b""
    assert [line for line in lines if ": planning " not in line] == lines[-1:]
    assert lines[-1].startswith(f"calltrace: {message}")
    assert not file.exists()
