"""Events as comma-separated values, one row each, thread by thread.

Columns: ``thread`` (index), ``thread_id`` (the system's), ``position`` (events this thread recorded before),
``time`` (ticks since recording began; empty without a clock), ``event``, ``depth`` (frames open below),
``module`` (of the function or call site), ``rva`` (its offset there), ``name`` (also of a mark), ``cause``
(how a frame was closed), ``value`` (of a mark that the program made; units lost in a gap; call-site VA of a
frame of the C API).

Besides what was recorded there are ``unwind`` rows: frames closed without an event of their own, and why.
Where a thread goes on with another stack (fiber) there are ``suspend`` rows of the frames it leaves, and
``resume`` rows when it comes back to them. A ``muted`` row has as ``value`` how many calls a budget left out
here, in the frame that is open or deeper: of what it names, or of several together.
"""

from __future__ import annotations

import csv
import io
from typing import TextIO

from calltrace.export.native import Export, ExportFormat, TextKind, write_text
from calltrace.model import Cause, FunctionRecord, Module, NodeKind, SiteRecord
from calltrace.tracefile import TraceFile

COLUMNS = (
    "thread", "thread_id", "position", "time", "event", "depth", "module", "rva", "name", "cause", "value",
)  # fmt: skip


def write(trace: TraceFile, out: TextIO) -> None:
    """Write every event of the trace."""
    out.write(",".join(COLUMNS) + "\n")

    def text_of(kind: int, number: int) -> str:
        if kind == TextKind.CAUSE:
            return cause_name(number)
        return _fields(place(trace, kind, number))

    write_text(out, Export(trace, ExportFormat.CSV, text_of))


def cause_name(cause: int) -> str:
    """How a column names a Cause."""
    return Cause(cause).name.lower().replace("_", "-")


def place(trace: TraceFile, kind: int, number: int) -> tuple[str, str, str]:
    """Module, RVA and name of a frame's function or call site; of a mark its name alone."""
    if kind == TextKind.MARK:
        return "", "", trace.mark_name(number, 0)
    name = trace.node_name(kind, number)
    found: tuple[Module, FunctionRecord | SiteRecord] | None = None
    if kind == NodeKind.FUNCTION:
        found = trace.function(number)
    elif kind == NodeKind.CALL:
        found = trace.site(number)
    return (found[0].name, f"{found[1].rva:#x}", name) if found else ("", "", name)


def _fields(values: tuple[str, ...]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()
