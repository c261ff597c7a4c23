"""Recordings started, looked at and stopped by commands, in the real debugger."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from calltrace.model import State
from calltrace.tracefile import TraceFile
from rig import targets, tracing, windows, x64dbg

pytestmark = pytest.mark.skipif(not x64dbg.engine(), reason=x64dbg.NO_ENGINE)

TIMES = "\N{MULTIPLICATION SIGN}"
ENDED = "Process stopped with exit code"


def session(script: Sequence[str], program: str = "session_calls", *arguments: str) -> x64dbg.Transcript:
    """What a debugger logs that starts a program."""
    return x64dbg.run([x64dbg.init(targets.build(program), " ".join(arguments)), *script])


def lines(text: str) -> list[str]:
    """Of a call tree, without the system's thread ids."""
    return re.sub(r" \(id \d+\)", "", text).splitlines()


def tree(trace: Path, *options: str) -> list[str]:
    done = tracing.calltrace("tree", trace, *options)
    assert done.returncode == 0, done.stderr.decode()
    return lines(done.stdout.decode())


def threads(trace: Path) -> list[list[str]]:
    """The call tree of each thread, whatever their order."""
    text = "\n".join(tree(trace))
    return sorted(part.splitlines()[1:] for part in re.split(r"^thread ", text, flags=re.MULTILINE)[1:])


def hits(shown: x64dbg.Transcript, function: str) -> int:
    return sum(f"INT3 breakpoint at <session_calls.{function}>" in said for _, said in shown.commands)


@pytest.mark.parametrize(
    ("program", "arguments", "exit_code"),
    [
        ("session_calls", ["1000"], 11),
        ("demo", ["2*(3+4)", "7/2", "-1"], 0),
        ("fibers", [], None),
        ("reference_threads", [], 0),
        ("seh", [], None),
    ],
)
def test_a_recording_from_the_initial_break_on_is_that_of_a_run(
    tmp_path: Path, program: str, arguments: list[str], exit_code: int | None
) -> None:
    alone, beside = tmp_path / "alone.calltrace", tmp_path / "beside.calltrace"
    done = tracing.calltrace("run", "--quiet", "-o", alone, "--", targets.build(program), *arguments)
    assert exit_code is None or done.returncode == exit_code
    shown = session([f"calltrace start -o {windows.path(beside)}", *["erun"] * 3], program, *arguments)
    assert not shown.has_target
    said = "".join(text for _, text in shown.commands)
    assert f"{ENDED} 0x{done.returncode:X} (" in said
    assert threads(beside) == threads(alone)
    with TraceFile(beside) as trace:
        assert trace.state == State.EXITED


def test_a_session_as_a_user_types_it(tmp_path: Path) -> None:
    file, text = tmp_path / "first session.calltrace", tmp_path / "first.txt"
    script = [
        f'calltrace start -o "{windows.path(file)}"',
        "bp session_calls:depth",
        "run",
        "calltrace stacks",
        "calltrace tree --function work",
        "calltrace callers, leaf, --depth 2",
        "calltrace top --limit 1",
        "run",
        "calltrace stacks --thread ~0",
        "sti",
        "sto",
        "bc session_calls:depth",
        "calltrace status",
        "calltrace stop",
        f"calltrace export --format text -o {windows.path(text)}",
        "run",
        "calltrace tree --function work --depth 2",
    ]
    shown = session(script, "session_calls", "7")
    startup = ["main", "__tmainCRTStartup", "mainCRTStartup"]

    def frames(stack: str) -> list[str]:
        return re.findall(r"^  \d\d  session_calls!(\w+)", stack, re.MULTILINE)

    started, _, stopped, stacks, now, callers, top, _, deeper = (said for _, said in shown.commands[1:10])
    assert "session_calls.exe: 99 of " in started
    assert started.endswith(f"calltrace: recording into {windows.path(file)}\n")
    assert "INT3 breakpoint at <session_calls.depth>" in stopped
    assert frames(stacks) == ["work", *startup]
    assert now.splitlines()[1:] == ["  session_calls!work  still running", f"    session_calls!leaf {TIMES}7"]
    assert [line.split() for line in callers.splitlines()[1:]] == [
        ["7", "session_calls!leaf"],
        ["7", "\N{LEFTWARDS ARROW}", "session_calls!work"],
        ["7", "\N{LEFTWARDS ARROW}", "session_calls!main"],
    ]
    assert top.splitlines()[1].split() == ["7", "session_calls!leaf"]
    assert frames(deeper) == ["depth", "work", *startup]
    assert str(windows.path(file)) in shown.said("calltrace status")
    assert shown.said("calltrace stop").startswith(f"calltrace: recorded {windows.path(file)} (")
    assert f"{ENDED} 0xB (11)" in shown.commands[-2][1]
    assert lines(shown.commands[-1][1]) == tree(file, "--function", "work", "--depth", "2")
    assert text.read_text(encoding="utf-8").splitlines()[0].startswith("thread 0 ")


