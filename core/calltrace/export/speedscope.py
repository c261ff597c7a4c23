"""Speedscope's JSON: a profile per thread with the begin and end of each frame.

Times are nanoseconds since recording began; ticks where the clock's frequency is not known; in a trace
without a clock, positions. The names stand behind the profiles, where all of them are known.

Format: https://github.com/jlfwong/speedscope/blob/main/src/lib/file-format-spec.ts
"""

from __future__ import annotations

import json
from typing import TextIO

from calltrace.calltree import steps
from calltrace.model import Clock, StepType
from calltrace.tracefile import TraceFile

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def write(trace: TraceFile, out: TextIO) -> None:
    """Write the whole trace. Every frame that is opened is closed, the innermost first."""
    about = {"$schema": _SCHEMA, "name": trace.path.name, "exporter": "calltrace"}
    out.write(json.dumps(about, separators=(",", ":"))[:-1] + ',"profiles":[')
    clock = _Nanoseconds(trace)
    frames: dict[tuple[int, int], int] = {}
    before = ""  # what parts this event from the one before it; empty: no profile is open
    first = last = "0"
    for step in steps(trace):
        if step.type == StepType.THREAD:
            if before:
                out.write(_end(first, last) + ",")
            thread = trace.threads[step.thread]
            name = json.dumps(f"thread {thread.index} (id {thread.id})")
            out.write(f'\n{{"type":"evented","name":{name},"unit":"{clock.unit}","events":[')
            before, first, last = "\n", "0", "0"
        elif step.type in (StepType.OPEN, StepType.CLOSE):
            last = clock.at(step.time)
            if before == "\n":
                first = last
            frame = frames.setdefault((step.kind, step.id), len(frames))
            letter = "O" if step.type == StepType.OPEN else "C"
            out.write(f'{before}{{"type":"{letter}","frame":{frame},"at":{last}}}')
            before = ",\n"
    if before:
        out.write(_end(first, last))
    out.write('\n],"shared":{"frames":[')
    for number, key in enumerate(frames):
        out.write((",\n" if number else "\n") + json.dumps({"name": trace.node_name(*key)}))
    out.write("\n]}}\n")


def _end(first: str, last: str) -> str:
    return f'\n],"startValue":{first},"endValue":{last}}}'


class _Nanoseconds:
    """Turns times of a trace into nanoseconds, as far as its clock allows."""

    def __init__(self, trace: TraceFile) -> None:
        timed = trace.clock is not Clock.NONE
        self._start = trace.header.tsc_start if timed else 0
        self._per_tick = 1e9 / trace.header.tsc_hz if timed and trace.header.tsc_hz else 0.0
        self.unit = "nanoseconds" if self._per_tick else "none"

    def at(self, time: int) -> str:
        ticks = time - self._start
        return f"{ticks * self._per_tick:.1f}" if self._per_tick else str(ticks)
