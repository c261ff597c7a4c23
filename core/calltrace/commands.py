"""The command table: what every host's parsers, help and menus are made of."""

from __future__ import annotations

import argparse
import functools
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from calltrace import calltree, comparison, edges, parts, query, wine
from calltrace.errors import FileMissing, NotTraceable, UsageError
from calltrace.export import FORMATS, To, report
from calltrace.export import comparison as comparisons
from calltrace.export.edges import write_edges, write_edges_json
from calltrace.export.files import created
from calltrace.export.stacks import write_stacks, write_stacks_json
from calltrace.export.status import write_status, write_status_json
from calltrace.export.text import write_tree
from calltrace.export.tree import write_tree_json
from calltrace.export.units import NameText, plain
from calltrace.model import PAUSED, RESUMED
from calltrace.patterns import Pattern
from calltrace.stacks import stacks
from calltrace.tracefile import TraceFile

if TYPE_CHECKING:
    from calltrace import session
    from calltrace.live import LiveSession
    from calltrace.loop.tracing import Climb, LoopOptions

_PLACE = re.compile(r"((?:call at |call )?)([^!+]+)([!+].+)")  # of the names that frames have
_DEBUGGER_THREAD = re.compile(r"~(\d+|[.#])\Z")
_SIZE = re.compile(r"(\d+)([KMG]?)\Z", re.IGNORECASE)
_DEFAULT_TREE_LIMIT = 500
_DEFAULT_TOP_LIMIT = 30
_DEFAULT_EDGES_LIMIT = 100
_DEFAULT_STACK_LIMIT = 200
_DEFAULT_QUERY_LIMIT = 1000
_DEFAULT_LOOP_SECONDS = 30.0


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
    # Shows what was called how often, and by whom, where a debugger has a place for that beside text.
    show_functions: Callable[[Sequence[calltree.CallStat], CallersOf], None] = lambda stats, callers: None


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
    live_default: str | None = (
        None  # of a positional argument: what is taken without it beside a live session
    )

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


def number(text: str) -> int:
    """A count, decimal or 0x."""
    value = int(text, 0)
    if value < 0:
        raise ValueError
    return value


def positive(text: str) -> int:
    """A count above zero."""
    value = number(text)
    if not value:
        raise ValueError
    return value


def thread(text: str) -> int | str:
    """A thread's number, or its name in a debugger."""
    return text if _DEBUGGER_THREAD.match(text) else number(text)


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
    names = "output mode budget events clock include exclude modules policy max_size".split()
    told = {name: value for name, value in vars(options).items() if name in names}
    _check_mode(options)
    told["include"] = _patterns(options.include)
    told["exclude"] = _patterns(options.exclude)
    return {**told, "breakpoints": "no_breakpoints" in options and not options.no_breakpoints}


def _patterns(words: Sequence[str]) -> list[str]:
    """Patterns as they were given, or @FILE of them: one a line."""
    found = []
    for word in words:
        found += (
            [line for line in map(str.strip, _lines(Path(word[1:]))) if line] if word[:1] == "@" else [word]
        )
    return found


def _check_mode(options: argparse.Namespace) -> None:
    told = vars(options)
    if told.get("mode") == "graph" and (told["max_size"] or told["policy"] != "block"):
        raise UsageError("--mode graph keeps no events: leave out --policy and --max-size")
    if told.get("budget") and told["mode"] != "trace":
        raise UsageError(f"--budget is for recordings of every call: leave out --mode {told['mode']}")
    if told.get("budget") and told["policy"] != "block":
        raise UsageError("--budget keeps the first calls: leave out --policy drop-oldest")


def _check_options(options: argparse.Namespace) -> None:
    # Before a process is started or touched.
    _check_mode(options)
    for text in (*_patterns(options.include), *_patterns(options.exclude)):
        Pattern.parse(text)


def _check_program(request: Request) -> None:
    # Before a process is started.
    verb = request.words[0]
    if not request.program:
        raise UsageError(
            f"{verb}: name a program after --, as in `calltrace {verb} -- program.exe arguments`"
        )
    _check_options(request.options)


