"""The command table, and how lines become commands."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calltrace import dispatch, wine
from calltrace.commands import COMMANDS, Command, Console, find, parser_for
from calltrace.commands.command import make_parser
from calltrace.commands.options import byte_size
from calltrace.errors import CalltraceError, EngineError, UsageError
from calltrace.live import LiveSession
from rig import tracewriter
from rig.commands import READING
from rig.tracewriter import TraceWriter, Units


class NoTarget:
    """A debugger without a target, as a live session sees it."""

    @contextlib.contextmanager
    def port(self, known: object) -> Iterator[Any]:
        raise EngineError("there is no target")
        yield

    def thread_id(self, name: str) -> int:
        raise UsageError(f"there is no thread {name}")

    def uninterrupted(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def run(line: str, live: LiveSession | None = None) -> str:
    """What a command line shows, from the verb on: in a shell, or beside a live session."""
    out = io.StringIO()
    assert dispatch.run_line(line, Console(out, lambda line: None, shell=live is None, live=live)) == 0
    return out.getvalue()


def test_the_verbs_are_those_promised() -> None:
    assert [command.verb for command in COMMANDS] == [
        "run",
        "attach",
        "reference",
        "diff-reference",
        "loop",
        "start",
        "stop",
        "reference",
        "pause",
        "pause",
        "resume",
        "resume",
        "status",
        "mark",
        "mark",
        "save",
        "x64dbg-install",
        "plan",
        "info",
        "tree",
        "top",
        "callers",
        "callees",
        "stacks",
        "new",
        "diff",
        "export",
        "report",
        "query",
        "help",
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.verb)
def test_every_command_has_help_and_an_example_that_parses(command: Command) -> None:
    live = LiveSession(NoTarget()) if command.live else None
    text = run(f"help {command.verb}", live)
    assert text == run(f"{command.verb} --help", live) == run(f"{command.verb} -h", live)
    assert command.help in text
    assert command.example in text
    for option in command.options:
        assert (option.metavar or option.names[0]) in text
    program, *words = dispatch.split(command.example)
    assert (program, words[0]) == ("calltrace", command.verb)
    ours = words[1 : words.index("--")] if "--" in words else words[1:]
    assert ("--" in words) == command.takes_program
    make_parser(command).parse_args(ours)


ANSWERS = ("tree", "stacks", "top", "callers", "callees", "info", "new", "diff", "query")


@pytest.mark.parametrize("verb", [*ANSWERS, "mark", "export", "report"])
def test_what_answers_for_a_trace_does_so_in_every_host(verb: str) -> None:
    for live in (None, LiveSession(NoTarget())):
        console = Console(io.StringIO(), lambda line: None, shell=live is None, live=live)
        command = find(verb, console)
        told = run(f"help {verb}", live)
        assert command.help in told.replace("\n", " ")
        assert f"example: {command.example}" in told
        _, *words = dispatch.split(command.example)
        parser_for(verb, console).parse_args(words[1:])


def test_answers_are_compared_between_hosts() -> None:
    """In the debuggers' own tests."""
    assert {line.split()[0] for line in READING} == set(ANSWERS)


def test_help_lists_every_command_once() -> None:
    text = run("help")
    assert text == run("") == run("--help")
    beside_target = run("help", LiveSession(NoTarget()))
    for command in COMMANDS:
        line = f"{command.help}\n"
        assert text.count(line) == (not command.live)
        assert beside_target.count(line) == (not command.shell_only)
    for told in (text, beside_target):
        verbs = [line.split()[0] for line in told.splitlines() if line.startswith("  ")]
        assert len(verbs) == len(set(verbs)) > 10


