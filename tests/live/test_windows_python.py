"""Windows Python under Wine, which every live verb runs in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from calltrace import wine
from rig import windows


def test_standard_handles_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"some words")
    (tmp_path / "out").write_bytes(b"before ")
    script = "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('error')"
    with (
        open(tmp_path / "in") as given,
        open(tmp_path / "out", "a") as out,
        open(tmp_path / "err", "w") as err,
    ):
        done = subprocess.run(
            ["wine", wine.windows_python(), "-c", script],
            stdin=given,
            stdout=out,
            stderr=err,
            env=windows.environment(),
            timeout=60,
            check=False,
        )
    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == b"before some words"
    assert (tmp_path / "err").read_bytes() == b"error"


def test_the_packages_the_core_uses_are_there() -> None:
    done = windows.python("-c", "import capstone, keystone, pefile, sys; print(sys.version_info[:2])")
    assert (done.stdout, done.stderr, done.returncode) == (b"(3, 9)\r\n", b"", 0)


def test_the_low_byte_of_an_exit_code_is_passed() -> None:
    assert windows.python("-c", "raise SystemExit(0x10007)").returncode == 7
