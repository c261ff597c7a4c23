"""The commands that record a program, from a shell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calltrace import wine
from calltrace.commands.command import Command, Console, Option, Request
from calltrace.commands.context import progress_of
from calltrace.commands.options import (
    EVENTS,
    FUNCTIONS,
    MODE,
    OUTPUT,
    PREFIX,
    QUIET,
    ROOM,
    SINGLE_STEP,
    SYMBOLS,
    WHAT,
    check_options,
    number,
    seconds,
    symbols_path,
    trace_options,
)
from calltrace.errors import UsageError

if TYPE_CHECKING:
    from calltrace import session


def _run(request: Request, console: Console) -> int:
    options = request.options
    _check_program(request)
    if os.name != "nt":
        return wine.relay((*request.words, "--", *request.program), options.prefix)
    from calltrace import session

    return session.run(_run_options(request), progress_of(options, console))


def _reference(request: Request, console: Console) -> int:
    options = request.options
    _check_program(request)
    if os.name != "nt":
        return wine.relay((*request.words, "--", *request.program), options.prefix)
    from calltrace import session

    return session.run_reference(_run_options(request), options.single_step, progress_of(options, console))


def _diff_reference(request: Request, console: Console) -> int:
    options = request.options
    _check_program(request)
    if os.name != "nt":
        return wine.relay((*request.words, "--", *request.program), options.prefix)
    from calltrace import session

    return session.compare_with_reference(
        _run_options(request),
        options.single_step,
        options.output,
        progress_of(options, console),
        console.progress,  # the standard output is the program's
    )


def _attach(request: Request, console: Console) -> int:
    options = request.options
    check_options(options)
    if os.name != "nt":
        return wine.relay(request.words, options.prefix)
    from calltrace import session

    return session.attach(
        session.AttachOptions(
            process_id=options.pid,
            seconds=options.seconds,
            trace=session.TraceOptions(**trace_options(options)),
            symbols=symbols_path(options),
        ),
        progress_of(options, console),
    )


def _check_program(request: Request) -> None:
    # Before a process is started.
    verb = request.words[0]
    if not request.program:
        raise UsageError(
            f"{verb}: name a program after --, as in `calltrace {verb} -- program.exe arguments`"
        )
    check_options(request.options)


def _run_options(request: Request) -> session.RunOptions:
    from calltrace import session

    return session.RunOptions(
        program=request.program[0],
        arguments=request.program[1:],
        command_line=request.program_line,
        trace=session.TraceOptions(**trace_options(request.options)),
        symbols=symbols_path(request.options),
    )


_RECORDING = (OUTPUT, MODE, *WHAT, *ROOM, SYMBOLS, PREFIX, QUIET)


COMMANDS: Sequence[Command] = (
    Command(
        "run",
        "Start a program and trace it from its first instruction to its end.",
        "calltrace run -o demo.calltrace -- demo.exe 1+2",
        _RECORDING,
        _run,
        takes_program=True,
        shell_only=True,
    ),
    Command(
        "attach",
        "Trace a running process for a while; it goes on undisturbed afterwards.",
        "calltrace attach 4711 --seconds 5",
        (
            Option(("pid",), "the process id", metavar="PID", convert=number),
            Option(
                ("--seconds",),
                "how long; default: until Ctrl+C or the end of the process",
                metavar="N",
                convert=seconds,
            ),
            *_RECORDING,
        ),
        _attach,
        shell_only=True,
    ),
    Command(
        "reference",
        "Trace a program exactly and slowly, by breakpoints: what `run` is held against. It runs under a "
        "debugger: exceptions pass through, but timing differs, and no filter for unhandled ones is called.",
        "calltrace reference -o demo.calltrace -- demo.exe 1+2",
        (OUTPUT, EVENTS, *FUNCTIONS, SINGLE_STEP, SYMBOLS, PREFIX, QUIET),
        _reference,
        takes_program=True,
        shell_only=True,
    ),
    Command(
        "diff-reference",
        "Run a program twice, as `run` and as `reference` do, and tell where the call trees begin to differ "
        "in each thread. The exit code is 0 if they are equal, 1 if not. It must do the same each time.",
        "calltrace diff-reference --events all -- demo.exe 1+2",
        (
            Option(
                ("-o",),
                "an existing folder for both traces; default: they are not kept",
                metavar="DIR",
                dest="output",
                convert=Path,
            ),
            EVENTS,
            *FUNCTIONS,
            SINGLE_STEP,
            SYMBOLS,
            PREFIX,
            QUIET,
        ),
        _diff_reference,
        takes_program=True,
        shell_only=True,
    ),
)
