"""The functions that were called, a line ``module+RVA`` each, hexadecimal: what most coverage tools read."""

from __future__ import annotations

from typing import TextIO

from calltrace.calltree import function_stats
from calltrace.tracefile import TraceFile


def write(trace: TraceFile, out: TextIO) -> None:
    """Write a line for each function."""
    for stat in function_stats(trace):
        out.write(f"{stat.module.name}+{stat.record.rva:x}\n")
