"""Compiling the small Windows programs of tests/targets."""

from __future__ import annotations

import fcntl
import functools
import re
import shlex
import subprocess
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent.parent
SOURCES = TREE / "tests" / "targets"
BUILT = TREE / "build" / "targets"
INCLUDE = TREE / "native" / "include"

_BEHIND = TREE / "tests" / "rig" / "behind.S"
_WARNINGS = ("-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}")
_CLANG = ("clang-14", "--target=x86_64-w64-windows-gnu", *_WARNINGS)
_DEFAULT_FLAGS = "-O2"
COMPILERS = {".c": "gcc", ".S": "gcc", ".cpp": "g++"}


def source_of(name: str) -> Path:
    """tests/targets/NAME.c, .cpp or .S."""
    [source] = [SOURCES / (name + suffix) for suffix in COMPILERS if (SOURCES / (name + suffix)).is_file()]
    return source


def sources_of(name: str) -> list[Path]:
    """What a target is compiled from: its source, and further ones that the first line names."""
    return [source_of(name), *(SOURCES / word for word in flags_of(name) if Path(word).suffix in COMPILERS)]


def flags_of(name: str) -> list[str]:
    """What the compiler is told by the first line of the source."""
    first = source_of(name).read_text(encoding="utf-8").partition("\n")[0]
    return shlex.split(first[len("// build:") :] if first.startswith("// build:") else _DEFAULT_FLAGS)


def build(name: str) -> Path:
    """The program made of tests/targets/NAME.c, .cpp or .S, compiled if it is older than what it is made of.

    A first line ``// build: FLAGS`` replaces the default -O2 (and may name libraries, and further sources);
    with -shared among them a DLL is made. If its first word is clang, then that compiles the source, for
    `__try` and whatever else gcc does not know, with all flags but the linker's. Warnings are errors. Raises
    AssertionError with the compiler's words.
    """
    sources = sources_of(name)
    flags = [word for word in flags_of(name) if SOURCES / word not in sources]
    program = BUILT / (name + (".dll" if "-shared" in flags else ".exe"))
    BUILT.mkdir(parents=True, exist_ok=True)
    made_of = [
        *sources,
        _BEHIND,
        Path(__file__),
        *SOURCES.glob("*.h"),
        *SOURCES.glob("*.inc"),
        *INCLUDE.glob("*.h"),
    ]
    with open(BUILT / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.is_file() or program.stat().st_mtime < max(file.stat().st_mtime for file in made_of):
            compiler = "x86_64-w64-mingw32-" + COMPILERS[sources[0].suffix]
            fresh = program.with_suffix(".new" + program.suffix)
            made = object_of(name)
            if made:
                compiling = [flag for flag in flags[1:] if not _links(flag)]
                _execute(*_CLANG, *compiling, "-c", "-o", made, *sources)
                sources, flags = [made], [flag for flag in flags if _links(flag)]
            # Flags come last: libraries among them must follow the source that uses them.
            _execute(compiler, "-static", *_WARNINGS, "-o", fresh, *sources, _BEHIND, *flags)
            fresh.replace(program)
    return program


def object_of(name: str) -> Path | None:
    """Where the object file stays, if clang compiles it: the program does not tell whose its symbols are."""
    return BUILT / f"{name}.o" if flags_of(name)[:1] == ["clang"] else None


def _links(flag: str) -> bool:
    return flag.startswith(("-l", "-Wl,", "-shared", "-nostdlib"))


def _execute(*command: str | Path) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@functools.cache
def symbols(name: str) -> dict[str, int]:
    """VAs of a program's functions, labels and variables, loaded where it wants to be, as nm lists them."""
    listed = subprocess.run(
        ["x86_64-w64-mingw32-nm", build(name)], capture_output=True, text=True, check=True
    )
    found = re.findall(r"^([0-9a-f]+) [tTbBdD] (\S+)$", listed.stdout, re.MULTILINE)
    return {symbol: int(address, 16) for address, symbol in found}


def stripped(program: Path) -> Path:
    """The program without its symbol table, under the same name in another folder."""
    bare = program.parent / "stripped" / program.name
    bare.parent.mkdir(exist_ok=True)
    with open(BUILT / f"{program.stem}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not bare.is_file() or bare.stat().st_mtime < program.stat().st_mtime:
            fresh = bare.with_suffix(".new")
            subprocess.run(["x86_64-w64-mingw32-strip", "-o", str(fresh), str(program)], check=True)
            fresh.replace(bare)
    return bare
