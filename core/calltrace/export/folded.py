"""Folded stacks, for flamegraph.pl, inferno, speedscope and the like: a line ``thread;outer;inner WEIGHT``.

The weight is what was spent in the innermost frame itself: ticks of the clock, in a trace without one events.
A stack may have several lines, which readers add up: so many stacks are kept at a time, then they are written
out. Frames more than 1,000 deep count for the one at that depth.
"""

from __future__ import annotations

from typing import TextIO

from calltrace.export.native import Export, ExportFormat, write_text
from calltrace.tracefile import TraceFile

_KEPT = 1 << 22  # stacks


def write(trace: TraceFile, out: TextIO, kept: int = _KEPT) -> None:
    """Write the stacks of each thread; in memory are some `kept` of them and the frames that are open."""

    def text_of(kind: int, number: int) -> str:
        return trace.node_name(kind, number).replace(";", ":")

    write_text(out, Export(trace, ExportFormat.FOLDED, text_of, limit=kept))
