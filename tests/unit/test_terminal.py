"""Colours and progress come where a terminal shows them, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from calltrace import dispatch, terminal
from calltrace.commands import Console
from calltrace.export import FORMATS
from rig import tracewriter
from rig.tracewriter import TraceWriter, Units

CORE = Path(__file__).resolve().parent.parent.parent / "core"
COMMAND = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(CORE)!r}); from calltrace.cli import main; sys.exit(main())",
]
UNITS = 6  # of the trace
CODES = re.compile(r"\x1b\[\d?m")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    units = Units(8)
    for number in (0, 1):
        units.event(tracewriter.ENTER, number)
    units.ext(tracewriter.MARK, 7)
    for number in (1, 0):
        units.event(tracewriter.LEAVE, number)
    writer = TraceWriter(8)
    functions = [(rva, 16, 1, 0, 0, tracewriter.NONE) for rva in (0x1000, 0x2000)]
    writer.module({"name": "m.exe", "names": [[0x1000, "main"]]}, functions)
    writer.thread(units, block_units=2)
    writer.info({"marks": [{"name": "click", "tsc": 1, "positions": [[0, 1]]}]})
    return writer.write(tmp_path / "t.calltrace")


def on_a_terminal(*words: str | Path, **changes: str) -> str:
    """What a terminal is sent by a command."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm", **changes},
    ) as process:
        os.close(theirs)
        sent = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    assert process.returncode == 0, sent
    return sent.decode().replace("\r\n", "\n")


def _read(file: int) -> bytes:
    try:
        return os.read(file, 4096)
    except OSError:  # the other side is closed
        return b""


@pytest.mark.parametrize(
    "words", [["tree"], ["top"], ["stacks"], ["callees", "main"], ["diff"], ["diff", "--edges"], ["info"]]
)
def test_a_terminal_is_shown_colours_and_a_pipe_the_same_text_without(trace: Path, words: list[str]) -> None:
    verb, *rest = words
    shown = on_a_terminal(verb, trace, *rest)
    piped = subprocess.run([*COMMAND, verb, trace, *rest], capture_output=True, text=True, check=True)
    assert "\x1b" not in piped.stdout + piped.stderr
    assert CODES.sub("", shown) == piped.stdout
    if "main" in piped.stdout:
        assert "\x1b[2mm!\x1b[0m\x1b[1mmain\x1b[0m" in shown
        assert "\x1b[2mm+\x1b[0m\x1b[1m0x2000\x1b[0m" in shown


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_gets_none(trace: Path, changes: dict[str, str]) -> None:
    assert "m!main" in on_a_terminal("tree", trace, **changes)
    assert "\x1b" not in on_a_terminal("tree", trace, **changes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_progress_comes_late_seldom_and_goes(clock: list[float]) -> None:
    shown = io.StringIO()
    with terminal.Meter(shown) as meter:
        for clock[0], done in ((0.5, 10), (1.1, 20), (1.2, 30), (1.4, 40)):
            meter.tell("reading t", done, 100)
        assert shown.getvalue() == "\r\x1b[Kreading t: 20 %\r\x1b[Kreading t: 40 %"
        meter.tell("reading t", 100, 100)
        assert shown.getvalue().endswith("40 %\r\x1b[K")
        shown.truncate(0)
        clock[0] = 3
        meter.tell("reading u", 1, 3)
    assert shown.getvalue().endswith("reading u: 33 %\r\x1b[K")


def test_what_is_quick_shows_no_progress(clock: list[float]) -> None:
    shown = io.StringIO()
    with terminal.Meter(shown) as meter:
        meter.tell("reading t", 1, 2)
        meter.tell("reading t", 2, 2)
    assert shown.getvalue() == ""


def test_progress_makes_room_for_what_is_written(clock: list[float]) -> None:
    terminal_shows = io.StringIO()
    meter = terminal.Meter(terminal_shows)
    output = terminal.Output(terminal_shows, meter)
    for clock[0], done in ((1.1, 20), (1.2, 30), (2.0, 40)):
        meter.tell("reading t", done, 100)
        output.write("line\n")
    clock[0] = 3.1
    meter.tell("reading t", 50, 100)
    # not again as soon as something was written
    assert terminal_shows.getvalue() == (
        "\r\x1b[Kreading t: 20 %\r\x1b[Kline\nline\nline\n\r\x1b[Kreading t: 50 %"
    )


READING = (
    *("info", "tree", "tree --json", "top", "stacks", "callers {} main", "callees {} main"),
    *("new {} click", "diff {} {}@7", "diff {} {}@click", "diff --edges {} {}@click"),
    *("loop main --from-trace {}", "report {} -o {}.out", 'query {} "SELECT 1"'),
    *(f"export {name} {{}} -o {{}}.out" for name in FORMATS),
)


@pytest.mark.parametrize("line", READING)
def test_reading_tells_how_far_it_is(trace: Path, line: str) -> None:
    told: list[tuple[str, int, int]] = []
    console = Console(
        io.StringIO(), lambda line: None, meter=lambda what, done, whole: told.append((what, done, whole))
    )
    dispatch.run_line((line if "{}" in line else f"{line} {{}}").replace("{}", str(trace)), console)
    assert {what for what, _, _ in told} == {"reading t.calltrace"}
    passes, before = 0, 0
    for _, done, whole in told:
        assert whole in (UNITS, 2 * UNITS)  # of events and edges at once
        assert before <= done <= whole
        before = done if done < whole else 0
        passes += done == whole
    assert passes
    assert before == 0
