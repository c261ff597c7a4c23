"""x64dbg without its window: the real engine, from the folder of a release, or a stand-in for it.

The environment variable X64DBG_DIR names the folder with x64dbg.dll. tests/x64dbg/gui.c takes the
place of the window.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from calltrace import wine
from rig import targets, windows
from rig.windbg import compile_program

PLUGIN = targets.TREE / "core" / "calltrace" / "_native" / "calltrace.dp64"
NO_ENGINE = "X64DBG_DIR does not name the folder of an x64dbg release (the one with x64dbg.dll)"

_SOURCES = targets.TREE / "tests" / "x64dbg"
_BUILT = targets.TREE / "build" / "x64dbg"
_COMMAND = re.compile(r"^> (.*)\n", re.MULTILINE)
_LAST = re.compile(r"\n(no target|end of script)\n\Z")
_SETTINGS = "[Events]\nSystemBreakpoint=1\nEntryBreakpoint=0\nTlsCallbacks=0\nTlsCallbacksSystem=0\n"


@dataclass(frozen=True)
class Transcript:
    """What the debugger's log would have shown, and what the target wrote."""

    banner: str  # before the first command
    commands: list[tuple[str, str]]  # each with all that was logged until the next
    has_target: bool  # at the end
    stdout: bytes  # the target's
    stderr: bytes

    def said(self, command: str) -> str:
        """What was logged after a command that was given once."""
        [output] = [output for given, output in self.commands if given == command]
        return output


def engine() -> Path | None:
    """The folder of the real engine, if there is one."""
    folder = os.environ.get("X64DBG_DIR")
    return Path(folder) if folder and Path(folder, "x64dbg.dll").is_file() else None


@contextmanager
def installation() -> Iterator[Path]:
    """A fresh folder with the debugger, the plugin and nothing of an earlier session; its program's path.

    The plugin is what a symbolic link names, so that its Python packages are found in the source tree.
    """
    real = engine()
    assert real, NO_ENGINE
    with tempfile.TemporaryDirectory(prefix="x64dbg-") as name:
        folder = Path(name)
        for file in real.glob("*.dll"):
            if not file.name.lower().startswith(("x64gui", "qt5")):
                (folder / file.name).symlink_to(file)
        (folder / "plugins").mkdir()
        shutil.copy(PLUGIN, folder / "plugins")
        shutil.copy(_built("x64gui.dll", "gui.c", "-shared"), folder)
        shutil.copy(_built("headless.exe", "host.c"), folder)
        (folder / "headless.ini").write_text(_SETTINGS)
        yield folder / "headless.exe"


def run(
    script: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
) -> Transcript:
    """Start the debugger, and type `script`; see tests/x64dbg/gui.c for what is in it.

    The target is ended with the script. `env` is set beside what the plugin needs to find Python. Raises
    AssertionError if the debugger does not come to its end.
    """
    with installation() as program:
        log, lines = program.with_name("log"), program.with_name("script")
        lines.write_text("".join(line + "\n" for line in script), encoding="utf-8")
        environment = {
            "X64DBG_SCRIPT": windows.path(lines),
            "X64DBG_LOG": windows.path(log),
            "CALLTRACE_PYTHON": windows.path(wine.windows_python().parent),
            "CALLTRACE_PACKAGE": packages(),
        }
        done = windows.run([program], env={**environment, **(env or {})}, cwd=cwd, timeout=timeout)
        text = log.read_text(encoding="utf-8") if log.is_file() else ""
    last = _LAST.search(text)
    assert last, f"exit code {done.returncode}\n{text}\n{done.stderr.decode(errors='replace')}"
    banner, *rest = _COMMAND.split(text[: last.start() + 1])
    return Transcript(
        banner, list(zip(rest[::2], rest[1::2])), last[1] == "end of script", done.stdout, done.stderr
    )


def answering(folder: Path, host: Path) -> dict[str, str]:
    """An environment in which the module in the file `host` answers `calltrace`: its run(library, line).

    It finds our own host as calltrace_x64dbg.genuine, and what is in tests/.
    """
    package = folder / "calltrace_x64dbg"
    shutil.copytree(targets.TREE / "x64dbg_plugin" / "calltrace_x64dbg", package)
    (package / "host.py").rename(package / "genuine.py")
    shutil.copy(host, package / "host.py")
    roots = [folder, targets.TREE / "core", targets.TREE / "tests"]
    return {"CALLTRACE_PACKAGE": ";".join(windows.path(root) for root in roots)}


def packages() -> str:
    """The folders of our Python packages, as CALLTRACE_PACKAGE has them."""
    return ";".join(windows.path(targets.TREE / name) for name in ("core", "x64dbg_plugin"))


def init(program: Path, arguments: str = "") -> str:
    """The command that starts a program."""
    return f'init "{windows.path(program)}", "{arguments}"'


def _built(name: str, source: str, *flags: str) -> Path:
    program, sources = _BUILT / name, [_SOURCES / source]
    _BUILT.mkdir(parents=True, exist_ok=True)
    if not program.is_file() or program.stat().st_mtime < sources[0].stat().st_mtime:
        compile_program(program, sources, *flags)
    return program
