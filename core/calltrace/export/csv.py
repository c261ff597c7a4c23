"""Events as comma-separated values, one row each, thread by thread.

Columns: ``thread`` (index), ``thread_id`` (the system's), ``position`` (events this thread recorded before),
``time`` (ticks since recording began; empty without a clock), ``event``, ``depth`` (frames open below),
``module`` (of the function or call site), ``rva`` (its offset there), ``name`` (also of a mark), ``cause``
(how a frame was closed), ``value`` (of a mark that the program made; units lost in a gap; call-site VA of a
frame of the C API).

Besides what was recorded there are ``unwind`` rows: frames closed without an event of their own, and why.
Where a thread goes on with another stack (fiber) there are ``suspend`` rows of the frames it leaves, and
``resume`` rows when it comes back to them.
"""

from __future__ import annotations

import csv
from typing import TextIO

from calltrace.calltree import steps
from calltrace.model import (
    STEP_RESUMED,
    Cause,
    Clock,
    Event,
    FunctionRecord,
    Module,
    NodeKind,
    SiteRecord,
    Step,
    StepType,
)
from calltrace.tracefile import TraceFile

COLUMNS = (
    "thread", "thread_id", "position", "time", "event", "depth", "module", "rva", "name", "cause", "value",
)  # fmt: skip
_OPENED = {
    NodeKind.FUNCTION: "enter",
    NodeKind.CALL: "call",
    NodeKind.API_FUNCTION: "api-enter",
    NodeKind.API_CALL: "api-call",
}
_RETURNED = {
    NodeKind.FUNCTION: "leave",
    NodeKind.CALL: "return",
    NodeKind.API_FUNCTION: "api-exit",
    NodeKind.API_CALL: "api-ret",
}
_ENDED = {Cause.TAIL: "tail", Cause.SWITCHED: "suspend"}
_OTHERS = {
    StepType.LAND: "land",
    StepType.MARK: "mark",
    StepType.GAP: "gap",
    StepType.THREAD_START: "thread-start",
    StepType.THREAD_EXIT: "thread-exit",
    StepType.STOP: "stop",
    StepType.RESET: "reset",
}
_WITH_NODE = (StepType.OPEN, StepType.CLOSE, StepType.LAND, StepType.ORPHAN)


def write(trace: TraceFile, out: TextIO) -> None:
    """Write every event of the trace."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    timed = trace.clock is not Clock.NONE
    start = trace.header.tsc_start
    places: dict[tuple[int, int], tuple[str, str, str]] = {}
    nowhere = ("", "", "")
    for step in steps(trace):
        if step.type == StepType.THREAD:
            thread = trace.threads[step.thread]
            continue
        place = nowhere
        if step.type in _WITH_NODE:
            key = (step.kind, step.id)
            place = places.get(key) or places.setdefault(key, _place(trace, *key))
        elif step.type == StepType.MARK and step.id:
            place = ("", "", trace.mark_name(step.id, 0))
        writer.writerow(
            (
                thread.index,
                thread.id,
                step.position,
                step.time - start if timed else "",
                _event(step),
                step.depth,
                *place,
                Cause(step.cause).name.lower().replace("_", "-") if step.type == StepType.CLOSE else "",
                _value(step),
            )
        )


def _value(step: Step) -> int | str:
    if step.type == StepType.OPEN:
        return step.value or ""
    return step.value if step.type == StepType.GAP or (step.type == StepType.MARK and not step.id) else ""


def _event(step: Step) -> str:
    if step.type == StepType.OPEN:
        if step.flags & STEP_RESUMED:
            return "resume"
        return _OPENED[NodeKind(step.kind)]
    if step.type == StepType.CLOSE:
        if step.cause == Cause.RETURN:
            return _RETURNED[NodeKind(step.kind)]
        return _ENDED.get(Cause(step.cause), "unwind")
    if step.type == StepType.ORPHAN:
        return f"orphan-{Event(step.value).name.lower()}"
    return _OTHERS[StepType(step.type)]


def _place(trace: TraceFile, kind: int, node_id: int) -> tuple[str, str, str]:
    """Module, RVA and name of a frame's function or call site."""
    name = trace.node_name(kind, node_id)
    found: tuple[Module, FunctionRecord | SiteRecord] | None = None
    if kind == NodeKind.FUNCTION:
        found = trace.function(node_id)
    elif kind == NodeKind.CALL:
        found = trace.site(node_id)
    return (found[0].name, f"{found[1].rva:#x}", name) if found else ("", "", name)
