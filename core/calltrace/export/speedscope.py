"""Speedscope's JSON: a profile per thread with the begin and end of each frame.

Times are nanoseconds since recording began; ticks where the clock's frequency is not known; in a trace
without a clock, positions. The names stand behind the profiles, where all of them are known.

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
    about = {"$schema": _SCHEMA, "name": trace.path.name, "exporter": "calltrace"}
    out.write(json.dumps(about, separators=(",", ":"))[:-1] + ',"profiles":[')
    export = Export(trace, ExportFormat.SPEEDSCOPE)
    write_text(out, export)
    out.write('\n],"shared":{"frames":[')
    for number, node in enumerate(export.nodes):
        out.write((",\n" if number else "\n") + json.dumps({"name": trace.node_name(*node)}))
    out.write("\n]}}\n")
