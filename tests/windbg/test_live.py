"""Recordings started, looked at and stopped by commands, in the real debugger engine."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pefile
import pytest

from calltrace.calltree import summarize
from calltrace.model import Cause, State
from calltrace.stacks import stacks
from calltrace.tracefile import TraceFile
from rig import targets, tracing, windbg, windows
from rig.running import Running
from rig.windbg import Transcript

TIMES = "\N{MULTIPLICATION SIGN}"
ENGINES_WARNINGS = re.compile("WARNING: |GetContextState failed|Unable to get |Extension called without")
DEMO_ARGUMENTS = ("2 * (3 + 4)", "7 / 2", "-1")
LEVELS = 50  # of the recursion in session_calls
SESSION_CALLS_ENDS_WITH = 11


def address(function: str) -> str:
    """The VA of an export of session_calls, which is not relocated."""
    with pefile.PE(str(targets.build("session_calls"))) as image:
        [found] = [each for each in image.DIRECTORY_ENTRY_EXPORT.symbols if each.name == function.encode()]
        return f"{image.OPTIONAL_HEADER.ImageBase + found.address:#x}"


def session(script: Sequence[str], program: str = "session_calls", *arguments: str) -> Transcript:
    """What a debugger shows that has our extension, and starts a program."""
    return windbg.run([windbg.LOAD, *script], [targets.build(program), *arguments])


def plain(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return windows.run([targets.build(program), *arguments])


def tree(trace: Path, *options: str) -> list[str]:
    """The call tree's lines, without the system's thread ids."""
    done = tracing.calltrace("tree", trace, *options)
    assert done.returncode == 0, done.stderr.decode()
    return without_ids(done.stdout.decode())


def without_ids(text: str) -> list[str]:
    return re.sub(r" \(id \d+\)", "", text).splitlines()


def test_commands_work_where_a_step_has_ended(tmp_path: Path) -> None:
    file, again = tmp_path / "steps.calltrace", tmp_path / "again.calltrace"
    shown = session(
        [
            f"!calltrace start -o {windows.path(file)}",
            f"bp {address('leaf')}",
            "g",
            "p",
            "!calltrace pause",
            "t",
            "!calltrace resume",
            "t",
            "!calltrace stop",
            "p",
            f"!calltrace start -o {windows.path(again)}",
            "bc *",
            "g",
        ],
        "session_calls",
        "3",
    )
    assert not shown.has_target
    assert "recorded" in shown.said("!calltrace stop")
    assert shown.stdout == plain("session_calls", "3").stdout
    with TraceFile(file) as first, TraceFile(again) as second:
        assert first.state == State.STOPPED
        assert second.state == State.EXITED
        assert [mark.name for mark in first.marks] == ["paused", "resumed"]


def ours(text: str) -> str:
    """What was printed besides the engine's own warnings that there is no target."""
    return "".join(line for line in text.splitlines(keepends=True) if not ENGINES_WARNINGS.match(line))


@pytest.mark.parametrize(
    ("program", "arguments"), [("session_calls", ["1000"]), ("demo", DEMO_ARGUMENTS), ("fibers", [])]
)
def test_a_recording_from_the_initial_break_on_is_that_of_a_run(
    tmp_path: Path, program: str, arguments: list[str]
) -> None:
    alone, beside = tmp_path / "alone.calltrace", tmp_path / "beside.calltrace"
    done = tracing.calltrace("run", "--quiet", "-o", alone, "--", targets.build(program), *arguments)
    shown = session([f"!calltrace start -o {windows.path(beside)}", "g"], program, *arguments)
    assert not shown.has_target
    assert shown.stdout == done.stdout == plain(program, *arguments).stdout
    assert tree(beside) == tree(alone)
    with TraceFile(beside) as trace:
        assert trace.state == State.EXITED


