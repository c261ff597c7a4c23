"""What cannot be traced gets one clear line and its own exit code, and nothing of it is left running."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rig import corpus, targets, tracing, windows

_MACHINE, _OPTIONAL_HEADER = 4, 24  # from the PE signature
_DIRECTORIES = _OPTIONAL_HEADER + 112
_EXCEPTION, _COM_DESCRIPTOR = 3, 14


def _edited(edit: Callable[[bytearray, int], None]) -> bytes:
    """ninja's file after `edit`, which is given its bytes and where its PE signature is."""
    data = bytearray(corpus.program("ninja").read_bytes())
    edit(data, struct.unpack_from("<I", data, 0x3C)[0])
    return bytes(data)


def _as_32_bit(data: bytearray, pe: int) -> None:
    struct.pack_into("<H", data, pe + _MACHINE, 0x14C)


def _as_dotnet_only(data: bytearray, pe: int) -> None:
    struct.pack_into("<II", data, pe + _DIRECTORIES + 8 * _EXCEPTION, 0, 0)
    struct.pack_into("<II", data, pe + _DIRECTORIES + 8 * _COM_DESCRIPTOR, 0x2000, 72)


def _with_pdata_outside(data: bytearray, pe: int) -> None:
    struct.pack_into("<I", data, pe + _DIRECTORIES + 8 * _EXCEPTION, 0x7F000000)


def _assert_refused(done: subprocess.CompletedProcess[bytes], exit_code: int, *words: str) -> None:
    said = done.stderr.decode()
    assert said.count("\n") == 1, said
    assert said.startswith("calltrace: ")
    for word in words:
        assert word in said
    assert done.stdout == b""
    assert done.returncode == exit_code


@pytest.mark.parametrize(
    ("name", "contents", "word"),
    [
        ("text.exe", lambda: b"no program at all\n" * 100, "not a Windows program"),
        ("empty.exe", lambda: b"", "not a Windows program"),
        ("old.exe", lambda: _edited(_as_32_bit), "32-bit"),
        ("managed.exe", lambda: _edited(_as_dotnet_only), ".NET"),
        ("cut.exe", lambda: _edited(lambda data, pe: None)[:200_000], "truncated"),
        ("outside.exe", lambda: _edited(_with_pdata_outside), ".pdata"),
    ],
)
def test_a_file_that_is_no_traceable_program(
    tmp_path: Path, name: str, contents: Callable[[], bytes], word: str
) -> None:
    program = tmp_path / name
    program.write_bytes(contents())
    trace = tmp_path / "refused.calltrace"
    _assert_refused(tracing.calltrace("run", "-o", trace, "--", program), 65, name, word)
    assert not trace.exists()
    running = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert name not in running


def test_a_program_that_is_not_there() -> None:
    _assert_refused(tracing.calltrace("run", "--", "no_such_program.exe"), 66, "no_such_program.exe")


def test_a_process_that_is_gone() -> None:
    _assert_refused(tracing.calltrace("attach", "999996", "--seconds", "1"), 69, "999996")


def test_a_process_we_have_no_rights_to() -> None:
    with subprocess.Popen(
        ["wine", windows.path(targets.build("protected"))],
        env=windows.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as target:
        assert target.stdin
        assert target.stdout
        process_id = target.stdout.readline().decode().strip()
        _assert_refused(
            tracing.calltrace("attach", process_id, "--seconds", "1"), 77, process_id, "administrator"
        )
        target.stdin.close()
        assert target.wait(10) == 0
