"""What `calltrace callers` and `calltrace callees` say.

The object that ``--json`` prints has these keys; they stay as they are, further ones may come:

- ``file``, ``clock``, ``ticks_per_second`` (or null)
- ``functions``: each ``name``, ``calls``, ``self`` and ``total`` (ticks; null without a clock), and
  ``callers`` or ``callees``: each again ``name``, ``tail`` (whether it is a jump instead of a call that leads
  to the callee), ``calls``, ``self``, ``total`` and further ``callers`` or ``callees``

The numbers below a caller are those of the chosen function in this context, below a callee its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from calltrace.edges import Context
from calltrace.export import units
from calltrace.model import Clock
from calltrace.tracefile import TraceFile


def write_edges(
    trace: TraceFile,
    roots: Iterable[Context],
    callees: bool,
    limit: int,
    out: TextIO,
    names: units.NameText = units.plain,
) -> None:
    """Write each function with its callers or callees indented below, up to `limit` lines (0: all)."""
    timed = trace.clock is not Clock.NONE
    columns = f"{'self':>14}{'total':>14}" if timed else ""
    out.write(f"{columns}{'calls':>14}  function, and {'what it calls' if callees else 'who calls it'}\n")
    arrow = "→ " if callees else "← "
    left = 0
    for number, (level, context) in enumerate(_lines(roots, timed, 0)):
        if limit and number >= limit:
            left += 1
            continue
        row = f"{context.calls:>14,}"
        if timed:
            own, total = units.duration(trace, context.self_time), units.duration(trace, context.total_time)
            row = f"{own:>14}{total:>14}{row}"
        name = "  " * level + (arrow if level else "") + names(context.name, context.address)
        out.write(f"{row}  {name}{'  by a tail jump' if context.tail else ''}\n")
    if left:
        out.write(f"{left:,} more: --limit 0 shows all\n")


def _lines(contexts: Iterable[Context], timed: bool, level: int) -> Iterator[tuple[int, Context]]:
    for context in _sorted(contexts, timed):
        yield level, context
        yield from _lines(context.others.values(), timed, level + 1)


def _sorted(contexts: Iterable[Context], timed: bool) -> list[Context]:
    if timed:
        return sorted(contexts, key=lambda context: (-context.total_time, -context.calls, context.name))
    return sorted(contexts, key=lambda context: (-context.calls, context.name))


def write_edges_json(trace: TraceFile, roots: Iterable[Context], callees: bool, out: TextIO) -> None:
    """Write the same as JSON, complete."""
    timed = trace.clock is not Clock.NONE
    others = "callees" if callees else "callers"
    told = {
        "file": str(trace.path),
        "clock": trace.clock.name.lower(),
        "ticks_per_second": trace.header.tsc_hz or None,
        "functions": [_context(context, timed, others) for context in _sorted(roots, timed)],
    }
    json.dump(told, out, indent=2, ensure_ascii=False)
    out.write("\n")


def _context(context: Context, timed: bool, others: str) -> dict[str, Any]:
    return {
        "name": context.name,
        "tail": context.tail,
        "calls": context.calls,
        "self": context.self_time if timed else None,
        "total": context.total_time if timed else None,
        others: [_context(other, timed, others) for other in _sorted(context.others.values(), timed)],
    }
