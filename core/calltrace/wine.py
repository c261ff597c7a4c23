"""Live tracing from Linux: the whole command is handed to Windows Python inside Wine.

Everything Windows lives in a cache folder outside the source tree (``CALLTRACE_CACHE``, else
``~/.cache/calltrace``): the Wine prefix in ``wine`` and Windows' CPython in ``python-win``.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from calltrace.errors import EngineError, FileMissing

_WINDOWS_ABSOLUTE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
# Last on the path: beside an installed package lie Linux builds of what Windows Python has its own of.
_START = "import sys; sys.path.append({core!r}); from calltrace.cli import main; sys.exit(main())"
_SECONDS_TO_MAKE_A_PREFIX = 300
_ADDR_NO_RANDOMIZE, _ASK = 0x0040000, 0xFFFFFFFF  # of personality(2)


def cache_folder() -> Path:
    """The folder of everything that is downloaded or made once: Wine prefix, Windows Python, archives."""
    named = os.environ.get("CALLTRACE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "calltrace"


def windows_python() -> Path:
    """Windows' python.exe in the cache.

    Raises FileMissing if it was never set up.
    """
    python = cache_folder() / "python-win" / "python.exe"
    if not python.is_file():
        raise FileMissing(f"no Windows Python at {python}: run `make setup` in calltrace's source tree")
    return python


def environment(prefix: Path, base: Mapping[str, str]) -> dict[str, str]:
    """`base` with what Wine needs to run in `prefix`, quietly unless the user asked for Wine's messages."""
    return {"WINEDEBUG": "-all", **base, "WINEPREFIX": str(prefix)}


def ensure_prefix(prefix: Path | None = None) -> Path:
    """The Wine prefix to use, absolute: `prefix`, else WINEPREFIX, else the one in the cache; made if absent.

    Raises EngineError if Wine is not installed or cannot make the prefix.
    """
    if shutil.which("wine") is None:
        raise EngineError("Wine is not installed: `apt-get install wine wine64`")
    chosen = prefix or Path(os.environ.get("WINEPREFIX") or cache_folder() / "wine")
    chosen = chosen.expanduser().absolute()
    if not (chosen / "system.reg").is_file():
        print(f"calltrace: making the Wine prefix {chosen} ...", file=sys.stderr, flush=True)
        _make_prefix(chosen)
    return chosen


def windows_path(path: Path | str, prefix: Path) -> str:
    """`path` as programs in `prefix` name it, absolute; a path that is a Windows one already stays as it is.

    Raises FileMissing if no drive of the prefix shows that place.
    """
    text = os.fspath(path)
    if _WINDOWS_ABSOLUTE.match(text):
        return text
    absolute = Path(os.path.abspath(text))
    drives = {link.name.upper(): link.resolve() for link in (prefix / "dosdevices").glob("?:")}
    showing = [(len(top.parts), name, top) for name, top in drives.items() if absolute.is_relative_to(top)]
    if not showing:
        raise FileMissing(f"no drive of the Wine prefix {prefix} shows {absolute}: add one with winecfg")
    _, name, top = max(showing)
    return name + "\\" + str(absolute.relative_to(top)).replace("/", "\\")


def hold_addresses() -> None:
    """Have Linux place the programs that this process starts always alike, wherever it allows that.

    It puts a program's heap anywhere in the first GB behind the program, and Wine's loader ends 48 MB below
    0x7FFE0000, where Windows has a page of its own. One start in some thousands finds it taken and fails:
    "failed to map the shared user data", or in the parent an internal error 1359.
    """
    personality = ctypes.CDLL(None).personality
    personality.argtypes = [ctypes.c_ulong]
    personality(personality(_ASK) | _ADDR_NO_RANDOMIZE)


def host_path(path: str, prefix: Path | None = None) -> Path:
    """Where a file that Windows programs in `prefix` name by `path` lies; on Windows, that itself.

    Without a prefix that of WINEPREFIX, else the one in the cache; nothing is made.
    """
    if os.name == "nt" or not _WINDOWS_ABSOLUTE.match(path) or path[1] != ":":
        return Path(path)
    chosen = prefix or Path(os.environ.get("WINEPREFIX") or cache_folder() / "wine")
    return (chosen / "dosdevices" / path[:2].lower()).joinpath(*path[3:].replace("\\", "/").split("/"))


