"""Whole sessions as users type them in the real debugger: one thread, several, cmake, a program attached to.

Each is held to the same program outside: untraced in the debugger, and recorded in a shell.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from calltrace.calltree import summarize
from calltrace.model import State
from calltrace.tracefile import TraceFile
from rig import targets, tracing, windows, x64dbg
from rig.running import Running
from rig.sessions import API_OF_END, CASES, RECORDED, WRITES, Case, called, place, tree

pytestmark = x64dbg.only_real

ADDRESS = re.compile(r"(?<=\S) [0-9A-F]{16}\b")  # behind a name
END = place(API_OF_END, ":")
# What cmake asks of the console that x64dbg gives it, and a shell's pipes are none.
OF_A_CONSOLE = {
    "KERNEL32.dll!InitializeCriticalSection",
    "KERNEL32.dll!GetConsoleScreenBufferInfo",
    "KERNEL32.dll!QueueUserWorkItem",
    "KERNEL32.dll!GetConsoleMode",
    "KERNEL32.dll!GetCurrentProcess",
}


def own(stack: str, case: Case) -> list[str]:
    """The program's frames in the call stack's view, each with how many there are of it in a row."""
    return [line for line in stack.splitlines() if line.startswith(f"{case.program}.")]


def added(longer: Counter[tuple[str, ...]], shorter: Counter[tuple[str, ...]]) -> set[str]:
    """The APIs that trees have called beyond what is in others, which they contain line by line."""
    left = longer - shorter
    lines: list[str] = []
    for each in shorter - longer:
        of = max(left, key=len)
        del left[of]
        wanted = iter((*each, None))
        line = next(wanted)
        for other in of:
            if other == line:
                line = next(wanted)
            else:
                lines.append(other)
        assert line is None
    for each in left:
        lines += each
    assert len(lines) < 20
    return {name.strip() for name in lines if "!" in name}


def debugged(script: Sequence[str], case: Case, folder: Path) -> x64dbg.Transcript:
    begin = x64dbg.init(case.path(), " ".join(case.arguments), folder)
    return x64dbg.run([begin, *script], x64dbg.REAL, installed=folder / "x64dbg")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.program)
def test_a_session_from_the_first_instruction_to_the_last(case: Case, tmp_path: Path) -> None:
    (tmp_path / "writes.cmake").write_text(WRITES)
    with x64dbg.installation(x64dbg.REAL) as fresh:
        shutil.copytree(fresh.parent, tmp_path / "x64dbg", symlinks=True)
    beside, spans_file = tmp_path / "beside.calltrace", tmp_path / "beside.json"
    stop = place(case.api, ":")
    stop_at = [f"bp {stop}", "run", "!callstack"]
    untraced = debugged([*stop_at, f"bc {stop}", "erun"], case, tmp_path)
    begin = f"calltrace start -o {windows.path(beside)}"
    script = [
        begin,
        *stop_at,
        "calltrace stacks",
        "calltrace tree --limit 0",
        f"bc {stop}",
        f"bp {END}",
        "erun",
        "calltrace stop",
        f"calltrace export chrome -o {windows.path(spans_file)}",
        "sti",
        "sti",
        f"bc {END}",
        "erun",
    ]
    shown = debugged(script, case, tmp_path)
    assert not shown.has_target

    planning, *_, recording = shown.said(begin).splitlines()
    assert planning.startswith(f"calltrace: {case.program}.exe: planning ")
    assert re.search(
        rf"^calltrace: {case.program}\.exe: [\d,]+ of [\d,]+ functions instr", shown.said(begin), re.M
    )
    assert recording == f"calltrace: recording into {windows.path(beside)}"

    # The debugger's call stack, the recorded one, and the tree as far as it goes tell the same.
    assert shown.said("!callstack") == untraced.said("!callstack")
    recorded = RECORDED.findall(ADDRESS.sub("", shown.said("calltrace stacks")).split("\nthread ")[0])
    assert recorded[0] == case.api
    assert len(recorded) - 1 == len(own(untraced.said("!callstack"), case)) or len(recorded) > 45
    tree_so_far = ADDRESS.sub("", shown.said("calltrace tree --limit 0")).split("\nthread ")[0]
    running = re.findall(r"^ +((?!call |end of )\S.*)  still running$", tree_so_far, re.MULTILINE)
    # The outermost frame of cmake goes on from a tail call, so that the tree has begun it before.
    assert running[-len(recorded) + 1 :] == recorded[-2::-1]

    # It ends as untraced, and stopped at its end the trace is that of the whole run in a shell.
    ends = [
        re.findall(r"^Process stopped .*", each.commands[-1][1], re.MULTILINE) for each in (untraced, shown)
    ]
    assert ends[0] == ends[1] != []
    assert f"calltrace: recorded {windows.path(beside)}" in shown.said("calltrace stop")
    alone = tmp_path / "alone.calltrace"
    words = ["run", "--quiet", "-o", alone, "--", case.path(), *case.arguments]
    # What cmake does depends on its environment.
    done = tracing.calltrace(*words, cwd=tmp_path, env=x64dbg.environment(tmp_path / "x64dbg"))
    assert f"0x{done.returncode:X} (" in ends[0][0]
    assert added(tree(beside), tree(alone)) <= (OF_A_CONSOLE if case.program == "cmake" else set())
    with TraceFile(beside) as trace:
        assert trace.state == State.STOPPED
        summary = summarize(trace)
        assert len([thread for thread in trace.threads if thread.units]) >= case.threads
        calls = sum(stat.calls for stat in summary.stats)
    spans = json.loads(spans_file.read_text(encoding="utf-8"))["traceEvents"]
    assert sum(event["ph"] in "BX" for event in spans) >= calls
    if case.program == "cmake":
        assert sorted(file.name for file in tmp_path.glob("written*.txt")) == [
            f"written{i}.txt" for i in range(3)
        ]


def test_a_session_with_a_busy_program_that_was_attached_to(tmp_path: Path) -> None:
    """Wine does not break into a process for the one that attaches: a breakpoint stops it first.

    It is on a function that one thread calls. If several come to one at once, x64dbg itself loses threads
    there under Wine: it takes what they have raised for the program's own, traced or not.
    """
    running = Running("port_threads")
    outer, beside = f"{targets.symbols('port_threads')['outer']:x}", tmp_path / "beside.calltrace"
    script = [
        f"attach {running.process_id:x}",
        "calltrace start ",
        f"bp {outer}",
        f"calltrace start -o {windows.path(beside)}",
        "run",
        "!callstack",
        "calltrace stacks",
        "calltrace tree --limit 40",
        f"bc {outer}",
        "calltrace stop",
        f"calltrace export chrome -o {windows.path(tmp_path / 'beside.json')}",
        "sti",
        "detach",
    ]
    shown = x64dbg.run(script, x64dbg.REAL)
    assert running.end() == ("rounds some, wrong 0, debugged 0", 5)
    [refused] = [line for line in shown.said("calltrace start ").splitlines() if "calltrace: " in line]
    assert refused.startswith("calltrace: there is no stopped target: ")
    assert "INT3 breakpoint at port_threads." in shown.said("run")
    assert re.match(r"port_threads\.\w{16}\n(.*\n)*ntdll\.", shown.said("!callstack"))
    assert "so far, as of its event" in shown.said("calltrace stacks")
    assert "port_threads!fibonacci" in shown.said("calltrace tree --limit 40")
    alone = tmp_path / "alone.calltrace"
    other = Running("port_threads")
    done = tracing.calltrace("attach", str(other.process_id), "--seconds", "0.5", "--quiet", "-o", alone)
    assert done.returncode == 0, done.stderr.decode()
    assert other.end() == running.end()
    # To stop it there, a thread is made, which calls what the C runtime does for each.
    assert {f"port_threads!{name}" for name in ("fibonacci", "inner", "outer")} <= called(beside)
    assert called(beside) <= called(alone)
    assert (tmp_path / "beside.json").read_bytes().count(b"port_threads!fibonacci") > 1000
