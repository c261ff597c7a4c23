"""Running Windows programs under Wine, from tests, in an environment that is always the same."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from calltrace import wine

PREFIX = wine.cache_folder() / "wine"
HANGS = 900.0  # seconds after which something hangs, however much else the machine has to do


def path(file: Path) -> str:
    """`file` as Windows programs name it."""
    return wine.windows_path(file, PREFIX)


def environment() -> dict[str, str]:
    """A bare environment: nothing of whoever runs the tests reaches a Windows program but PATH and HOME."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "CALLTRACE_CACHE") if name in os.environ}
    return wine.environment(PREFIX, {**kept, "LANG": "C.UTF-8"})


@functools.cache
def keep_wine_running(*changes: tuple[str, str]) -> None:
    """Before a Windows program is started by other means than this module's.

    `changes` of the environment: for another prefix than the rig's.
    """
    # The first Wine program starts Wine's services, which inherit its output pipe and hold it open for
    # seconds after its end. So one whose output is not read to its end comes first, and stays until ours.
    first = subprocess.Popen(
        ["wine", "cmd", "/q"],
        env={**environment(), **dict(changes)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert first.stdin
    assert first.stdout
    first.stdin.write(b"echo ready\r\n")
    first.stdin.flush()
    while b"ready" not in first.stdout.readline():
        assert first.poll() is None, "cmd does not run under Wine: run `make setup`"
    first.stdout.close()
    atexit.register(first.wait)
    atexit.register(first.stdin.close)


def execute(
    command: Sequence[str],
    *,
    timeout: float = HANGS,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """Run a Unix command in the bare environment plus `env`; output is captured as bytes.

    Raises subprocess.TimeoutExpired after `timeout` seconds, with every process of the command ended.
    """
    keep_wine_running()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**environment(), **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(stdin, timeout)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def run(
    args: Sequence[str | Path],
    *,
    timeout: float = HANGS,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """Run a Windows program under Wine; every Path among `args` becomes a Windows path."""
    words = [path(arg) if isinstance(arg, Path) else arg for arg in args]
    return execute(["wine", *words], timeout=timeout, cwd=cwd, env=env, stdin=stdin)


def python(
    *args: str | Path,
    timeout: float = HANGS,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """Run Windows Python under Wine with our package and the tests' helpers on its path."""
    tests = Path(__file__).resolve().parent.parent
    search = {"PYTHONPATH": ";".join(path(folder) for folder in (tests.parent / "core", tests))}
    return run(
        [wine.windows_python(), *args], timeout=timeout, cwd=cwd, env={**search, **(env or {})}, stdin=stdin
    )
