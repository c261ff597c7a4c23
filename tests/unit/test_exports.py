"""Looking up exported functions in a target's memory."""

from __future__ import annotations

import struct

import pytest

from calltrace.errors import EngineError
from calltrace.ports import TargetModule
from calltrace.win32.exports import export_address
from contract.fake import FakePort

NT, DIRECTORY = 0x80, 0x1000


def library(name: str, base: int, exports: dict[str, int | str]) -> tuple[TargetModule, bytes]:
    """A DLL that exports names at RVAs, or forwards them to "OTHER.function"."""
    names = sorted(exports)
    functions_at, names_at = 40, 40 + 4 * len(names)
    ordinals_at, texts_at = names_at + 4 * len(names), names_at + 6 * len(names)
    texts, name_rvas, rvas = b"", [], []
    for text in names:
        name_rvas.append(DIRECTORY + texts_at + len(texts))
        texts += text.encode() + b"\0"
    for text in names:
        target = exports[text]
        if isinstance(target, str):
            rvas.append(DIRECTORY + texts_at + len(texts))
            texts += target.encode() + b"\0"
        else:
            rvas.append(target)
    order = list(range(len(names)))[::-1]  # ordinals need not follow the names
    table = [0] * len(names)
    for position, ordinal in enumerate(order):
        table[ordinal] = rvas[position]
    count = len(names)
    head = struct.pack(
        "<20xIIIII", count, count, DIRECTORY + functions_at, DIRECTORY + names_at, DIRECTORY + ordinals_at
    )
    directory = (
        head
        + struct.pack(f"<{count}I", *table)
        + struct.pack(f"<{count}I", *name_rvas)
        + struct.pack(f"<{count}H", *order)
        + texts
    )
    data = bytearray(DIRECTORY)
    struct.pack_into("<I", data, 0x3C, NT)
    struct.pack_into("<II", data, NT + 0x88, DIRECTORY if exports else 0, len(directory))
    return TargetModule(base, 0x8000, "C:\\windows\\" + name), bytes(data) + directory


def port() -> FakePort:
    made = FakePort()
    made.map(
        *library("KERNEL32.DLL", 0x10000000, {"Alpha": 0x4000, "Beta": "base.Gamma", "Round": "BASE.Round"})
    )
    made.map(
        *library("base.dll", 0x20000000, {"Gamma": 0x5000, "GammaLonger": 0x6000, "Round": "kernel32.Round"})
    )
    made.map(*library("empty.dll", 0x30000000, {}))
    return made


def test_an_export_is_found_by_name() -> None:
    assert export_address(port(), "kernel32.dll", "Alpha") == 0x10004000
    assert export_address(port(), "base.dll", "GammaLonger") == 0x20006000


def test_a_forwarder_is_followed() -> None:
    assert export_address(port(), "kernel32.dll", "Beta") == 0x20005000


@pytest.mark.parametrize(
    ("module", "function", "message"),
    [
        ("kernel32.dll", "Alph", "KERNEL32.DLL does not export Alph"),
        ("kernel32.dll", "Alpha2", "KERNEL32.DLL does not export Alpha2"),
        ("kernel32.dll", "Round", "in a circle"),
        ("none.dll", "Alpha", "none.dll is not loaded"),
        ("empty.dll", "Alpha", "empty.dll at 0x30000000 has no export directory"),
    ],
)
def test_what_is_not_exported_is_an_error(module: str, function: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        export_address(port(), module, function)