@pytest.mark.parametrize("before", [True, False], ids=["set before start", "set after start"])
def test_breakpoints_of_the_user_hit_as_often_as_untraced(tmp_path: Path, before: bool) -> None:
    start = f"calltrace start -o {windows.path(tmp_path / 'hits.calltrace')}"
    breakpoints = ["bp session_calls:leaf", "bp session_calls:work"]
    script = [*breakpoints, start] if before else [start, *breakpoints]
    shown = session([*script, *["run"] * 7], "session_calls", "5")
    assert not shown.has_target
    assert (hits(shown, "work"), hits(shown, "leaf")) == (1, 5)
    work = tree(tmp_path / "hits.calltrace", "--function", "work", "--depth", "2")
    assert f"    session_calls!leaf {TIMES}5" in work


def test_stop_leaves_breakpoints_and_code_as_they_were(tmp_path: Path) -> None:
    start = f"calltrace start -o {windows.path(tmp_path / 'stop.calltrace')}"
    code = 'log "{mem;6@session_calls:leaf}"'
    shown = session(
        [
            "bp session_calls:leaf",
            code,
            start,
            code,
            "run",
            "run",
            "calltrace stop",
            code,
            *["run"] * 4,
        ],
        "session_calls",
        "5",
    )
    assert not shown.has_target
    original, traced, stopped = (said for given, said in shown.commands if given == code)
    assert traced.startswith("E9")
    assert stopped == original
    assert hits(shown, "leaf") == 5


def test_a_second_recording_follows_the_first(tmp_path: Path) -> None:
    first, second = (tmp_path / f"{name}.calltrace" for name in ("first", "second"))
    shown = session(
        [
            f"calltrace start -o {windows.path(first)}",
            "bp session_calls:leaf",
            "run",
            "run",
            "calltrace stop",
            f"calltrace start -o {windows.path(second)}",
            "bc session_calls:leaf",
            "run",
        ],
        "session_calls",
        "5",
    )
    assert not shown.has_target
    assert "  session_calls!work  still running when stopped" in tree(first, "--function", "work")
    assert any("session_calls!depth" in line for line in tree(second))


def test_misuse_is_one_line_each(tmp_path: Path) -> None:
    start = f"calltrace start -o {windows.path(tmp_path / 'one.calltrace')}"
    nothing = x64dbg.run([start, "calltrace stop", "calltrace stacks"])
    assert [said.count("\n") for _, said in nothing.commands] == [1, 1, 1]
    assert nothing.said(start).startswith("calltrace: there is no stopped target: ")
    shown = session([start, start + "2", "calltrace start nosuch!*", "calltrace stop", "calltrace stop"])
    again, unknown, _, late = (said for _, said in shown.commands[2:])
    assert "a recording is under way" in again
    assert late == "calltrace: no recording is under way: start one first\n"
    assert unknown.count("\n") == 1