def _run_options(request: Request) -> session.RunOptions:
    from calltrace import session

    return session.RunOptions(
        program=request.program[0],
        arguments=request.program[1:],
        command_line=request.program_line,
        trace=session.TraceOptions(**_trace_options(request.options)),
        symbols=request.options.symbols,
    )


def _run(request: Request, console: Console) -> int:
    options = request.options
    _check_program(request)
    if os.name != "nt":
        return wine.relay((*request.words, "--", *request.program), options.prefix)
    from calltrace import session

    return session.run(_run_options(request), _progress(options, console))


def _reference(request: Request, console: Console) -> int:
    options = request.options
    _check_program(request)
    if os.name != "nt":
        return wine.relay((*request.words, "--", *request.program), options.prefix)
    from calltrace import session

    return session.run_reference(_run_options(request), options.single_step, _progress(options, console))


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
        _progress(options, console),
        console.progress,  # the standard output is the program's
    )


def _attach(request: Request, console: Console) -> int:
    options = request.options
    _check_options(options)
    if os.name != "nt":
        return wine.relay(request.words, options.prefix)
    from calltrace import session

    return session.attach(
        session.AttachOptions(
            process_id=options.pid,
            seconds=options.seconds,
            trace=session.TraceOptions(**_trace_options(options)),
            symbols=options.symbols,
        ),
        _progress(options, console),
    )


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
        return looping.attach(options.pid, chosen, recording, show, _progress(options, console))
    return looping.run(
        request.program[0],
        request.program[1:],
        request.program_line,
        chosen,
        recording,
        show,
        _progress(options, console),
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
            with created(Path(options.include), None, _open_text) as file:
                file.writelines(pattern + "\n" for pattern in patterns)
        else:
            for pattern in patterns:
                console.progress(f"--include {pattern}")


def _start_subtree(climb: Climb, console: Console) -> None:
    from calltrace import session

    patterns = [climb.places.place(each) for each in climb.subtree]
    _live(console).start(session.TraceOptions(breakpoints=False), patterns, (), console.progress)


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
    with _trace_of(options.from_trace or None, console) as trace:
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
        thread=_thread(request, console),
        seconds=options.timeout or _DEFAULT_LOOP_SECONDS,
        modules=options.module,
        arguments=options.args,
        prototypes=_lines(options.prototypes) if options.prototypes else (),
        group_by=options.group_by,
        subtree=options.include is not None or options.start is not None,
    )


def _show_loop(climb: Climb, request: Request, console: Console) -> None:
    from calltrace.export.loop import write_loop, write_loop_json

    options = request.options
    write = write_loop_json if options.json else write_loop
    if options.output is not None:
        source = Path(options.from_trace) if options.from_trace else None
        with created(options.output, source, _open_text) as file:
            write(climb, file, plain)
    elif request.program:  # the standard output is the program's
        text = io.StringIO()
        write(climb, text, plain)
        for line in text.getvalue().splitlines():
            console.progress(line)
    else:
        write(climb, console.out, console.code_link)
    _act_on_frame(climb, request, console)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileMissing(f"{path} cannot be read: {error}") from error


def _install_x64dbg(request: Request, console: Console) -> int:
    if os.name != "nt":
        return wine.relay(request.words, request.options.prefix)
    from calltrace.install import install_x64dbg

    plugin, client = install_x64dbg(request.options.folder)
    console.progress(f"installed {plugin}: type `calltrace` in x64dbg")
    if client:
        console.progress(f"installed {client}: `import {client.stem}` in scripts of x64dbgpy")
    return 0


def _start(request: Request, console: Console) -> int:
    from calltrace import session

    options = request.options
    # Each int3 of ours would stop the debugger: `_trace_options` leaves functions out that need one.
    trace = session.TraceOptions(**_trace_options(options))
    patterns = [*options.patterns, *(f"{module}!*" for module in options.only)]
    _live(console).start(trace, patterns, options.ignored, console.progress)
    _live(console).depth = options.depth
    return 0


