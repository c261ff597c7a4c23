"""Callgrind's profile format, for KCachegrind, QCachegrind and callgrind_annotate.

Each function and call with its own cost, and each caller with what it calls: how often, and what that cost in
all. A function that was entered by a jump is called by the caller of the one that jumped, as on the stack, so
that costs add up. Costs are ticks of the clock, exact; in a trace without a clock, events. Objects are
modules. There are no source lines: every line is 0.

Format: https://valgrind.org/docs/manual/cl-format.html
"""

from __future__ import annotations

from typing import TextIO

from calltrace.edges import Context, call_graph
from calltrace.model import Clock, printable
from calltrace.tracefile import TraceFile


def write(trace: TraceFile, out: TextIO) -> None:
    """Write all threads as one profile."""
    timed = trace.clock is not Clock.NONE
    functions = call_graph(trace, by_stack=True)
    out.write("# callgrind format\nversion: 1\ncreator: calltrace\npositions: line\n")
    out.write(f"pid: {trace.header.process_id}\n")
    command = trace.info.get("command_line")
    if isinstance(command, str):
        out.write(f"cmd: {printable(' '.join(command.split()))}\n")
    if timed and trace.header.tsc_hz:
        out.write(f"desc: Ticks per second: {trace.header.tsc_hz}\n")
    out.write(f"events: {'Ticks' if timed else 'Events'}\n")
    out.write(f"summary: {sum(function.self_time for function in functions)}\n\n")
    names = _Names(trace)
    for function in functions:
        out.write(names.of("", function))
        out.write(f"0 {function.self_time}\n")
        for callee in function.others.values():
            out.write(names.of("c", callee))
            out.write(f"calls={callee.calls} 0\n0 {callee.total_time}\n")
        out.write("\n")


class _Names:
    """Object, file and function of a position; what has been named before is a number."""

    def __init__(self, trace: TraceFile) -> None:
        self._trace = trace
        self._objects: dict[str, int] = {}
        self._functions: dict[str, int] = {}

    def of(self, prefix: str, context: Context) -> str:
        """Lines that say whose costs follow; `prefix`: c, for a callee's."""
        module = _short(self._objects, self._object(context))
        file = "cfi" if prefix else "fl"
        function = _short(self._functions, context.name)
        return f"{prefix}ob={module}\n{file}=???\n{prefix}fn={function}\n"

    def _object(self, context: Context) -> str:
        # The address of a call of an import is the caller's.
        module, found, _ = context.name.partition("!")
        if found:
            return module.removeprefix("call ")
        for traced in self._trace.modules:
            if context.address is not None and 0 <= context.address - traced.base < traced.size:
                return traced.stem
        return "???"


def _short(numbers: dict[str, int], name: str) -> str:
    known = numbers.get(name)
    if known is None:
        known = numbers[name] = len(numbers) + 1
        return f"({known}) {name}"
    return f"({known})"
