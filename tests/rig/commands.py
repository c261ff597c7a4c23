"""Running commands as a host does, and catching what they show."""

from __future__ import annotations

import io
from pathlib import Path

from calltrace import dispatch
from calltrace.commands import Console
from calltrace.export import FORMATS
from calltrace.tracefile import TraceFile
from rig import tracing, windows

# What reads a trace of the demo, whose file goes in place of {}: the same in every host.
READING = (
    "tree {}",
    "tree {} --function demo!parse_sum --depth 2",
    "stacks {}",
    "top {} --limit 7",
    "callers {} demo!take --depth 3",
    "callees {} demo!main",
    "diff {} --limit 5",
    "diff --edges --limit 5 {}",
)


def in_shell(line: str, trace: Path) -> str:
    """What a shell shows for one of these; the file has the name that Windows programs are given."""
    return tracing.shell(*(word.replace("{}", str(trace)) for word in line.split())).replace(
        str(trace), windows.path(trace)
    )


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