def _reference_live(request: Request, console: Console) -> int:
    from calltrace import session

    trace = session.TraceOptions(**_trace_options(request.options))
    _tell_recorded(_live(console).reference(trace, request.options.single_step, console.progress), console)
    return 0


def _stop(request: Request, console: Console) -> int:
    live = _live(console)
    with live.uninterrupted():
        _tell_recorded(live.stop(console.progress), console)
    return 0


def _tell_recorded(path: Path, console: Console) -> None:
    with TraceFile(path) as trace:
        verb = "top" if trace.counts_only else "tree"
    size = path.stat().st_size / 1e6
    console.progress(f"recorded {path} ({size:,.1f} MB): `{console.name} {verb}` shows it")


def _pause(request: Request, console: Console) -> int:
    _live(console).pause(console.progress)
    return 0


def _resume(request: Request, console: Console) -> int:
    _live(console).resume(console.progress)
    return 0


def _mark(request: Request, console: Console) -> int:
    _live(console).mark(" ".join(request.options.name), console.progress)
    return 0


def _mark_file(request: Request, console: Console) -> int:
    from calltrace.marking import mark

    mark(Path(request.options.file), " ".join(request.options.name))
    return 0


def _save(request: Request, console: Console) -> int:
    _live(console).save(request.options.path, console.progress)
    return 0


def _status(request: Request, console: Console) -> int:
    told = _live(console).status(console.progress)
    write = write_status_json if request.options.json else write_status
    write(told, console.out)
    return 0


def _live(console: Console) -> LiveSession:
    assert console.live  # or the command would not be offered
    return console.live


def _open_trace(request: Request, console: Console) -> TraceFile:
    """The trace that was named, or that of the live session."""
    return _trace_of(request.options.file, console)


def _trace_of(file: str | None, console: Console) -> TraceFile:
    """The trace in `file`, or, without one, that of the live session."""
    if file is not None:
        return _checked(TraceFile(file), console)
    live = _live(console)
    return _checked(TraceFile(live.trace(console.progress), under_way=live.recording), console)


def _checked(trace: TraceFile, console: Console) -> TraceFile:
    """The trace; what is missing from it is told."""
    for line in report.missing(trace):
        console.progress(line)
    trace.on_read = functools.partial(console.meter, f"reading {trace.path.name}")
    return trace


def _open_parts(named: Sequence[parts.Part], console: Console, opened: ExitStack) -> list[TraceFile]:
    """The trace of each part; one file is opened once, so that it is the same in all of its parts."""
    traces: dict[Path, TraceFile] = {}
    found = []
    for part in named:
        under_way = False
        path = part.file
        if path is None:
            if not console.live:
                raise UsageError(f"{part.text}: name a trace file: no recording is under way in a shell")
            path, under_way = console.live.trace(console.progress), console.live.recording
        path = path.absolute()
        if path not in traces:
            traces[path] = opened.enter_context(_checked(TraceFile(path, under_way), console))
        found.append(traces[path])
    return found


def _tell_mode(trace: TraceFile, console: Console) -> None:
    """Say what the numbers and trees of first entries do not mean."""
    if trace.mode == "hits":
        console.progress(f"recorded with --mode {trace.mode}: {report.MODE_TEXTS[trace.mode]}")


def _tell_muted(trace: TraceFile, console: Console) -> None:
    """Say which calls events do not tell of."""
    if trace.budget:
        console.progress(report.muted_text(trace))


def _thread(request: Request, console: Console) -> int | None:
    """The thread that was named: an index or a system id."""
    named: int | str | None = request.options.thread
    if not isinstance(named, str):
        return named
    if not console.live:
        raise UsageError(f"{named} is a thread's number in a debugger: name its index or system id")
    return console.live.thread_id(named)


def _names(request: Request, console: Console) -> NameText:
    return _names_in(request.options.file, console)


def _names_in(file: str | None, console: Console) -> NameText:
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


