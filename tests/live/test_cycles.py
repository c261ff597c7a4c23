"""Recording the same program again and again: nothing stays but what a stack refers to."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from calltrace.calltree import summarize
from calltrace.model import Cause, State
from calltrace.tracefile import TraceFile
from live.test_session import IN_ORDER, Running, attached, calls, session
from rig import targets, windows

MAIN = Path(__file__).parent / "cycles_main.py"
TURNS = 1000
KEPT = 100  # every so many turns a trace is read


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path)  # traces are large


@contextmanager
def deleted_here(folder: Path) -> Iterator[None]:
    """Deletes files *.over meanwhile. If Wine's server did, every program would wait for the disk."""
    ended = threading.Event()

    def delete() -> None:
        while not ended.wait(0.05):
            for file in folder.glob("*.over"):
                file.unlink()

    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(delete)
        try:
            yield
        finally:
            ended.set()
    deleting.result()


def play(scene: str, timeout: float = windows.HANGS, **words: Any) -> Any:
    done = windows.python(MAIN, scene, json.dumps(words), timeout=timeout)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.timeout(900)
def test_a_busy_program_is_recorded_a_thousand_times(folder: Path) -> None:
    plugins = []
    for name in ("first.dll", "second.dll"):
        plugins.append(windows.path(folder / name))
        shutil.copy(targets.build("session_plugin"), folder / name)
    options: list[dict[str, Any]] = [
        {},
        {"modules": ["first.dll"], "clock": "tsc"},
        {"modules": ["second.dll"], "events": "functions"},
        {"modules": ["first.dll", "second.dll"], "events": "all"},
        {"clock": "coarse"},
    ]
    with deleted_here(folder):
        seen = play(
            "cycles",
            program=windows.path(targets.build("cycles")),
            plugins=plugins,
            folder=windows.path(folder),
            turns=TURNS,
            kept=KEPT,
            options=options,
            timeout=windows.HANGS,
        )
    assert seen["ended"] == ["rounds some, wrong 0, debugged 0", 6]

    # A thread blocked in a copy, and a fiber left in one, kept them. When they had returned, and every thread
    # had overwritten what it had left of addresses, only what freed memory still holds of them did.
    assert seen["was_held"] == {"block": True, "fiber": True}
    assert seen["is_held"] == {"block": 0, "fiber": 0}
    assert max(seen["left"]) < 30
    assert seen["left"][-1] <= 2

    early, late = seen["used"]
    end = seen["at_end"]
    for what in ("threads", "tls", "handles", "our_handles", "regions"):
        assert late[what] <= early[what] + 20, what  # some are held for now, but not one a turn
    assert late["committed"] < early["committed"] + (8 << 20)
    assert late["our_memory"] < early["our_memory"] + (16 << 20)
    if seen["left"][-1] == 0:  # then the recorder has given everything back but its memory
        assert end["tls"] == seen["at_start"]["tls"]

    names = {0: [], 1: ["first"], 2: ["second"], 3: ["first", "second"], 4: []}
    for turn in range(0, TURNS, KEPT):
        with TraceFile(folder / f"{turn}.calltrace") as trace:
            summary = summarize(trace)
            found = calls(summary)
            assert trace.state == State.STOPPED
            assert summary.gaps == summary.lost == 0
            # A thread that stood behind a first byte goes on in a copy that it did not enter.
            assert summary.orphans <= 12
            assert set(summary.unclosed) <= {Cause.STOPPED, Cause.UNWOUND, Cause.RUNNING, Cause.THREAD_EXIT}
            assert [module.name for module in trace.modules] == [
                "cycles.exe",
                *(f"{name}.dll" for name in names[turn % len(options)]),
            ]
            assert found["fibonacci"] > 0


def test_memory_of_a_plugin_that_comes_and_goes_does_not_grow(folder: Path) -> None:
    plugin = targets.build("session_plugin")
    seen = play(
        "loads",
        program=windows.path(targets.build("session_loader")),
        plugin=windows.path(plugin),
        file=windows.path(folder / "made.calltrace"),
        times=200,
    )
    assert seen["loaded"] == 200
    assert seen["output"].split() == ["10000"] * 200
    assert seen["exit_code"] == 9
    codes, regions, sizes = zip(*seen["held"])
    assert max(codes) <= 3  # the program's, the plugin's, and those of its last time
    assert max(regions[5:]) <= max(regions[:5]) + 2
    assert max(sizes[5:]) <= max(sizes[:5]) + (1 << 20)
    with TraceFile(folder / "made.calltrace") as trace:
        summary = summarize(trace)
        assert calls(summary)["plugin_work"] == 200
        assert summary.orphans == summary.gaps == summary.lost == 0


def test_what_a_killed_calltrace_left_is_taken_back_by_the_next(folder: Path) -> None:
    running = Running("port_threads")
    first = attached(running, folder / "first")
    first.kill()
    first.communicate(timeout=windows.HANGS)
    done = session(
        "attach", {"output": windows.path(folder / "second")}, process_id=running.process_id, seconds=0.2
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"the calltrace that records this process has died: its recording ends here" in done.stderr
    done = session(
        "attach", {"output": windows.path(folder / "third")}, process_id=running.process_id, seconds=0.2
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"has died" not in done.stderr
    assert b"left out" not in done.stderr
    for name in ("first", "second", "third"):
        with TraceFile(folder / name) as trace:
            summary = summarize(trace)
            assert trace.state == State.STOPPED
            assert calls(summary)["fibonacci"] > 1000
            assert summary.gaps == summary.lost == 0
            assert set(summary.unclosed) <= {Cause.STOPPED, Cause.RUNNING}
    assert running.end() == IN_ORDER
