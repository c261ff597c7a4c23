"""What a trace is turned into: the formats of `export`, and the reports of `info`, `top` and the like.

Every exporter writes to an open stream as it reads: memory does not grow with the trace, only with the number
of different functions and calls in it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from calltrace.export import (
    callgrind,
    chrome,
    csv,
    disassemblers,
    dot,
    drcov,
    folded,
    offsets,
    parquet,
    perfetto,
    speedscope,
    text,
)
from calltrace.tracefile import TraceFile


class To(enum.Enum):
    """What a format is written to."""

    TEXT = enum.auto()  # a TextIO
    BYTES = enum.auto()  # a BinaryIO
    PATH = enum.auto()  # by itself, into one or more files; it returns their paths


class Format(NamedTuple):
    """What a whole trace can be written as."""

    write: Callable[[TraceFile, Any], Any]
    suffix: str  # of a file's name
    to: To = To.TEXT
    of_counts: bool = False  # also of a recording without events


FORMATS = {
    "text": Format(text.write, ".txt"),
    "csv": Format(csv.write, ".csv"),
    "chrome": Format(chrome.write, ".json"),
    "perfetto": Format(perfetto.write, ".pftrace", To.PATH),
    "speedscope": Format(speedscope.write, ".speedscope.json"),
    "parquet": Format(parquet.write, ".parquet", To.PATH, of_counts=True),
    "folded": Format(folded.write, ".folded"),
    "callgrind": Format(callgrind.write, ".callgrind", of_counts=True),
    "dot": Format(dot.write, ".dot", of_counts=True),
    "drcov": Format(drcov.write, ".drcov", To.BYTES, of_counts=True),
    "offsets": Format(offsets.write, ".offsets.txt", of_counts=True),
    "ida": Format(disassemblers.write_ida, ".ida.py", of_counts=True),
    "ghidra": Format(disassemblers.write_ghidra, ".ghidra.py", of_counts=True),
    "binja": Format(disassemblers.write_binary_ninja, ".binja.py", of_counts=True),
}