def _plan(request: Request, console: Console) -> int:
    options = request.options
    _check_options(options)
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

        chosen = replace(chosen, symbols=SymbolFiles(options.symbols, console.progress).of_module)
    if options.target is None:
        with _live(console).target() as port:
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


def _progress(options: argparse.Namespace, console: Console) -> Callable[[str], None]:
    return (lambda line: None) if options.quiet else console.progress


def _info(request: Request, console: Console) -> int:
    with _open_trace(request, console) as trace:
        summary = calltree.summarize(trace)
        write = report.write_info_json if request.options.json else report.write_info
        write(trace, summary, console.out)
    return 0


def _tree(request: Request, console: Console) -> int:
    options = request.options
    with _open_trace(request, console) as trace:
        chosen = calltree.TreeFilter(
            thread=_thread(request, console),
            functions=[Pattern.parse(text) for text in options.function],
            depth=_depth(request, console),
            limit=options.limit,
        )
        _tell_mode(trace, console)
        _tell_muted(trace, console)
        if options.json:
            write_tree_json(trace, calltree.Tree(trace, chosen), console.out)
        elif write_tree(trace, chosen, console.out, _names(request, console)):
            console.out.write(f"limit of {options.limit:,} lines reached: --limit 0 shows all\n")
    return 0


def _depth(request: Request, console: Console) -> int:
    """The levels to show: those asked for here, or when the recording was started."""
    told: int | None = request.options.depth
    if told is None:
        told = console.live.depth if console.live and request.options.file is None else 0
    return told


def _top(request: Request, console: Console) -> int:
    options = request.options
    order = report.Order(options.sort) if options.sort else None
    with _open_trace(request, console) as trace:
        summary = calltree.summarize(trace, _thread(request, console))
        _tell_mode(trace, console)
        if options.json:
            report.write_top_json(trace, summary, options.limit, console.out, order)
        else:
            names = _names(request, console)
            report.write_top(trace, summary, options.limit, console.out, order, names)
            if options.file is None:
                whole = options.thread is None
                console.show_functions(summary.stats, lambda: edges.callers(trace) if whole else {})
    return 0


def _stacks(request: Request, console: Console) -> int:
    options = request.options
    with (
        _open_trace(request, console) as trace,
        closing(stacks(trace, _thread(request, console))) as found,
    ):
        if options.json:
            write_stacks_json(trace, found, options.limit, console.out)
        else:
            write_stacks(trace, found, options.limit, console.out, _names(request, console))
    return 0


def _callers(request: Request, console: Console) -> int:
    return _edges(request, console, callees=False)


def _callees(request: Request, console: Console) -> int:
    return _edges(request, console, callees=True)


def _edges(request: Request, console: Console, *, callees: bool) -> int:
    options = request.options
    pattern = Pattern.parse(options.function)
    with _open_trace(request, console) as trace:
        thread = _thread(request, console)
        found = edges.contexts(trace, [pattern], callees=callees, depth=options.depth, thread=thread)
        if options.json:
            write_edges_json(trace, found, callees, console.out)
        elif found:
            names = _names(request, console)
            write_edges(trace, found, callees, options.limit, console.out, names)
        else:
            console.out.write(f"no call of {pattern.text} was recorded\n")
    return 0


def _diff(request: Request, console: Console) -> int:
    options, wanted = request.options, parts.parse(request.options.parts)
    with ExitStack() as opened:
        if isinstance(wanted, parts.Expression):
            return _tell_set(wanted, _open_parts(wanted.parts, console, opened), request, console)
        traces = _open_parts(wanted, console, opened)
        counts = comparison.count(wanted, traces, callers=options.edges)
        if options.json:
            different = {key for key in counts.items if comparisons.is_different(counts, key)}
            comparisons.write_json(counts, [str(trace.path) for trace in traces], different, console.out)
            return int(bool(different))
        _tell_notes(counts, console)
        names = _item_names(counts.parts, console)
        return int(comparisons.write_difference(counts, options.limit, console.out, names))


