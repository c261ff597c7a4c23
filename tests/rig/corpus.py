"""Real Windows programs to trace, unpacked from pinned wheels by setup.py."""

from __future__ import annotations

from pathlib import Path

from calltrace import wine

_PROGRAMS = {
    "clang-format": "clang_format/data/bin/clang-format.exe",
    "cmake": "cmake/data/bin/cmake.exe",
    "dbgeng": "pykd/dbgeng.dll",
    "duckdb": "duckdb_cli/duckdb.exe",
    "ffmpeg": "imageio_ffmpeg/binaries/ffmpeg-win-x86_64-v7.1.exe",
    "ninja": "ninja-1.13.2.data/scripts/ninja.exe",
}


def program(name: str) -> Path:
    """The program called `name`: clang-format, cmake, dbgeng, duckdb, ffmpeg or ninja."""
    return wine.cache_folder() / "corpus" / _PROGRAMS[name]
