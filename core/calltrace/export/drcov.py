"""Coverage as DynamoRIO's drcov writes it, for Lighthouse, Cartographer, lightkeeper and the like.

What is covered are whole functions: each that was called counts with all of its bytes, whatever ran of them.
Format: DynamoRIO's drcov version 2 with module table version 2, as modules.h and drcovlib.c of it have it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from calltrace.calltree import function_stats
from calltrace.model import Module
from calltrace.tracefile import TraceFile

_BLOCK = struct.Struct("<IHH")  # RVA, size, module
_LARGEST = 0xFFFF  # bytes of a block
_MOST_MODULES = 0x10000


def write(trace: TraceFile, out: BinaryIO) -> None:
    """Write the functions that were called."""
    modules = trace.modules[:_MOST_MODULES]
    out.write(b"DRCOV VERSION: 2\nDRCOV FLAVOR: calltrace\n")
    out.write(f"Module Table: version 2, count {len(modules)}\n".encode())
    out.write(b"Columns: id, base, end, entry, checksum, timestamp, path\n")
    for number, module in enumerate(modules):
        out.write(_row(number, module).encode())
    numbers = {id(module): number for number, module in enumerate(modules)}
    blocks = bytearray()
    for stat in function_stats(trace):
        if id(stat.module) in numbers:
            for rva, size in _parts(stat.record.rva, stat.record.size):
                blocks += _BLOCK.pack(rva, size, numbers[id(stat.module)])
    out.write(f"BB Table: {len(blocks) // _BLOCK.size} bbs\n".encode())
    out.write(blocks)


def _row(number: int, module: Module) -> str:
    numbers = f"{module.base:#018x}, {module.base + module.size:#018x}, {0:#018x}"
    identity = f"{module.checksum & 0xFFFFFFFF:#010x}, {module.timestamp & 0xFFFFFFFF:#010x}"
    return f"{number:3}, {numbers}, {identity}, {module.path or module.name}\n"


def _parts(rva: int, size: int) -> Iterator[tuple[int, int]]:
    """A function as blocks that are small enough; one whose size is not known as one byte."""
    end = rva + max(size, 1)
    while rva < end:
        part = min(end - rva, _LARGEST)
        yield rva, part
        rva += part
