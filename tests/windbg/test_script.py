"""Whole sessions as users type them in the real debugger engine: one thread, several, cmake.

Each is held to the same program outside: untraced in the debugger, and recorded in a shell.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from calltrace.calltree import summarize
from calltrace.model import State
from calltrace.tracefile import TraceFile
from rig import targets, tracing, windbg, windows
from rig.running import Running
from rig.sessions import API_OF_END, CASES, RECORDED, WRITES, Case, called, place, tree

FRAME = re.compile(r"^[0-9a-f]{8}`[0-9a-f]{8} [0-9a-f]{8}`[0-9a-f]{8} (\S+)$", re.MULTILINE)  # of `k`
END = place(API_OF_END, "!")


def frames(output: str) -> list[str]:
    """What `k` calls the frames; in copies it writes `module!+0x13ae` if there is no symbol at all."""
    return [name.replace("!+", "+") for name in FRAME.findall(output)]


def own(names: Sequence[str], case: Case) -> list[str]:
    return [name for name in names if name.startswith(case.program)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.program)
def test_a_session_from_the_first_instruction_to_the_last(case: Case, tmp_path: Path) -> None:
    (tmp_path / "writes.cmake").write_text(WRITES)
    target, stop = [case.path(), *case.arguments], place(case.api, "!")
    untraced_script = [f"bp {stop}", "g", "k 60", "bc *", "g"]
    untraced = windbg.run([windbg.LOAD, *untraced_script], target, cwd=tmp_path)
    script = [
        windbg.LOAD,
        "!calltrace start -o beside.calltrace",
        f"bp {stop}",
        "g",
        "k 60",
        "!calltrace stacks",
        "!calltrace tree --limit 0",
        "bc *",
        f"bp {END}",
        "g ",
        "!calltrace stop",
        "!calltrace export chrome",
        "bc * ",
        "g  ",
    ]
    shown = windbg.run(script, target, cwd=tmp_path)
    plain = windows.run(target, cwd=tmp_path)
    assert shown.stdout == untraced.stdout == plain.stdout
    assert not shown.has_target

    planning, instrumented, *_, recording = shown.said("!calltrace start -o beside.calltrace").splitlines()
    assert planning.startswith(f"calltrace: {case.program}.exe: planning ")
    counts = re.fullmatch(
        rf"calltrace: {case.program}\.exe: ([\d,]+) of ([\d,]+) functions instrumented.*", instrumented
    )
    assert counts
    assert recording.startswith("calltrace: recording into ")
    assert recording.endswith("beside.calltrace")

    # The debugger's walk, the recorded stack, and the tree as far as it goes tell the same.
    assert frames(shown.said("k 60")) == frames(untraced.said("k 60"))
    recorded = RECORDED.findall(shown.said("!calltrace stacks").split("\nthread ")[0])
    assert recorded[0] == case.api
    assert len(recorded) - 1 == len(own(frames(untraced.said("k 60")), case))
    tree_so_far = shown.said("!calltrace tree --limit 0").split("\nthread ")[0]
    running = re.findall(r"^ +((?!call |end of )\S.*)  still running$", tree_so_far, re.MULTILINE)
    # The outermost frame of cmake goes on from a tail call, so that the tree has begun it before.
    assert running[-len(recorded) + 1 :] == recorded[-2::-1]

    # Stopped at its end, the trace is that of the whole run in a shell.
    assert "calltrace: recorded " in shown.said("!calltrace stop")
    alone = tmp_path / "alone.calltrace"
    words = ["run", "--quiet", "-o", alone, "--", *target]
    # What cmake does depends on its environment.
    done = tracing.calltrace(*words, cwd=tmp_path, env=windbg.environment())
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
    beside = tmp_path / "beside.calltrace"
    assert tree(beside) == tree(alone)
    with TraceFile(beside) as trace:
        assert trace.state == State.STOPPED
        summary = summarize(trace)
        assert len([thread for thread in trace.threads if thread.units]) >= case.threads
        calls = sum(stat.calls for stat in summary.stats)
    spans = json.loads((tmp_path / "beside.json").read_text(encoding="utf-8"))["traceEvents"]
    begun = Counter(event["name"] for event in spans if event["ph"] in "BX")
    assert sum(begun.values()) >= calls
    assert {stat.name for stat in summary.stats} <= set(begun)


def test_a_session_with_a_busy_program_that_was_attached_to(tmp_path: Path) -> None:
    running, other = Running("port_threads"), Running("port_threads")
    inner = targets.symbols("port_threads")["inner"]
    script = [
        windbg.LOAD,
        f"!calltrace start -o {windows.path(tmp_path / 'beside.calltrace')}",
        "!break 50",  # so that all threads have come round
        "g ",
        # One thread only comes by: dbgeng can crash a program, traced or not, that it is detached from after
        # several have met one breakpoint.
        f"bp {inner:#x}",
        "g",
        "k 60",
        "!calltrace stacks --thread ~.",
        "!calltrace stacks",
        "!calltrace tree --limit 40",
        "g  ",
        "bc *",
        "!calltrace stop",
        "!calltrace export chrome",
        ".detach",
    ]
    shown = windbg.run(script, process_id=running.process_id)
    assert running.end() == ("rounds some, wrong 0, debugged 0", 5), shown.commands
    assert "calltrace: recorded" in shown.said("!calltrace stop"), shown.commands
    assert "Breakpoint 0 hit" in shown.said("g")
    assert "Breakpoint 0 hit" in shown.said("g  ")
    walked = frames(shown.said("k 60"))
    untraced = windbg.run(
        [f"bp {inner:#x}", "g", "k 60", "bc *", ".detach"],
        process_id=other.process_id,
    )
    assert walked == frames(untraced.said("k 60"))
    assert walked[-1].startswith("ntdll!RtlUserThreadStart+")
    [stack] = [shown.said("!calltrace stacks --thread ~.")]
    # Frames that were entered before the start are on the debugger's stack only.
    assert RECORDED.findall(stack) == ["port_threads!outer"]
    assert len(RECORDED.findall(stack)) <= sum(name.startswith("port_threads") for name in walked)
    assert shown.said("!calltrace stacks").count("so far, as of its event") >= 4
    assert "port_threads!fibonacci" in shown.said("!calltrace tree --limit 40")
    alone = tmp_path / "alone.calltrace"
    done = tracing.calltrace("attach", str(other.process_id), "--seconds", "0.5", "--quiet", "-o", alone)
    assert done.returncode == 0, done.stderr.decode()
    assert other.end() == running.end()
    assert called(tmp_path / "beside.calltrace") == called(alone)
    exported = (tmp_path / "beside.json").read_bytes()
    assert exported.count(b"port_threads!fibonacci") > 1000
    assert exported.rstrip().endswith(b"]}")
