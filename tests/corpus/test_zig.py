"""A resource compiler written in Zig, made by both of Zig's code generators."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rig import corpus, tracing

_HEAD = """
#include "include/ids.h"
#ifndef ID_FIRST
#error no header
#endif
1 ICON "picture.ico"
2 BITMAP "picture.bmp"
1 VERSIONINFO
FILEVERSION 1,2,3,(1+3)
BEGIN
  BLOCK "StringFileInfo" BEGIN BLOCK "040904e4" BEGIN VALUE "ProductName", "a\\tname" END END
  BLOCK "VarFileInfo" BEGIN VALUE "Translation", 0x409, 1252 END
END
"""
_PIECE = """
#if ID({i}) / 10 % 2
{n} DIALOGEX {i}, 0, WIDTH({i}), 100
#else
{n} DIALOG {i}, 0, WIDTH({i}), 100
#endif
STYLE WS_POPUP | WS_CAPTION
CAPTION "dialog {i}"
FONT 8, "MS Shell Dlg"
BEGIN
  LTEXT "text \\x41 {i}", -1, 7, 7, 80, 10
  PUSHBUTTON "OK", ID({i}) + 1, 50, 80, 50, 14, WS_TABSTOP
  CONTROL "", 12, "SysListView32", NOT WS_VISIBLE | WS_TABSTOP, 1, 2, 3, 4
END
{n} MENU BEGIN POPUP "&File" BEGIN MENUITEM "Open\\tCtrl+O", ID({i}) + 2 MENUITEM SEPARATOR END END
{n} ACCELERATORS {{ "^O", ID({i}) + 2
  VK_F1, 3, VIRTKEY, ALT, SHIFT }}
{n} RCDATA {{ "abc\\0", L"wide", {i}, 2L, 0x10, ~ID({i}) }}
STRINGTABLE LANGUAGE 9, 1 {{ ID({i}) "string {i}" ID({i}) + 3 L"w\\x00e9lt" }}
"""
_HEADER = """
#pragma once
#define WS_POPUP 0x80000000L
#define WS_CAPTION 0x00C00000L
#define WS_TABSTOP 0x00010000L
#define WS_VISIBLE 0x10000000L
#define VK_F1 0x70
#define ID_FIRST 100
#define ID(n) (ID_FIRST + n##0)
#define WIDTH(n) (200 - MIN(n, 50)) /* a comment */
#define MIN(a, b) a
"""


def _prepare(folder: Path) -> None:
    (folder / "include").mkdir()
    (folder / "include" / "ids.h").write_text(_HEADER)
    (folder / "all.rc").write_text(_HEAD + "".join(_PIECE.format(i=i, n=i + 1) for i in range(60)))
    pixels = bytes(i * 7 & 255 for i in range(16 * 16 * 4))
    about = struct.pack("<IiiHHIIiiII", 40, 16, 32, 1, 32, 0, len(pixels), 0, 0, 0, 0)
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, 40 + len(pixels), 22)
    (folder / "picture.ico").write_bytes(icon + about + pixels)
    size = 14 + 40 + len(pixels)
    about = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 32, 0, len(pixels), 0, 0, 0, 0)
    (folder / "picture.bmp").write_bytes(b"BM" + struct.pack("<IHHI", size, 0, 0, 54) + about + pixels)


@pytest.mark.parametrize("compiler", ["llvm", "self-hosted"])  # the latter makes no unwind data
def test_compiles_resources_the_same_three_times_traced(tmp_path: Path, compiler: str) -> None:
    arguments = ["--zig-lib=none", "/:auto-includes", "none", "/:depfile", "all.d", "all.rc", "all.res"]
    job = tracing.Job(corpus.program(f"zig-{compiler}"), arguments, tmp_path / "work", _prepare)
    plain = tracing.runs_the_same_three_times_traced(job, tmp_path / "zig.calltrace")
    assert plain.exit_code == 0, plain.stderr.decode()
    assert "string 59".encode("utf-16-le") in plain.files["all.res"]
    assert b"ids.h" in plain.files["all.d"]
