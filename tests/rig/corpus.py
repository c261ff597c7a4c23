"""Real Windows programs to trace, unpacked from pinned wheels or compiled by setup.py."""

from __future__ import annotations

from pathlib import Path

from calltrace import wine

_PROGRAMS = {
    "clang-format": "corpus/clang_format/data/bin/clang-format.exe",
    "cmake": "corpus/cmake/data/bin/cmake.exe",
    "dbgeng": "corpus/pykd/dbgeng.dll",
    "duckdb": "corpus/duckdb_cli/duckdb.exe",
    "ffmpeg": "corpus/imageio_ffmpeg/binaries/ffmpeg-win-x86_64-v7.1.exe",
    "ninja": "corpus/ninja-1.13.2.data/scripts/ninja.exe",
    "pdfium": "corpus/pypdfium2_raw/pdfium.dll",
    "ripgrep": "corpus/ripgrep-14.1.0.data/scripts/rg.exe",
    "ruff": "corpus/ruff-0.1.8.data/scripts/ruff.exe",
    "zig-llvm": "zig/llvm/rc.exe",
    "zig-self-hosted": "zig/self-hosted/rc.exe",
}


def program(name: str) -> Path:
    """The program, or library, that is called `name` in the table above."""
    return wine.cache_folder() / _PROGRAMS[name]
