"""Pausing a recording that another process makes, as one in a shell does, and going on with it."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from calltrace import recorder, tracefile
from calltrace.errors import EngineError, UsageError
from calltrace.model import Pause, State

_SECONDS = 30.0  # to stop a program, for which there may be two tries
_SLICE_SECONDS = 0.02


def pause(path: Path) -> None:
    """Have the program that is recorded into `path` run as if untraced. Errors as of `resume`."""
    _ask(path, Pause.WANTED, Pause.PAUSED, "is paused already")


def resume(path: Path) -> None:
    """Have it recorded again.

    UsageError if that makes no sense now, BadTrace if it is no trace, AccessRefused, EngineError if nobody
    does it.
    """
    _ask(path, Pause.RESUME_WANTED, Pause.NONE, "is not paused")


def _ask(path: Path, wanted: Pause, done: Pause, already: str) -> None:
    with tracefile.TraceFile(path, counted=False) as trace:
        if trace.state is not State.RECORDING:
            raise UsageError(f"{path} is finished: nothing is recorded any more")
    with closing(recorder.TraceFile.join(path)) as file:
        before = file.header.pause
        if before == done:
            raise UsageError(f"{path} {already}")
        file.header.pause = wanted
        deadline = time.monotonic() + _SECONDS
        while file.header.pause == wanted:
            if file.header.state != State.RECORDING:
                raise UsageError(f"{path} is finished: its program has just ended")
            if time.monotonic() > deadline:
                file.header.pause = before
                raise EngineError(
                    f"{path}: nobody answers: a debugger records it, which has such commands itself, or the "
                    "calltrace that did has ended"
                )
            time.sleep(_SLICE_SECONDS)
        if file.header.pause != done:
            raise EngineError(f"{path}: that was not possible; the calltrace that records it says why")
