"""Traces of runs that end badly: the target killed, calltrace itself killed, the disk full."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from rig import targets, tracing, windows
from rig.tracing import CALLTRACE

SECONDS = 30  # for things to happen that take a fraction of one


def _processes(word: str) -> list[int]:
    """Ids of the processes whose program, the first word of their command line, ends in `word`."""
    listed = subprocess.run(
        ["ps", "-eww", "-o", "pid=,args="], capture_output=True, text=True, check=True
    ).stdout
    lines = (line.split(None, 1) for line in listed.splitlines())
    return [int(pid) for pid, args in lines if args.split()[0].endswith(word)]


def _start(command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=windows.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _wait_for(what: str, found: object) -> None:
    deadline = time.monotonic() + SECONDS
    while not (found() if callable(found) else found):
        assert time.monotonic() < deadline, f"no {what} within {SECONDS} s"
        time.sleep(0.05)


@contextmanager
def _running(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """A program that calls for minutes, recorded: calltrace's process, the program's id, the trace."""
    name = f"endless{os.getpid()}.exe"
    program, trace = folder / name, folder / "endless.calltrace"
    shutil.copy(targets.build("calls"), program)
    with _start([CALLTRACE, "run", "-o", trace, *options, "--", program, "4000000000"]) as host:
        try:
            _wait_for("program", lambda: _processes(f"\\{name}"))
            [target] = _processes(f"\\{name}")
            yield host, target, trace
        finally:
            for pid in _processes(f"\\{name}"):
                os.kill(pid, signal.SIGKILL)
            host.kill()


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """A program that calls for minutes, recorded: calltrace's process, the program's id, the trace."""
    options = ("--events", "functions", "--max-size", "64M", "--policy", "drop-oldest")
    with _running(tmp_path, *options) as (host, target, trace):
        _wait_for("full trace", lambda: trace.exists() and trace.stat().st_size >= 64 << 20)
        yield host, target, trace


def _assert_readable(trace: Path, *causes: str) -> dict[str, object]:
    report = tracing.info(trace)
    assert report["events"]["total"] > 1_000_000
    assert report["gaps"]["units_lost"] > 0
    assert report["health"]["damaged_chunks"] == 0
    assert set(report["frames"]["unclosed"]) <= {"gap", *causes}
    shown = tracing.calltrace("tree", trace, "--limit", "50")
    assert shown.returncode == 0
    assert b"endless" in shown.stdout
    assert isinstance(report, dict)
    return report


def test_a_killed_target_leaves_a_whole_trace(endless: tuple[subprocess.Popen[bytes], int, Path]) -> None:
    host, target, trace = endless
    os.kill(target, signal.SIGKILL)
    host.wait(SECONDS)
    assert _assert_readable(trace, "process_end")["state"] == "killed"


def test_with_calltrace_killed_the_target_goes_on_and_the_trace_says_it_was_cut(
    endless: tuple[subprocess.Popen[bytes], int, Path],
) -> None:
    host, target, trace = endless
    host.kill()
    host.wait(SECONDS)
    time.sleep(0.5)
    os.kill(target, 0)  # it is still there
    os.kill(target, signal.SIGKILL)
    _wait_for("end of the target", lambda: not Path(f"/proc/{target}").exists())
    assert _assert_readable(trace, "cut")["state"] == "cut"
    shown = tracing.calltrace("info", trace)
    assert b"cut" in shown.stdout


def _processor_seconds(process: int) -> float:
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_counts_of_a_killed_target_are_whole(tmp_path: Path) -> None:
    with _running(tmp_path, "--mode", "graph", "--events", "functions") as (host, target, trace):
        _wait_for("work", lambda: _processor_seconds(target) > 1)
        os.kill(target, signal.SIGKILL)
        host.wait(SECONDS)
        report = tracing.info(trace)
    assert report["state"] == "killed"
    assert report["mode"] == "graph"
    assert report["events"]["enter"] > 1_000_000
    assert report["gaps"]["units_lost"] == report["gaps"]["recorder_units_lost"] == 0
    assert trace.stat().st_size < 8 << 20


def test_with_the_counting_calltrace_killed_the_target_goes_on_and_the_file_says_so(tmp_path: Path) -> None:
    with _running(tmp_path, "--mode", "graph", "--events", "functions") as (host, target, trace):
        _wait_for("work", lambda: _processor_seconds(target) > 0.5)
        host.kill()
        host.wait(SECONDS)
        before = _processor_seconds(target)
        _wait_for("more work", lambda: _processor_seconds(target) > before + 1)  # nobody waits for room
        shown = tracing.calltrace("top", trace)
    assert shown.returncode != 0
    assert shown.stderr.decode() == (
        f"calltrace: {trace} has no counts yet: they are written when the recording ends or is paused, and "
        "lost if the calltrace that records ends before\n"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_on_a_full_disk_the_oldest_events_go_and_are_counted(small_disk: Path, tmp_path: Path) -> None:
    job = tracing.Job(targets.build("calls"), ["2000000"], tmp_path / "work")
    trace = small_disk / "full.calltrace"
    done = job.traced(trace, "--events", "functions", "--policy", "drop-oldest")
    assert done.exit_code == 0
    assert done.stdout.count(b"\n") == 5

    report = tracing.info(trace)
    assert report["state"] == "exited"
    assert report["gaps"]["recorder_units_lost"] > 10_000_000
    assert report["gaps"]["units_lost"] == report["gaps"]["recorder_units_lost"]
    assert report["events"]["total"] > 1_000_000


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_on_a_full_disk_the_program_waits_until_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(9 << 20))
    trace = small_disk / "waits.calltrace"
    command = [CALLTRACE, "run", "-o", trace, "--events", "functions", "--", targets.build("calls"), "100000"]
    with _start(command) as host:
        with pytest.raises(subprocess.TimeoutExpired):
            host.wait(4)
        ballast.unlink()
        assert host.wait(SECONDS) == 0
    report = tracing.info(trace)
    assert report["gaps"] == {"count": 0, "units_lost": 0, "recorder_units_lost": 0}
    assert report["events"]["enter"] > 5 * 4 * 100_000
