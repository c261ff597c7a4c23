"""The commands that compare traces, or parts of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from calltrace import comparison, parts
from calltrace.commands.command import Command, Console, Option, Request
from calltrace.commands.context import checked, names_in
from calltrace.commands.options import limit
from calltrace.errors import UsageError
from calltrace.export import comparison as comparisons
from calltrace.export.units import NameText
from calltrace.model import PAUSED, RESUMED
from calltrace.tracefile import TraceFile


def _new(request: Request, console: Console) -> int:
    words = request.options.words
    is_file = words and (console.live is None or os.path.isfile(words[0]))
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
            traces[path] = opened.enter_context(checked(TraceFile(path, under_way), console))
        found.append(traces[path])
    return found


def _tell_notes(counts: comparison.Counts, console: Console) -> None:
    for note in counts.notes:
        console.progress(note)


def _item_names(named: Sequence[parts.Part], console: Console) -> NameText:
    """How names are shown: in a debugger with links, if all are of one trace."""
    files = {part.file for part in named}
    if len(files) > 1:
        return console.names
    [file] = files
    return names_in(None if file is None else str(file), console)


_COMPARED = (
    Option(("--edges",), "tell calls apart by their callers", switch=True),
    limit(100, "lines of each list to show"),
    Option(("--json",), "as JSON, complete", switch=True),
)


COMMANDS: Sequence[Command] = (
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
                "FILE@MARK..MARK, FILE@MARK.. or FILE@..MARK. MARK#2 is the second of that name, "
                "and a number is also a mark that the program set through the C API. In a "
                "debugger FILE may be left out, or a dot: the recording under way, or the last one",
                metavar="PART",
                many=True,
                required=True,
            ),
            *_COMPARED,
        ),
        _diff,
    ),
)
