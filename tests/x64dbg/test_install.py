"""What `calltrace x64dbg-install` refuses: one line each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rig import tracing, windows, x64dbg


def test_what_is_no_x64dbg_or_too_old_is_refused(tmp_path: Path) -> None:
    nothing = tracing.calltrace("x64dbg-install", tmp_path)
    assert nothing.returncode != 0
    assert nothing.stderr.decode().count("\n") == 1
    assert "has no x64dbg.dll" in nothing.stderr.decode()
    with x64dbg.installation(x64dbg.STAND_IN) as program:
        for name in ("x64dbg.dll", "x64bridge.dll"):
            shutil.copy(program.parent / name, tmp_path)
    library = tmp_path / "x64bridge.dll"
    library.write_bytes(
        library.read_bytes().replace(b"GuiReferenceReloadData\0", b"GuiReferenceReloadDatx\0")
    )
    old = tracing.calltrace("x64dbg-install", tmp_path)
    assert old.returncode != 0
    assert old.stderr.decode().count("\n") == 1
    assert "too old: its x64bridge.dll has no GuiReferenceReloadData" in old.stderr.decode()
    assert not (tmp_path / "plugins").exists()


@pytest.mark.parametrize("damage", [b"", b"MZ", b"no library at all" * 1000])
def test_an_x64dbg_that_is_damaged_is_refused(tmp_path: Path, damage: bytes) -> None:
    with x64dbg.installation(x64dbg.STAND_IN) as program:
        shutil.copy(program.parent / "x64dbg.dll", tmp_path)
    (tmp_path / "x64bridge.dll").write_bytes(damage)
    done = tracing.calltrace("x64dbg-install", tmp_path)
    assert done.returncode != 0
    assert done.stderr.decode().splitlines() == [
        f"calltrace: {windows.path(tmp_path / 'x64bridge.dll')} is damaged: unpack x64dbg anew"
    ]
    assert not (tmp_path / "plugins").exists()


@pytest.mark.parametrize(
    "blocked", ["plugins", "plugins/calltrace.dp64", "plugins/x64dbgpy/calltrace_client.py"]
)
def test_what_cannot_be_written_is_named(tmp_path: Path, blocked: str) -> None:
    with x64dbg.installation(x64dbg.STAND_IN) as program:
        for name in ("x64dbg.dll", "x64bridge.dll"):
            shutil.copy(program.parent / name, tmp_path)
    place = tmp_path / blocked
    place.parent.mkdir(parents=True, exist_ok=True)
    if blocked == "plugins":
        place.touch()
    else:
        place.mkdir()
    done = tracing.calltrace("x64dbg-install", tmp_path)
    assert done.returncode != 0
    [line] = done.stderr.decode().splitlines()
    assert line.startswith(f"calltrace: {windows.path(place)} cannot be written: ")
    assert line.endswith("; close x64dbg first")
