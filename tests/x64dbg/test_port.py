"""The port of x64dbg in the real debugger: the contract of ports, and what a debugger's user adds to it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from contract.suite import CHECKS, a_run_in_which_nothing_happens_can_be_ended
from rig import targets, x64dbg

CONTRACT = targets.TREE / "tests" / "contract" / "x64dbg_host.py"
EXPRESSIONS = Path(__file__).with_name("port_host.py")
LEAF_CALLS = 5
CALLS_END = "Process stopped with exit code 0xB (11)"

# What the user sees of where the target stands: registers, the breakpoint's count, the chosen thread.
SEEN = (
    'log "rip {rip} rsp {rsp} rax {rax} rbx {rbx} rcx {rcx} rdx {rdx} rsi {rsi} rdi {rdi} rbp {rbp} r8 {r8} '
    'r9 {r9} r10 {r10} r11 {r11} r12 {r12} r13 {r13} r14 {r14} r15 {r15} flags {rflags} thread {tid()}"'
)


def evaluate(debugger: str, script: Iterable[str]) -> x64dbg.Transcript:
    with tempfile.TemporaryDirectory() as folder:
        return x64dbg.run(list(script), debugger, env=x64dbg.answering(Path(folder), EXPRESSIONS))


def session_calls(count: int = LEAF_CALLS) -> str:
    return x64dbg.init(targets.build("session_calls"), str(count))


def target(check: str) -> str:
    """The command that starts the program that a check wants; in x64dbg its input is at its end."""
    if check == a_run_in_which_nothing_happens_can_be_ended.__name__:
        return x64dbg.init(targets.build("loop_receive"), "2000000000")
    return x64dbg.init(targets.build("port_threads"))


@functools.cache
def contract(debugger: str) -> dict[str, str]:
    script = [line for check in CHECKS for line in (target(check), f"calltrace {check}", "StopDebug")]
    with tempfile.TemporaryDirectory() as folder:
        shown = x64dbg.run(script, debugger, env=x64dbg.answering(Path(folder), CONTRACT))
    return {given.split()[1]: said for given, said in shown.commands if given.startswith("calltrace ")}


@x64dbg.both
@pytest.mark.parametrize("check", CHECKS)
def test_the_port_keeps_the_contract(debugger: str, check: str) -> None:
    said = contract(debugger)[check]
    assert "holds" in said.splitlines(), said


@x64dbg.both
def test_breakpoints_are_neither_read_nor_overwritten_nor_lost(debugger: str) -> None:
    shown = evaluate(
        debugger,
        [
            session_calls(),
            "bp session_calls:leaf",
            "calltrace port.read(leaf, 16).hex()",
            "calltrace raw(leaf, 1)",
            "calltrace moved(leaf)",
            "calltrace raw(leaf,  1)",
            "calltrace port.read(leaf, 5).hex()",
            *["run"] * LEAF_CALLS,
            "bc session_calls:leaf",
            "calltrace raw(leaf, 5)",
            "run",
        ],
    )
    values = [said.strip().strip("'") for _, said in shown.commands]
    read, raw, moved, raw_again, read_again = values[2:7]
    assert bytes.fromhex(read) in targets.build("session_calls").read_bytes()
    assert raw == raw_again == "cc"
    assert moved.startswith("e9")
    assert read_again == moved
    for said in values[7 : 7 + LEAF_CALLS]:
        assert said.startswith("INT3 breakpoint at <session_calls.leaf>")
    assert values[-2] == moved
    assert CALLS_END in values[-1]


@x64dbg.both
def test_where_a_thread_stands_on_a_breakpoint_its_code_can_be_changed(debugger: str) -> None:
    shown = evaluate(
        debugger,
        [
            session_calls(),
            "bp session_calls:leaf",
            "run",
            "calltrace moved(leaf)",
            *["run"] * (LEAF_CALLS - 1),
            "calltrace port.read(leaf, 5).hex()",
            "bc session_calls:leaf",
            "calltrace raw(leaf, 5)",
            "run",
        ],
    )
    stops = [said for given, said in shown.commands if given == "run"]
    assert all(said.startswith("INT3 breakpoint at <session_calls.leaf>") for said in stops[:-1])
    assert CALLS_END in stops[-1]
    moved, read, left = (said for given, said in shown.commands if given.startswith("calltrace "))
    assert moved == read == left


@x64dbg.only_real
@pytest.mark.parametrize(
    "stop",
    [
        [],
        ["bp session_calls:leaf", "run"],
        ["bph session_calls:leaf", "run"],
        ["bp session_calls:leaf", "run", "sti"],
        ["run session_calls:leaf"],
    ],
    ids=["system breakpoint", "breakpoint", "hardware breakpoint", "step", "run to"],
)
def test_calls_change_nothing_that_is_seen(stop: list[str]) -> None:
    clobber = "calltrace port.call(code_of('c5fc77 dbe3 c3'))"  # vzeroall; fninit; ret
    raises = "calltrace port.call(code_of('0f0b'))"  # ud2
    many = "calltrace many(address('kernel32.dll', 'GetCurrentProcessId'), 50) == {port.process_id}"
    shown = evaluate(x64dbg.REAL, [session_calls(), *stop, SEEN, clobber, raises, many, SEEN])
    before, after = (said for given, said in shown.commands if given == SEEN)
    assert before.startswith("rip ")
    assert before == after
    assert shown.said(many) == "True\n"
    assert "EngineError" in shown.said(raises)
    assert "0xc000001d" in shown.said(raises)


@x64dbg.only_real
@pytest.mark.parametrize("kind", ["bp", "bph"])
def test_a_breakpoint_that_a_thread_was_called_from_goes_on_counting(kind: str) -> None:
    call = "calltrace port.call(address('kernel32.dll', 'GetCurrentProcessId')) == port.process_id"
    count = 'log "{$breakpointcounter}"'
    shown = evaluate(
        x64dbg.REAL,
        [session_calls(), f"{kind} session_calls:leaf", *["run", call, count] * LEAF_CALLS, "run"],
    )
    assert [said for given, said in shown.commands if given == call] == ["True\n"] * LEAF_CALLS
    assert [said for given, said in shown.commands if given == count] == [
        f"{number:X}\n" for number in range(1, LEAF_CALLS + 1)
    ]
    assert CALLS_END in shown.commands[-1][1]


@pytest.mark.parametrize(
    ("debugger", "kind"),
    [
        (x64dbg.STAND_IN, "bp"),
        pytest.param(x64dbg.REAL, "bp", marks=x64dbg.only_real),
        pytest.param(x64dbg.REAL, "bph", marks=x64dbg.only_real),
    ],
)
def test_breakpoints_of_the_user_do_not_stop_a_call(debugger: str, kind: str) -> None:
    call = "calltrace port.call(address('kernel32.dll', 'GetCurrentProcessId')) == port.process_id"
    state = "calltrace raw(address('kernel32.dll', 'GetCurrentProcessId'), 1)"
    shown = evaluate(debugger, [session_calls(), f"{kind} kernel32:GetCurrentProcessId", call, state])
    assert shown.said(call) == "True\n"
    assert (shown.said(state) == "'cc'\n") == (kind == "bp")


@x64dbg.both
def test_a_call_that_does_not_end_is_given_up_and_the_thread_goes_on(debugger: str) -> None:
    endless = "calltrace kept.update(code=code_of('ebfe c3'))"  # jmp $; ret
    call = "calltrace limited(lambda: port.call(kept['code']))"
    release = "calltrace port.write(kept['code'], bytes.fromhex('9090'))"
    script = [session_calls(), "bp session_calls:work", "run", endless, call, "bc session_calls:work"]
    shown = evaluate(debugger, [*script, release, "run"])
    assert "EngineError: a call of 0x" in shown.said(call)
    assert "did not come back" in shown.said(call)
    assert CALLS_END in shown.commands[-1][1]
