"""What the loop tracer makes of a frame function: filters, and recordings of just what that calls."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from rig import targets, windows
from rig.running import Running
from rig.searched import symbols
from rig.tracing import CALLTRACE, calltrace

FRAME = {"handle_message", "receive", "api_receive", "answer"}  # and what it calls: loop_receive.c


def functions(trace: Path) -> set[str]:
    done = calltrace("top", "--json", "--limit", "0", trace)
    assert done.returncode == 0, done.stderr.decode()
    named = (each["name"].partition("!") for each in json.loads(done.stdout)["functions"])
    return {function or module for module, _, function in named}


def test_the_filter_of_a_climb_records_the_frame_function_and_what_it_calls(tmp_path: Path) -> None:
    patterns, trace, program = tmp_path / "frame.txt", tmp_path / "t.calltrace", targets.build("loop_receive")
    done = calltrace("loop", "loop_receive!api_receive", "--include", patterns, "--", program, "40")
    assert done.returncode == 0, done.stderr.decode()
    known = symbols("loop_receive")
    assert set(patterns.read_text().split()) == {f"loop_receive+{known[each]:#x}" for each in FRAME}
    done = calltrace("run", "--include", f"@{patterns}", "-o", trace, "--", program, "40")
    assert done.returncode == 0, done.stderr.decode()
    assert functions(trace) == FRAME


def test_the_filter_of_a_trace_has_what_was_called(tmp_path: Path) -> None:
    trace, program = tmp_path / "t.calltrace", targets.build("loop_shapes")
    assert calltrace("run", "-o", trace, "--", program, "tail", "40").returncode == 0
    done = calltrace("loop", "loop_shapes!api", "--include", "--from-trace", trace)
    assert done.returncode == 0, done.stderr.decode()
    known = symbols("loop_shapes")
    printed = {line.split()[-1] for line in done.stderr.decode().splitlines() if "--include" in line}
    assert printed == {f"loop_shapes+{known[each]:#x}" for each in ("tail_frame", "work_asm", "api")}


def test_just_the_frame_function_is_recorded_until_the_program_ends(tmp_path: Path) -> None:
    trace, process = tmp_path / "t.calltrace", Running("loop_endless")
    words = ("loop", "loop_endless!api", "--pid", str(process.process_id), "--start", str(trace))
    with subprocess.Popen(
        [str(CALLTRACE), *words], env=windows.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as climbing:
        try:
            assert climbing.stderr
            told: list[str] = []
            for line in climbing.stderr:
                told.append(line.decode())
                if "Ctrl+C ends the recording" in told[-1]:
                    break
        finally:
            said = process.end()
        found, _ = climbing.communicate(timeout=windows.HANGS)
    assert climbing.returncode == 0, told
    assert "loop_endless!turn: once per turn, leads to the API  <- frame function" in found.decode()
    assert said == ("turns some, wrong 0, debugged 0", 7)
    assert functions(trace) == {"turn", "first", "second", "api"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--break",), "--break is for a debugger"),
        (("--label",), "--label is for a debugger"),
        (("--start", "a.calltrace", "--record", "b.calltrace"), "leave --record and --from-trace out"),
        (("--start",), "name the trace file"),
    ],
)
def test_what_a_shell_cannot_do_is_refused_before_the_program_starts(
    options: tuple[str, ...], said: str
) -> None:
    done = calltrace("loop", "loop_receive!api_receive", *options, "--", targets.build("loop_receive"), "3")
    assert (done.returncode, done.stdout) == (64, b"")
    assert said in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


def test_without_a_frame_function_nothing_is_done_and_that_is_said(tmp_path: Path) -> None:
    patterns, program = tmp_path / "frame.txt", targets.build("loop_shapes")
    words = ("loop", "loop_shapes!api", "--include", patterns, "--", program, "nested", "40")
    done = calltrace(*words)
    assert done.returncode == 0
    assert "no frame function was found" in done.stderr.decode()
    assert not patterns.exists()
