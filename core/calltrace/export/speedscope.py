"""Speedscope's JSON: a profile per thread with the begin and end of each frame.

Times are nanoseconds since recording began; ticks where the clock's frequency is not known; in a trace
without a clock, positions. The names stand behind the profiles, where all of them are known; call sites that
call the same thing are one frame, as readers add up by frame.

Format: https://github.com/jlfwong/speedscope/blob/main/src/lib/file-format-spec.ts
"""

from __future__ import annotations

import json
from typing import TextIO

from calltrace.export.native import Export, ExportFormat, write_text
from calltrace.tracefile import TraceFile

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def write(trace: TraceFile, out: TextIO) -> None:
    """Write the whole trace. Every frame that is opened is closed, the innermost first."""
    about = {"$schema": _SCHEMA, "name": trace.name, "exporter": "calltrace"}
    out.write(json.dumps(about, separators=(",", ":"))[:-1] + ',"profiles":[')
    numbers: dict[str, int] = {}

    def number_of(kind: int, number: int) -> str:
        return str(numbers.setdefault(trace.node_name(kind, number), len(numbers)))

    write_text(out, Export(trace, ExportFormat.SPEEDSCOPE, number_of))
    out.write('\n],"shared":{"frames":[')
    for name, number in numbers.items():
        out.write((",\n" if number else "\n") + json.dumps({"name": name}))
    out.write("\n]}}\n")