def relay(argv: Sequence[str], prefix: Path | None) -> NoReturn:
    """Run the command line `argv` (from the verb on) in Windows Python under Wine, in place of this process.

    Standard handles, working folder, environment and signals are therefore the Windows program's own, and its
    exit code is ours: its low 8 bits, as for every program under Wine. ``--prefix`` is left out of what is
    passed on; the program, and absolute paths of the trace file and of symbols, are named as Windows does.

    Raises FileMissing without Windows Python, EngineError without Wine.
    """
    python = windows_python()
    where = ensure_prefix(prefix)
    core = windows_path(Path(__file__).resolve().parent.parent, where)
    # -I: no PYTHON* variable is needed, so none has to be set, which the target would inherit.
    command = ["wine", str(python), "-I", "-c", _START.format(core=core), *_for_windows(argv, where)]
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as it is where the handle was closed from the start
            stream.flush()
    _open_closed_standard_handles()
    hold_addresses()
    try:
        os.execvpe("wine", command, environment(where, os.environ))
    except OSError as error:
        raise EngineError(f"Wine cannot be started: {error.strerror}") from error


def _for_windows(argv: Sequence[str], prefix: Path) -> list[str]:
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    ours, theirs = words[:end], words[end:]
    passed: list[str] = []
    at = 0
    while at < len(ours):
        word = ours[at]
        at += 1
        if word == "--prefix":
            at += 1
        elif word.startswith("--prefix="):
            pass
        elif word in ("-o", "--output", "--record", "--start") and at < len(ours):
            passed += [word, _output(ours[at], prefix)]
            at += 1
        elif word in ("--include", "--exclude") and at < len(ours):
            passed += [word, _patterns(ours[at], prefix)]
            at += 1
        elif word.startswith(("--output=", "--record=")):
            name, _, path = word.partition("=")
            passed.append(f"{name}={_output(path, prefix)}")
        elif word == "--symbols" and at < len(ours):
            passed += [word, _search_path(ours[at], prefix)]
            at += 1
        elif word.startswith("--symbols="):
            passed.append("--symbols=" + _search_path(word[len("--symbols=") :], prefix))
        elif word.startswith("-o"):
            passed.append("-o" + _output(word[2:], prefix))
        else:
            passed.append(word)
    # A bare name that is no file here is searched for by Windows' own rules.
    if len(theirs) > 1 and ("/" in theirs[1] or os.path.exists(theirs[1])):
        theirs[1] = windows_path(theirs[1], prefix)
    return passed + theirs


def _output(path: str, prefix: Path) -> str:
    # A relative name is one to Windows too, and stays what the user can type when it is told back to him.
    converted = windows_path(path, prefix)
    return converted if os.path.isabs(path) else path


def _patterns(word: str, prefix: Path) -> str:
    # One pattern, or @FILE; of `loop` a file to be written. No pattern begins with a slash.
    if word[:1] == "@":
        return "@" + _output(word[1:], prefix)
    return _output(word, prefix) if os.path.isabs(word) else word


def _search_path(path: str, prefix: Path) -> str:
    return ";".join(_output(part, prefix) for part in path.split(";"))


def _open_closed_standard_handles() -> None:
    # Windows Python does not start with a standard handle that is closed.
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _make_prefix(prefix: Path) -> None:
    # Wine is kept from asking for Mono and Gecko, and from looking for a display.
    quiet = environment(prefix, {**os.environ, "WINEDLLOVERRIDES": "mscoree,mshtml=", "WINEDEBUG": "-all"})
    quiet.pop("DISPLAY", None)
    steps = (["wineboot", "--init"], ["winecfg", "-v", "win10"])
    try:
        prefix.mkdir(parents=True, exist_ok=True)
        for step in steps:
            # The last wait is for the registry to be written: Wine does so when its last program ends.
            for command in (["wine", *step], ["wineserver", "--wait"]):
                subprocess.run(
                    command,
                    env=quiet,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=_SECONDS_TO_MAKE_A_PREFIX,
                    check=True,
                )
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"cannot make the Wine prefix {prefix}: {error}") from error
