"""The call tree as text: one line per frame, indented, per thread.

A line has the name, the number of calls if it stands for several in a row that are alike and call nothing
shown, the time where the trace has a clock, and how the frame ended unless by return. The line of a frame
that outlasts 65,536 further lines comes without its end, and a line ``end of NAME`` follows where it ended.
"""

from __future__ import annotations

from typing import TextIO

from calltrace.calltree import LIMIT, Tree, TreeFilter
from calltrace.export.native import Export, ExportFormat, TextKind, write_text
from calltrace.export.units import NameText, plain
from calltrace.model import Cause
from calltrace.tracefile import TraceFile


def write(trace: TraceFile, out: TextIO) -> None:
    """Write the whole call tree."""
    write_tree(trace, TreeFilter(), out)


def write_tree(trace: TraceFile, chosen: TreeFilter, out: TextIO, names: NameText = plain) -> bool:
    """Write what of the call tree is chosen. Did the limit leave any of it out?

    Raises UsageError for an unknown thread or patterns that match nothing.
    """

    def text_of(kind: int, number: int) -> str:
        if kind == TextKind.MARK:
            return trace.mark_name(number, 0)
        if kind == TextKind.CAUSE:
            cut = number == Cause.CUT and trace.under_way
            return (Cause.RUNNING if cut else Cause(number)).text
        return names(trace.node_name(kind, number), trace.node_address(kind, number))

    export = Export(trace, ExportFormat.TREE, text_of, tree=Tree(trace, chosen))
    write_text(out, export)
    return export.pull == LIMIT
