"""PE files made of parts, for tests of what is read from headers, sections and directories."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BASE = 0x140000000
CODE, DATA, RDATA, WRITABLE_CODE = 0x60000020, 0xC0000040, 0x40000040, 0xE0000020  # section characteristics
PAGE = 0x1000
FIRST = PAGE  # RVA of the first section
_ALIGNMENT = 0x200
_DIRECTORIES = {"EXPORT": 0, "IMPORT": 1, "EXCEPTION": 3, "DEBUG": 6, "LOAD_CONFIG": 10, "COM_DESCRIPTOR": 14}
_DLL, _EXECUTABLE = 0x2000, 0x22


@dataclass(frozen=True)
class Section:
    """A section; its RVA follows from those before it."""

    name: str
    data: bytes
    characteristics: int
    size: int = 0  # in memory; 0: as much as `data`

    @property
    def pages(self) -> int:
        """Bytes it takes up in memory, in whole pages."""
        return -(-max(self.size, len(self.data), 1) // PAGE) * PAGE


def build(
    sections: Sequence[Section],
    directories: Mapping[str, tuple[int, int]] | None = None,
    *,
    entry: int = FIRST,
    dll: bool = False,
    machine: int = 0x8664,
) -> bytes:
    """A file of these sections from RVA FIRST on; `directories` are RVA and size by name."""
    table, body, rva = b"", b"", FIRST
    raw = -(-(0x40 + 24 + 240 + 40 * len(sections)) // _ALIGNMENT) * _ALIGNMENT
    for section in sections:
        data = section.data.ljust(-(-len(section.data) // _ALIGNMENT) * _ALIGNMENT, b"\0")
        table += struct.pack(
            "<8sIIIIIIHHI",
            section.name.encode(),
            max(section.size, len(section.data)),
            rva,
            len(data),
            raw + len(body) if data else 0,
            0,
            0,
            0,
            0,
            section.characteristics,
        )
        body += data
        rva += section.pages
    entries = [(0, 0)] * 16
    for name, place in (directories or {}).items():
        entries[_DIRECTORIES[name]] = place
    optional = struct.pack("<HBBIIIIIQII", 0x20B, 14, 0, 0, 0, 0, entry, FIRST, BASE, PAGE, _ALIGNMENT)
    optional += struct.pack(
        "<HHHHHHIIIIHHQQQQII", 6, 0, 0, 0, 6, 0, 0, rva, raw, 0, 3, 0x160, *[1 << 20] * 4, 0, 16
    )
    optional += b"".join(struct.pack("<II", *place) for place in entries)
    head = b"MZ" + bytes(0x3A) + struct.pack("<I", 0x40) + b"PE\0\0"
    flags = _EXECUTABLE | (_DLL if dll else 0)
    head += struct.pack("<HHIIIHH", machine, len(sections), 0, 0, 0, len(optional), flags)
    return (head + optional + table).ljust(raw, b"\0") + body


def exports(names: Sequence[str], rva: int) -> bytes:
    """An export directory to lie at `rva`: each name a datum of the headers."""
    count, functions = len(names), rva + 40
    pointers, ordinals = functions + 4 * count, functions + 8 * count
    text, places, at = b"", [], ordinals + 2 * count + 1
    for name in names:
        places.append(at + len(text))
        text += name.encode() + b"\0"
    head = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, at - 1, 1, count, count, functions, pointers, ordinals)
    table = struct.pack(f"<{count}I", *[0x10] * count) + struct.pack(f"<{count}I", *places)
    return head + table + struct.pack(f"<{count}H", *range(count)) + b"\0" + text
