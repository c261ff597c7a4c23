"""The call graph in DOT, for Graphviz, Gephi and the like.

A node is a function or call, an edge a caller and its callee with the number of calls, dashed where a jump
leads to the callee.

The darker a node, the more time is its own; in a trace without a clock, the more often it was called. Of a
very long name its two ends are shown: Graphviz reads no string longer than 16,384 bytes.
"""

from __future__ import annotations

import math
import re
from typing import TextIO

from calltrace.edges import Context, call_graph
from calltrace.export import units
from calltrace.model import Clock
from calltrace.tracefile import TraceFile

_LONGEST = 400  # characters of a name, some of which may be four bytes, or six as escapes


def write(trace: TraceFile, out: TextIO) -> None:
    """Write all threads as one graph."""
    functions = call_graph(trace)
    timed = trace.clock is not Clock.NONE
    weights = [function.self_time if timed else function.calls for function in functions]
    most = math.log1p(max(weights, default=0)) or 1.0
    out.write(f"digraph {_quoted(trace.name)} {{\n")
    out.write('node [shape=box, style=filled, fontname="Helvetica", colorscheme=oranges9];\n')
    numbers: dict[str, int] = {}
    for function, weight in zip(functions, weights):
        number = numbers.setdefault(function.name, len(numbers))
        shade = 1 + round(5 * math.log1p(weight) / most)
        label = _quoted(f"{_shortened(function.name)}\n{_told(trace, function, timed)}")
        out.write(f"n{number} [label={label}, fillcolor={shade}];\n")
    for function in functions:
        for callee in function.others.values():
            style = ", style=dashed" if callee.tail else ""
            caller, called = numbers[function.name], numbers[callee.name]
            out.write(f'n{caller} -> n{called} [label="{callee.calls:,}"{style}];\n')
    out.write("}\n")


def _told(trace: TraceFile, function: Context, timed: bool) -> str:
    calls = units.count(function.calls, "call")
    return f"{calls}, self {units.duration(trace, function.self_time)}" if timed else calls


def _quoted(text: str) -> str:
    # Of an entity, such as &lt;, Graphviz shows what it stands for; any other & is one to all readers.
    shown = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    escaped = shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]} … {name[-_LONGEST // 2 :]}"
