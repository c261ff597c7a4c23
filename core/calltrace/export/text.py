"""The call tree as text: one line per frame, indented, per thread.

A line has the name, the number of calls if it stands for several in a row that are alike and call nothing
shown, the time where the trace has a clock, and how the frame ended unless by return. The line of a frame
that outlasts 65,536 further lines comes without its end, and a line ``end of NAME`` follows where it ended.
"""

from __future__ import annotations

from typing import TextIO

from calltrace.calltree import Tree, TreeFilter
from calltrace.export.units import NameText, count, duration, plain
from calltrace.model import LINE_RESUMED, LINE_TAIL_KNOWN, Cause, Clock, Line, LineType, NodeKind
from calltrace.tracefile import TraceFile

_TIMES = "\N{MULTIPLICATION SIGN}"
_DEEPEST_INDENT = 40  # levels; what lies deeper says its level in words


def write(trace: TraceFile, out: TextIO) -> None:
    """Write the whole call tree."""
    text = TreeText(trace)
    for line in Tree(trace, TreeFilter()):
        out.write(text.line(line) + "\n")


class TreeText:
    """Makes text of the lines of one trace's call tree."""

    def __init__(self, trace: TraceFile, names: NameText = plain) -> None:
        self._trace = trace
        self._names = names
        self._timed = trace.clock is not Clock.NONE

    def line(self, line: Line) -> str:
        """The text of one line, without its line end."""
        if line.type == LineType.THREAD:
            thread = self._trace.threads[line.thread]
            return f"thread {thread.index} (id {thread.id})"
        return _indent(line.depth) + "  ".join(self._parts(line))

    def _parts(self, line: Line) -> list[str]:
        if line.type == LineType.MARK:
            return [f"-- mark {self._trace.mark_name(line.id, line.value)} --"]
        if line.type == LineType.GAP:
            return [f"-- gap: {count(line.value, 'event')} lost --"]
        name = self._name(line.kind, line.id)
        if line.type == LineType.CLOSE:
            name = f"end of {name}"
        if line.calls > 1:
            name += f" {_TIMES}{line.calls:,}"
        parts = [name]
        if line.flags & LINE_RESUMED:
            parts.append("goes on")
        from_api = line.kind in (NodeKind.API_FUNCTION, NodeKind.API_CALL)
        if line.value and from_api and line.cause != Cause.TAIL:
            parts.append(f"from {self._trace.address_name(line.value)}")
        if self._timed and line.cause != Cause.NONE:
            parts.append(duration(self._trace, line.duration))
        if line.cause == Cause.TAIL:
            parts.append(self._tail(line))
        elif line.cause != Cause.RETURN:
            cause = Cause(line.cause)
            if cause is Cause.CUT and self._trace.under_way:
                cause = Cause.RUNNING
            parts.append(cause.text)
        return parts

    def _tail(self, line: Line) -> str:
        if line.flags & LINE_TAIL_KNOWN:
            return f"tail → {self._name(line.tail_kind, line.tail_id)}"
        if line.value:
            return f"tail → {self._trace.address_name(line.value)}"
        return "tail → code not traced"

    def _name(self, kind: int, node_id: int) -> str:
        return self._names(self._trace.node_name(kind, node_id), self._trace.node_address(kind, node_id))


def _indent(depth: int) -> str:
    if depth <= _DEEPEST_INDENT:
        return "  " * (depth + 1)
    return "  " * (_DEEPEST_INDENT + 1) + f"[level {depth}] "
