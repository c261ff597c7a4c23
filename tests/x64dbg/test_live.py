"""Recordings started, looked at and stopped by commands, in the real debugger."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from calltrace.calltree import summarize
from calltrace.model import State
from calltrace.tracefile import TraceFile
from rig import targets, tracing, windows, x64dbg

TIMES = "\N{MULTIPLICATION SIGN}"
ADDRESS = re.compile(r"(?<=\w) ([0-9A-F]{16})\b")  # behind a name
ENDED = "Process stopped with exit code"


def session(
    debugger: str, script: Sequence[str], program: str = "session_calls", *arguments: str
) -> x64dbg.Transcript:
    """What a debugger logs that starts a program."""
    return x64dbg.run([x64dbg.init(targets.build(program), " ".join(arguments)), *script], debugger)


def lines(text: str) -> list[str]:
    """Of a call tree, without the system's thread ids, and without addresses."""
    return re.sub(r" \(id \d+\)", "", plain(text)).splitlines()


def plain(text: str) -> str:
    """Without the addresses that names have in the log."""
    return ADDRESS.sub("", text)


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


@x64dbg.both
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
    debugger: str, tmp_path: Path, program: str, arguments: list[str], exit_code: int | None
) -> None:
    alone, beside = tmp_path / "alone.calltrace", tmp_path / "beside.calltrace"
    done = tracing.calltrace("run", "--quiet", "-o", alone, "--", targets.build(program), *arguments)
    assert exit_code is None or done.returncode == exit_code
    script = [f"calltrace start -o {windows.path(beside)}", *["erun"] * 3]
    shown = session(debugger, script, program, *arguments)
    assert not shown.has_target
    said = "".join(text for _, text in shown.commands)
    assert f"{ENDED} 0x{done.returncode:X} (" in said
    assert threads(beside) == threads(alone)
    with TraceFile(beside) as trace:
        assert trace.state == State.EXITED


@x64dbg.only_real
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
        f"calltrace export text -o {windows.path(text)}",
        "run",
        "calltrace tree --function work --depth 2",
    ]
    shown = session(x64dbg.REAL, script, "session_calls", "7")
    startup = ["main", "__tmainCRTStartup", "mainCRTStartup"]

    def frames(stack: str) -> list[str]:
        return re.findall(r"^  \d\d  session_calls!(\w+)", stack, re.MULTILINE)

    now = shown.commands[5][1]
    leaf = ADDRESS.findall(now)[1]
    started, _, stopped, stacks, now, callers, top, _, deeper = (
        plain(said) for _, said in shown.commands[1:10]
    )
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
    with TraceFile(file) as trace:
        assert {stat.address for stat in summarize(trace).stats if stat.name.endswith("!leaf")} == {
            int(leaf, 16)
        }
    assert lines(shown.commands[-1][1]) == tree(file, "--function", "work", "--depth", "2")
    assert text.read_text(encoding="utf-8").splitlines()[0].startswith("thread 0 ")


@x64dbg.only_real
def test_what_ran_between_marks_is_compared_while_recording(tmp_path: Path) -> None:
    script = [
        f"calltrace start -o {windows.path(tmp_path / 'marks.calltrace')}",
        "bp session_calls:work",
        "bp session_calls:depth",
        "run",
        "calltrace mark leaves",
        "run",
        "calltrace mark many levels",
        "bc session_calls:depth",
        "bp msvcrt:fflush",
        "run",
        'calltrace diff @leaves "@many levels"',
        "calltrace diff @many levels - @leaves",
        "calltrace diff, @leaves, -, ., --edges",
        "calltrace new leaves",
    ]
    shown = session(x64dbg.REAL, script, "session_calls", "7")
    a, b = (plain(text) for text in shown.said(script[-4]).split("only in B: "))
    assert [line.split() for line in a.splitlines() if "!" in line] == [
        ["1", "session_calls!work"],
        ["7", "session_calls!leaf"],
    ]
    assert ["50", "session_calls!depth"] in [line.split() for line in b.splitlines()]
    assert "write & (in both), | (in either) or - (but not in) between parts" in shown.said(script[-3])
    assert shown.said(script[-2]).splitlines()[-1] == "nothing"
    assert "session_calls!leaf" in shown.said(script[-1])


@x64dbg.both
@pytest.mark.parametrize("before", [True, False], ids=["set before start", "set after start"])
def test_breakpoints_of_the_user_hit_as_often_as_untraced(
    debugger: str, tmp_path: Path, before: bool
) -> None:
    start = f"calltrace start -o {windows.path(tmp_path / 'hits.calltrace')}"
    breakpoints = ["bp session_calls:leaf", "bp session_calls:work"]
    script = [*breakpoints, start] if before else [start, *breakpoints]
    shown = session(debugger, [*script, *["run"] * 7], "session_calls", "5")
    assert not shown.has_target
    assert (hits(shown, "work"), hits(shown, "leaf")) == (1, 5)
    work = tree(tmp_path / "hits.calltrace", "--function", "work", "--depth", "2")
    assert f"    session_calls!leaf {TIMES}5" in work