@pytest.mark.parametrize(
    "line",
    [
        "nosuch",
        "help nosuch",
        "start",
        "help stop",
        "tree",
        "tree a b",
        "tree --nosuch a",
        "tree a --limit -1",
        "tree a --limit x",
        "tree a --dep 3",
        "export a",
        "export pdf a",
        "run",
        "run demo.exe",
        "run --",
        "run --max-size 0 -- a",
        "run --max-size 5T -- a",
        "run --budget 0 -- a",
        "run --budget -1 -- a",
        "run --budget 3 --mode graph -- a",
        "run --budget 3 --mode hits -- a",
        "run --budget 3 --policy drop-oldest -- a",
        "run --clock fast -- a",
        "run --include m! -- a",
        "run --exclude 0xzz -- a",
        "attach",
        "attach x",
        "attach 5 --seconds 0",
        "attach 5 --seconds nan",
        "attach 5 -- a",
        "info a -- b",
        'tree "a',
    ],
)
def test_mistakes_are_one_line_and_never_end_the_process(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(line)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 64


def parsed(line: str) -> argparse.Namespace:
    verb, *words = dispatch.split(line)
    command = next(command for command in COMMANDS if command.verb == verb)
    return make_parser(command).parse_args(words)


def test_options_of_run_and_their_defaults() -> None:
    assert vars(parsed("run")) == {
        "budget": 0,
        "output": None,
        "mode": "trace",
        "events": "outward",
        "clock": "none",
        "include": [],
        "exclude": [],
        "modules": [],
        "no_breakpoints": False,
        "policy": "block",
        "max_size": 0,
        "symbols": "",
        "prefix": None,
        "quiet": False,
    }
    line = (
        "run -o x.calltrace --mode hits --events all --clock tsc --include a!* --include b!* --exclude c!d "
        "--modules e --no-breakpoints --policy drop-oldest --max-size 2G --symbols /s --prefix /w --quiet"
    )
    assert vars(parsed(line)) == {
        "output": Path("x.calltrace"),
        "budget": 0,
        "mode": "hits",
        "events": "all",
        "clock": "tsc",
        "include": ["a!*", "b!*"],
        "exclude": ["c!d"],
        "modules": ["e"],
        "no_breakpoints": True,
        "policy": "drop-oldest",
        "max_size": 2 << 30,
        "symbols": "/s",
        "prefix": Path("/w"),
        "quiet": True,
    }


def test_lists_of_one_command_do_not_leak_into_the_next() -> None:
    assert parsed("run --include a!*").include == ["a!*"]
    assert parsed("run").include == []


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("64K", 65536), ("3m", 3 << 20), ("1G", 1 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert byte_size(text) == size


def test_attach_takes_decimal_and_hexadecimal_process_ids() -> None:
    assert parsed("attach 4711").pid == 4711
    assert parsed("attach 0x20 --seconds 1.5").pid == 32
    assert parsed("attach 0x20 --seconds 1.5").seconds == 1.5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r"tree C:\traces\new.calltrace", ["tree", r"C:\traces\new.calltrace"]),
        (
            r'tree "C:\Program Files\t.calltrace" --depth 3',
            ["tree", r"C:\Program Files\t.calltrace", "--depth", "3"],
        ),
        (r'tree C:\"Program Files"\t', ["tree", r"C:\Program Files\t"]),
        (r"tree C:\Users\O'Brien\t", ["tree", r"C:\Users\O'Brien\t"]),
        (r'tree "C:\folder\"', ["tree", "C:\\folder\\"]),
        (r"tree \\server\share\t", ["tree", r"\\server\share\t"]),
        ('tree "a ""b"" c"', ["tree", 'a "b" c']),
        ('tree ""', ["tree", ""]),
        ("  tree \t a  ", ["tree", "a"]),
    ],
)
def test_lines_are_split_and_windows_paths_stay_whole(line: str, words: list[str]) -> None:
    assert dispatch.split(line) == words


