"""The commands that begin, pause, mark and end a recording: the debugger's, or from a shell one under way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calltrace.commands.command import Command, Console, Option, Request
from calltrace.commands.context import live_session
from calltrace.commands.options import (
    CLOCK,
    EVENTS,
    FILE,
    LIVE_OUTPUT,
    MODE,
    PATTERNS,
    ROOM,
    SINGLE_STEP,
    number,
    trace_options,
)
from calltrace.errors import UsageError
from calltrace.export.status import write_status, write_status_json
from calltrace.model import printable
from calltrace.tracefile import TraceFile


def _start(request: Request, console: Console) -> int:
    from calltrace import session

    options = request.options
    # Each int3 of ours would stop the debugger: `trace_options` leaves functions out that need one.
    trace = session.TraceOptions(**trace_options(options))
    patterns = [*options.patterns, *(f"{module}!*" for module in options.only)]
    live_session(console).start(trace, patterns, options.ignored, console.progress)
    live_session(console).depth = options.depth
    return 0


def _reference_live(request: Request, console: Console) -> int:
    from calltrace import session

    trace = session.TraceOptions(**trace_options(request.options))
    path = live_session(console).reference(trace, request.options.single_step, console.progress)
    _tell_recorded(path, console)
    return 0


def _stop(request: Request, console: Console) -> int:
    live = live_session(console)
    with live.uninterrupted():
        _tell_recorded(live.stop(console.progress), console)
    return 0


def _tell_recorded(path: Path, console: Console) -> None:
    with TraceFile(path) as trace:
        verb = "top" if trace.counts_only else "tree"
    size = path.stat().st_size / 1e6
    console.progress(f"recorded {path} ({size:,.1f} MB): `{console.name} {verb}` shows it")


def _pause(request: Request, console: Console) -> int:
    live_session(console).pause(console.progress)
    return 0


def _resume(request: Request, console: Console) -> int:
    live_session(console).resume(console.progress)
    return 0


def _status(request: Request, console: Console) -> int:
    told = live_session(console).status(console.progress)
    write = write_status_json if request.options.json else write_status
    write(told, console.out)
    return 0


def _mark(request: Request, console: Console) -> int:
    live_session(console).mark(_mark_name(request), console.progress)
    return 0


def _mark_file(request: Request, console: Console) -> int:
    from calltrace.marking import mark

    mark(Path(request.options.file), _mark_name(request))
    return 0


def _pause_file(request: Request, console: Console) -> int:
    from calltrace.pausing import pause

    pause(Path(request.options.file))
    return 0


def _resume_file(request: Request, console: Console) -> int:
    from calltrace.pausing import resume

    resume(Path(request.options.file))
    return 0


def _mark_name(request: Request) -> str:
    """The name for a mark, as it will be read and can be typed."""
    name = printable(" ".join(request.options.name)).strip()
    if not name:
        raise UsageError("mark: the name is empty")
    return name


def _save(request: Request, console: Console) -> int:
    live_session(console).save(request.options.path, console.progress)
    return 0


COMMANDS: Sequence[Command] = (
    Command(
        "start",
        "Begin to record the debugger's target, which stays where it is. Modules loaded later are not "
        "recorded.",
        "calltrace start demo!parse* --clock tsc",
        (
            Option(
                ("patterns",),
                "functions to trace, in whichever modules: module!function with *, module+0xRVA, 0xVA; "
                "default: the program's own",
                metavar="PATTERN",
                many=True,
            ),
            Option(
                ("-m",),
                "trace this module only: as the pattern MODULE!*",
                metavar="MODULE",
                dest="only",
                repeated=True,
            ),
            Option(
                ("-l",),
                "levels that `tree` shows unless told otherwise; 0: all (default)",
                metavar="N",
                dest="depth",
                convert=number,
                default=0,
            ),
            Option(("-i",), "ignore this module", metavar="MODULE", dest="ignored", repeated=True),
            LIVE_OUTPUT,
            MODE,
            EVENTS,
            CLOCK,
            *PATTERNS,
            *ROOM,
        ),
        _start,
        live=True,
    ),
    Command(
        "stop",
        "End the recording; the target is left as it was.",
        "calltrace stop",
        (),
        _stop,
        live=True,
    ),
    Command(
        "reference",
        "Let the target run and record it exactly and slowly, by breakpoints: what `start` is held against. "
        "It stops at its end, at a breakpoint of yours, or with Ctrl+Break.",
        "calltrace reference --single-step",
        (
            LIVE_OUTPUT,
            EVENTS,
            *PATTERNS,
            SINGLE_STEP,
        ),
        _reference_live,
        live=True,
    ),
    Command(
        "pause",
        "Let the target run as if untraced, until resume. Frames that are open now still end in the trace.",
        "calltrace pause",
        (),
        _pause,
        live=True,
    ),
    Command(
        "pause",
        "Let the program that is recorded into FILE run as if untraced, until resume.",
        "calltrace pause demo.calltrace",
        (FILE,),
        _pause_file,
        shell_only=True,
    ),
    Command(
        "resume",
        "Go on recording after pause.",
        "calltrace resume",
        (),
        _resume,
        live=True,
    ),
    Command(
        "resume",
        "Go on recording into FILE after pause.",
        "calltrace resume demo.calltrace",
        (FILE,),
        _resume_file,
        shell_only=True,
    ),
    Command(
        "status",
        "Tell what is being recorded since when, and where to.",
        "calltrace status",
        (Option(("--json",), "as JSON", switch=True),),
        _status,
        live=True,
    ),
    Command(
        "mark",
        "Give this moment a name, which the call tree shows in every thread.",
        "calltrace mark before the click",
        (Option(("name",), "the name", metavar="NAME", many=True, required=True),),
        _mark,
        live=True,
    ),
    Command(
        "mark",
        "Give this moment of a recording under way a name, which the call tree shows in every thread.",
        "calltrace mark demo.calltrace before the click",
        (FILE, Option(("name",), "the name", metavar="NAME", many=True, required=True)),
        _mark_file,
        shell_only=True,
    ),
    Command(
        "save",
        "Write the trace as it is now into another file, which is complete; recording goes on.",
        r"calltrace save C:\traces\first.calltrace",
        (Option(("path",), "a file that does not exist yet", metavar="FILE", convert=Path),),
        _save,
        live=True,
    ),
)