def _new(request: Request, console: Console) -> int:
    words = request.options.words
    is_file = words and (console.live is None or Path(words[0]).is_file())
    file, mark = (words[0], " ".join(words[1:])) if is_file else ("", " ".join(words))
    if not file and not console.live:
        raise UsageError("new: name a trace file")
    with ExitStack() as opened:
        [trace] = _open_parts([parts.Part.parse(file)], console, opened)
        mark = mark or _last_mark(trace)
        since, before = parts.Part.parse(f"{file}@{mark}.."), parts.Part.parse(f"{file}@..{mark}")
        wanted = parts.Expression((since, before), lambda sets: sets[0] - sets[1])
        return _tell_set(wanted, [trace, trace], request, console)


def _last_mark(trace: TraceFile) -> str:
    for mark in reversed(trace.marks):
        if mark.name not in (PAUSED, RESUMED):
            number = sum(other.name == mark.name for other in trace.marks)
            return f"{mark.name}#{number}" if number > 1 else mark.name
    raise UsageError(f"{trace.path} has no mark: set one with `mark NAME` while it is being recorded")


def _tell_set(
    wanted: parts.Expression, traces: Sequence[TraceFile], request: Request, console: Console
) -> int:
    options = request.options
    counts = comparison.count(wanted.parts, traces, callers=options.edges)
    members = wanted.result(counts.ran())
    if options.json:
        comparisons.write_json(counts, [str(trace.path) for trace in traces], members, console.out)
    else:
        _tell_notes(counts, console)
        names = _item_names(counts.parts, console)
        comparisons.write_set(counts, members, options.limit, console.out, names)
    return 0


def _tell_notes(counts: comparison.Counts, console: Console) -> None:
    for note in counts.notes:
        console.progress(note)


def _item_names(named: Sequence[parts.Part], console: Console) -> NameText:
    """How names are shown: in a debugger with links, if all are of one trace."""
    files = {part.file for part in named}
    if len(files) > 1:
        return console.names
    [file] = files
    return _names_in(None if file is None else str(file), console)


def _export(request: Request, console: Console) -> int:
    options = request.options
    with _open_trace(request, console) as trace, ExitStack() as opened:
        form, path = FORMATS[options.format], options.output
        if not form.of_counts:
            trace.need_events()
            _tell_muted(trace, console)
        if path is None and (
            form.to is not To.TEXT or not console.shell
        ):  # no user can read it on the screen
            path = trace.path.with_suffix(form.suffix)
            console.progress(f"writing {path}")
        if form.to is To.PATH:
            for further in form.write(trace, path)[1:]:
                console.progress(f"writing {further}")
            return 0
        made = opened.enter_context(created(path, trace.path, _open_text)) if path else console.out
        form.write(trace, made.buffer if form.to is To.BYTES else made)
    return 0


def _query(request: Request, console: Console) -> int:
    options = request.options
    with ExitStack() as opened:
        if options.file is None:
            traces = [opened.enter_context(_open_trace(request, console))]
        else:
            paths = query.traces_in(options.file)
            traces = [opened.enter_context(_checked(TraceFile(path), console)) for path in paths]
        for trace in traces:
            _tell_muted(trace, console)

        def show(result: query.Result) -> None:
            if options.json:
                query.write_json(result, console.out)
            else:
                query.write(result, options.limit, console.out)

        query.run(traces, options.sql, show, console.progress)
    return 0


def _report(request: Request, console: Console) -> int:
    from calltrace.export import html

    options = request.options
    with ExitStack() as opened:
        traces = [opened.enter_context(_open_trace(request, console))]
        if options.second is not None:
            traces.append(opened.enter_context(_checked(TraceFile(options.second), console)))
        path: Path = options.output or traces[0].path.with_suffix(".html")
        if path.exists() and any(path.samefile(trace.path) for trace in traces):
            raise UsageError(f"report: {path} is the trace itself: name another file with -o")
        page = html.page(traces)
        with created(path, None, _open_text) as file:
            file.write(page)
    console.progress(f"wrote {path} ({path.stat().st_size / 1e6:,.1f} MB): open it in a browser")
    return 0


