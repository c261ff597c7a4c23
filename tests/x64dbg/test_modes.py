"""Recordings in other modes than "trace", by commands in the real debugger and in the stand-in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from calltrace.calltree import summarize
from calltrace.edges import call_graph
from calltrace.model import State
from calltrace.tracefile import TraceFile
from rig import targets, tracing, windows, x64dbg
from rig.running import Running
from rig.sessions import own_calls
from x64dbg.test_live import ENDED, TIMES, hits, plain, session

LEAVES = 1000


def rows(text: str) -> list[list[str]]:
    """The words of each line of a table, without addresses and the titles."""
    return [line.split() for line in plain(text).splitlines()[1:]]


@x64dbg.both
def test_first_entries_are_paused_resumed_and_stopped(debugger: str, tmp_path: Path) -> None:
    file = tmp_path / "hits.calltrace"
    script = [
        f"calltrace start --mode hits -o {windows.path(file)}",
        "bp session_calls:work",
        "run",
        "calltrace pause",
        "calltrace status",
        "bc session_calls:work",
        "bp session_calls:depth",
        "run",  # past every call of leaf
        "calltrace resume",
        "calltrace mark levels",
        *["run"] * 20,
        "calltrace tree --function depth",
        "calltrace top --limit 1",
        "!notes session_calls:depth",
        "calltrace callers depth",
        "calltrace stacks",
        "calltrace new levels",
        "calltrace info",
        "bc session_calls:depth",
        "calltrace stop",
        "erun",
    ]
    shown = session(debugger, script, "session_calls", str(LEAVES))
    assert f"{ENDED} 0xB (11)" in shown.commands[-1][1]
    status = shown.said("calltrace status").splitlines()
    assert status[0].endswith(", paused")
    assert "mode             hits" in status
    said = "calltrace: recorded with --mode hits: only the first entry of each function"
    for words in ("tree --function depth", "top --limit 1", "callers depth", "stacks"):
        assert shown.said(f"calltrace {words}").startswith(said)
    tree = plain(shown.said("calltrace tree --function depth")).splitlines()
    assert [line for line in tree if "session_calls!" in line] == ["  session_calls!depth"]
    assert shown.said("!notes session_calls:depth").startswith("calltrace: called|")
    assert rows(shown.said("calltrace new levels"))[-1] == ["1", "session_calls!depth"]
    assert "mode             hits: only the first entry" in shown.said("calltrace info")
    assert sum("INT3 breakpoint at <session_calls.depth>" in text for _, text in shown.commands) == 21
    # work was paused before its jump, where its breakpoint is
    assert own_calls(file) == {"main": 1, "depth": 1}


@x64dbg.both
def test_counts_are_paused_resumed_looked_at_and_stopped(debugger: str, tmp_path: Path) -> None:
    asked = [f"!value calltrace.{what}(session_calls:leaf)" for what in ("hits", "traced")]
    names = ("graph.calltrace", "earlier.calltrace", "saved.calltrace", "graph.dot")
    file, earlier, saved, dot = (tmp_path / name for name in names)
    script = [
        f"calltrace start --mode graph -o {windows.path(file)}",
        "bp session_calls:leaf",
        *["run"] * 16,
        *asked,
        "calltrace callers leaf",
        "calltrace callees work",
        "calltrace top --limit 2",
        "!references",
        "!notes session_calls:leaf",
        f"calltrace save {windows.path(earlier)}",
        "calltrace pause",
        "calltrace status",
        "bc session_calls:leaf",
        "bp session_calls:depth",
        "run",  # past every other call of leaf
        "calltrace resume",
        *["run"] * 20,
        "calltrace tree",
        "calltrace mark here",
        f"calltrace save {windows.path(saved)}",
        f"calltrace diff {windows.path(earlier)} {windows.path(saved)}",
        f"calltrace export dot -o {windows.path(dot)}",
        "calltrace top --limit 1",
        "bc session_calls:depth",
        "calltrace stop",
        "erun",
    ]
    shown = session(debugger, script, "session_calls", str(LEAVES))
    assert f"{ENDED} 0xB (11)" in shown.commands[-1][1]
    assert rows(shown.said("calltrace callers leaf")) == [
        ["15", "session_calls!leaf"],  # the sixteenth stands before the jump
        ["15", "\N{LEFTWARDS ARROW}", "session_calls!work"],
    ]
    [leaf] = [row for row in shown.said("!references").splitlines() if "!leaf|" in row]
    assert [cell.strip() for cell in leaf.split("|")[1:]] == [
        "15",
        "session_calls!leaf",
        f"session_calls!work {TIMES}15",
    ]
    assert shown.said("!notes session_calls:leaf").startswith("calltrace: 15 calls|")
    assert [int(shown.said(expression)) for expression in asked] == [15, 1]
    status = shown.said("calltrace status").splitlines()
    assert status[0].endswith(", paused")
    assert "mode             graph" in status
    assert "recorded with --mode graph and knows no order of calls: `top`" in shown.said("calltrace tree")
    assert "with --mode graph no order is recorded" in shown.said("calltrace mark here")
    later = shown.said(f"calltrace diff {windows.path(earlier)} {windows.path(saved)}")
    assert [row for row in rows(later) if row and row[-1].startswith("session_calls")] == [
        ["20", "session_calls!depth"]
    ]
    assert "session_calls!work" in dot.read_text()
    assert shown.said("calltrace stop").rstrip().endswith("`calltrace top` shows it")
    assert own_calls(saved) == own_calls(file) == {"main": 1, "work": 1, "leaf": 15, "depth": 20}


@x64dbg.both
def test_a_budget_is_looked_at_and_stopped(debugger: str, tmp_path: Path) -> None:
    file = tmp_path / "budget.calltrace"
    script = [
        f"calltrace start --budget 3 -o {windows.path(file)}",
        "bp session_calls:leaf",
        *["run"] * 16,
        "calltrace tree --function work",
        "calltrace callers leaf",
        "bc session_calls:leaf",
        "calltrace status",
        "calltrace stop",
        "erun",
    ]
    shown = session(debugger, script, "session_calls", str(LEAVES))
    assert f"{ENDED} 0xB (11)" in shown.commands[-1][1]
    tree = plain(shown.said("calltrace tree --function work")).splitlines()
    assert tree[0].startswith("calltrace: recorded with --budget 3: 12 calls of 1 function muted")
    assert tree[2:] == [
        "  session_calls!work  still running",
        f"    session_calls!leaf {TIMES}3",
        f"    -- muted here or deeper: session_calls!leaf {TIMES}12 --",
    ]
    assert rows(shown.said("calltrace callers leaf"))[:1] == [["15", "session_calls!leaf"]]
    assert "budget           3 calls of each function or import" in shown.said("calltrace status")
    assert own_calls(file) == {"main": 1, "work": 1, "leaf": 15}


@x64dbg.only_real
def test_a_function_is_as_before_once_it_was_entered_but_where_a_breakpoint_is(tmp_path: Path) -> None:
    start = f"calltrace start --mode hits -o {windows.path(tmp_path / 'hits.calltrace')}"
    looks = at_leaf, at_depth = [f'log "{{mem;6@session_calls:{name}}}"' for name in ("leaf", "depth")]
    script = [*looks, start, *looks, "bp session_calls:depth", "run", "run", *looks]
    script += ["bc session_calls:depth", "calltrace stop", *looks, "erun"]
    shown = session(x64dbg.REAL, script, "session_calls", "9")
    assert f"{ENDED} 0xB (11)" in shown.commands[-1][1]
    leaf = [text for command, text in shown.commands if command == at_leaf]
    depth = [text for command, text in shown.commands if command == at_depth]
    assert [text.startswith("E9") for text in leaf] == [False, True, False, False]
    assert [text.startswith("E9") for text in depth] == [False, True, True, False]
    assert len({leaf[0], *leaf[2:]}) == len({depth[0], depth[3]}) == 1


@x64dbg.only_real
def test_steps_behind_a_first_entry_are_those_of_the_untraced_program(tmp_path: Path) -> None:
    script = [
        "bp session_calls:leaf",
        "run",
        "bc session_calls:leaf",
        "rtr",
        *["!where", "sti"] * 20,  # out of leaf, and through it again, whose hook is gone
        "erun",
    ]
    start = f"calltrace start --mode hits -o {windows.path(tmp_path / 'hits.calltrace')}"
    untraced, traced = (
        [
            said
            for given, said in session(x64dbg.REAL, each, "session_calls", "9").commands
            if given == "!where"
        ]
        for each in (script, [start, *script])
    )
    assert traced == untraced
    assert f"{targets.symbols('session_calls')['leaf']:016X}\n" in traced


def test_one_recording_after_the_other_each_in_its_mode(tmp_path: Path) -> None:
    """In the stand-in: x64dbg itself suspends all other threads while one stands at a breakpoint.

    Among them may be the recorder's of the recording before, just when it holds what the next waits for.
    """
    modes = ("graph", "trace", "hits", "graph")
    files = [tmp_path / f"{number}.calltrace" for number in range(len(modes))]
    script = ["bp session_calls:leaf"]
    for mode, file in zip(modes, files):
        script += [f"calltrace start --mode {mode} -o {windows.path(file)}", *["run"] * 3, "calltrace stop"]
    shown = session(x64dbg.STAND_IN, [*script, "bc session_calls:leaf", "erun"], "session_calls", "20")
    assert f"{ENDED} 0xB (11)" in shown.commands[-1][1]
    assert hits(shown, "leaf") == 12
    # The breakpoint stands before the jump; the first recording begins before main.
    assert [own_calls(file) for file in files] == [
        {"main": 1, "work": 1, "leaf": 2},
        {"leaf": 3},
        {"leaf": 1},
        {"leaf": 3},
    ]


def counts(file: Path) -> list[object]:
    """Who called what, how often, in a whole recording."""
    with TraceFile(file) as trace:
        assert trace.mode == "graph"
        summary = summarize(trace)
        assert summary.orphans == summary.gaps == summary.lost == 0
        return sorted(
            (each.name, each.calls, sorted((other.name, other.calls) for other in each.others.values()))
            for each in call_graph(trace)
        )


@x64dbg.both
@pytest.mark.parametrize(("program", "arguments"), [("demo", ["7/2", "-1"]), ("seh", [])])
def test_counts_are_those_of_a_run_in_a_shell(
    debugger: str, tmp_path: Path, program: str, arguments: list[str]
) -> None:
    alone, beside = tmp_path / "alone.calltrace", tmp_path / "beside.calltrace"
    run = ["run", "--quiet", "--mode", "graph", "-o", alone, "--", targets.build(program), *arguments]
    done = tracing.calltrace(*run)
    script = [f"calltrace start --mode graph -o {windows.path(beside)}", *["erun"] * 3]
    shown = session(debugger, script, program, *arguments)
    assert f"{ENDED} 0x{done.returncode:X} (" in "".join(text for _, text in shown.commands)
    assert counts(beside) == counts(alone)
    with TraceFile(beside) as trace:
        assert trace.state == State.EXITED


@x64dbg.only_real
@pytest.mark.parametrize(("mode", "before_pause", "after_resume"), [("hits", "1", "1"), ("graph", "2", "3")])
def test_a_program_that_was_attached_to_is_recorded_and_let_go(
    tmp_path: Path, mode: str, before_pause: str, after_resume: str
) -> None:
    running, file = Running("port_threads"), tmp_path / f"{mode}.calltrace"
    outer = f"{targets.symbols('port_threads')['outer']:x}"
    script = [
        f"attach {running.process_id:x}",
        f"bp {outer}",
        "run",
        f"calltrace start --mode {mode} -o {windows.path(file)}",
        *["run"] * 2,
        "calltrace top",
        "calltrace pause",
        "run",
        "calltrace resume",
        "run",
        "calltrace top --sort calls",
        f"bc {outer}",
        "calltrace stop",
        "sti",
        "detach",
    ]
    shown = x64dbg.run(script, x64dbg.REAL)
    assert running.end() == ("rounds some, wrong 0, debugged 0", 5)
    for command, times in (("top", before_pause), ("top --sort calls", after_resume)):
        found = {row[1]: row[0] for row in rows(shown.said(f"calltrace {command}")) if len(row) == 2}
        assert (found["port_threads!outer"], found["port_threads!inner"]) == (times, times)
        assert found["port_threads!fibonacci"] == "1" or mode == "graph"
    with TraceFile(file) as trace:
        assert trace.state == State.STOPPED
        summary = summarize(trace)
        assert summary.orphans == summary.gaps == summary.lost == 0
        outers = [stat.calls for stat in summary.stats if stat.name == "port_threads!outer"]
    assert outers == [int(after_resume)]


@x64dbg.only_real
@pytest.mark.parametrize("end", ["stop", "detach"])
def test_counts_of_a_program_that_is_killed_or_let_go_are_whole(tmp_path: Path, end: str) -> None:
    file = tmp_path / "graph.calltrace"
    script = [
        f"calltrace start --mode graph --clock tsc -o {windows.path(file)}",
        "bp session_calls:depth",
        "run",
        "bc session_calls:depth",
        end,
    ]
    session(x64dbg.REAL, script, "session_calls", str(LEAVES))
    with TraceFile(file) as trace:
        found = {stat.name.partition("!")[2]: stat.calls for stat in summarize(trace).stats}
    assert found["leaf"] == LEAVES
    assert end == "detach" or "depth" not in found


@x64dbg.both
def test_marks_of_the_program_bound_parts_while_it_is_recorded(debugger: str, tmp_path: Path) -> None:
    script = [
        f"calltrace start --clock tsc -o {windows.path(tmp_path / 't.calltrace')}",
        f"bp {targets.symbols('program_marks')['first_behind']:x}",
        "run",
        "calltrace diff @7",
        "calltrace new 7#2",
    ]
    shown = session(debugger, script, "program_marks")
    between = shown.said("calltrace diff @7")
    own = re.findall(r"^ +(\d+)  program_marks!((?:first|second)_\w+)", between, re.MULTILINE)
    assert own == [("1", "first_between"), ("100", "second_between")]
    assert shown.said("calltrace new 7#2").splitlines()[-1] == "nothing"