def test_a_session_as_a_user_types_it(tmp_path: Path) -> None:
    file, text = tmp_path / "first session.calltrace", tmp_path / "first.txt"
    script = [
        f'!calltrace start -o "{windows.path(file)}"',
        f"bp {address('depth')}",
        "g",
        "!calltrace stacks",
        "!calltrace tree --function work",
        "!calltrace callers leaf --depth 2",
        "!calltrace top --limit 1",
        "g",
        "!calltrace stacks --thread ~0",
        "bc *",
        "!calltrace stop",
        f"!calltrace export text -o {windows.path(text)}",
        "!calltrace export chrome",
        "g",
        windbg.LOAD,
        "!calltrace tree --function work",
        "!calltrace info",
    ]
    shown = session(script, "session_calls", "7")
    outputs = [text for _, text in shown.commands[1:]]
    startup = ["main", "__tmainCRTStartup", "mainCRTStartup"]

    def frames(stack: str) -> list[str]:
        return re.findall(r"^  \d\d  session_calls!(\w+)", stack, re.MULTILINE)

    assert "session_calls.exe: 99 of " in outputs[0]
    assert outputs[0].endswith(f"calltrace: recording into {windows.path(file)}\n")
    assert outputs[3].startswith("thread 0 (id ")
    assert ", so far, as of its event " in outputs[3]
    assert frames(outputs[3]) == ["work", *startup]
    work = ["  session_calls!work  still running", f"    session_calls!leaf {TIMES}7"]
    assert outputs[4].splitlines()[1:] == work
    assert [line.split() for line in outputs[5].splitlines()[1:]] == [
        ["7", "session_calls!leaf"],
        ["7", "\N{LEFTWARDS ARROW}", "session_calls!work"],
        ["7", "\N{LEFTWARDS ARROW}", "session_calls!main"],
    ]
    assert outputs[6].splitlines()[1].split() == ["7", "session_calls!leaf"]
    assert frames(outputs[8]) == ["depth", "work", *startup]
    assert outputs[10].startswith(f"calltrace: recorded {windows.path(file)} (")
    assert outputs[11] == ""
    chrome = file.with_suffix(".json")
    assert outputs[12] == f"calltrace: writing {windows.path(chrome)}\n"
    assert any(
        event.get("name") == "session_calls!leaf" for event in json.loads(chrome.read_text())["traceEvents"]
    )
    stopped = ours(outputs[15])
    assert stopped.splitlines()[1:3] == [f"{work[0]} when stopped", work[1]]
    assert without_ids(stopped) == tree(file, "--function", "work")
    assert "recording was stopped, the program went on" in outputs[16]
    assert text.read_text(encoding="utf-8").splitlines()[0].startswith("thread 0 ")
    assert shown.stdout == plain("session_calls", "7").stdout


def test_a_program_that_ends_while_it_is_recorded_leaves_its_whole_trace(tmp_path: Path) -> None:
    file = tmp_path / "own.calltrace"
    shown = session(
        [f"!calltrace start -o {windows.path(file)}", "g", windbg.LOAD, "!calltrace tree --depth 1"]
    )
    told = f"calltrace: the recorded program has ended; its trace is {windows.path(file)}\n"
    assert shown.said("g") == told
    assert ours(shown.commands[-1][1]).splitlines()[1:2] == [
        "  session_calls!mainCRTStartup  open at process end"
    ]
    with TraceFile(file) as trace:
        assert trace.state == State.EXITED
        assert trace.header.exit_code == SESSION_CALLS_ENDS_WITH


@pytest.mark.parametrize("end", [[".kill"], ["q"], []])
def test_a_program_that_the_debugger_ends_leaves_its_whole_trace(tmp_path: Path, end: list[str]) -> None:
    file = tmp_path / "killed.calltrace"
    start = f"!calltrace start --clock tsc -o {windows.path(file)}"
    session([start, f"bp {address('leaf')}", "g", *end], "session_calls", "1")
    with TraceFile(file) as trace:
        assert trace.state == State.KILLED
        assert trace.header.tsc_hz
        [stack] = list(stacks(trace))
        assert next(frame.name for frame in stack.frames()) == "session_calls!work"
        assert stack.cause == Cause.PROCESS_END


def rows(table: str) -> dict[str, str]:
    """The counts of a list by the first names in its rows."""
    found = re.findall(r"^ +([\d,]+)  (\S+)", table, re.MULTILINE)
    return {name: count for count, name in found}


