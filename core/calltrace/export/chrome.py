"""Chrome's Trace Event JSON, for chrome://tracing, Perfetto and the like: a begin and an end per frame.

Times are microseconds since recording began. In a trace without a clock they are positions: one event, one
microsecond. Readers tell threads apart by their ids: of threads to which the system gave the same, one after
the other, all but the first have numbers that are free, and their ids in their names.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from calltrace.export.native import Export, ExportFormat, TextKind, write_text
from calltrace.model import Cause, Clock
from calltrace.tracefile import TraceFile


def write(trace: TraceFile, out: TextIO) -> None:
    """Write the whole trace."""
    timed = trace.clock is not Clock.NONE
    unit = "position" if not timed else "time" if trace.header.tsc_hz else "ticks"
    about = {"recorder": "calltrace", "trace": trace.name, "time": unit}
    out.write(f'{{"displayTimeUnit":"ns","otherData":{json.dumps(about)},"traceEvents":[\n')
    process = trace.header.process_id
    out.write(_metadata("process_name", process, 0, process_name(trace)))
    ids = _thread_ids([thread.id for thread in trace.threads])
    for number, thread in zip(ids, trace.threads):
        name = f"thread {thread.index}" + (f" (id {thread.id})" if number != thread.id else "")
        out.write(",\n" + _metadata("thread_name", process, number, name))

    def text_of(kind: int, number: int) -> str:
        return json.dumps(frame_text(trace, kind, number))

    write_text(out, Export(trace, ExportFormat.CHROME, text_of, thread_ids=ids))
    out.write("\n]}\n")


def _thread_ids(ids: Sequence[int]) -> list[int]:
    """As they are, but each only once."""
    given, used = set(ids), set[int]()
    free = (number for number in itertools.count(1) if number not in given)
    different = []
    for number in ids:
        different.append(next(free) if number in used else number)
        used.add(number)
    return different


def process_name(trace: TraceFile) -> str:
    """What the traced process is called."""
    return ", ".join(module.name for module in trace.modules[:1]) or Path(trace.name).stem


def frame_text(trace: TraceFile, kind: int, number: int) -> str:
    """What a frame, a mark, a cause or the process is called on a time line."""
    if kind == TextKind.MARK:
        return f"mark {trace.mark_name(number, 0)}"
    if kind == TextKind.CAUSE:
        return Cause(number).text
    return process_name(trace) if kind == TextKind.PROCESS else trace.node_name(kind, number)


def _metadata(what: str, process: int, thread: int, name: str) -> str:
    event = {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}
    return json.dumps(event, separators=(",", ":"))
