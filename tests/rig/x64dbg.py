"""x64dbg without its window: the real one, from the folder of a release, or a stand-in for it.

The environment variable X64DBG_DIR names the folder with x64dbg.dll; tests/x64dbg/standin.c is the stand-in.
tests/x64dbg/gui.c takes the place of the window.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from calltrace import wine
from rig import targets, windows
from rig.windbg import Transcript, compile_program

PLUGIN = targets.TREE / "core" / "calltrace" / "_native" / "calltrace.dp64"
REAL, STAND_IN = "x64dbg", "stand-in"

_SOURCES = targets.TREE / "tests" / "x64dbg"
_BUILT = targets.TREE / "build" / "x64dbg"
_SDK = f"-I{targets.TREE / 'x64dbg_plugin'}"
_COMMAND = re.compile(r"^> (.*)\n", re.MULTILINE)
_EXPORT = re.compile(r"^EXPORT .*?(\w+)\(", re.MULTILINE)
_LAST = re.compile(r"\n(no target|end of script)\n\Z")
_SETTINGS = "[Events]\nSystemBreakpoint=1\nEntryBreakpoint=0\nTlsCallbacks=0\nTlsCallbacksSystem=0\n"


def real_engine() -> Path | None:
    """The folder of the real debugger, if there is one."""
    folder = os.environ.get("X64DBG_DIR")
    return Path(folder) if folder and Path(folder, "x64dbg.dll").is_file() else None


def real_scripting() -> Path | None:
    """The folder of the real debugger, if x64dbgpy is among its plugins and a Python 2.7 lies in it."""
    folder = real_engine()
    needed = ("plugins/x64dbgpy.dp64", "plugins/x64dbgpy/x64dbgpy", "python27.dll", "Lib/site-packages")
    return folder if folder and all((folder / name).exists() for name in needed) else None


_WITHOUT_REAL = pytest.mark.skipif(
    not real_engine(), reason="X64DBG_DIR does not name the folder of an x64dbg release (with x64dbg.dll)"
)
WITHOUT_SCRIPTING = pytest.mark.skipif(
    not real_scripting(),
    reason="X64DBG_DIR has no plugins/x64dbgpy.dp64 (with its folder), or no Python 2.7 beside x64dbg.dll "
    "(python27.dll, DLLs, Lib with site-packages)",
)
only_real = _WITHOUT_REAL  # of a test
both = pytest.mark.parametrize("debugger", [STAND_IN, pytest.param(REAL, marks=_WITHOUT_REAL)])  # of a test


@contextmanager
def installation(debugger: str) -> Iterator[Path]:
    """A fresh folder with REAL or STAND_IN, the plugin and nothing of an earlier session; the program."""
    with tempfile.TemporaryDirectory(prefix="x64dbg-") as name:
        folder = Path(name)
        for file in _engine_files(debugger):
            (folder / file.name).symlink_to(file)
        (folder / "plugins").mkdir()
        shutil.copy(PLUGIN, folder / "plugins")
        if debugger == REAL:
            import_library = targets.TREE / "build" / "plugin" / "x64dbg_plugin" / "x64dbg.a"
            watch = _built("watch.dp64", "watch.c", "-shared", _SDK, str(import_library))
            shutil.copy(watch, folder / "plugins")
        shutil.copy(_built("x64gui.dll", "gui.c", "-shared"), folder)
        shutil.copy(_built("headless.exe", "host.c"), folder)
        (folder / "headless.ini").write_text(_SETTINGS)
        yield folder / "headless.exe"


def _engine_files(debugger: str) -> list[Path]:
    if debugger == STAND_IN:
        standin = _built("x64dbg.dll", "standin.c", "-shared", _SDK, "-ldbghelp")
        return [standin, *(_forwarding(standin, name) for name in ("x64bridge.dll", "TitanEngine.dll"))]
    real = real_engine()
    assert real
    others = ("x64gui", "qt5", "python")
    return [file for file in real.glob("*.dll") if not file.name.lower().startswith(others)]


def _forwarding(library: Path, name: str) -> Path:
    """A library whose functions are those of the stand-in."""
    made = library.with_name(name)
    with _alone(name):
        if not made.is_file() or made.stat().st_mtime < library.stat().st_mtime:
            exports = _EXPORT.findall((_SOURCES / "standin.c").read_text())
            definition, fresh = made.with_suffix(".def"), made.with_suffix(".new.dll")
            lines = [f"    {export} = {library.stem}.{export}\n" for export in exports]
            definition.write_text("".join([f"LIBRARY {name}\nEXPORTS\n", *lines]))
            command = ["x86_64-w64-mingw32-gcc", "-shared", "-nostdlib", "-o", str(fresh), str(definition)]
            subprocess.run(command, check=True)
            fresh.replace(made)
    return made


def run(
    script: Sequence[str],
    debugger: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
    installed: Path | None = None,
    output: Path | None = None,
) -> Transcript:
    """Start REAL or STAND_IN, and type `script`; see tests/x64dbg/gui.c for what is in it.

    It is started from the folder `installed`, if given. The target is ended with the script. `env` is set
    beside what the plugin needs to find Python. Standard output can go to a file, `output`. Raises
    AssertionError if the debugger does not end.
    """
    with installation(debugger) as fresh:
        program = installed / fresh.name if installed else fresh
        log, lines = program.with_name("log"), program.with_name("script")
        lines.write_text("".join(line + "\n" for line in script), encoding="utf-8")
        given = {**environment(program.parent), **(env or {})}
        words = ["wine", windows.path(program)]
        if output:
            words = ["sh", "-c", 'exec "$@" >"$0"', str(output), *words]
        done = windows.execute(words, env=given, cwd=cwd, timeout=timeout)
        text = log.read_text(encoding="utf-8") if log.is_file() else ""
    last = _LAST.search(text)
    assert last, f"{done}\nthe log:\n{text}"
    banner, *rest = _COMMAND.split(text[: last.start() + 1])
    return Transcript(
        banner, list(zip(rest[::2], rest[1::2])), last[1] == "end of script", done.stdout, done.stderr
    )


def environment(folder: Path) -> dict[str, str]:
    """What a debugger that is started from `folder` has in its environment, and its target too."""
    return {
        "X64DBG_SCRIPT": windows.path(folder / "script"),
        "X64DBG_LOG": windows.path(folder / "log"),
        "CALLTRACE_PYTHON": windows.path(wine.windows_python().parent),
        "CALLTRACE_PACKAGE": packages(),
    }


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


def init(program: Path, arguments: str = "", folder: Path | None = None) -> str:
    """The command that starts a program, in a folder."""
    there = f', "{windows.path(folder)}"' if folder else ""
    return f'init "{windows.path(program)}", "{arguments}"{there}'


def _built(name: str, source: str, *flags: str) -> Path:
    program, sources = _BUILT / name, [_SOURCES / source]
    newest = max(file.stat().st_mtime for file in (*sources, targets.TREE / "x64dbg_plugin" / "sdk.h"))
    with _alone(name):
        if not program.is_file() or program.stat().st_mtime < newest:
            compile_program(program, sources, *flags)
    return program


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """While a file is made, of all test runs in this tree."""
    _BUILT.mkdir(parents=True, exist_ok=True)
    with open(_BUILT / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
