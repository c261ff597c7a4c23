"""Recordings in other modes than "trace", by commands in the real debugger engine."""

from __future__ import annotations

from pathlib import Path

from calltrace.calltree import summarize
from calltrace.tracefile import TraceFile
from rig import targets, windbg, windows
from rig.sessions import own_calls
from windbg.test_live import address, plain


def lines(output: str) -> list[str]:
    return output.splitlines()


def test_first_entries_are_paused_resumed_and_stopped(tmp_path: Path) -> None:
    file = tmp_path / "hits.calltrace"
    script = [
        windbg.LOAD,
        f"!calltrace start --mode hits -o {windows.path(file)}",
        f"bp {address('work')}",
        f"bp {address('depth')}",
        "g",
        "!calltrace pause",
        "!calltrace status",
        "g",  # past every call of leaf, to the first of depth
        "bc *",
        "!calltrace resume",
        f"bp {address('depth')} 20",
        "g",
        "!calltrace tree --function depth",
        "!calltrace top --limit 1",
        "!calltrace info",
        "bc *",
        "!calltrace stop",
        "g",
    ]
    shown = windbg.run(script, [targets.build("session_calls"), "1000"])
    assert shown.stdout == plain("session_calls", "1000").stdout
    status = lines(shown.said("!calltrace status"))
    assert status[0].endswith(", paused")
    assert "mode             hits" in status
    said = "calltrace: recorded with --mode hits: only the first entry of each function"
    tree, top = (shown.said(f"!calltrace {words}") for words in ("tree --function depth", "top --limit 1"))
    assert tree.startswith(said)
    assert lines(tree)[2:] == ["  session_calls!depth"]
    assert top.startswith(said)
    assert "mode             hits: only the first entry" in shown.said("!calltrace info")
    # work was paused before its jump, where its breakpoint is
    assert own_calls(file) == {"main": 1, "depth": 1}


def test_a_function_is_as_before_once_it_was_entered_but_where_a_breakpoint_is(tmp_path: Path) -> None:
    start = f"!calltrace start --mode hits -o {windows.path(tmp_path / 'hits.calltrace')}"
    looks = at_leaf, at_depth = [f"db {address(name)} L5" for name in ("leaf", "depth")]
    script = [windbg.LOAD, *looks, start, *looks, f"bp {address('depth')}", "g", "g", *looks]
    script += ["bc *", "!calltrace stop", *looks, "g"]
    shown = windbg.run(script, [targets.build("session_calls"), "9"])
    assert shown.stdout == plain("session_calls", "9").stdout
    leaf = [text.split("  ")[1] for command, text in shown.commands if command == at_leaf]
    depth = [text.split("  ")[1] for command, text in shown.commands if command == at_depth]
    assert [text[:2] == "e9" for text in leaf] == [False, True, False, False]
    assert [text[:2] == "e9" for text in depth] == [False, True, True, False]
    assert len({leaf[0], *leaf[2:]}) == len({depth[0], depth[3]}) == 1


def test_counts_are_paused_resumed_looked_at_and_stopped(tmp_path: Path) -> None:
    file, saved, dot = (tmp_path / name for name in ("graph.calltrace", "saved.calltrace", "graph.dot"))
    script = [
        windbg.LOAD,
        f"!calltrace start --mode graph -o {windows.path(file)}",
        f"bp {address('leaf')} 10",
        "g",
        "!calltrace callers leaf",
        "!calltrace pause",
        "!calltrace status",
        "bc *",
        f"bp {address('depth')}",
        "g",  # past every other call of leaf
        "bc *",
        "!calltrace resume",
        f"bp {address('depth')} 20",
        "g",
        "!calltrace tree",
        "!calltrace mark here",
        f"!calltrace save {windows.path(saved)}",
        f"!calltrace export dot -o {windows.path(dot)}",
        "bc *",
        "!calltrace stop",
        "g",
    ]
    shown = windbg.run(script, [targets.build("session_calls"), "1000"])
    assert shown.stdout == plain("session_calls", "1000").stdout
    rows = [line.split() for line in lines(shown.said("!calltrace callers leaf"))[1:]]
    assert rows == [
        ["15", "session_calls!leaf"],  # the sixteenth stands before the jump
        ["15", "\N{LEFTWARDS ARROW}", "session_calls!work"],
    ]
    status = lines(shown.said("!calltrace status"))
    assert status[0].endswith(", paused")
    assert "mode             graph" in status
    assert "recorded with --mode graph and knows no order of calls: `top`" in shown.said("!calltrace tree")
    assert "with --mode graph no order is recorded" in shown.said("!calltrace mark here")
    assert own_calls(saved) == {"main": 1, "work": 1, "leaf": 15, "depth": 32}
    assert "session_calls!work" in dot.read_text()
    assert shown.said("!calltrace stop").rstrip().endswith("`!calltrace top` shows it")
    assert own_calls(file) == {"main": 1, "work": 1, "leaf": 15, "depth": 32}


def test_counts_of_a_program_that_ends_or_is_let_go_are_whole(tmp_path: Path) -> None:
    for end in ("g", ".kill", ".detach"):
        file = tmp_path / f"{end}.calltrace"
        start = f"!calltrace start --mode graph --clock tsc -o {windows.path(file)}"
        script = [
            windbg.LOAD,
            start,
            f"bp {address('depth')}",
            "g",
            "bc *",
            end,
            windbg.LOAD,
            "!calltrace status",
        ]
        windbg.run(script, [targets.build("session_calls"), "1000"])
        with TraceFile(file) as trace:
            found = {stat.name.partition("!")[2]: stat.calls for stat in summarize(trace).stats}
            assert found["leaf"] == 1000
            assert end == ".detach" or found.get("depth") == {"g": 50}.get(end)
