"""What expressions of the debugger can ask of the recording: calltrace.hits, calltrace.traced."""

from __future__ import annotations

import ctypes
from ctypes import c_uint32, c_uint64
from pathlib import Path
from typing import Any

from calltrace.calltree import summarize
from calltrace.errors import CalltraceError
from calltrace.live import LiveSession
from calltrace.model import NodeKind
from calltrace.patterns import reaches
from calltrace.tracefile import TraceFile

_ANSWER = ctypes.CFUNCTYPE(c_uint64, c_uint32, c_uint64)
_HITS = 0  # CT_HITS; the other is CT_TRACED


class Expressions:
    """Answers from the trace of the recording under way, or of the last one; 0 if there is none."""

    def __init__(self, library: ctypes.CDLL, live: LiveSession) -> None:
        """`library` is the plugin, which asks from now on."""
        self._live = live
        self._read: tuple[Path, int] | None = None  # the trace that `_hits` are of, and its units
        self._hits: dict[int, int] = {}  # VA of a function -> how often it was called
        self._callback: Any = _ANSWER(self._answer)
        library.ct_answer_with(self._callback)

    def _answer(self, what: int, address: int) -> int:
        try:
            trace = self._live.open()
            if trace is None:
                return 0
            with trace:
                function = _function_at(trace, address)
                if what != _HITS or function is None:
                    return int(function is not None)
                state = trace.path, trace.index.units
                if self._read != state:
                    self._hits = {
                        stat.address: stat.calls
                        for stat in summarize(trace).stats
                        if stat.kind == NodeKind.FUNCTION and stat.address is not None
                    }
                    self._read = state
                return self._hits.get(function, 0)
        except CalltraceError:  # an expression has no place for it
            return 0


def _function_at(trace: TraceFile, address: int) -> int | None:
    """The VA of the function that was recorded whose code has this VA in it."""
    for module in trace.modules:
        if not module.base <= address < module.base + module.size:
            continue
        functions = list(trace.functions(module))
        sizes = reaches([(function.rva, function.size) for function in functions])
        for function, size in zip(functions, sizes):
            if not function.status and 0 <= address - module.base - function.rva < size:
                return module.base + function.rva
    return None
