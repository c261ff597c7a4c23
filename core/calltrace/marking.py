"""A mark in a trace that another process records, as one in a shell does."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from calltrace import recorder, tracefile
from calltrace.errors import UsageError
from calltrace.model import Policy, State


def mark(path: Path, name: str) -> None:
    """Give this moment a name. What its threads recorded up to now comes before the mark.

    UsageError if the trace is finished, BadTrace if it is none, AccessRefused, OutOfSpace.
    """
    with tracefile.TraceFile(path) as trace:
        if trace.state is not State.RECORDING:
            raise UsageError(f"{path} is finished: a mark is for a trace that is being recorded")
        if trace.policy is Policy.COUNT:
            raise UsageError(f"{path} is recorded with --mode graph or --budget: it takes no marks from here")
        positions = trace.positions()
    with closing(recorder.TraceFile.join(path)) as recording:
        recording.mark(name, positions)