def test_what_ran_between_marks_is_compared_while_recording(tmp_path: Path) -> None:
    file = tmp_path / "marks.calltrace"
    script = [
        f"!calltrace start -o {windows.path(file)}",
        f"bp {address('work')}",
        f"bp {address('depth')}",
        "bp msvcrt!fflush",
        "g",
        "!calltrace mark leaves",
        "g",
        "!calltrace new",
        "!calltrace mark many levels",
        "bc 1",
        "g",
        '!calltrace diff @leaves "@many levels"',
        "!calltrace diff . - @..leaves - @leaves",
        "!calltrace diff --edges @leaves",
        "!calltrace new leaves --json",
        "!calltrace diff @leaves @nowhere",
        "g",
    ]
    shown = session(script, "session_calls", "7")
    # Both breakpoints are where nothing of the function has been recorded yet.
    first = {"session_calls!work": "1", "session_calls!leaf": "7"}
    assert rows(shown.said("!calltrace new")) == first
    compared = shown.said('!calltrace diff @leaves "@many levels"')
    assert compared.splitlines()[0] == "A  @leaves: 2 functions, 8 calls"
    only_a, only_b = compared.split("only in B: ")
    assert rows(only_a) == first
    later = rows(only_b)
    assert later.items() >= {"session_calls!depth": str(LEVELS), "msvcrt.dll!fflush": "1"}.items()
    never_before = rows(shown.said("!calltrace diff . - @..leaves - @leaves"))
    assert later.items() >= never_before.items() >= {"session_calls!depth": str(LEVELS)}.items()
    assert rows(shown.said("!calltrace diff --edges @leaves")) == {
        "session_calls!main": "1",
        "session_calls!work": "7",
    }
    since = json.loads(shown.said("!calltrace new leaves --json"))["found"]
    assert {row["name"] for row in since} == first.keys() | never_before.keys()
    assert shown.said("!calltrace diff @leaves @nowhere") == (
        f"calltrace: {windows.path(file)} has no mark nowhere: its marks are leaves, many levels\n"
    )
    assert not shown.has_target


# Pause and resume


def test_what_runs_while_paused_only_is_not_in_the_trace_and_open_frames_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "pause.calltrace"
    script = [
        f"!calltrace start -o {windows.path(file)}",
        f"bp {address('work')}",
        f"bp {address('leaf')}",
        f"bp {address('depth')}",
        "g",
        "g",  # at the first of leaf
        "!calltrace pause",
        "!calltrace status",
        "r rip",
        "bc 1",
        "g",
        f"db {address('work')} L5",
        "!calltrace stacks",
        "bc *",
        "!calltrace resume",
        f"db {address('work')} L5",
        "g",
    ]
    shown = session(script, "session_calls", "1000")
    assert not shown.has_target
    assert shown.stdout == plain("session_calls", "1000").stdout
    assert ", paused\n" in shown.said("!calltrace status")
    assert int(shown.said("r rip").split("=")[1], 16) == int(address("leaf"), 16)
    paused, resumed = (text.split("  ")[1][:14] for command, text in shown.commands if command[:2] == "db")
    original = targets.build("session_calls").read_bytes()
    assert bytes.fromhex(paused) in original
    assert resumed[:2] == "e9"
    assert "session_calls!work" in shown.said("!calltrace stacks")
    main = tree(file, "--function", "main")
    assert main[:4] == [
        "thread 0",
        "  session_calls!main",
        "    session_calls!__main",
        "    msvcrt.dll!strtoul",
    ]
    # All of leaf ran meanwhile, in the original of work's callees; work itself began and ended in its copy.
    assert main[4:9] == [
        "    session_calls!work",
        "      -- mark paused --",
        "      -- mark resumed --",
        "      session_calls!depth",
        "        session_calls!depth",
    ]
    assert sum(line.endswith("session_calls!depth") for line in main) == LEVELS
    assert not any("leaf" in line for line in main)
    with TraceFile(file) as trace:
        assert trace.state == State.EXITED
        summary = summarize(trace)
        assert summary.orphans == summary.gaps == 0
        assert set(summary.unclosed) == {Cause.PROCESS_END}  # of what called exit


