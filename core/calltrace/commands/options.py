"""The options that several commands have, and what their words mean."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calltrace.commands.command import Option
from calltrace.errors import FileMissing, UsageError
from calltrace.patterns import Pattern

_SIZE = re.compile(r"(\d+)([KMG]?)\Z", re.IGNORECASE)
_DEBUGGER_THREAD = re.compile(r"~(\d+|[.#])\Z")


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


byte_size.__name__ = "size"  # argparse names it in its messages: "invalid size value"

FILE = Option(
    ("file",), "a trace file", metavar="FILE", live_default="the recording under way, or the last one"
)
OUTPUT = Option(
    ("-o",),
    "the trace file to write; default: PROGRAM.calltrace in the working folder",
    metavar="FILE",
    dest="output",
    convert=Path,
)
LIVE_OUTPUT = Option(
    ("-o",),
    "the trace file to write; default: a new PROGRAM.calltrace in the user's folder for data",
    metavar="FILE",
    dest="output",
    convert=Path,
)
PREFIX = Option(
    ("--prefix",),
    "the Wine prefix to use; default: WINEPREFIX, else our own",
    metavar="DIR",
    convert=Path,
)
SYMBOLS = Option(
    ("--symbols",),
    "where to look for the program databases (PDB) of modules, beside the folders these are in: folders, "
    "files, or symbol servers, with ; between them, as in _NT_SYMBOL_PATH; default: what that says",
    metavar="PATH",
    default="",
)
QUIET = Option(("--quiet",), "say nothing but errors", switch=True)
EVENTS = Option(
    ("--events",),
    "functions: entries and exits; outward: also calls that leave the traced code or whose target is "
    "not known beforehand (default); all: every call",
    choices=("functions", "outward", "all"),
    default="outward",
)
PATTERNS = (
    Option(
        ("--include",),
        "trace only these functions: module!function, with *, or @FILE with one on each line",
        metavar="PAT",
        repeated=True,
    ),
    Option(("--exclude",), "do not trace these functions", metavar="PAT", repeated=True),
    Option(("--modules",), "trace these modules beside the program itself", metavar="PAT", repeated=True),
)
FUNCTIONS = (
    *PATTERNS,
    Option(
        ("--no-breakpoints",),
        "leave functions alone whose start has no room for a jump, but only for a breakpoint",
        switch=True,
    ),
)
CLOCK = Option(
    ("--clock",),
    "time of each event: none (default, fastest), tsc (exact, slower), coarse (cheaper than tsc)",
    choices=("none", "tsc", "coarse"),
    default="none",
)
MODE = Option(
    ("--mode",),
    "trace (default): every call; hits: the first entry of each function, which then runs at full speed; "
    "graph: how often, and with a clock how long, by function and by who calls whom, in a small file",
    choices=("trace", "hits", "graph"),
    default="trace",
)
WHAT = (EVENTS, CLOCK, *FUNCTIONS)
ROOM = (
    Option(
        ("--budget",),
        "mute a function, or a call that leaves the traced code, after N calls in a thread: further ones are "
        "counted as by --mode graph, and recorded only where they lead to what is not muted; `tree` says "
        "where; default: nothing is muted",
        metavar="N",
        convert=positive,
        default=0,
    ),
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
SINGLE_STEP = Option(
    ("--single-step",),
    "also step through every instruction of the traced modules: slower still, but independent of what can be "
    "known of a function beforehand",
    switch=True,
)
THREAD = Option(
    ("--thread",),
    "one thread: its index or system id; in a debugger also its number there, as ~N",
    metavar="N",
    convert=thread,
)


def limit(default: int, what: str = "lines to show") -> Option:
    """How much is shown."""
    text = f"{what}; 0: all; default: {default}"
    return Option(("--limit",), text, metavar="N", convert=number, default=default)


def trace_options(options: argparse.Namespace) -> dict[str, Any]:
    """What session.TraceOptions takes of a recording's options. UsageError if they contradict."""
    names = "output mode budget events clock include exclude modules policy max_size".split()
    told = {name: value for name, value in vars(options).items() if name in names}
    _check_mode(options)
    told["include"] = _patterns(options.include)
    told["exclude"] = _patterns(options.exclude)
    return {**told, "breakpoints": "no_breakpoints" in options and not options.no_breakpoints}


def _check_mode(options: argparse.Namespace) -> None:
    told = vars(options)
    if told.get("mode") == "graph" and (told["max_size"] or told["policy"] != "block"):
        raise UsageError("--mode graph keeps no events: leave out --policy and --max-size")
    if told.get("budget") and told["mode"] != "trace":
        raise UsageError(f"--budget is for recordings of every call: leave out --mode {told['mode']}")
    if told.get("budget") and told["policy"] != "block":
        raise UsageError("--budget keeps the first calls: leave out --policy drop-oldest")


def check_options(options: argparse.Namespace) -> None:
    """UsageError for what contradicts, the error of a bad pattern: before a process is started or touched."""
    _check_mode(options)
    for text in (*_patterns(options.include), *_patterns(options.exclude)):
        Pattern.parse(text)


def _patterns(words: Sequence[str]) -> list[str]:
    """Patterns as they were given, or @FILE of them: one a line."""
    found = []
    for word in words:
        found += (
            [line for line in map(str.strip, lines(Path(word[1:]))) if line] if word[:1] == "@" else [word]
        )
    return found


def lines(path: Path) -> list[str]:
    """The lines of a text file that an option names. FileMissing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileMissing(f"{path} cannot be read: {error}") from error


def symbols_path(options: argparse.Namespace) -> str:
    """Where to look for symbols; on Windows. FileMissing if that is not there."""
    from calltrace.win32.dbghelp import search_path

    return search_path(options.symbols)
