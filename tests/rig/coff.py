"""Function symbols of a program that gcc made, by the source file they come from.

Read from the file itself, not through the engine, whose own reading of them is under test. Format: Microsoft,
"PE Format", COFF Symbol Table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

_SYMBOL = struct.Struct("<8sIhHBB")  # name, value, section (from 1), type, storage class, auxiliary records
_FUNCTION = 0x20
_FILE = 103  # IMAGE_SYM_CLASS_FILE
_SHORT = 14  # of longer file names the assembler keeps that much


def functions(program: Path, sources: Iterable[Path], object_file: Path | None = None) -> dict[int, str]:
    """Names by RVA of the functions that `program` has from `sources`, which are known by their file names.

    With link-time optimisation all that was optimised together counts as one source. If there is an
    `object_file`, then those that it defines: clang does not say where a source's symbols begin. ValueError
    if another object defines one, too.
    """
    own = {text for _, text, _ in _functions(object_file)} if object_file else None
    wanted = {text for source in sources for text in (source.name, source.name[:_SHORT])} | {"<artificial>"}
    found = {
        rva: text
        for rva, text, file in _functions(program)
        if (file in wanted if own is None else text in own)
    }
    if own is not None and len(set(found.values())) < len(found):
        raise ValueError(f"{program.name} has several functions of a name that {object_file} defines")
    return found


def _functions(program: Path) -> Iterator[tuple[int, str, str]]:
    """RVA, name and file name of each function symbol of a program or object file."""
    raw = program.read_bytes()
    header = int.from_bytes(raw[0x3C:0x40], "little") + 4 if raw[:2] == b"MZ" else 0
    sections, table, count, optional_size = struct.unpack_from("<2xH4xIIH", raw, header)
    starts = [
        int.from_bytes(raw[at + 12 : at + 16], "little")
        for at in range(header + 20 + optional_size, header + 20 + optional_size + 40 * sections, 40)
    ]
    strings = table + count * _SYMBOL.size
    known: set[int] = set()
    file, position = "", 0
    while position < count:
        at = table + position * _SYMBOL.size
        name, value, section, kind, storage, auxiliary = _SYMBOL.unpack_from(raw, at)
        if storage == _FILE:
            file = _text(raw[at + _SYMBOL.size : at + _SYMBOL.size * (1 + auxiliary)], raw, strings).decode()
        elif kind == _FUNCTION and section > 0:
            rva, text = starts[section - 1] + value, _text(name, raw, strings).decode()
            if not text.endswith(".cold") and (header == 0 or rva not in known):  # a function's part
                known.add(rva)
                yield rva, text, file
        position += 1 + auxiliary


def _text(field: bytes, raw: bytes, strings: int) -> bytes:
    if field[:4] == b"\0\0\0\0":  # too long for the field: an offset into the string table
        start = strings + int.from_bytes(field[4:8], "little")
        field = raw[start : raw.find(b"\0", start)]
    return field.rstrip(b"\0")
