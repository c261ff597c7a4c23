"""A command: its options, its parser, what it is asked, and where it answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from calltrace import calltree
from calltrace.errors import UsageError
from calltrace.export.units import NameText, plain

if TYPE_CHECKING:
    from calltrace.live import LiveSession

# Makes, of each name, the names of its callers with how often they called it, the most first.
CallersOf = Callable[[], Mapping[str, Sequence[tuple[str, int]]]]


@dataclass(frozen=True)
class Console:
    """Where a host shows what commands say."""

    out: TextIO
    progress: Callable[[str], None]  # takes one line, without its line end
    name: str = "calltrace"  # what the user calls us by here
    # Text as a link that runs a command line of ours, given from the verb on, where links can be shown.
    link: Callable[[str, str], str] = lambda text, line: text
    code_link: Callable[[str, int], str] = lambda text, address: text  # ... that shows the code at a VA
    # What a debugger does for its user at a VA; None: there is no debugger.
    set_breakpoint: Callable[[int], None] | None = None
    set_label: Callable[[int, str], None] | None = None
    names: NameText = plain  # how names are shown in a shell
    meter: Callable[[str, int, int], None] = lambda what, done, whole: None  # shows how far a long work is
    shell: bool = True  # the user is in a shell, not in a debugger that has a target already
    live: LiveSession | None = None  # in a debugger: the recordings of its targets
    # Shows what was called how often (True: at least once), and by whom, where a debugger has a place for
    # that beside text.
    show_functions: Callable[[Sequence[calltree.CallStat], CallersOf, bool], None] = (
        lambda stats, callers, first_only: None
    )


@dataclass(frozen=True)
class Request:
    """A command as the user gave it."""

    options: argparse.Namespace
    words: tuple[str, ...]  # from the verb on, without the program
    program: tuple[str, ...]  # the words after --
    program_line: str | None  # what follows -- to the letter, where the host knows it


@dataclass(frozen=True)
class Option:
    """One option or positional argument, as argparse takes it."""

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    dest: str | None = None
    convert: Callable[[str], Any] | None = None
    default: Any = None
    choices: tuple[str, ...] | None = None
    switch: bool = False
    repeated: bool = False
    required: bool = False  # of an option, or of `many`; another positional argument always is
    optional: bool = False  # of a positional argument; of an option: its value
    many: bool = False  # of a positional argument: any number of them
    # Of a positional argument: what is taken without it beside a live session.
    live_default: str | None = None

    def add_to(self, parser: argparse.ArgumentParser, live: bool) -> None:
        """Declare it to argparse, for use beside a live session or without."""
        told: dict[str, Any] = {"help": self.help}
        if self.switch:
            told["action"] = "store_true"
        else:
            told.update(metavar=self.metavar, type=self.convert, default=self.default, choices=self.choices)
        if self.repeated:
            told.update(action="append", default=[])
        if self.dest:
            told["dest"] = self.dest
        if self.required:
            told["required"] = True
        if self.optional:
            told.update(nargs="?", const="")
        if self.many:
            told["nargs"] = "+" if self.required else "*"
            told.pop("required", None)
        if live and self.live_default:
            told.update(nargs="?", help=f"{self.help}; default: {self.live_default}")
        parser.add_argument(*self.names, **told)


@dataclass(frozen=True)
class Command:
    """One verb."""

    verb: str
    help: str
    example: str
    options: tuple[Option, ...]
    handler: Callable[[Request, Console], int]
    takes_program: bool = False
    shell_only: bool = False  # makes a target of its own
    live: bool = False  # works on the target of the debugger it is used in

    def is_offered(self, console: Console) -> bool:
        """Whether it can be used where `console` is."""
        return (console.shell or not self.shell_only) and (console.live is not None or not self.live)


class Parser(argparse.ArgumentParser):
    """A parser that tells of mistakes by UsageError: nothing may end a debugger."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        name, verb = self.prog.split()
        raise UsageError(f"{verb}: {message}; `{name} help {verb}` tells more")


def make_parser(command: Command, name: str = "calltrace", live: bool = False) -> Parser:
    """The parser of one command, for a user who calls us `name`; what follows -- is not its business.

    With `live` it is for use beside a live session.
    """
    parser = Parser(
        prog=f"{name} {command.verb}",
        description=command.help,
        epilog="example: " + command.example.replace("calltrace", name, 1),
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option in command.options:
        option.add_to(parser, live)
    if command.takes_program:
        parser.usage = parser.format_usage()[len("usage: ") :].rstrip() + " -- PROGRAM ARGS"
    return parser