def test_a_busy_program_can_be_paused_again_and_again(tmp_path: Path) -> None:
    running, file = Running("port_threads"), tmp_path / "busy.calltrace"
    cycle = ["!break 100", "g", "!calltrace pause", "!break 100", "g", "!calltrace resume"]
    script = [
        windbg.LOAD,
        f"!calltrace start -o {windows.path(file)}",
        *cycle * 5,
        "!calltrace stop",
        ".detach",
    ]
    shown = windbg.run(script, process_id=running.process_id)
    assert all(
        "calltrace: " not in text for command, text in shown.commands if command[-5:] in ("pause", "esume")
    )
    with TraceFile(file) as trace:
        assert trace.state == State.STOPPED
        assert [mark.name for mark in trace.marks] == ["paused", "resumed"] * 5
        summary = summarize(trace)
        assert summary.gaps == summary.lost == 0
        # Nothing but what was on its way through copies was recorded between them.
        for paused, resumed in zip(trace.marks[::2], trace.marks[1::2]):
            for thread, position in paused.positions.items():
                assert resumed.positions[thread] - position < 200
        assert sum(trace.marks[-1].positions.values()) > 100_000
    assert running.end() == ("rounds some, wrong 0, debugged 0", 5)


# Exactly


def test_a_reference_is_that_of_a_run_without_debugger(tmp_path: Path) -> None:
    alone, beside, fast = (tmp_path / f"{name}.calltrace" for name in ("alone", "beside", "fast"))
    words = (
        "reference",
        "--quiet",
        "--events",
        "all",
        "-o",
        alone,
        "--",
        targets.build("session_calls"),
        "20",
    )
    done = tracing.calltrace(*words)
    shown = session([f"!calltrace reference --events all -o {windows.path(beside)}"], "session_calls", "20")
    assert shown.stdout == done.stdout
    assert tree(beside) == tree(alone)
    session([f"!calltrace start --events all -o {windows.path(fast)}", "g"], "session_calls", "20")
    assert tree(fast, "--function", "main") == tree(beside, "--function", "main")


def test_a_reference_ends_where_the_user_stops_the_target_which_can_be_recorded_on(tmp_path: Path) -> None:
    exact, fast = tmp_path / "exact.calltrace", tmp_path / "fast.calltrace"
    reference = f"!calltrace reference -o {windows.path(exact)}"
    script = [f"bp {address('depth')}", reference, "r rip", "!calltrace tree --function work", "bc *"]
    shown = session([*script, f"!calltrace start -o {windows.path(fast)}", "g"], "session_calls", "8")
    assert int(shown.said("r rip").split("=")[1], 16) == int(address("depth"), 16)
    assert "the command ends where you wanted a stop" in shown.said(reference)
    work = ["  session_calls!work  still running", f"    session_calls!leaf {TIMES}8"]
    assert shown.said("!calltrace tree --function work").splitlines()[1:] == work
    assert not shown.has_target
    assert shown.stdout == plain("session_calls", "8").stdout
    assert sum("depth" in line for line in tree(fast)) == LEVELS


# Attaching


def test_a_busy_program_is_recorded_after_attaching_and_left_as_it_was(tmp_path: Path) -> None:
    running, file = Running("port_threads"), tmp_path / "attached.calltrace"
    script = [
        windbg.LOAD,
        "!calltrace plan",
        f"!calltrace start -o {windows.path(file)} --clock tsc",
        "!break 300",
        "g",
        "!calltrace stacks",
        "!calltrace top --limit 1",
        "!calltrace stop",
        ".detach",
    ]
    shown = windbg.run(script, process_id=running.process_id)
    assert "can be traced    yes" in shown.said("!calltrace plan")
    assert "port_threads.exe at 0x" in shown.said("!calltrace plan")
    assert shown.said("!calltrace stacks").count("so far, as of its event") >= 4
    assert shown.said("!calltrace top --limit 1").splitlines()[1].split()[-1] == "port_threads!fibonacci"
    assert " ticks" not in shown.said("!calltrace top --limit 1")
    with TraceFile(file) as trace:
        assert trace.state == State.STOPPED
        assert {stat.name: stat.calls for stat in summarize(trace).stats}["port_threads!fibonacci"] > 10_000
    assert running.end() == ("rounds some, wrong 0, debugged 0", 5)


