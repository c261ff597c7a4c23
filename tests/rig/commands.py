"""Running commands as a host does, and catching what they show."""

from __future__ import annotations

import io
import json
from pathlib import Path

from calltrace import dispatch
from calltrace.commands import Console
from calltrace.export import FORMATS
from calltrace.tracefile import TraceFile
from rig import tracing, windows

# What reads a trace of the demo, which is marked, or its counts, whose files go in place of {} and {counts}:
# the same in every host.
READING = (
    "tree {}",
    "info {}",
    "tree {} --function demo!parse_sum --depth 2",
    "stacks {}",
    "top {} --limit 7",
    "callers {} demo!take --depth 3",
    "callees {} demo!main",
    "diff {} --limit 5",
    "diff --edges --limit 5 {}",
    "diff {}@half {}@..half --edges",
    "diff {}@half - {}@..half --json",
    "new {} half",
    'query {} "SELECT name, calls FROM functions ORDER BY calls DESC, name LIMIT 9"',
    "tree {} --json --depth 4",
    "stacks {} --json",
    "top {counts}",
    "callers {counts} demo!take",
    "callees {counts} demo!main --json",
)


def in_host(line: str, trace: Path, counts: Path) -> str:
    """One of these for a debugger, from the verb on."""
    return line.replace("{}", f'"{windows.path(trace)}"').replace("{counts}", f'"{windows.path(counts)}"')


def in_shell(line: str, trace: Path, counts: Path) -> str:
    """What a shell shows for one of these; the files have the names that Windows programs are given."""
    files = {"{}": trace, "{counts}": counts}
    words = dispatch.split(line)
    for name, file in files.items():
        words = [word.replace(name, str(file)) for word in words]
    done = tracing.calltrace(*words)
    assert done.returncode in (0, words[0] == "diff"), done.stderr
    shown = done.stdout.decode()
    for file in files.values():
        told = windows.path(file)
        shown = shown.replace(str(file), json.dumps(told)[1:-1] if "--json" in words else told)
    return shown


def run(line: str) -> str:
    """What a command line shows, from the verb on."""
    out = io.StringIO()
    assert dispatch.run_line(line, Console(out, lambda line: None)) == 0
    return out.getvalue()


def exported(path: Path, form: str) -> str:
    """What `export` writes of a trace in a format of text."""
    out = io.StringIO()
    with TraceFile(path) as trace:
        FORMATS[form].write(trace, out)
    return out.getvalue()
