"""The command table: what every host's parsers, help and menus are made of."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

from calltrace import calltree, wine
from calltrace.errors import AccessRefused, FileMissing, NotTraceable, UsageError
from calltrace.export import FORMATS, report
from calltrace.export.text import TreeText
from calltrace.patterns import Pattern
from calltrace.tracefile import TraceFile

_SIZE = re.compile(r"(\d+)([KMG]?)\Z", re.IGNORECASE)
_DEFAULT_TREE_LIMIT = 500
_DEFAULT_TOP_LIMIT = 30


@dataclass(frozen=True)
class Console:
    """Where a host shows what commands say."""

    out: TextIO
    progress: Callable[[str], None]  # takes one line, without its line end
    name: str = "calltrace"  # what the user calls us by here
    # Text as a link that runs a command line of ours, given from the verb on, where links can be shown.
    link: Callable[[str, str], str] = lambda text, line: text
    shell: bool = True  # the user is in a shell, not in a debugger that has a target already


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
    required: bool = False  # of an option; a positional argument always is
    optional: bool = False  # of a positional argument

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Declare it to argparse."""
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
            told["nargs"] = "?"
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


class Parser(argparse.ArgumentParser):
    """A parser that tells of mistakes by UsageError: nothing may end a debugger."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        name, verb = self.prog.split()
        raise UsageError(f"{verb}: {message}; `{name} help {verb}` tells more")


def make_parser(command: Command, name: str = "calltrace") -> Parser:
    """The parser of one command, for a user who calls us `name`; what follows -- is not its business."""
    parser = Parser(
        prog=f"{name} {command.verb}",
        description=command.help,
        epilog="example: " + command.example.replace("calltrace", name, 1),
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option in command.options:
        option.add_to(parser)
    if command.takes_program:
        parser.usage = parser.format_usage()[len("usage: ") :].rstrip() + " -- PROGRAM ARGS"
    return parser


def number(text: str) -> int:
    """A count, decimal or 0x."""
    value = int(text, 0)
    if value < 0:
        raise ValueError
    return value


def seconds(text: str) -> float:
    """A time span above zero."""
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def byte_size(text: str) -> int:
    """A number of bytes, with K, M or G for powers of 1024."""
    parts = _SIZE.match(text)
    if not parts or not int(parts[1]):
        raise ValueError
    return int(parts[1]) << 10 * " KMG".index(parts[2].upper() or " ")


# argparse names these in its messages: "invalid number value".
byte_size.__name__ = "size"


def _trace_options(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "output": options.output,
        "events": options.events,
        "clock": options.clock,
        "include": options.include,
        "exclude": options.exclude,
        "modules": options.modules,
        "breakpoints": not options.no_breakpoints,
        "policy": options.policy,
        "max_size": options.max_size,
    }


def _check_patterns(options: argparse.Namespace) -> None:
    # Before a process is started or touched.
    for text in (*options.include, *options.exclude):
        Pattern.parse(text)


def _run(request: Request, console: Console) -> int:
    options = request.options
    if not request.program:
        raise UsageError("run: name a program after --, as in `calltrace run -- program.exe arguments`")
    _check_patterns(options)
    if os.name != "nt":
        return wine.relay((*request.words, "--", *request.program), options.prefix)
    from calltrace import session

    return session.run(
        session.RunOptions(
            program=request.program[0],
            arguments=request.program[1:],
            command_line=request.program_line,
            trace=session.TraceOptions(**_trace_options(options)),
        ),
        _progress(options, console),
    )


def _attach(request: Request, console: Console) -> int:
    options = request.options
    _check_patterns(options)
    if os.name != "nt":
        return wine.relay(request.words, options.prefix)
    from calltrace import session

    return session.attach(
        session.AttachOptions(
            process_id=options.pid,
            seconds=options.seconds,
            trace=session.TraceOptions(**_trace_options(options)),
        ),
        _progress(options, console),
    )


def _plan(request: Request, console: Console) -> int:
    options = request.options
    _check_patterns(options)
    process_id = _process_id(options.target)
    if process_id is not None and os.name != "nt":
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
        not options.no_breakpoints,
    )
    if process_id is not None:
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


def _progress(options: argparse.Namespace, console: Console) -> Callable[[str], None]:
    return (lambda line: None) if options.quiet else console.progress


def _info(request: Request, console: Console) -> int:
    with TraceFile(request.options.file) as trace:
        summary = calltree.summarize(trace)
        write = report.write_info_json if request.options.json else report.write_info
        write(trace, summary, console.out)
    return 0


def _tree(request: Request, console: Console) -> int:
    options = request.options
    with TraceFile(options.file) as trace:
        chosen = calltree.TreeFilter(
            thread=options.thread,
            functions=[Pattern.parse(text) for text in options.function],
            depth=options.depth,
            limit=options.limit,
        )
        tree, text = calltree.Tree(trace, chosen), TreeText(trace)
        for line in tree:
            console.out.write(text.line(line) + "\n")
        if tree.limited:
            console.out.write(f"limit of {options.limit:,} lines reached: --limit 0 shows all\n")
    return 0


def _top(request: Request, console: Console) -> int:
    with TraceFile(request.options.file) as trace:
        report.write_top(trace, calltree.summarize(trace), request.options.limit, console.out)
    return 0


def _export(request: Request, console: Console) -> int:
    options = request.options
    with TraceFile(options.file) as trace, ExitStack() as opened:
        out = console.out
        if options.output is not None:
            out = opened.enter_context(_created(options.output, trace.path))
        FORMATS[options.format](trace, out)
    return 0


def _created(path: Path, source: Path) -> TextIO:
    try:
        if path.exists() and path.samefile(source):
            raise UsageError(f"export: {path} is the trace itself: name another file with -o")
        return path.open("w", encoding="utf-8", newline="\n")
    except FileNotFoundError:
        raise FileMissing(f"cannot create {path}: its folder does not exist") from None
    except OSError as error:
        raise AccessRefused(f"cannot create {path}: {error.strerror}") from None


def _help(request: Request, console: Console) -> int:
    verb = request.options.verb
    if verb is None:
        console.out.write(overview(console))
    else:
        console.out.write(make_parser(find(verb, console), console.name).format_help())
    return 0


def find(verb: str, console: Console) -> Command:
    """The command of that verb. UsageError if there is none, or none here."""
    for command in COMMANDS:
        if command.verb == verb:
            if command.shell_only and not console.shell:
                raise UsageError(f"{verb} makes a target of its own: use it in a shell")
            return command
    raise UsageError(f"no command {verb}: `{console.name} help` lists them")


def overview(console: Console) -> str:
    """All commands that can be used in this place, one line each."""
    commands = [command for command in COMMANDS if console.shell or not command.shell_only]
    width = max(len(command.verb) for command in commands) + 2
    lines = [f"{console.name} COMMAND ...", ""]
    for command in commands:
        space = " " * (width - len(command.verb))
        lines.append(f"  {console.link(command.verb, f'help {command.verb}')}{space}{command.help}")
    return "\n".join([*lines, "", f"`{console.name} help COMMAND` tells more.", ""])


_FILE = Option(("file",), "a trace file", metavar="FILE")
_WHAT = (
    Option(
        ("--events",),
        "functions: entries and exits; outward: also calls that leave the traced code or whose target is "
        "not known beforehand (default); all: every call",
        choices=("functions", "outward", "all"),
        default="outward",
    ),
    Option(
        ("--clock",),
        "time of each event: none (default, fastest), tsc (exact, slower), coarse (cheaper than tsc)",
        choices=("none", "tsc", "coarse"),
        default="none",
    ),
    Option(
        ("--include",), "trace only these functions: module!function, with *", metavar="PAT", repeated=True
    ),
    Option(("--exclude",), "do not trace these functions", metavar="PAT", repeated=True),
    Option(("--modules",), "trace these modules beside the program itself", metavar="PAT", repeated=True),
    Option(
        ("--no-breakpoints",),
        "leave functions alone whose start has no room for a jump, but only for a breakpoint",
        switch=True,
    ),
)
_PREFIX = Option(
    ("--prefix",),
    "the Wine prefix to use; default: WINEPREFIX, else our own",
    metavar="DIR",
    convert=Path,
)
_RECORDING = (
    Option(
        ("-o",),
        "the trace file to write; default: PROGRAM.calltrace in the working folder",
        metavar="FILE",
        dest="output",
        convert=Path,
    ),
    *_WHAT,
    Option(
        ("--policy",),
        "when there is no more room: block the program until there is (default), or drop the oldest events",
        choices=("block", "drop-oldest"),
        default="block",
    ),
    Option(
        ("--max-size",),
        "how far the trace may grow: bytes, or a number with K, M or G; default: no limit",
        metavar="SIZE",
        convert=byte_size,
        default=0,
    ),
    _PREFIX,
    Option(("--quiet",), "say nothing but errors", switch=True),
)

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
        "plan",
        "Tell what tracing a program or a running process would do, or why it cannot be; nothing is touched.",
        "calltrace plan demo.exe --refused",
        (
            Option(
                ("target",),
                "a program's file, which is not started, or a process id; a file of that name comes first",
                metavar="PROGRAM|PID",
            ),
            *_WHAT,
            Option(("--refused",), "list each function that cannot be instrumented", switch=True),
            Option(("--json",), "as JSON, with every function", switch=True),
            _PREFIX,
        ),
        _plan,
    ),
    Command(
        "info",
        "Tell what a trace holds: modules, functions, threads, events, and what is missing.",
        "calltrace info demo.calltrace",
        (_FILE, Option(("--json",), "as JSON, with the address of each function refused", switch=True)),
        _info,
    ),
    Command(
        "tree",
        "Show the call tree, thread by thread.",
        "calltrace tree demo.calltrace --function demo!parse* --depth 3",
        (
            _FILE,
            Option(("--thread",), "one thread: its index or system id", metavar="N", convert=number),
            Option(
                ("--function",),
                "only these, with all they call: module!function with *, 0xVA, module+0xRVA",
                metavar="PAT",
                repeated=True,
            ),
            Option(("--depth",), "levels to show; 0: all (default)", metavar="N", convert=number, default=0),
            Option(
                ("--limit",),
                f"lines to show; 0: all; default: {_DEFAULT_TREE_LIMIT}",
                metavar="N",
                convert=number,
                default=_DEFAULT_TREE_LIMIT,
            ),
        ),
        _tree,
    ),
    Command(
        "top",
        "List the functions that took the most time; without a clock, those called most often.",
        "calltrace top demo.calltrace --limit 10",
        (
            _FILE,
            Option(
                ("--limit",),
                f"lines to show; 0: all; default: {_DEFAULT_TOP_LIMIT}",
                metavar="N",
                convert=number,
                default=_DEFAULT_TOP_LIMIT,
            ),
        ),
        _top,
    ),
    Command(
        "export",
        "Write the whole trace as text (call tree), CSV (events) or Chrome's trace events.",
        "calltrace export --format chrome demo.calltrace -o demo.json",
        (
            Option(("--format",), "what to write", choices=tuple(FORMATS), required=True),
            _FILE,
            Option(("-o",), "default: the standard output", metavar="FILE", dest="output", convert=Path),
        ),
        _export,
    ),
    Command(
        "help",
        "List the commands, or tell of one.",
        "calltrace help tree",
        (Option(("verb",), "a command", metavar="COMMAND", optional=True),),
        _help,
    ),
)
