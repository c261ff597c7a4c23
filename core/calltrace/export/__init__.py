"""What a trace is turned into: the formats of `export`, and the reports of `info`, `top` and the like.

Every exporter writes to an open stream as it reads: memory does not grow with the trace, only with the number
of different functions and calls in it.
"""

from __future__ import annotations

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
    speedscope,
    text,
)
from calltrace.tracefile import TraceFile


class Format(NamedTuple):
    """What a whole trace can be written as."""

    write: Callable[[TraceFile, Any], None]  # to a TextIO, or a BinaryIO
    suffix: str  # of a file's name
    binary: bool = False


FORMATS = {
    "text": Format(text.write, ".txt"),
    "csv": Format(csv.write, ".csv"),
    "chrome": Format(chrome.write, ".json"),
    "speedscope": Format(speedscope.write, ".speedscope.json"),
    "folded": Format(folded.write, ".folded"),
    "callgrind": Format(callgrind.write, ".callgrind"),
    "dot": Format(dot.write, ".dot"),
    "drcov": Format(drcov.write, ".drcov", binary=True),
    "offsets": Format(offsets.write, ".offsets.txt"),
    "ida": Format(disassemblers.write_ida, ".ida.py"),
    "ghidra": Format(disassemblers.write_ghidra, ".ghidra.py"),
    "binja": Format(disassemblers.write_binary_ninja, ".binja.py"),
}