def _open_text(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="\n")


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


_FILE = Option(
    ("file",), "a trace file", metavar="FILE", live_default="the recording under way, or the last one"
)
_OUTPUT = Option(
    ("-o",),
    "the trace file to write; default: PROGRAM.calltrace in the working folder",
    metavar="FILE",
    dest="output",
    convert=Path,
)
_LIVE_OUTPUT = Option(
    ("-o",),
    "the trace file to write; default: a new PROGRAM.calltrace in the user's folder for data",
    metavar="FILE",
    dest="output",
    convert=Path,
)
_PREFIX = Option(
    ("--prefix",),
    "the Wine prefix to use; default: WINEPREFIX, else our own",
    metavar="DIR",
    convert=Path,
)
_SYMBOLS = Option(
    ("--symbols",),
    "where to look for the program databases (PDB) of modules, beside the folders these are in, as in "
    "_NT_SYMBOL_PATH; default: what that says",
    metavar="PATH",
    default="",
)
_QUIET = Option(("--quiet",), "say nothing but errors", switch=True)
_EVENTS = Option(
    ("--events",),
    "functions: entries and exits; outward: also calls that leave the traced code or whose target is "
    "not known beforehand (default); all: every call",
    choices=("functions", "outward", "all"),
    default="outward",
)
_PATTERNS = (
    Option(
        ("--include",),
        "trace only these functions: module!function, with *, or @FILE with one on each line",
        metavar="PAT",
        repeated=True,
    ),
    Option(("--exclude",), "do not trace these functions", metavar="PAT", repeated=True),
    Option(("--modules",), "trace these modules beside the program itself", metavar="PAT", repeated=True),
)
_FUNCTIONS = (
    *_PATTERNS,
    Option(
        ("--no-breakpoints",),
        "leave functions alone whose start has no room for a jump, but only for a breakpoint",
        switch=True,
    ),
)
_CLOCK = Option(
    ("--clock",),
    "time of each event: none (default, fastest), tsc (exact, slower), coarse (cheaper than tsc)",
    choices=("none", "tsc", "coarse"),
    default="none",
)
_MODE = Option(
    ("--mode",),
    "trace (default): every call; hits: the first entry of each function, which then runs at full speed; "
    "graph: how often, and with a clock how long, by function and by who calls whom, in a small file",
    choices=("trace", "hits", "graph"),
    default="trace",
)
_BUDGET = Option(
    ("--budget",),
    "mute a function, or a call that leaves the traced code, after N calls in a thread: further ones are "
    "counted, exactly as by --mode graph, and recorded only where they lead to others that are not muted; "
    "`tree` says where; default: nothing is muted",
    metavar="N",
    convert=positive,
    default=0,
)
_WHAT = (_EVENTS, _CLOCK, *_FUNCTIONS)
_ROOM = (
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
)
_RECORDING = (_OUTPUT, _MODE, _BUDGET, *_WHAT, *_ROOM, _SYMBOLS, _PREFIX, _QUIET)
_SINGLE_STEP = Option(
    ("--single-step",),
    "also step through every instruction of the traced modules: slower still, but independent of what can be "
    "known of a function beforehand",
    switch=True,
)

_THREAD = Option(
    ("--thread",),
    "one thread: its index or system id; in a debugger also its number there, as ~N",
    metavar="N",
    convert=thread,
)
_EDGES = (
    _FILE,
    Option(
        ("function",),
        "a function or import: module!function with *, 0xVA, module+0xRVA",
        metavar="FUNCTION",
    ),
    Option(
        ("--depth",),
        f"levels to tell apart, 1 (default) to {edges.LEVELS}",
        metavar="N",
        convert=number,
        default=1,
    ),
    _THREAD,
    Option(
        ("--limit",),
        f"lines to show; 0: all; default: {_DEFAULT_EDGES_LIMIT}",
        metavar="N",
        convert=number,
        default=_DEFAULT_EDGES_LIMIT,
    ),
    Option(("--json",), "as JSON, complete", switch=True),
)

