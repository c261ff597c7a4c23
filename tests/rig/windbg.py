"""WinDbg without its window: tests/windbg/debugger.c on the real dbgeng.dll, from the corpus."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calltrace import wine
from rig import corpus, targets, windows

EXTENSION = targets.TREE / "core" / "calltrace" / "_native" / "calltrace_windbg.dll"
LOAD = f".load {windows.path(EXTENSION)}"

_SOURCE = targets.TREE / "tests" / "windbg" / "debugger.c"
_BUILT = targets.TREE / "build" / "windbg"
_ENGINE = ("dbgeng.dll", "dbghelp.dll", "DbgModel.dll", "symsrv.dll", "msdia140.dll", "srcsrv.dll")
_PROMPT = re.compile(r"^\d+:\d{3}> (.*)\n", re.MULTILINE)
_LAST = re.compile(r"\n(no target|end of script)\n\Z")


@dataclass(frozen=True)
class Transcript:
    """What a debugger's window would have shown, and what the target wrote."""

    banner: str  # before the first command
    commands: list[tuple[str, str]]  # each with all that was printed until the next
    has_target: bool  # at the end
    stdout: bytes  # the target's
    stderr: bytes

    def said(self, command: str) -> str:
        """What was printed after a command that was given once."""
        [output] = [output for given, output in self.commands if given == command]
        return output


def environment() -> dict[str, str]:
    """What the debugger needs, with the rig's Python as the one to host."""
    return {
        "WINEDLLOVERRIDES": "dbgeng,dbghelp,mscoree=n,b",
        "CALLTRACE_PYTHON": windows.path(wine.windows_python().parent),
    }


def run(
    script: Sequence[str],
    target: Sequence[str | Path] = (),
    *,
    process_id: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
) -> Transcript:
    """Start a program (default: tests/targets/exit_code) in the debugger, and type `script` at its prompts.

    With `process_id` it attaches to that process instead. The target is ended with the script. `env` is set
    beside `environment()`. Raises AssertionError if the debugger does not come to its end.
    """
    debuggee = ["--", *(target or [targets.build("exit_code"), "0"])]
    if process_id is not None:
        debuggee = ["-p", str(process_id)]
    with tempfile.TemporaryDirectory() as folder:
        log, lines = Path(folder, "log"), Path(folder, "script")
        lines.write_text("".join(line + "\n" for line in script), encoding="utf-8")
        done = windows.run(
            [debugger(), log, lines, *debuggee],
            env={**environment(), **(env or {})},
            cwd=cwd,
            timeout=timeout,
        )
        text = log.read_text(encoding="utf-8") if log.is_file() else ""
    last = _LAST.search(text)
    assert last, f"exit code {done.returncode}\n{text}\n{done.stderr.decode(errors='replace')}"
    banner, *rest = _PROMPT.split(text[: last.start()])
    return Transcript(
        banner, list(zip(rest[::2], rest[1::2])), last[1] == "end of script", done.stdout, done.stderr
    )


def debugger() -> Path:
    """The debugger's program, with the engine beside it."""
    program = _BUILT / "debugger.exe"
    _BUILT.mkdir(parents=True, exist_ok=True)
    with open(_BUILT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.is_file() or program.stat().st_mtime < _SOURCE.stat().st_mtime:
            for name in _ENGINE:
                shutil.copy(corpus.program("dbgeng").parent / name, _BUILT)
            compile_program(program, [_SOURCE], "-ldbgeng", "-luuid")
    return program


def python(*args: str | Path, timeout: float = 200) -> subprocess.CompletedProcess[bytes]:
    """Run Windows Python with rig.dbgeng and our packages on its path."""
    roots = [targets.TREE / name for name in ("core", "windbg_ext", "tests")]
    env = {**environment(), "PYTHONPATH": ";".join(windows.path(root) for root in roots)}
    return windows.python(*args, env=env, timeout=timeout)


def pykd_folder() -> Path:
    """The package pykd with its engine, and what rig.dbgeng needs beside them."""
    folder = _BUILT / "python" / "pykd"
    folder.mkdir(parents=True, exist_ok=True)
    with open(_BUILT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for file in corpus.program("dbgeng").parent.iterdir():
            if file.is_file() and not (folder / file.name).is_file():
                shutil.copy(file, folder)
        for name in ("session", "mscoree"):
            library, source = folder / f"{name}.dll", _SOURCE.with_name(f"{name}.c")
            if not library.is_file() or library.stat().st_mtime < source.stat().st_mtime:
                compile_program(library, [source], "-shared", "-ldbgeng", "-luuid")
    return folder


def compile_program(program: Path, sources: Sequence[Path], *flags: str) -> None:
    """Compile C sources with mingw; warnings are errors. Raises AssertionError with the compiler's words."""
    command = ["x86_64-w64-mingw32-gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-municode"]
    if "wmain" not in sources[0].read_text(encoding="utf-8"):
        command.remove("-municode")
    fresh = program.with_suffix(".new" + program.suffix)
    words = [*command, "-o", str(fresh), *(str(source) for source in sources), *flags]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fresh.replace(program)
