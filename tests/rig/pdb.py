"""The functions that a program database (PDB) names, as LLVM's linker writes them for `-gcodeview` objects.

Format: LLVM, "The PDB File Format" (MSF, DBI stream, module symbol streams, publics), and Microsoft's
cvinfo.h. Addresses are (section, offset) pairs, sections counted from 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
_DBI = 3
_NO_STREAM = 0xFFFF
_S_PUB32, _S_THUNK32 = 0x110E, 0x1102
_S_PROCEDURES = (0x110F, 0x1110, 0x1146, 0x1147)  # S_LPROC32, S_GPROC32 and their _ID forms
_PUBLIC_FUNCTION = 2  # CV_PUBSYMFLAGS.fFunction
_DBI_HEADER = struct.Struct("<20xHxxII32x")  # stream of symbol records, bytes of modules, of contributions
_MODULE = struct.Struct("<34xHI24x")  # symbol stream, bytes of symbols in it; then the module's two names
_CONTRIBUTION = struct.Struct("<HxxII4xH10x")  # section, offset, size, module

Address = tuple[int, int]


@dataclass
class Pdb:
    """What a PDB says of code."""

    procedures: dict[Address, str] = field(default_factory=dict)  # of modules with debug information
    publics: dict[Address, tuple[str, bool]] = field(default_factory=dict)  # name, is marked as function
    described: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # section, offset, size: of these modules


class _Streams:
    """The streams of an MSF file, by number."""

    def __init__(self, raw: bytes) -> None:
        assert raw.startswith(_MAGIC)
        self._raw = raw
        self._block, _, _, directory_size, _, map_block = struct.unpack_from("<IIIIII", raw, len(_MAGIC))
        blocks = struct.unpack_from(f"<{self._count(directory_size)}I", raw, map_block * self._block)
        directory = self._join(blocks, directory_size)
        [count] = struct.unpack_from("<I", directory)
        at = 4 + 4 * count
        self._streams: list[tuple[tuple[int, ...], int]] = []
        for recorded in struct.unpack_from(f"<{count}I", directory, 4):
            size = 0 if recorded == 0xFFFFFFFF else recorded
            self._streams.append((struct.unpack_from(f"<{self._count(size)}I", directory, at), size))
            at += 4 * self._count(size)

    def _count(self, size: int) -> int:
        return -(-size // self._block)

    def _join(self, blocks: tuple[int, ...], size: int) -> bytes:
        return b"".join(self._raw[at * self._block : (at + 1) * self._block] for at in blocks)[:size]

    def __getitem__(self, number: int) -> bytes:
        return self._join(*self._streams[number])


def _records(stream: bytes, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """CodeView symbol records: kind, and what follows it."""
    while begin + 4 <= end:
        size, kind = struct.unpack_from("<HH", stream, begin)
        yield kind, stream[begin + 4 : begin + 2 + size]
        begin += 2 + size


def _name(record: bytes, at: int) -> str:
    return record[at : record.index(b"\0", at)].decode()


def read(path: Path) -> Pdb:
    """What the PDB at `path` says."""
    streams = _Streams(path.read_bytes())
    dbi = streams[_DBI]
    symbol_records, modules_size, contributions_size = _DBI_HEADER.unpack_from(dbi)
    pdb = Pdb()
    for kind, record in _records(all_records := streams[symbol_records], 0, len(all_records)):
        if kind == _S_PUB32:
            flags, offset, section = struct.unpack_from("<IIH", record)
            pdb.publics[section, offset] = (_name(record, 10), bool(flags & _PUBLIC_FUNCTION))
    at, modules = _DBI_HEADER.size, []
    while at < _DBI_HEADER.size + modules_size:
        stream, symbols_size = _MODULE.unpack_from(dbi, at)
        modules.append(stream)
        at = dbi.index(b"\0", dbi.index(b"\0", at + _MODULE.size) + 1) + 1
        at = (at + 3) & ~3
        if stream == _NO_STREAM:
            continue
        for kind, record in _records(streams[stream], 4, symbols_size):
            if kind in _S_PROCEDURES:
                offset, section = struct.unpack_from("<IH", record, 28)
                pdb.procedures[section, offset] = _name(record, 35)
            elif kind == _S_THUNK32:
                offset, section = struct.unpack_from("<IH", record, 12)
                pdb.procedures[section, offset] = _name(record, 21)
    begin = _DBI_HEADER.size + modules_size + 4  # behind the version
    for at in range(begin, begin + contributions_size - 4, _CONTRIBUTION.size):
        section, offset, size, module = _CONTRIBUTION.unpack_from(dbi, at)
        if modules[module] != _NO_STREAM:
            pdb.described.append((section, offset, size))
    return pdb
