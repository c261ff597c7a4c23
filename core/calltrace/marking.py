"""Marks in a trace, also in one that another process records, as one in a shell does."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from calltrace import recorder, tracefile
from calltrace.errors import UsageError
from calltrace.model import Policy, State

NO_ORDER = "with --mode graph no order is recorded in which a mark could stand"


def mark_now(file: recorder.TraceFile, name: str) -> None:
    """Give this moment a name in a file of ours. Errors as of TraceFile, OutOfSpace."""
    with tracefile.TraceFile(file.path) as trace:
        positions = trace.positions()
    file.mark(name, positions)


def mark(path: Path, name: str) -> None:
    """Give this moment a name. What its threads recorded up to now comes before the mark.

    UsageError if the trace is finished or knows no order, BadTrace if it is none, AccessRefused, OutOfSpace.
    """
    with tracefile.TraceFile(path, counted=False) as trace:
        if trace.state is not State.RECORDING:
            raise UsageError(f"{path} is finished: a mark is for a trace that is being recorded")
        if trace.policy is Policy.COUNT:
            if not trace.budget:
                raise UsageError(NO_ORDER)
            raise UsageError(
                f"{path} is recorded with --budget, which writes events later: only its debugger can mark it"
            )
        positions = trace.positions()
    with closing(recorder.TraceFile.join(path)) as recording:
        recording.mark(name, positions)
