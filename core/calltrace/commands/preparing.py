"""The commands that touch no program: what there is before a recording."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calltrace import wine
from calltrace.commands.command import Command, Console, Option, Request
from calltrace.commands.context import live_session
from calltrace.commands.options import PREFIX, SYMBOLS, WHAT, check_options, number, symbols_path
from calltrace.errors import NotTraceable, UsageError


def _install_x64dbg(request: Request, console: Console) -> int:
    if os.name != "nt":
        return wine.relay(request.words, request.options.prefix)
    from calltrace.install import install_x64dbg

    plugin, client = install_x64dbg(request.options.folder)
    console.progress(f"installed {plugin}: type `calltrace` in x64dbg")
    if client:
        console.progress(f"installed {client}: `import {client.stem}` in scripts of x64dbgpy")
    return 0


def _plan(request: Request, console: Console) -> int:
    options = request.options
    check_options(options)
    if options.symbols and not console.shell:
        raise UsageError("plan: --symbols is for a shell: here the debugger has the symbols")
    process_id = None if options.target is None else _process_id(options.target)
    if os.name != "nt" and (process_id is not None or options.symbols):
        return wine.relay(request.words, options.prefix)
    from calltrace import survey
    from calltrace.export.plan import write_plan, write_plan_json
    from calltrace.preflight import Verdict

    chosen = survey.SurveyOptions(
        options.events,
        options.clock,
        options.include,
        options.exclude,
        options.modules,
        console.shell and not options.no_breakpoints,
    )
    if os.name == "nt" and console.shell:
        from calltrace.win32.dbghelp import SymbolFiles

        chosen = replace(chosen, symbols=SymbolFiles(symbols_path(options), console.progress).of_module)
    if options.target is None:
        with live_session(console).target() as port:
            chosen = replace(chosen, symbols=port.symbols)
            found = survey.of_process(port.process_id, chosen, debugged=True)
    elif process_id is not None:
        found = survey.of_process(process_id, chosen)
    else:
        found = survey.of_program(options.target, chosen)
    if options.json:
        write_plan_json(found, console.out)
    else:
        write_plan(found, options.refused, console.out)
    return NotTraceable.exit_code if found.verdict is Verdict.BLOCKS else 0


def _process_id(target: str) -> int | None:
    """The number that `target` is, unless a file has that name."""
    try:
        return None if os.path.exists(target) else number(target)
    except ValueError:
        return None


COMMANDS: Sequence[Command] = (
    Command(
        "x64dbg-install",
        "Put the plugin into an x64dbg, where it finds this calltrace and its Python.",
        r"calltrace x64dbg-install C:\x64dbg",
        (
            Option(("folder",), "the folder that x64dbg was unpacked to", metavar="DIR", convert=Path),
            PREFIX,
        ),
        _install_x64dbg,
        shell_only=True,
    ),
    Command(
        "plan",
        "Tell what tracing a program or a running process would do, or why it cannot be; nothing is touched.",
        "calltrace plan demo.exe --refused",
        (
            Option(
                ("target",),
                "a program's file, which is not started, or a process id; a file of that name comes first",
                metavar="PROGRAM|PID",
                live_default="the debugger's target",
            ),
            *WHAT,
            Option(("--refused",), "list each function that cannot be instrumented", switch=True),
            Option(("--json",), "as JSON, with every function", switch=True),
            SYMBOLS,
            PREFIX,
        ),
        _plan,
    ),
)
