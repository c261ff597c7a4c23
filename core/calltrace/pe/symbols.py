"""Function names from the COFF symbol table that gcc leaves in a program unless it is stripped.

The table is part of the file, not of the image. Format: Microsoft, "PE Format", COFF Symbol Table.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from calltrace.model import Source
from calltrace.pe.image import Image

_SYMBOL = struct.Struct("<8sIhHBB")  # name, value, section (from 1), type, storage class, auxiliary records
_FUNCTION = 0x20  # as the type: a function, whatever it returns
_LIMIT = 1 << 22
# What gcc moves out of a function, since it seldom runs, is named like one; it is no function.
_PART = re.compile(r"\.cold(\.\d+)?\Z")


def add_symbols(image: Image) -> None:
    """Add the functions in the symbol table of the image's file to `image.names` and `image.seeds`.

    A file that is gone, or a table that is damaged, adds nothing: names are a convenience.
    """
    try:
        with Path(image.path).open("rb") as file:
            raw = file.read()
    except OSError:
        return
    if len(raw) < 0x40:
        return
    header = int.from_bytes(raw[0x3C:0x40], "little") + 4
    if header + 20 > len(raw):
        return
    sections_count = int.from_bytes(raw[header + 2 : header + 4], "little")
    table, count, optional_size = struct.unpack_from("<IIH", raw, header + 8)
    strings = table + count * _SYMBOL.size
    if not table or count > _LIMIT or strings > len(raw):
        return
    first_section = header + 20 + optional_size
    if first_section + 40 * sections_count > len(raw):
        return
    sections = [
        int.from_bytes(raw[at + 12 : at + 16], "little")
        for at in range(first_section, first_section + 40 * sections_count, 40)
    ]
    skip = 0
    for position in range(count):
        if skip:
            skip -= 1
            continue
        name, value, section, kind, _, skip = _SYMBOL.unpack_from(raw, table + position * _SYMBOL.size)
        if kind != _FUNCTION or not 0 < section <= len(sections):
            continue
        rva = sections[section - 1] + value
        if not any(begin <= rva < end for begin, end in image.executable):
            continue
        text = _name(name, raw, strings)
        if not _PART.search(text):
            image.seeds.append((rva, Source.SYMBOL))
        image.names.setdefault(rva, text)


def _name(field: bytes, raw: bytes, strings: int) -> str:
    if field[:4] == b"\0\0\0\0":  # longer than eight bytes: an offset into the string table
        start = strings + int.from_bytes(field[4:], "little")
        field = raw[start : raw.find(b"\0", start)]
    return field.rstrip(b"\0").decode("utf-8", "replace")
