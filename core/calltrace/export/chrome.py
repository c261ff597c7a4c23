"""Chrome's Trace Event JSON, for chrome://tracing, Perfetto and the like: a begin and an end per frame.

Times are microseconds since recording began. In a trace without a clock they are positions: one event, one
microsecond.
"""

from __future__ import annotations

import json
from typing import TextIO

from calltrace.calltree import steps
from calltrace.model import Cause, Clock, StepType
from calltrace.tracefile import TraceFile


def write(trace: TraceFile, out: TextIO) -> None:
    """Write the whole trace."""
    clock = _Microseconds(trace)
    process = trace.header.process_id
    about = {"recorder": "calltrace", "trace": trace.path.name, "time": clock.unit}
    out.write(f'{{"displayTimeUnit":"ns","otherData":{json.dumps(about)},"traceEvents":[\n')
    name = ", ".join(module.name for module in trace.modules[:1]) or trace.path.stem
    out.write(_metadata("process_name", process, 0, name))
    for thread in trace.threads:
        out.write(",\n" + _metadata("thread_name", process, thread.id, f"thread {thread.index}"))
    names: dict[tuple[int, int], str] = {}
    for step in steps(trace):
        if step.type == StepType.THREAD:
            where = f'"pid":{process},"tid":{trace.threads[step.thread].id}'
        elif step.type == StepType.OPEN:
            key = (step.kind, step.id)
            quoted = names.get(key) or names.setdefault(key, json.dumps(trace.node_name(*key)))
            out.write(f',\n{{"ph":"B","name":{quoted},{where},"ts":{clock.at(step.time)}}}')
        elif step.type == StepType.CLOSE:
            told = ""
            if step.cause != Cause.RETURN:
                told = f',"args":{{"closed by":{json.dumps(Cause(step.cause).text)}}}'
            out.write(f',\n{{"ph":"E",{where},"ts":{clock.at(step.time)}{told}}}')
        elif step.type in (StepType.MARK, StepType.GAP):
            text = f"gap: {step.value} events lost"
            if step.type == StepType.MARK:
                text = f"mark {trace.mark_name(step.id, step.value)}"
            now = clock.at(step.time)
            out.write(f',\n{{"ph":"i","s":"t","name":{json.dumps(text)},{where},"ts":{now}}}')
    out.write("\n]}\n")


class _Microseconds:
    """Turns times of a trace into microseconds."""

    def __init__(self, trace: TraceFile) -> None:
        timed = trace.clock is not Clock.NONE
        self._start = trace.header.tsc_start if timed else 0
        self._per_tick = 1e6 / trace.header.tsc_hz if timed and trace.header.tsc_hz else 1.0
        self._form = ".4f" if self._per_tick != 1.0 else ".0f"
        self.unit = "position" if not timed else "time" if trace.header.tsc_hz else "ticks"

    def at(self, time: int) -> str:
        return format((time - self._start) * self._per_tick, self._form)


def _metadata(what: str, process: int, thread: int, name: str) -> str:
    event = {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}
    return json.dumps(event, separators=(",", ":"))
