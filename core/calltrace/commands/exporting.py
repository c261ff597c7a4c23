"""The commands that write a trace for other tools, or ask them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from calltrace import query
from calltrace.commands.command import Command, Console, Option, Request
from calltrace.commands.context import checked, open_text, open_trace, tell_muted
from calltrace.commands.options import FILE, limit
from calltrace.errors import UsageError
from calltrace.export import FORMATS, To
from calltrace.export.files import created
from calltrace.tracefile import TraceFile


def _export(request: Request, console: Console) -> int:
    options = request.options
    with open_trace(request, console) as trace, ExitStack() as opened:
        form, path = FORMATS[options.format], options.output
        if not form.of_counts:
            trace.need_events()
        if not form.of_counts or form.to is To.PATH:
            tell_muted(trace, console)
        if path is None and (
            form.to is not To.TEXT or not console.shell
        ):  # no user can read it on the screen
            path = trace.path.with_suffix(form.suffix)
            console.progress(f"writing {path}")
        if form.to is To.PATH:
            for further in form.write(trace, path)[1:]:
                console.progress(f"writing {further}")
            return 0
        made = opened.enter_context(created(path, trace.path, open_text)) if path else console.out
        form.write(trace, made.buffer if form.to is To.BYTES else made)
    return 0


def _report(request: Request, console: Console) -> int:
    from calltrace.export import html

    options = request.options
    with ExitStack() as opened:
        traces = [opened.enter_context(open_trace(request, console))]
        if options.second is not None:
            traces.append(opened.enter_context(checked(TraceFile(options.second), console)))
        path: Path = options.output or traces[0].path.with_suffix(".html")
        if path.exists() and any(path.samefile(trace.path) for trace in traces):
            raise UsageError(f"report: {path} is the trace itself: name another file with -o")
        page = html.page(traces)
        with created(path, None, open_text) as file:
            file.write(page)
    console.progress(f"wrote {path} ({path.stat().st_size / 1e6:,.1f} MB): open it in a browser")
    return 0


def _query(request: Request, console: Console) -> int:
    options = request.options
    with ExitStack() as opened:
        if options.file is None:
            traces = [opened.enter_context(open_trace(request, console))]
        else:
            paths = query.traces_in(options.file)
            traces = [opened.enter_context(checked(TraceFile(path), console)) for path in paths]
        for trace in traces:
            tell_muted(trace, console)

        def show(result: query.Result) -> None:
            if options.json:
                query.write_json(result, console.out)
            else:
                query.write(result, options.limit, console.out)

        query.run(traces, options.sql, show, console.progress)
    return 0


COMMANDS: Sequence[Command] = (
    Command(
        "export",
        "Write the whole trace for other tools: events, stacks, call graphs, coverage, names and comments.",
        "calltrace export chrome demo.calltrace -o demo.json",
        (
            Option(
                ("format",), f"what to write: {', '.join(FORMATS)}", metavar="FORMAT", choices=tuple(FORMATS)
            ),
            FILE,
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
            FILE,
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
            limit(1000, "rows to show"),
            Option(("--json",), "a JSON object for each row, a line each, complete", switch=True),
        ),
        _query,
    ),
)
