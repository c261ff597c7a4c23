"""Running programs under ``./calltrace run`` and holding them against their plain runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rig import windows

CALLTRACE = Path(__file__).resolve().parent.parent.parent / "calltrace"


def calltrace(
    *args: str | Path,
    timeout: float = windows.HANGS,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line from the source tree in the bare environment of Windows programs."""
    words = [str(CALLTRACE), *(str(arg) for arg in args)]
    return windows.execute(words, timeout=timeout, cwd=cwd, env=env, stdin=stdin)


def shell(*words: str | Path) -> str:
    """What the command line in a shell prints."""
    done = calltrace(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def info(trace: Path) -> Any:
    """What ``calltrace info --json`` says of a trace file."""
    done = calltrace("info", trace, "--json")
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


# No Windows program can have written these: glibc's loader and the Unix side of Wine's ntdll, which alone
# have such words in them, write past it to its standard error when a Unix process ends badly. In one of some
# thousand runs of ninja under calltrace the end of a cmd, not traced itself, did so in the middle of the run.
_UNIX_WORDS = re.compile(rb"^(?:Inconsistency detected by ld\.so: |wine client error:).*\n", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """All that a program's run leaves behind, but for how long it took."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Job:
    """Work for a Windows program, in a folder that `prepare` fills anew for each run."""

    program: Path
    arguments: Sequence[str]
    folder: Path
    prepare: Callable[[Path], None] = lambda folder: None
    stdin: bytes = b""
    ignored_files: Sequence[str] = field(default=())  # those with times in them
    unordered: bool = False  # several threads write lines of standard output, each when it has one
    timeout: float = windows.HANGS

    def plain(self) -> Outcome:
        """Run it as it is."""
        return self._run(["wine", windows.path(self.program), *self.arguments])

    def traced(self, trace: Path, *options: str) -> Outcome:
        """Run it under calltrace, recording into `trace`."""
        ours = [str(CALLTRACE), "run", "--quiet", "-o", str(trace), *options, "--"]
        return self._run([*ours, str(self.program), *self.arguments])

    def _run(self, command: Sequence[str]) -> Outcome:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.prepare(self.folder)
        done = windows.execute(command, cwd=self.folder, stdin=self.stdin, timeout=self.timeout)
        files = {
            str(file.relative_to(self.folder)): file.read_bytes()
            for file in sorted(self.folder.rglob("*"))
            if file.is_file() and file.name not in self.ignored_files
        }
        stdout = b"".join(sorted(done.stdout.splitlines(True))) if self.unordered else done.stdout
        for words in _UNIX_WORDS.findall(done.stderr):
            warnings.warn(f"Wine said beside the program: {words.decode()}", stacklevel=3)
        return Outcome(done.returncode, stdout, _UNIX_WORDS.sub(b"", done.stderr), files)


# How frames may end without an event of their own in a run that nobody cut short.
_ORDERLY_CAUSES = {"unwound", "thread_exit", "process_end"}


def runs_the_same_three_times_traced(
    job: Job, trace: Path, *, modules: Sequence[str] = (), least_share_instrumented: float = 0.995
) -> Outcome:
    """Assert that `job` leaves the same behind traced as plain, in whole traces. Return the plain one.

    `modules` are traced beside the program. The least share is of the functions with unwind data, or of all
    functions in a module without any.
    """
    plain = job.plain()
    _assert_same(job.plain(), plain)  # or the work itself differs from run to run
    for _ in range(3):
        _assert_same(job.traced(trace, *(word for name in modules for word in ("--modules", name))), plain)
        report = info(trace)
        _assert_whole(report, plain.exit_code)
        assert [module["name"] for module in report["modules"]] == [job.program.name, *modules]
        for module in report["modules"]:
            _assert_instrumented(module, least_share_instrumented)
        trace.unlink()
    return plain


def _assert_same(found: Outcome, expected: Outcome) -> None:
    assert found.exit_code == expected.exit_code, found.stderr[-2000:].decode(errors="replace")
    assert found.stderr.decode(errors="replace") == expected.stderr.decode(errors="replace")
    assert found.stdout.decode(errors="replace") == expected.stdout.decode(errors="replace")
    assert list(found.files) == list(expected.files)
    assert [name for name in found.files if found.files[name] != expected.files[name]] == []


def _assert_whole(report: Any, exit_code: int) -> None:
    assert report["state"] == "exited"
    assert report["exit_code"] & 0xFF == exit_code
    assert report["gaps"] == {"count": 0, "units_lost": 0, "recorder_units_lost": 0}
    assert not any(report["health"].values()), report["health"]
    assert report["frames"]["orphans"] == 0
    assert report["frames"]["unclosed"].keys() <= _ORDERLY_CAUSES
    assert report["frames"]["functions"] == report["events"]["enter"] > 1000


def _assert_instrumented(module: Any, least_share: float) -> None:
    functions, share = module["functions"], module["pdata_groups"]["share"]
    if share is None:
        share = functions["instrumented"] / (functions["found"] - functions["thunks"])
    assert share >= least_share
    for refusal in module["refusals"]:
        assert refusal["count"] == len(refusal["functions"])
        assert refusal["reason"] not in ("", f"status {refusal['status']}")
    assert sum(refusal["count"] for refusal in module["refusals"]) == functions["refused"]
