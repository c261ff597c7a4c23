"""What `calltrace stacks` says.

The object that ``stacks --json`` prints has these keys; they stay as they are, further ones may come:

- ``file``, ``state`` (as in `info`: ``cut`` also while recording is under way)
- ``threads``: each ``index``, ``id``, ``events`` (what it had recorded by then: units, lost ones counted),
  ``ended`` (``thread_exit``, ``process_end``, ``stopped`` or ``cut``), ``incomplete`` (events were lost:
  there may be further frames) and ``frames``, innermost first: each ``name``, ``kind`` (``function``,
  ``call``, ``api_function``, ``api_call``), ``address``, ``call_site`` (``module+0xRVA``) and
  ``call_address`` (or null), ``ticks`` (since it was entered; null without a clock)

Addresses are hexadecimal strings.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, TextIO

from calltrace.export import units
from calltrace.export.report import STATES
from calltrace.model import Cause, Clock, NodeKind, State
from calltrace.stacks import Stack, StackFrame
from calltrace.tracefile import TraceFile

_ENDS = {
    Cause.THREAD_EXIT: "thread_exit",
    Cause.PROCESS_END: "process_end",
    Cause.RUNNING: "stopped",
    Cause.STOPPED: "stopped",
    Cause.CUT: "cut",
}
_STATE_ENDS = {
    State.RECORDING: "cut",
    State.EXITED: "process_end",
    State.STOPPED: "stopped",
    State.KILLED: "process_end",
}
_TEXTS = {
    "thread_exit": "when the thread ended",
    "process_end": "when the process ended",
    "stopped": "when recording was stopped",
    "cut": "where the trace is cut",
}


def write_stacks(
    trace: TraceFile,
    stacks: Iterator[Stack],
    limit: int,
    out: TextIO,
    names: units.NameText = units.plain,
) -> None:
    """Write each stack, innermost frame first, up to `limit` frames of each (0: all)."""
    for stack in stacks:
        end = _TEXTS[_end(trace, stack)]
        if trace.state is State.RECORDING:
            end = "so far" if trace.under_way else "so far, or where the trace is cut"
        thread = stack.thread
        out.write(f"thread {thread.index} (id {thread.id}), {end}, as of its event {stack.events:,}\n")
        frames = stack.frames()
        number = -1
        for number, frame in enumerate(itertools.islice(frames, limit or None)):
            out.write(f"  {number:02}  {'  '.join(_parts(trace, stack, frame, names))}\n")
        if number < 0:
            out.write("  no open frame\n")
        if next(frames, None):
            out.write("  further frames: --limit 0 shows all\n")
        elif stack.incomplete:
            out.write("  perhaps further frames: events of this thread were lost\n")


def _parts(trace: TraceFile, stack: Stack, frame: StackFrame, names: units.NameText) -> Iterator[str]:
    yield names(frame.name, frame.address or frame.call_address)
    if trace.clock is not Clock.NONE:
        yield units.duration(trace, stack.time - frame.begin)
    if frame.call_place and not frame.name.endswith(f"call at {frame.call_place}"):
        yield f"called at {frame.call_place}"


def write_stacks_json(trace: TraceFile, stacks: Iterator[Stack], limit: int, out: TextIO) -> None:
    """Write the same as JSON, a thread at a time."""
    about = {"file": str(trace.path), "state": STATES[trace.state]}
    out.write(json.dumps(about, ensure_ascii=False)[:-1] + ', "threads": [')
    for number, stack in enumerate(stacks):
        thread = {
            "index": stack.thread.index,
            "id": stack.thread.id,
            "events": stack.events,
            "ended": _end(trace, stack),
            "incomplete": stack.incomplete,
        }
        out.write((",\n" if number else "\n") + json.dumps(thread)[:-1] + ', "frames": [')
        for at, frame in enumerate(itertools.islice(stack.frames(), limit or None)):
            told = json.dumps(_frame(trace, stack, frame), ensure_ascii=False)
            out.write((",\n" if at else "\n") + told)
        out.write("]}")
    out.write("]}\n")


def _frame(trace: TraceFile, stack: Stack, frame: StackFrame) -> dict[str, Any]:
    return {
        "name": frame.name,
        "kind": NodeKind(frame.kind).name.lower(),
        "address": _hex(frame.address),
        "call_site": frame.call_place,
        "call_address": _hex(frame.call_address),
        "ticks": None if trace.clock is Clock.NONE else stack.time - frame.begin,
    }


def _end(trace: TraceFile, stack: Stack) -> str:
    return _ENDS.get(stack.cause) or _STATE_ENDS[trace.state]


def _hex(number: int | None) -> str | None:
    return None if number is None else f"{number:#x}"
