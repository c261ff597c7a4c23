"""The command that finds the loop behind an API."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calltrace import wine
from calltrace.commands.command import Command, Console, Option, Request
from calltrace.commands.context import live_session, open_text, progress_of, thread_of, trace_of
from calltrace.commands.options import PREFIX, QUIET, lines, number, positive, seconds, thread
from calltrace.errors import UsageError
from calltrace.export.files import created
from calltrace.export.units import plain

if TYPE_CHECKING:
    from calltrace.loop.tracing import Climb, LoopOptions

_DEFAULT_LOOP_SECONDS = 30.0


def _loop(request: Request, console: Console) -> int:
    options = request.options
    _check_loop_actions(request, console)
    if options.from_trace is not None:
        return _loop_in_trace(request, console)
    if console.live:
        if request.program or options.pid is not None:
            raise UsageError("loop: here it works on the debugger's target: name no program")
        if options.record:
            raise UsageError("loop: here `start` records, and `loop` climbs meanwhile: leave --record out")
    elif bool(request.program) == (options.pid is not None):
        raise UsageError(
            "loop: name a program after --, or a running one by --pid, or a trace by --from-trace"
        )
    if os.name != "nt":
        words = (*request.words, "--", *request.program) if request.program else request.words
        return wine.relay(words, options.prefix)
    from calltrace import looping

    chosen = _loop_options(request, console)
    if console.live:
        climb = console.live.climb(chosen, console.progress)
        _show_loop(climb, request, console)
        if climb.frame and options.start is not None:
            _start_subtree(climb, console)
        return 0 if climb.loops else 1

    def show(climb: Climb) -> None:
        _show_loop(climb, request, console)

    recording = looping.Recording(options.record, Path(options.start) if options.start else None)
    if options.pid is not None:
        return looping.attach(options.pid, chosen, recording, show, progress_of(options, console))
    return looping.run(
        request.program[0],
        request.program[1:],
        request.program_line,
        chosen,
        recording,
        show,
        progress_of(options, console),
    )


def _check_loop_actions(request: Request, console: Console) -> None:
    """Before anything is touched: can this host do what is wanted of the frame function?"""
    options = request.options
    if options.breakpoint and not console.set_breakpoint:
        raise UsageError("loop: --break is for a debugger: nobody would stop there")
    if options.label and not console.set_label:
        raise UsageError("loop: --label is for a debugger: nobody would see it")
    here = options.from_trace is None or (console.live is not None and console.live.recording)
    if (options.breakpoint or options.label) and not here:
        raise UsageError("loop: --break and --label want the program itself, or its recording under way")
    if options.start is None:
        return
    if options.record or options.from_trace is not None:
        raise UsageError(
            "loop: --start records the program behind the climb: leave --record and --from-trace out"
        )
    if console.live and options.start:
        raise UsageError("loop: here --start records into a new file, as `start` does: name none")
    if console.live and console.live.recording:
        raise UsageError("loop: a recording is under way: stop it before one is started by --start")
    if not console.live and not options.start:
        raise UsageError("loop: name the trace file behind --start")


def _loop_in_trace(request: Request, console: Console) -> int:
    """What a trace tells of a loop, without the program."""
    from calltrace.loop import recorded
    from calltrace.loop.traced_code import TracedCode

    options = request.options
    for name, given in (
        ("a program", request.program),
        ("--pid", options.pid),
        ("--method", options.method),
        ("--timeout", options.timeout),
        ("--record", options.record),
    ):
        if given:
            raise UsageError(f"loop: {name} has no part in what a trace tells: leave it out")
    if not options.from_trace and not console.live:
        raise UsageError("loop: name a trace file behind --from-trace")
    with trace_of(options.from_trace or None, console) as trace:
        traced = TracedCode(trace, lambda path: wine.host_path(path, options.prefix))
        climb = recorded.search(trace, _loop_options(request, console), traced)
        _show_loop(climb, request, console)
    return 0 if climb.loops else 1


def _loop_options(request: Request, console: Console) -> LoopOptions:
    from calltrace.loop.tracing import LoopOptions

    options = request.options
    return LoopOptions(
        api=options.api,
        method=options.method or "unwind",
        samples=options.samples,
        thread=thread_of(request, console),
        seconds=options.timeout or _DEFAULT_LOOP_SECONDS,
        modules=options.module,
        arguments=options.args,
        prototypes=lines(options.prototypes) if options.prototypes else (),
        group_by=options.group_by,
        subtree=options.include is not None or options.start is not None,
    )


def _show_loop(climb: Climb, request: Request, console: Console) -> None:
    from calltrace.export.loop import write_loop, write_loop_json

    options = request.options
    write = write_loop_json if options.json else write_loop
    if options.output is not None:
        source = Path(options.from_trace) if options.from_trace else None
        with created(options.output, source, open_text) as file:
            write(climb, file, plain)
    elif request.program:  # the standard output is the program's
        text = io.StringIO()
        write(climb, text, plain)
        for line in text.getvalue().splitlines():
            console.progress(line)
    else:
        write(climb, console.out, console.code_link)
    _act_on_frame(climb, request, console)


def _act_on_frame(climb: Climb, request: Request, console: Console) -> None:
    """What is wanted of the frame function beside being told."""
    options, frame = request.options, climb.frame
    if frame is None:
        if options.breakpoint or options.label or options.include is not None or options.start is not None:
            console.progress("no frame function was found, and so nothing is done with it")
        return
    name = climb.places.name(frame)
    if options.breakpoint and console.set_breakpoint:
        console.set_breakpoint(frame)
        console.progress(f"a breakpoint stands on {name}")
    if options.label and console.set_label:
        label = re.sub(r"\W", "_", re.split("[!:]", climb.api)[-1]) + "_frame"
        console.set_label(frame, label)
        console.progress(f"{name} is called {label}")
    if options.include is not None:
        patterns = [climb.places.place(each) for each in climb.subtree]
        console.progress(f"{name} leads to {len(patterns):,} functions, it among them")
        if options.include:
            with created(Path(options.include), None, open_text) as file:
                file.writelines(pattern + "\n" for pattern in patterns)
        else:
            for pattern in patterns:
                console.progress(f"--include {pattern}")


def _start_subtree(climb: Climb, console: Console) -> None:
    from calltrace import session

    patterns = [climb.places.place(each) for each in climb.subtree]
    live_session(console).start(session.TraceOptions(breakpoints=False), patterns, (), console.progress)


COMMANDS: Sequence[Command] = (
    Command(
        "loop",
        "Find the loop that calls an API, in a program that is started, or runs, or is the debugger's "
        "target, with all calls between them and the one that makes a whole frame.",
        "calltrace loop ws2_32!recv -- server.exe",
        (
            Option(
                ("api",),
                "what is called in the loop: module!function, module+0xRVA, 0xVA, or Interface::Method of a "
                "COM object that is made meanwhile",
                metavar="API",
            ),
            Option(("--pid",), "a running program, by its process id", metavar="PID", convert=number),
            Option(
                ("--record",),
                "record the program meanwhile, into this file; one that is started to its end",
                metavar="FILE",
                convert=Path,
            ),
            Option(
                ("--from-trace",),
                "what a trace tells, without the program; the API is then a recorded function, or what is "
                "called outside; in a debugger without FILE the recording under way, or the last one",
                metavar="FILE",
                optional=True,
            ),
            Option(
                ("--method",),
                "unwind: by stack walks (default); returns: by what each function returns to, which needs no "
                "unwind data; both: and tell if they differ",
                choices=("unwind", "returns", "both"),
            ),
            Option(
                ("--samples",),
                "calls of the API to see at least; more show the larger of nested loops; default: 3",
                metavar="N",
                convert=positive,
                default=3,
            ),
            Option(("--thread",), "only calls by this thread: its system id", metavar="N", convert=thread),
            Option(
                ("--timeout",),
                f"how long to look for it; default: {_DEFAULT_LOOP_SECONDS:.0f}",
                metavar="SECONDS",
                convert=seconds,
            ),
            Option(
                ("--args",),
                "the API's prototype, to show its arguments: Present(this, UINT sync, UINT flags); those of "
                "Direct3D, DXGI, OpenGL and Vulkan are known",
                metavar="PROTOTYPE",
            ),
            Option(("--prototypes",), "a file with more of them", metavar="FILE", convert=Path),
            Option(
                ("--group-by",),
                "tell calls apart by an argument, or by that of another function's last call before: "
                "ID3D11DeviceContext::OMSetRenderTargets.targets",
                metavar="ARG",
            ),
            Option(
                ("--module",),
                "only loops in this module, as the program itself",
                metavar="PAT",
                repeated=True,
            ),
            Option(
                ("--break",),
                "in a debugger: set a breakpoint on the frame function",
                dest="breakpoint",
                switch=True,
            ),
            Option(
                ("--label",),
                "in a debugger: let it call the frame function API_frame",
                switch=True,
            ),
            Option(
                ("--include",),
                "patterns that mean the frame function and all it is known to call: printed, or written into "
                "FILE for --include @FILE of `run` and `start`",
                metavar="FILE",
                optional=True,
            ),
            Option(
                ("--start",),
                "then record just these functions: into FILE, until the program ends, or with --pid until "
                "Ctrl+C; in a debugger without FILE, as `start` does",
                metavar="FILE",
                optional=True,
            ),
            Option(("--json",), "as JSON, complete", switch=True),
            Option(
                ("-o",),
                "where to write what was found; default: the standard output, with a program that is started "
                "the standard error",
                metavar="FILE",
                dest="output",
                convert=Path,
            ),
            PREFIX,
            QUIET,
        ),
        _loop,
        takes_program=True,
    ),
)