def test_the_recording_of_a_program_that_is_let_go_ends_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    running, file = Running("port_threads"), tmp_path / "let_go.calltrace"
    start = f"!calltrace start -o {windows.path(file)}"
    script = [windbg.LOAD, start, "!break 200", "g", ".detach", windbg.LOAD, "!calltrace status"]
    shown = windbg.run([*script, "!calltrace plan"], process_id=running.process_id)
    first = ours(shown.said("!calltrace status")).splitlines()[0]
    assert first == (
        f"calltrace: the recorded program was let go by the debugger; its trace is {windows.path(file)}"
    )
    with TraceFile(file) as trace:
        assert trace.state == State.STOPPED
        units = sum(thread.units for thread in trace.threads)
    done = tracing.calltrace("plan", str(running.process_id))
    assert "can be traced    yes" in done.stdout.decode()
    assert "being recorded" not in done.stdout.decode()
    assert running.end() == ("rounds some, wrong 0, debugged 0", 5)
    with TraceFile(file) as trace:
        assert sum(thread.units for thread in trace.threads) == units > 100_000


# Where the session stands


LOOKS = ("~", "r", ".lastevent", "k 5")


@pytest.mark.parametrize("where", ["initial break", "breakpoint", "attached"])
def test_start_leaves_the_session_where_it_was(tmp_path: Path, where: str) -> None:
    before = {"initial break": [], "breakpoint": [f"bp {address('leaf')}", "g"], "attached": ["~1s"]}
    start = f"!calltrace start -o {windows.path(tmp_path / 'a.calltrace')}"
    script = [windbg.LOAD, *before[where], "k 6", *LOOKS, start, *LOOKS, "!calltrace stop", *LOOKS]
    if where == "attached":
        running = Running("port_threads")
        shown = windbg.run([*script, ".detach"], process_id=running.process_id)
        assert running.end() == ("rounds some, wrong 0, debugged 0", 5)
    else:
        shown = windbg.run(script, [targets.build("session_calls"), "1"])
    looked = [[text for command, text in shown.commands if command == look] for look in LOOKS]
    threads = [re.sub(r"Suspend: \d+", "", text).splitlines() for text in looked[0]]
    assert threads[0] == threads[1][: len(threads[0])] == threads[2][: len(threads[0])]
    assert len(threads[1]) == len(threads[0]) + 1  # the recorder has a thread of its own
    # Of the last event the thread stays. The code that `r` shows after the registers is a jump for a while.
    registers = [text.partition("efl=")[0] for text in looked[1]]
    for texts in (registers, [text.split(": ")[1] for text in looked[2]], looked[3]):
        assert texts[0] == texts[1] == texts[2]


def test_it_starts_at_a_breakpoint_deep_in_a_program(tmp_path: Path) -> None:
    file = tmp_path / "late.calltrace"
    script = [
        f"bp {address('leaf')}",
        "g",
        "g",
        "g",
        "bc *",
        f"!calltrace start -o {windows.path(file)}",
        "g",
    ]
    shown = session(script, "session_calls", "10")
    assert shown.stdout == plain("session_calls", "10").stdout
    # The thread stands at the third leaf, in a work that it entered untraced.
    assert tree(file, "--function", "leaf") == ["thread 0", f"  session_calls!leaf {TIMES}8"]


# What is recorded


