"""The commands that show what a trace holds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from calltrace import calltree, edges
from calltrace.commands.command import Command, Console, Option, Request
from calltrace.commands.context import names_of, open_trace, tell_muted, thread_of
from calltrace.commands.options import FILE, THREAD, limit, number
from calltrace.export import report
from calltrace.export.edges import write_edges, write_edges_json
from calltrace.export.stacks import write_stacks, write_stacks_json
from calltrace.export.text import write_tree
from calltrace.export.tree import write_tree_json
from calltrace.patterns import Pattern
from calltrace.stacks import stacks
from calltrace.tracefile import TraceFile


def _info(request: Request, console: Console) -> int:
    with open_trace(request, console) as trace:
        summary = calltree.summarize(trace)
        write = report.write_info_json if request.options.json else report.write_info
        write(trace, summary, console.out)
    return 0


def _tree(request: Request, console: Console) -> int:
    options = request.options
    with open_trace(request, console) as trace:
        chosen = calltree.TreeFilter(
            thread=thread_of(request, console),
            functions=[Pattern.parse(text) for text in options.function],
            depth=_depth(request, console),
            limit=options.limit,
        )
        _tell_mode(trace, console)
        tell_muted(trace, console)
        if options.json:
            write_tree_json(trace, calltree.Tree(trace, chosen), console.out)
        elif write_tree(trace, chosen, console.out, names_of(request, console)):
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
    with open_trace(request, console) as trace:
        summary = calltree.summarize(trace, thread_of(request, console))
        _tell_mode(trace, console)
        if options.json:
            report.write_top_json(trace, summary, options.limit, console.out, order)
        else:
            names = names_of(request, console)
            report.write_top(trace, summary, options.limit, console.out, order, names)
            if options.file is None:
                whole = options.thread is None
                console.show_functions(
                    summary.stats, lambda: edges.callers(trace) if whole else {}, trace.mode == "hits"
                )
    return 0


def _tell_mode(trace: TraceFile, console: Console) -> None:
    """Say what the numbers and trees of first entries do not mean."""
    if trace.mode == "hits":
        console.progress(f"recorded with --mode {trace.mode}: {report.MODE_TEXTS[trace.mode]}")


def _callers(request: Request, console: Console) -> int:
    return _edges(request, console, callees=False)


def _callees(request: Request, console: Console) -> int:
    return _edges(request, console, callees=True)


def _edges(request: Request, console: Console, *, callees: bool) -> int:
    options = request.options
    pattern = Pattern.parse(options.function)
    with open_trace(request, console) as trace:
        thread = thread_of(request, console)
        found = edges.contexts(trace, [pattern], callees=callees, depth=options.depth, thread=thread)
        _tell_mode(trace, console)
        if options.json:
            write_edges_json(trace, found, callees, console.out)
        elif found:
            names = names_of(request, console)
            write_edges(trace, found, callees, options.limit, console.out, names)
        else:
            console.out.write(f"no call of {pattern.text} was recorded\n")
    return 0


def _stacks(request: Request, console: Console) -> int:
    options = request.options
    with (
        open_trace(request, console) as trace,
        closing(stacks(trace, thread_of(request, console))) as found,
    ):
        _tell_mode(trace, console)
        if options.json:
            write_stacks_json(trace, found, options.limit, console.out)
        else:
            write_stacks(trace, found, options.limit, console.out, names_of(request, console))
    return 0


_EDGES = (
    FILE,
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
    THREAD,
    limit(100),
    Option(("--json",), "as JSON, complete", switch=True),
)


COMMANDS: Sequence[Command] = (
    Command(
        "info",
        "Tell what a trace holds: modules, functions, threads, events, and what is missing.",
        "calltrace info demo.calltrace",
        (FILE, Option(("--json",), "as JSON, with the address of each function refused", switch=True)),
        _info,
    ),
    Command(
        "tree",
        "Show the call tree, thread by thread.",
        "calltrace tree demo.calltrace --function demo!parse* --depth 3",
        (
            FILE,
            THREAD,
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
            limit(500),
            Option(("--json",), "as JSON, with addresses, and times in ticks", switch=True),
        ),
        _tree,
    ),
    Command(
        "top",
        "List the functions that took the most time; without a clock, those called most often.",
        "calltrace top demo.calltrace --limit 10",
        (
            FILE,
            THREAD,
            Option(
                ("--sort",),
                "by calls, self time, or total time; default: self, without a clock calls",
                choices=tuple(order.value for order in report.Order),
            ),
            limit(30),
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
            FILE,
            THREAD,
            limit(200, "frames of each thread to show"),
            Option(("--json",), "as JSON, with addresses", switch=True),
        ),
        _stacks,
    ),
)
