"""What commands work on: the trace or the live session that was meant, and how it is shown."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from calltrace.commands.command import Console, Request
from calltrace.errors import UsageError
from calltrace.export import report
from calltrace.export.units import NameText
from calltrace.tracefile import TraceFile

if TYPE_CHECKING:
    from calltrace.live import LiveSession

_PLACE = re.compile(r"((?:call at |call )?)([^!+]+)([!+].+)")  # of the names that frames have


def progress_of(options: argparse.Namespace, console: Console) -> Callable[[str], None]:
    """Where progress is told, or nowhere with --quiet."""
    return (lambda line: None) if options.quiet else console.progress


def live_session(console: Console) -> LiveSession:
    """The recordings of the debugger's target."""
    assert console.live  # or the command would not be offered
    return console.live


def open_trace(request: Request, console: Console) -> TraceFile:
    """The trace that was named, or that of the live session."""
    return trace_of(request.options.file, console)


def trace_of(file: str | None, console: Console) -> TraceFile:
    """The trace in `file`, or, without one, that of the live session."""
    if file is not None:
        return checked(TraceFile(file), console)
    live = live_session(console)
    return checked(TraceFile(live.trace(console.progress), under_way=live.recording), console)


def checked(trace: TraceFile, console: Console) -> TraceFile:
    """The trace; what is missing from it is told."""
    for line in report.missing(trace):
        console.progress(line)
    trace.on_read = functools.partial(console.meter, f"reading {trace.name}")
    return trace


def tell_muted(trace: TraceFile, console: Console) -> None:
    """Say which calls the events of a trace do not tell of."""
    if trace.budget:
        console.progress(report.muted_text(trace))


def thread_of(request: Request, console: Console) -> int | None:
    """The thread that was named: an index or a system id."""
    named: int | str | None = request.options.thread
    if not isinstance(named, str):
        return named
    if not console.live:
        raise UsageError(f"{named} is a thread's number in a debugger: name its index or system id")
    return console.live.thread_id(named)


def names_of(request: Request, console: Console) -> NameText:
    """How names of the trace that was named are shown."""
    return names_in(request.options.file, console)


def names_in(file: str | None, console: Console) -> NameText:
    """How names are shown: the module as a link to the callers, the rest as one to the code.

    `file` is the trace as the user named it; none: the live session's.
    """
    if console.shell:
        return console.names
    where = "callers" if file is None else f"callers {_quoted(file)}"

    def text(name: str, address: int | None) -> str:
        place = _PLACE.match(name)
        if not place:
            return name
        before, module, rest = place.groups()
        # A call of what has no name of its own is nothing that `callers` could be asked about.
        module = module if before else console.link(module, f"{where} {_quoted(name)}")
        return before + module + (rest if address is None else console.code_link(rest, address))

    return text


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


def open_text(path: Path) -> TextIO:
    """A text file to write."""
    return path.open("w", encoding="utf-8", newline="\n")
