"""What `calltrace tree --json` says: the lines of the call tree, complete.

The object has these keys; they stay as they are, further ones may come:

- ``file``, ``clock``, ``ticks_per_second`` (or null)
- ``threads``: each ``index``, ``id`` and ``lines``, in order: each ``depth`` (0: outermost) and ``type``:

  - ``frame``: ``name``, ``kind`` (``function``, ``call``, ``api_function``, ``api_call``), ``address`` (or
    null), ``calls`` (in a row that are alike, this line stands for all), ``ticks`` (of all of them; null
    without a clock), ``ended`` (``return``, ``tail``, ``unwound``, ``running``, ...) and ``tail`` (where the
    jump led that ended it; or null). ``ticks`` and ``ended`` are null if a line of the type ``end`` follows.
  - ``end`` of a frame that outlasted 65,536 further lines, with the same keys
  - ``mark``: ``name``
  - ``gap``: ``lost`` (events)
  - ``muted``: ``calls`` that a budget left out, in the frame that is open here or deeper, of ``name``, with
    ``kind`` and ``address``; or of as many ``others`` together

- ``limited``: whether there are more lines than the limit

Lines are not nested, for a tree can be deeper than readers of JSON follow. Addresses are hexadecimal strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any, TextIO

from calltrace.calltree import Tree
from calltrace.model import LINE_OTHERS, LINE_TAIL_KNOWN, Cause, Clock, Line, LineType, NodeKind
from calltrace.tracefile import TraceFile


def write_tree_json(trace: TraceFile, tree: Tree, out: TextIO) -> None:
    """Write the lines of `tree`, as they come."""
    about = {
        "file": str(trace.path),
        "clock": trace.clock.name.lower(),
        "ticks_per_second": trace.header.tsc_hz or None,
    }
    out.write(json.dumps(about, ensure_ascii=False)[:-1] + ', "threads": [')
    for number, (position, lines) in enumerate(groupby(tree, lambda line: line.thread)):
        thread = trace.threads[position]
        head = json.dumps({"index": thread.index, "id": thread.id})[:-1]
        out.write((",\n" if number else "\n") + head + ', "lines": [')
        for at, told in enumerate(_lines(trace, lines)):
            out.write((",\n" if at else "\n") + json.dumps(told, ensure_ascii=False))
        out.write("]}")
    out.write(f'], "limited": {json.dumps(tree.limited)}}}\n')


def _lines(trace: TraceFile, lines: Iterator[Line]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.type == LineType.MARK:
            yield {"depth": line.depth, "type": "mark", "name": trace.mark_name(line.id, line.value)}
        elif line.type == LineType.GAP:
            yield {"depth": line.depth, "type": "gap", "lost": line.value}
        elif line.type == LineType.MUTED:
            yield {"depth": line.depth, "type": "muted", **_muted(trace, line)}
        elif line.type != LineType.THREAD:
            yield _frame(trace, line)


def _muted(trace: TraceFile, line: Line) -> dict[str, Any]:
    if line.flags & LINE_OTHERS:
        return {"calls": line.calls, "others": line.id}
    address = trace.node_address(line.kind, line.id)
    return {
        "calls": line.calls,
        "name": trace.node_name(line.kind, line.id),
        "kind": NodeKind(line.kind).name.lower(),
        "address": None if address is None else f"{address:#x}",
    }


def _frame(trace: TraceFile, line: Line) -> dict[str, Any]:
    cause, address = Cause(line.cause), trace.node_address(line.kind, line.id)
    if cause is Cause.CUT and trace.under_way:
        cause = Cause.RUNNING
    known = cause is not Cause.NONE
    return {
        "depth": line.depth,
        "type": "end" if line.type == LineType.CLOSE else "frame",
        "name": trace.node_name(line.kind, line.id),
        "kind": NodeKind(line.kind).name.lower(),
        "address": None if address is None else f"{address:#x}",
        "calls": line.calls,
        "ticks": line.duration if known and trace.clock is not Clock.NONE else None,
        "ended": cause.name.lower() if known else None,
        "tail": _tail(trace, line) if cause is Cause.TAIL else None,
    }


def _tail(trace: TraceFile, line: Line) -> str | None:
    if line.flags & LINE_TAIL_KNOWN:
        return trace.node_name(line.tail_kind, line.tail_id)
    return trace.address_name(line.value) if line.value else None
