"""Recordings with a budget, by commands in the real debugger engine."""

from __future__ import annotations

from pathlib import Path

from calltrace.tracefile import TraceFile
from rig import targets, windbg, windows
from rig.sessions import own_calls
from windbg.test_live import address, plain
from windbg.test_modes import lines


def test_a_budget_is_looked_at_marked_paused_and_stopped(tmp_path: Path) -> None:
    file, saved = (tmp_path / name for name in ("budget.calltrace", "saved.calltrace"))
    script = [
        windbg.LOAD,
        f"!calltrace start --budget 3 -o {windows.path(file)}",
        f"bp {address('leaf')} 10",
        "g",
        "!calltrace tree --function work",
        "!calltrace stacks",
        "!calltrace status",
        "!calltrace mark first",
        "!calltrace pause",
        "bc *",
        f"bp {address('depth')}",
        "g",  # past every other call of leaf
        "bc *",
        "!calltrace resume",
        f"bp {address('depth')} 20",
        "g",
        "!calltrace stacks --limit 0",
        "!calltrace tree --function depth",
        f"!calltrace save {windows.path(saved)}",
        "!calltrace callers leaf",
        "bc *",
        "!calltrace stop",
        "g",
    ]
    shown = windbg.run(script, [targets.build("session_calls"), "1000"])
    assert shown.stdout == plain("session_calls", "1000").stdout
    tree = lines(shown.said("!calltrace tree --function work"))
    assert tree[0].startswith("calltrace: recorded with --budget 3: 12 calls of 1 function muted")
    assert tree[2:] == [
        "  session_calls!work  still running",
        "    session_calls!leaf \N{MULTIPLICATION SIGN}3",
        "    -- muted here or deeper: session_calls!leaf \N{MULTIPLICATION SIGN}12 --",
    ]
    assert "session_calls!work" in shown.said("!calltrace stacks")
    assert "budget           3 calls of each function or import, in each thread" in shown.said(
        "!calltrace status"
    )
    deep = lines(shown.said("!calltrace stacks --limit 0"))
    assert sum("session_calls!depth" in line for line in deep) == 32
    rows = [line.split() for line in lines(shown.said("!calltrace callers leaf"))[1:]]
    assert rows[0] == ["15", "session_calls!leaf"]
    for trace in (saved, file):
        assert own_calls(trace) == {"main": 1, "work": 1, "leaf": 15, "depth": 32}
    with TraceFile(file) as trace:
        assert [mark.name for mark in trace.marks] == ["first", "paused", "resumed"]