@pytest.mark.parametrize(
    ("line", "ours", "theirs"),
    [
        ("run -- a.exe", "run ", "a.exe"),
        (r'run -o "x -- y" --   a.exe  "b  c" -- \" d', 'run -o "x -- y" ', r'a.exe  "b  c" -- \" d'),
        ('run "--" -- a', 'run "--" ', "a"),
        ("tree --depth 3", "tree --depth 3", None),
        ("run --", "run ", ""),
    ],
)
def test_what_follows_the_two_dashes_is_kept_to_the_letter(line: str, ours: str, theirs: str | None) -> None:
    assert dispatch.split_program(line) == (ours, theirs)


def test_live_verbs_are_handed_to_wine_as_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    relayed: list[tuple[list[str], Path | None]] = []

    def relay(argv: list[str], prefix: Path | None) -> int:
        relayed.append((list(argv), prefix))
        return 7

    monkeypatch.setattr(wine, "relay", relay)
    console = Console(io.StringIO(), lambda line: None)
    words = ["run", "--clock", "tsc", "--prefix", "/w", "--", "a.exe", "b c", "--", '"', "--help"]
    assert dispatch.run_words(words, console) == 7
    assert dispatch.run_words(["attach", "5"], console) == 7
    assert relayed == [(words, Path("/w")), (["attach", "5"], None)]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """main calls f a thousand times, f calling g each time; f is short of one return."""
    units = Units()
    units.event(tracewriter.ENTER, 0)
    for _ in range(1000):
        for event, function in ((1, 1), (1, 2), (2, 2), (2, 1)):
            units.event(event, function)
    units.event(tracewriter.LEAVE, 0)
    writer = TraceWriter(tsc_end=5)
    names = [[0x1000, "main"], [0x2000, "f"], [0x3000, "g"]]
    functions = [(rva, 16, 1, 0, 0, tracewriter.NONE) for rva, _ in names]
    functions += [(0x4000, 3, 1, 0, 1, tracewriter.NONE), (0x5000, 3, 4, 4, 2, tracewriter.NONE)]
    told = {
        "name": "demo.exe",
        "names": names,
        "statuses": {"1": "too short"},
        "refusals": [[0x4000, 1, 0x4001]],
    }
    writer.module(told, functions)
    writer.thread(units)
    return writer.write(tmp_path / "demo trace.calltrace")


def test_tree_says_where_its_limit_cut_it_off(trace: Path) -> None:
    lines = run(f'tree "{trace}" --limit 4').splitlines()
    assert lines == [
        "thread 0 (id 1000)",
        "  demo!main",
        "    demo!f",
        "      demo!g",
        "limit of 4 lines reached: --limit 0 shows all",
    ]
    assert len(run(f'tree "{trace}"').splitlines()) == 501
    assert len(run(f'tree "{trace}" --limit 0').splitlines()) == 2002


def test_tree_takes_depth_thread_and_functions(trace: Path) -> None:
    assert run(f'tree "{trace}" --depth 2 --thread 0').splitlines()[1:] == [
        "  demo!main",
        "    demo!f \N{MULTIPLICATION SIGN}1,000",
    ]
    assert run(f'tree "{trace}" --function g --function nosuch').splitlines()[1:] == [
        "  demo!g \N{MULTIPLICATION SIGN}1,000"
    ]


def test_top_lists_the_most_called_first(trace: Path) -> None:
    rows = [line.split() for line in run(f'top "{trace}" --limit 2').splitlines()]
    assert rows[1:] == [["1,000", "demo!f"], ["1,000", "demo!g"], "1 more: --limit 0 shows all".split()]


def test_export_writes_a_file_but_never_over_the_trace(trace: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    run(f'export text "{trace}" -o "{target}"')
    assert target.read_text(encoding="utf-8") == run(f'export text "{trace}"')
    before = trace.read_bytes()
    with pytest.raises(UsageError, match="is the trace itself"):
        run(f'export text "{trace}" -o "{trace}"')
    assert trace.read_bytes() == before
    with pytest.raises(CalltraceError, match="folder does not exist"):
        run(f'export text "{trace}" -o "{tmp_path}/no/out"')