def test_patterns_choose_functions_in_any_module(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.calltrace" for number in range(4)]
    choices = [
        "leaf depth",
        "session_calls!d*",
        "-m kernel32 -m session_calls -i KERNEL32.dll --exclude leaf",
    ]
    base = f"session_calls+{int(address('depth'), 16) - 0x140000000:#x}"
    shown = [
        session([f"!calltrace start {choice} -o {windows.path(file)}", "g"], "session_calls", "3")
        for choice, file in zip([*choices, f"{base} kernel32!GetCommandLineW"], files)
    ]
    assert {each.stdout for each in shown} == {plain("session_calls", "3").stdout}
    traces = [TraceFile(file) for file in files]
    called = [{stat.name: stat.calls for stat in summarize(trace).stats} for trace in traces]
    modules = [[module.name.lower() for module in trace.modules] for trace in traces]
    for trace in traces:
        trace.close()
    assert modules[:3] == [["session_calls.exe"]] * 3
    assert modules[3] == ["session_calls.exe", "kernel32.dll"]
    assert called[0] == {
        "session_calls!leaf": 3,
        "session_calls!depth": LEVELS,
    }
    assert called[1] == {"session_calls!depth": LEVELS}
    assert called[2]["session_calls!depth"] == LEVELS
    assert called[2]["session_calls!work"] == 1
    assert "session_calls!leaf" not in called[2]
    assert called[3]["session_calls!depth"] == LEVELS


def test_levels_asked_for_at_the_start_are_those_shown(tmp_path: Path) -> None:
    start = f"!calltrace start -l 2 -o {windows.path(tmp_path / 'a.calltrace')}"
    script = [start, f"bp {address('depth')}", "g", "!calltrace tree", "!calltrace tree -l 1"]
    shown = session([*script, "!calltrace tree --depth 0 --limit 0"], "session_calls", "1")
    two, one, everything = (text.splitlines()[1:] for command, text in shown.commands if " tree" in command)
    assert one == ["  session_calls!mainCRTStartup  still running"]
    assert two == [*one, "    session_calls!__tmainCRTStartup  still running"]
    assert any(line.startswith("          session_calls!leaf") for line in everything)


def test_marks_show_in_every_thread_and_a_saved_trace_is_complete(tmp_path: Path) -> None:
    file, saved = tmp_path / "a.calltrace", tmp_path / "so far.calltrace"
    save = f'!calltrace save "{windows.path(saved)}"'
    script = [
        f"!calltrace start --clock tsc -o {windows.path(file)}",
        f"bp {address('leaf')}",
        "g",
        "g",
        "!calltrace mark after the  first <leaf>",
        save,
        save,
        "bc *",
        "g",
        windbg.LOAD,
        "!calltrace tree --function work --depth 2",
    ]
    shown = session(script, "session_calls", "4")
    [first, second] = [text for command, text in shown.commands if command == save]
    assert first == ""
    assert second == f"calltrace: {windows.path(saved)} exists already: name another file\n"
    lines = [re.sub(r"  [\d.]+ [nµm]s", "", line) for line in ours(shown.commands[-1][1]).splitlines()[1:]]
    assert lines[:4] == [
        "  session_calls!work",
        "    session_calls!leaf",
        "    -- mark after the first <leaf> --",
        f"    session_calls!leaf {TIMES}3",
    ]
    with TraceFile(saved) as trace:
        assert trace.state == State.STOPPED
        assert trace.header.tsc_hz
        assert [mark.name for mark in trace.marks] == ["after the first <leaf>"]
        assert {stat.name: stat.calls for stat in summarize(trace).stats}["session_calls!leaf"] == 1
        [stack] = list(stacks(trace))
        assert next(frame.name for frame in stack.frames()) == "session_calls!work"
    assert "after the first <leaf>" in tracing.calltrace("info", file).stdout.decode()


def test_an_earlier_trace_is_never_written_over_unasked(tmp_path: Path) -> None:
    cycle = ["!calltrace start leaf", "!calltrace stop"]
    shown = session([*cycle, *cycle, "!calltrace status"], "session_calls", "1")
    found = [re.search(r"recording into (.*)\n", text) for _, text in shown.commands]
    first, second = (on_this_machine(each[1]) for each in found if each)
    try:
        assert first != second
        assert first.parent == second.parent
        assert {first.suffix, second.suffix} == {".calltrace"}
        assert first.name.startswith("session_calls")
        for file in (first, second):
            with TraceFile(file) as trace:
                assert trace.state == State.STOPPED
    finally:
        first.unlink()
        second.unlink()


def on_this_machine(path: str) -> Path:
    """Where a file is that Windows programs name so."""
    drive, _, rest = path.partition(":")
    return windows.PREFIX / "dosdevices" / f"{drive.lower()}:" / rest.replace("\\", "/").lstrip("/")


# Mistakes


def test_mistakes_are_one_line_each_and_leave_the_session_usable(tmp_path: Path) -> None:
    file = windows.path(tmp_path / "a.calltrace")
    nothing = "calltrace: no recording is under way: start one first"
    nowhere = "C:\\nosuch\\a"
    before = {
        "!calltrace stop": nothing,
        "!calltrace pause": nothing,
        "!calltrace resume": nothing,
        "!calltrace mark x": nothing,
        "!calltrace start nosuch": "calltrace: no function matches nosuch: name module!function, with *",
        "!calltrace start nosuch!*": "calltrace: no function matches nosuch!*: name module!function, with *",
        "!calltrace start 0xzz": "calltrace: pattern 0xzz: 0xzz is no hexadecimal number",
        f"!calltrace start -o {nowhere}": f"calltrace: cannot create {nowhere}: its folder does not exist",
        "!calltrace start --clock fast": "calltrace: start: argument --clock: invalid choice: 'fast' (choose "
        "from 'none', 'tsc', 'coarse'); `!calltrace help start` tells more",
    }
    during = {
        "!calltrace start": f"calltrace: a recording is under way, into {file}: stop it first",
        "!calltrace resume ": "calltrace: the recording is not paused",
        "!calltrace mark": "calltrace: mark: the following arguments are required: NAME; `!calltrace help "
        "mark` tells more",
        "!calltrace tree --thread ~77": "calltrace: the debugger has no thread ~77",
        "!calltrace callers nosuch": f"calltrace: no function or import of {file} matches nosuch",
    }
    script = [*before, f"!calltrace start -o {file}", *during, "!calltrace pause ", "!calltrace pause  "]
    shown = session(
        [*script, "!calltrace resume  ", "g", windbg.LOAD, "!calltrace start  "], "session_calls", "9"
    )
    for command, line in {**before, **during}.items():
        told = [each for each in shown.said(command).splitlines() if "planning" not in each]
        assert told == [line]
    assert shown.said("!calltrace pause  ") == (
        "calltrace: the recording is paused already: resume it, or stop it\n"
    )
    assert shown.said("!calltrace resume  ") == ""
    assert ours(shown.said("!calltrace start  ")).splitlines()[-1] == (
        "calltrace: there is no stopped target: open a program or attach to one, and break into it"
    )
    assert shown.stdout == plain("session_calls", "9").stdout


def test_recordings_survive_that_the_extension_is_unloaded(tmp_path: Path) -> None:
    file = tmp_path / "a.calltrace"
    unload = f".unload {windows.path(windbg.EXTENSION)}"
    script = [
        f"!calltrace start leaf -o {windows.path(file)}",
        unload,
        f"bp {address('depth')}",
        "g",
        windbg.LOAD,
    ]
    shown = session([*script, "!calltrace stop", "bc *", "g"], "session_calls", "6")
    assert shown.said("!calltrace stop").startswith(f"calltrace: recorded {windows.path(file)} (")
    assert tree(file) == ["thread 0", f"  session_calls!leaf {TIMES}6"]


def test_names_are_links_to_callers_and_code_where_the_user_prefers_dml(tmp_path: Path) -> None:
    script = [
        windbg.LOAD,
        ".prefer_dml 1",
        f"!calltrace start leaf work -o {windows.path(tmp_path / 'a.calltrace')}",
        f"bp {address('depth')}",
        "g",
        "!calltrace tree",
        "!calltrace top",
        "!calltrace stacks",
        "!calltrace callers leaf",
    ]
    target = [targets.build("session_calls"), "2"]
    linked, flat = windbg.run(script, target, env={"SHOW_DML": "1"}), windbg.run(script, target)
    link = (
        '<exec cmd="!calltrace callers session_calls!leaf">session_calls</exec>'
        f'<exec cmd="u {address("leaf")}">!leaf</exec>'
    )
    for verb in ("tree", "top", "callers leaf"):
        assert link in linked.said(f"!calltrace {verb}")
        assert "session_calls!leaf" in flat.said(f"!calltrace {verb}")
    assert link.replace("leaf", "work").replace(address("leaf"), address("work")) in linked.said(
        "!calltrace stacks"
    )
    assert re.sub("<[^>]+>", "", linked.said("!calltrace top")) == flat.said("!calltrace top")
    # What the links say can be typed.
    commands = re.findall(r'<exec cmd="([^"]+)">', linked.said("!calltrace top"))[:2]
    shown = session([*script[2:5], *commands], "session_calls", "2")
    assert shown.said(commands[0]).splitlines()[0].split() == "calls function, and who calls it".split()
    assert "session_calls" in shown.said(commands[1])
