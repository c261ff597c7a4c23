"""The command table: what every host's parsers, help and menus are made of."""

from __future__ import annotations

from collections.abc import Sequence

from calltrace.commands import comparing, controlling, exporting, loop, preparing, reading, recording
from calltrace.commands.command import CallersOf, Command, Console, Option, Parser, Request, make_parser
from calltrace.errors import UsageError

__all__ = ["COMMANDS", "CallersOf", "Command", "Console", "Request", "find", "overview", "parser_for"]


def _help(request: Request, console: Console) -> int:
    verb = request.options.verb
    if verb is None:
        console.out.write(overview(console))
    else:
        console.out.write(parser_for(verb, console).format_help())
    return 0


def find(verb: str, console: Console) -> Command:
    """The command of that verb. UsageError if there is none, or none here."""
    found = [command for command in COMMANDS if command.verb == verb]
    for command in found:
        if command.is_offered(console):
            return command
    if found and found[0].live:
        raise UsageError(f"{verb} works on a debugger's target: use it in a debugger")
    if found:
        raise UsageError(f"{verb} makes a target of its own: use it in a shell")
    raise UsageError(f"no command {verb}: `{console.name} help` lists them")


def parser_for(verb: str, console: Console) -> Parser:
    """The parser of a verb where `console` is. UsageError if there is no such verb, or none here."""
    return make_parser(find(verb, console), console.name, console.live is not None)


def overview(console: Console) -> str:
    """All commands that can be used in this place, one line each."""
    commands = [command for command in COMMANDS if command.is_offered(console)]
    width = max(len(command.verb) for command in commands) + 2
    lines = [f"{console.name} COMMAND ...", ""]
    for command in commands:
        space = " " * (width - len(command.verb))
        lines.append(f"  {console.link(command.verb, f'help {command.verb}')}{space}{command.help}")
    return "\n".join([*lines, "", f"`{console.name} help COMMAND` tells more.", ""])


COMMANDS: Sequence[Command] = (
    *recording.COMMANDS,
    *loop.COMMANDS,
    *controlling.COMMANDS,
    *preparing.COMMANDS,
    *reading.COMMANDS,
    *comparing.COMMANDS,
    *exporting.COMMANDS,
    Command(
        "help",
        "List the commands, or tell of one.",
        "calltrace help tree",
        (Option(("verb",), "a command", metavar="COMMAND", optional=True),),
        _help,
    ),
)