@x64dbg.only_real
def test_stop_leaves_breakpoints_and_code_as_they_were(tmp_path: Path) -> None:
    start = f"calltrace start -o {windows.path(tmp_path / 'stop.calltrace')}"
    code = 'log "{mem;6@session_calls:leaf}"'
    shown = session(
        x64dbg.REAL,
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


@x64dbg.both
def test_a_second_recording_follows_the_first(debugger: str, tmp_path: Path) -> None:
    first, second = (tmp_path / f"{name}.calltrace" for name in ("first", "second"))
    shown = session(
        debugger,
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


@x64dbg.both
def test_misuse_is_one_line_each(debugger: str, tmp_path: Path) -> None:
    start = f"calltrace start -o {windows.path(tmp_path / 'one.calltrace')}"
    nothing = x64dbg.run([start, "calltrace stop", "calltrace stacks"], debugger)
    assert [said.count("\n") for _, said in nothing.commands] == [1, 1, 1]
    assert nothing.said(start).startswith("calltrace: there is no stopped target: ")
    shown = session(
        debugger, [start, start + "2", "calltrace start nosuch!*", "calltrace stop", "calltrace stop"]
    )
    again, unknown, _, late = (said for _, said in shown.commands[2:])
    assert "a recording is under way" in again
    assert again.count("\n") == 1
    assert late == "calltrace: no recording is under way: start one first\n"
    assert unknown.count("\n") == 1


@x64dbg.both
def test_other_misuse_is_one_line_each_too(debugger: str) -> None:
    mistakes = {
        "calltrace start --clock sundial": "--clock",
        "calltrace start --nosuch": "--nosuch",
        "calltrace stop now": "now",
        "calltrace loop": "API",
        "calltrace tree": "nothing has been recorded",
        "calltrace pause": "no recording is under way",
        "calltrace resume": "no recording is under way",
        "calltrace mark here": "no recording is under way",
    }
    shown = session(debugger, [*mistakes, "calltrace status"], "session_calls", "3")
    for command, words in mistakes.items():
        assert shown.said(command).count("\n") == 1
        assert words in shown.said(command)
    assert "nothing" in shown.said("calltrace status")


@x64dbg.both
def test_the_menus_record_what_is_selected(debugger: str, tmp_path: Path) -> None:
    file = tmp_path / "menu.calltrace"
    start = [f"!answer -o {windows.path(file)} session_calls!depth", "!click Start with options..."]
    function = ["!select session_calls:leaf", "!click Trace this function"]
    shown = session(
        debugger,
        [
            "!click Trace this function",
            *start,
            "!click Stop",
            *function,
            "!click Stop",
            "!click Start on this module",
            "bp session_calls:depth",
            "run",
            "!click Callees of this",
            "!click Callers of this",
            "!click Stacks",
            "!click Tree",
            "!click Top",
            "!click Stop",
            "!click Start with options...",
        ],
        "session_calls",
        "3",
    )
    said = [text for _, text in shown.commands[1:]]
    assert said[0] == "calltrace: nothing is selected in the disassembly that this could be done with\n"
    assert "session_calls.exe: 1 of " in said[2]
    assert f"calltrace: recorded {windows.path(file)}" in said[3]
    assert "session_calls.exe: 1 of " in said[5]
    assert "session_calls.exe: 99 of " in said[7]
    callees, callers, stacks, tree_now, top, stopped, cancelled = map(plain, said[10:])
    assert callees.splitlines()[1].split()[:2] == ["3", "session_calls!leaf"]
    assert callers.splitlines()[2].split() == ["3", "\N{LEFTWARDS ARROW}", "session_calls!work"]
    assert "session_calls!work" in stacks
    assert f"session_calls!leaf {TIMES}3" in tree_now
    assert "session_calls!leaf" in top
    assert "calltrace: recorded " in stopped
    assert cancelled == ""


@x64dbg.both
def test_settings_are_options_of_each_start_by_the_menu(debugger: str, tmp_path: Path) -> None:
    file = tmp_path / "chosen.calltrace"
    script = [
        "!select session_calls:leaf",
        f"!answer --mode graph -o {windows.path(file)}",
        "!click Settings...",
        "!click Trace this function",
        "bp session_calls:depth",
        "run",
        "calltrace stop",
        "!click Settings...",  # cancelled: what was set stays
        "!click Start on this module",
        "calltrace status",
    ]
    shown = session(debugger, script, "session_calls", "3")
    assert "session_calls.exe: 1 of " in shown.said("!click Trace this function")
    again = shown.said("!click Start on this module")
    assert f"replacing {windows.path(file)}" in again
    assert "or was, and has not run since; choose another file with -o" in again
    assert str(windows.path(file)) in shown.said("calltrace status")
    assert "`calltrace top` shows it" in shown.said("calltrace stop")  # as is said of counts


@x64dbg.both
def test_what_was_called_is_in_the_references_view(debugger: str, tmp_path: Path) -> None:
    script = [
        f"calltrace start -o {windows.path(tmp_path / 'view.calltrace')}",
        "!references",
        "bp session_calls:depth",
        "run",
        "calltrace top",
        "!references",
    ]
    shown = session(debugger, script, "session_calls", "1234")
    before, after = (said.splitlines() for given, said in shown.commands if given == "!references")
    assert before[0] == ", 0%, not loaded"
    assert after[:2] == ["calltrace: functions, 100%", "Address|Calls|Function|Callers"]
    rows = {
        name: (address, calls.strip(), callers)
        for address, calls, name, callers in (row.split("|") for row in after[2:])
    }
    assert rows["session_calls!leaf"][1:] == ("1234", f"session_calls!work {TIMES}1,234")
    assert rows["session_calls!work"][1:] == ("1", f"session_calls!main {TIMES}1")
    assert rows["session_calls!mainCRTStartup"][2] == ""
    assert "session_calls!depth" not in rows  # the breakpoint is at its entry
    assert not any(name.startswith("msvcrt") for name in rows)
    listed = len(re.findall(r"^ +[\d,]+  session_calls[!+]", shown.said("calltrace top"), re.MULTILINE))
    assert len(rows) >= listed > 10


@x64dbg.both
def test_comments_and_labels_tell_of_functions_and_the_user_s_own_stay(debugger: str, tmp_path: Path) -> None:
    with TraceFile(recorded(tmp_path, targets.build("session_calls"))) as trace:
        [nameless, *_] = [stat for stat in summarize(trace).stats if stat.name.startswith("session_calls+")]
    assert nameless.address
    script = [
        f"calltrace start -o {windows.path(tmp_path / 'comments.calltrace')}",
        "commentset session_calls:work, mine",
        "bp session_calls:depth",
        "run",
        "calltrace top",
        *(f"!notes {where}" for where in ("session_calls:leaf", "session_calls:work")),
        f"!notes {nameless.address:x}",
    ]
    shown = session(debugger, script, "session_calls", "1234")
    leaf, work, other = (said for given, said in shown.commands if given.startswith("!notes "))
    assert leaf.startswith("calltrace: 1,234 calls|")
    assert work.startswith("mine|" if debugger == x64dbg.REAL else "calltrace: 1 call|")
    assert other.endswith(f"|sub_{nameless.address:x}\n")


@x64dbg.both
def test_expressions_tell_how_often_a_function_was_called(debugger: str, tmp_path: Path) -> None:
    places = ["session_calls:leaf", "session_calls:work", "session_calls:depth"]
    asked = [f"!value calltrace.{what}({place})" for what in ("hits", "traced") for place in places]
    script = [
        *asked,
        f"calltrace start -o {windows.path(tmp_path / 'hits.calltrace')} --exclude *!work",
        "bp session_calls:depth",
        "run",
        *asked,
        "calltrace stop",
        *asked,
    ]
    shown = session(debugger, script, "session_calls", "1234")
    values = [int(said) for given, said in shown.commands if given in asked]
    recorded = [1234, 0, 0, 1, 0, 1]  # `depth` is about to be called
    assert values == [0] * 6 + recorded + recorded


@x64dbg.both
def test_an_address_in_the_middle_of_a_function_means_it(debugger: str, tmp_path: Path) -> None:
    inside = hex(symbol("work") + 9)
    script = [
        f"!select {inside[2:]}",
        "!click Trace this function",
        "bp session_calls:depth",
        "run",
        "!click Callers of this",
        "calltrace stop",
    ]
    shown = session(debugger, script, "session_calls", "3")
    assert "session_calls.exe: 1 of " in shown.said("!click Trace this function")
    assert "session_calls!work" in shown.said("!click Callers of this")


@x64dbg.only_real
def test_the_user_s_labels_name_functions(tmp_path: Path) -> None:
    first, second = (tmp_path / f"{name}.calltrace" for name in ("first", "second"))
    shown = session(
        x64dbg.REAL,
        [
            "labelset session_calls:leaf, my_leaf",
            f"calltrace start -o {windows.path(first)} session_calls!my_leaf",
            "calltrace stop",
            f"labelset {symbol('work'):x}, my_work",
            f"calltrace start -o {windows.path(second)}",
            "erun",
        ],
        "session_calls",
        "5",
    )
    assert "session_calls.exe: 1 of " in shown.commands[2][1]
    with TraceFile(second) as trace:
        calls = {stat.name: stat.calls for stat in summarize(trace).stats}
    assert calls["session_calls!my_leaf"] == 5
    assert calls["session_calls!my_work"] == 1
    assert "session_calls!leaf" not in calls


def symbol(name: str) -> int:
    """The VA of a function in session_calls, which is loaded where it wants to be."""
    return targets.symbols("session_calls")[name]


def recorded(folder: Path, program: Path) -> Path:
    """A run of session_calls without debugger."""
    trace = folder / "run.calltrace"
    done = tracing.calltrace("run", "--quiet", "-o", trace, "--", program, "1234")
    assert done.returncode == 11, done.stderr
    return trace
