"""./calltrace on Linux: what reaches the program and what comes back from it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from rig import targets, tracing, windows


@pytest.mark.parametrize("code", ["0", "7", "255", "300", "0xC0000005", "0xFFFFFFFF"])
def test_the_exit_code_is_that_of_a_plain_run(tmp_path: Path, code: str) -> None:
    job = tracing.Job(targets.build("exit_code"), [code], tmp_path / "work")
    trace = tmp_path / "exit_code.calltrace"
    assert job.traced(trace) == job.plain()
    assert tracing.info(trace)["exit_code"] == int(code, 0)


def test_ctrl_c_reaches_the_program_and_the_trace_is_finished(tmp_path: Path) -> None:
    program, trace = targets.build("ctrl_c"), tmp_path / "ctrl_c.calltrace"
    with subprocess.Popen(
        [tracing.CALLTRACE, "run", "--quiet", "-o", trace, "--", program],
        stdout=subprocess.PIPE,
        env=windows.environment(),
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\r\n"
            os.killpg(process.pid, signal.SIGINT)
            assert process.stdout.readline() == b"interrupted\r\n"
            assert process.wait(60) == 3
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert tracing.info(trace)["state"] == "exited"


def test_the_trace_is_named_after_the_program_and_lies_in_the_working_folder(tmp_path: Path) -> None:
    done = tracing.calltrace("run", "--", targets.build("exit_code"), cwd=tmp_path)
    assert done.returncode == 0
    assert [file.name for file in tmp_path.iterdir()] == ["exit_code.calltrace"]
    assert b"calltrace tree exit_code.calltrace" in done.stderr


def test_a_program_that_is_not_there_is_one_clear_line_and_its_own_exit_code(tmp_path: Path) -> None:
    done = tracing.calltrace("run", "--", "no such.exe", cwd=tmp_path)
    assert done.returncode == 66
    assert done.stderr.count(b"\n") == 1
    assert b"no such.exe" in done.stderr
    assert list(tmp_path.iterdir()) == []
