"""The command line as a shell sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import calltrace
from calltrace import cli
from rig import tracewriter
from rig.tracewriter import TraceWriter, Units

CORE = Path(__file__).resolve().parent.parent.parent / "core"
COMMAND = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(CORE)!r}); from calltrace.cli import main; sys.exit(main())",
]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    units = Units()
    for number in range(8000):
        units.event(tracewriter.ENTER, number % 50)
        units.event(tracewriter.ENTER, 60)
        units.event(tracewriter.LEAVE, 60)
        units.event(tracewriter.LEAVE, number % 50)
    writer = TraceWriter()
    writer.thread(units)
    return writer.write(tmp_path / "t.calltrace")


@pytest.mark.parametrize(
    ("words", "code"),
    [(["nosuch"], 64), (["tree"], 64), (["info", "/nowhere/t"], 66), (["info", __file__], 76)],
)
def test_errors_are_one_line_on_stderr_with_an_exit_code_of_their_own(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int
) -> None:
    assert cli.main(words) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("calltrace: ")
    assert shown.err.count("\n") == 1


def test_commands_show_their_answer_on_stdout(capsys: pytest.CaptureFixture[str], trace: Path) -> None:
    assert cli.main(["info", str(trace)]) == 0
    shown = capsys.readouterr()
    assert "8,000" not in shown.err
    assert "16,000 enter, 16,000 leave" in shown.out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"calltrace {calltrace.__version__}\n"


def test_standard_handles_may_be_closed(trace: Path) -> None:
    for redirection in (">&-", "2>&-", ">&- 2>&-"):
        line = f'"$@" {redirection}'
        done = subprocess.run(
            ["sh", "-c", line, "sh", *COMMAND, "top", str(trace)], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert bool(done.stdout) == (redirection == "2>&-")
        assert done.stderr == b""


def test_a_reader_that_goes_away_is_no_error(trace: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "export", "csv", str(trace)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(b"thread,")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


def test_names_a_terminal_cannot_show_do_not_end_it(tmp_path: Path) -> None:
    writer = TraceWriter()
    writer.module({"name": "m.exe", "names": [[0, "naïve\N{SNOWMAN}"]]}, [(0, 1, 1, 0, 0, tracewriter.NONE)])
    units = Units()
    units.event(tracewriter.ENTER, 0)
    writer.thread(units)
    path = writer.write(tmp_path / "t")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, "tree", str(path)], capture_output=True, env=environment, check=True)
    assert b"m!na?ve?" in done.stdout


def test_a_full_disk_is_said_in_one_line(trace: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "export", "csv", str(trace)],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 74
    assert done.stderr == b"calltrace: cannot write: No space left on device\n"
