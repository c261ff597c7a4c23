"""The loop tracer without a debugger: on a program that it starts, or on a running one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calltrace.errors import CalltraceError
from calltrace.loop.tracing import Climb, LoopOptions, LoopTracing
from calltrace.model import State
from calltrace.session import (
    AttachOptions,
    Progress,
    TraceOptions,
    Tracing,
    interrupts_held,
    leave,
    recording,
    tell_recorded,
)
from calltrace.session import attach as attach_and_record
from calltrace.win32 import launch
from calltrace.win32.debugging import DebuggingPort

_SLICE_SECONDS = 0.1

Show = Callable[[Climb], None]  # takes what was found, as soon as it is


@dataclass(frozen=True)
class Recording:
    """What is recorded beside a climb."""

    meanwhile: Path | None = None  # all of the program, into this file
    subtree: Path | None = None  # afterwards, the frame function and what it calls


def run(
    program: str,
    arguments: Sequence[str],
    command_line: str | None,
    options: LoopOptions,
    recorded: Recording,
    show: Show,
    progress: Progress,
) -> int:
    """Start a program, find the loop that calls `options.api`, let it go on to its end; 0 if found, else 1.

    `command_line` is the program's to the letter, None: made of the words. What is recorded is so until the
    program ends. If the search cannot begin the program is ended, and the error says why.
    """
    path = launch.find_program(program, progress)
    port = launch.create(path, command_line or subprocess.list2cmdline([program, *arguments]))
    try:
        with interrupts_held() as interrupts:
            try:
                about = {"program": str(path), "command_line": command_line}
                with _recorded(port, recorded.meanwhile, about, progress, port.terminate) as tracing:
                    climb = LoopTracing(port, options, tracing.copied if tracing else ()).run(interrupts)
                    port.detach()
            except BaseException:
                port.terminate()
                raise
            show(climb)
            if recorded.subtree:
                _record_subtree(port.process_id, climb, recorded.subtree, progress)
            while port.wait(_SLICE_SECONDS) is None:  # its standard handles are ours
                pass
            if tracing:
                tell_recorded(tracing.finish(State.KILLED, port.exit_code()), progress)
    finally:
        port.close()
    return 0 if climb.loops else 1


def attach(process_id: int, options: LoopOptions, recorded: Recording, show: Show, progress: Progress) -> int:
    """Find the loop that calls `options.api` in a running program, which goes on; 0 if found, else 1.

    What is recorded afterwards is so until Ctrl+C, or until the program ends.
    """
    with interrupts_held() as interrupts:
        port = launch.attach(process_id, progress)
        try:
            about = {"program": port.modules()[0].path, "process_id": process_id}
            with _recorded(port, recorded.meanwhile, about, progress, port.detach) as tracing:
                climb = LoopTracing(port, options, tracing.copied if tracing else ()).run(interrupts)
                port.detach()
            if tracing:
                leave(port, tracing, progress)
        finally:
            port.close()
        show(climb)
        if recorded.subtree:
            _record_subtree(process_id, climb, recorded.subtree, progress)
    return 0 if climb.loops else 1


def _record_subtree(process_id: int, climb: Climb, output: Path, progress: Progress) -> None:
    """Record the frame function of a running program and what it calls, to its end or until Ctrl+C."""
    if climb.frame is None:
        return
    patterns = [climb.places.place(each) for each in climb.subtree]
    module = patterns[0].partition("+")[0]
    options = TraceOptions(output, include=patterns, modules=[module])
    try:
        attach_and_record(AttachOptions(process_id, trace=options), progress)
    except CalltraceError as error:  # the program may have ended; what was found has been told
        progress(f"nothing is recorded: {error}")


@contextlib.contextmanager
def _recorded(
    port: DebuggingPort,
    record: Path | None,
    about: dict[str, Any],
    progress: Progress,
    end: Callable[[], None],
) -> Iterator[Tracing | None]:
    """The stopped program is recorded into `record`, if that is named; after an error left as by `end`."""
    if record is None:
        yield None
        return
    tracing = Tracing(port, progress)
    # An int3 of ours at a function's start would stop the program each time, while it is debugged.
    with recording(tracing, TraceOptions(record, breakpoints=False), record, about, progress, end):
        yield tracing