_COMPARED = (
    Option(("--edges",), "tell calls apart by their callers", switch=True),
    Option(
        ("--limit",),
        f"lines of each list to show; 0: all; default: {_DEFAULT_EDGES_LIMIT}",
        metavar="N",
        convert=number,
        default=_DEFAULT_EDGES_LIMIT,
    ),
    Option(("--json",), "as JSON, complete", switch=True),
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
        "reference",
        "Trace a program exactly and slowly, by breakpoints: what `run` is held against. It runs under a "
        "debugger: exceptions pass through, but timing differs, and no filter for unhandled ones is called.",
        "calltrace reference -o demo.calltrace -- demo.exe 1+2",
        (_OUTPUT, _EVENTS, *_FUNCTIONS, _SINGLE_STEP, _SYMBOLS, _PREFIX, _QUIET),
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
            _EVENTS,
            *_FUNCTIONS,
            _SINGLE_STEP,
            _SYMBOLS,
            _PREFIX,
            _QUIET,
        ),
        _diff_reference,
        takes_program=True,
        shell_only=True,
    ),
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
            _PREFIX,
            _QUIET,
        ),
        _loop,
        takes_program=True,
    ),
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
            _LIVE_OUTPUT,
            _MODE,
            _BUDGET,
            _EVENTS,
            _CLOCK,
            *_PATTERNS,
            *_ROOM,
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
            _LIVE_OUTPUT,
            _EVENTS,
            *_PATTERNS,
            _SINGLE_STEP,
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
        "resume",
        "Go on recording after pause.",
        "calltrace resume",
        (),
        _resume,
        live=True,
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
        (_FILE, Option(("name",), "the name", metavar="NAME", many=True, required=True)),
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
    Command(
        "x64dbg-install",
        "Put the plugin into an x64dbg, where it finds this calltrace and its Python.",
        r"calltrace x64dbg-install C:\x64dbg",
        (
            Option(("folder",), "the folder that x64dbg was unpacked to", metavar="DIR", convert=Path),
            _PREFIX,
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
            *_WHAT,
            Option(("--refused",), "list each function that cannot be instrumented", switch=True),
            Option(("--json",), "as JSON, with every function", switch=True),
            _SYMBOLS,
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
            _THREAD,
            Option(
                ("--function",),
                "only these, with all they call: module!function with *, 0xVA, module+0xRVA",
                metavar="PAT",
                repeated=True,
            ),
            Option(
                ("--depth", "-l"),
                "levels to show; 0: all; default: as `start -l` said, or all",
                metavar="N",
                convert=number,
            ),
            Option(
                ("--limit",),
                f"lines to show; 0: all; default: {_DEFAULT_TREE_LIMIT}",
                metavar="N",
                convert=number,
                default=_DEFAULT_TREE_LIMIT,
            ),
            Option(("--json",), "as JSON, with addresses, and times in ticks", switch=True),
        ),
        _tree,
    ),
    Command(
        "top",
        "List the functions that took the most time; without a clock, those called most often.",
        "calltrace top demo.calltrace --limit 10",
        (
            _FILE,
            _THREAD,
            Option(
                ("--sort",),
                "by calls, self time, or total time; default: self, without a clock calls",
                choices=tuple(order.value for order in report.Order),
            ),
            Option(
                ("--limit",),
                f"lines to show; 0: all; default: {_DEFAULT_TOP_LIMIT}",
                metavar="N",
                convert=number,
                default=_DEFAULT_TOP_LIMIT,
            ),
            Option(("--json",), "as JSON, with times in ticks", switch=True),
        ),
        _top,
    ),
    Command(
        "callers",
        "Tell who called a function or an import, how often, and how long that took.",
        "calltrace callers demo.calltrace demo!parse_number --depth 3",
        _EDGES,
        _callers,
    ),
    Command(
        "callees",
        "Tell what a function called, how often, and how long that took.",
        "calltrace callees demo.calltrace demo!main",
        _EDGES,
        _callees,
    ),
    Command(
        "stacks",
        "Show the call stack of each thread where its recording ended; now, while it is being recorded.",
        "calltrace stacks demo.calltrace --thread 0",
        (
            _FILE,
            _THREAD,
            Option(
                ("--limit",),
                f"frames of each thread to show; 0: all; default: {_DEFAULT_STACK_LIMIT}",
                metavar="N",
                convert=number,
                default=_DEFAULT_STACK_LIMIT,
            ),
            Option(("--json",), "as JSON, with addresses", switch=True),
        ),
        _stacks,
    ),
    Command(
        "new",
        "List the functions, and the imports called, that were seen first since a mark.",
        "calltrace new demo.calltrace before the click",
        (
            Option(
                ("words",),
                "a trace file, default in a debugger: the recording under way, or the last one; and the name "
                "of a mark, default: the last one",
                metavar="FILE|MARK",
                many=True,
            ),
            *_COMPARED,
        ),
        _new,
    ),
    Command(
        "diff",
        "Compare what was called in two traces, or in parts of them; or list what is in a set made of parts: "
        "in this, and not in that. The exit code is 1 if two differ.",
        "calltrace diff demo.calltrace@click - demo.calltrace@idle",
        (
            Option(
                ("parts",),
                "two parts, or parts with & (in both), | (in either), - (but not in) and parentheses between "
                "them, which a shell wants quoted. A part is FILE, or FILE@MARK: from that mark to the next; "
                "FILE@MARK..MARK, FILE@MARK.. or FILE@..MARK. MARK#2 is the second of that name. In a "
                "debugger FILE may be left out, or a dot: the recording under way, or the last one",
                metavar="PART",
                many=True,
                required=True,
            ),
            *_COMPARED,
        ),
        _diff,
    ),
    Command(
        "export",
        "Write the whole trace for other tools: events, stacks, call graphs, coverage, names and comments.",
        "calltrace export chrome demo.calltrace -o demo.json",
        (
            Option(
                ("format",), f"what to write: {', '.join(FORMATS)}", metavar="FORMAT", choices=tuple(FORMATS)
            ),
            _FILE,
            Option(
                ("-o",),
                "default: the standard output; for drcov, perfetto and parquet, and in a debugger, a file or "
                "folder beside the trace",
                metavar="FILE",
                dest="output",
                convert=Path,
            ),
        ),
        _export,
    ),
    Command(
        "report",
        "Write one self-contained HTML page: summary, time line, flame graph, functions with their callers "
        "and callees; of two traces also what differs.",
        "calltrace report demo.calltrace -o demo.html",
        (
            _FILE,
            Option(
                ("second",),
                "another trace, which the first is compared with",
                metavar="FILE2",
                optional=True,
            ),
            Option(
                ("-o",),
                "the page to write; default: beside FILE, as .html",
                metavar="PAGE",
                dest="output",
                convert=Path,
            ),
        ),
        _report,
    ),
    Command(
        "query",
        "Answer SQL over a trace, or all traces in a folder: tables events, functions, edges and threads, "
        "which are written beside each trace as Parquet at first.",
        'calltrace query demo.calltrace "SELECT name, calls FROM functions ORDER BY calls DESC LIMIT 5"',
        (
            Option(
                ("file",),
                "the trace file, or a folder with *.calltrace files",
                metavar="FILE",
                convert=Path,
                live_default="the trace of this recording, or of the last",
            ),
            Option(("sql",), "DuckDB's SQL; in double quotes if it has blanks", metavar="SQL"),
            Option(
                ("--limit",),
                f"rows to show; 0: all; default: {_DEFAULT_QUERY_LIMIT}",
                metavar="N",
                convert=number,
                default=_DEFAULT_QUERY_LIMIT,
            ),
            Option(("--json",), "a JSON object for each row, a line each, complete", switch=True),
        ),
        _query,
    ),
    Command(
        "help",
        "List the commands, or tell of one.",
        "calltrace help tree",
        (Option(("verb",), "a command", metavar="COMMAND", optional=True),),
        _help,
    ),
)
