"""The port of x64dbg in the real debugger: the contract of ports, and what a debugger's user adds to it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pefile
import pytest

from contract.suite import CHECKS
from rig import targets, x64dbg

pytestmark = pytest.mark.skipif(not x64dbg.engine(), reason=x64dbg.NO_ENGINE)

CONTRACT = targets.TREE / "tests" / "contract" / "x64dbg_host.py"
EXPRESSIONS = Path(__file__).with_name("port_host.py")
LEAF_CALLS = 5
CALLS_END = "Process stopped with exit code 0xB (11)"

# What the user sees of where the target stands: registers, the breakpoint's count, the chosen thread.
SEEN = (
    'log "rip {rip} rsp {rsp} rax {rax} rbx {rbx} rcx {rcx} rdx {rdx} rsi {rsi} rdi {rdi} rbp {rbp} r8 {r8} '
    'r9 {r9} r10 {r10} r11 {r11} r12 {r12} r13 {r13} r14 {r14} r15 {r15} flags {rflags} thread {tid()}"'
)


def evaluate(script: Iterable[str]) -> x64dbg.Transcript:
    with tempfile.TemporaryDirectory() as folder:
        return x64dbg.run(list(script), env=x64dbg.answering(Path(folder), EXPRESSIONS))


def session_calls(count: int = LEAF_CALLS) -> str:
    return x64dbg.init(targets.build("session_calls"), str(count))


def file_bytes(rva: int, size: int) -> str:
    """What stands in the file of session_calls."""
    image = pefile.PE(str(targets.build("session_calls")), fast_load=True)
    try:
        data: bytes = image.get_data(rva, size)
    finally:
        image.close()
    return data.hex()


@functools.cache
def contract() -> dict[str, str]:
    program = x64dbg.init(targets.build("port_threads"))
    script = [line for check in CHECKS for line in (program, f"calltrace {check}", "StopDebug")]
    with tempfile.TemporaryDirectory() as folder:
        shown = x64dbg.run(script, env=x64dbg.answering(Path(folder), CONTRACT))
    return {given.split()[1]: said for given, said in shown.commands if given.startswith("calltrace ")}


@pytest.mark.parametrize("check", CHECKS)
def test_the_port_keeps_the_contract(check: str) -> None:
    said = contract()[check]
    assert said.endswith("holds\n"), said


def test_breakpoints_are_neither_read_nor_overwritten_nor_lost() -> None:
    where = "calltrace leaf - port.modules()[0].base"
    shown = evaluate(
        [
            session_calls(),
            "bp session_calls:leaf",
            where,
            "calltrace port.read(leaf, 16).hex()",
            "calltrace raw(leaf, 1)",
            "calltrace moved(leaf)",
            "calltrace raw(leaf + 0, 1)",
            "calltrace port.read(leaf, 5).hex()",
            *["run"] * LEAF_CALLS,
            "bc session_calls:leaf",
            "calltrace raw(leaf, 5)",
            "run",
        ]
    )
    values = [said.strip().strip("'") for _, said in shown.commands]
    assert values[3] == file_bytes(int(values[2]), 16)
    assert values[4] == values[6] == "cc"
    moved = values[5]
    assert moved.startswith("e9")
    assert values[7] == moved
    for said in values[8 : 8 + LEAF_CALLS]:
        assert said.startswith("INT3 breakpoint at <session_calls.leaf>")
    assert values[-2] == moved
    assert CALLS_END in values[-1]


def test_where_a_thread_stands_on_a_breakpoint_its_code_can_be_changed() -> None:
    shown = evaluate(
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
        ]
    )
    stops = [said for given, said in shown.commands if given == "run"]
    assert all(said.startswith("INT3 breakpoint at <session_calls.leaf>") for said in stops[:-1])
    assert CALLS_END in stops[-1]
    moved, read, left = (said for given, said in shown.commands if given.startswith("calltrace "))
    assert moved == read == left


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
    shown = evaluate([session_calls(), *stop, SEEN, clobber, raises, many, SEEN])
    before, after = (said for given, said in shown.commands if given == SEEN)
    assert before.startswith("rip ")
    assert before == after
    assert shown.said(many) == "True\n"
    assert "EngineError" in shown.said(raises)
    assert "0xc000001d" in shown.said(raises)


@pytest.mark.parametrize("kind", ["bp", "bph"])
def test_a_breakpoint_that_a_thread_was_called_from_goes_on_counting(kind: str) -> None:
    call = "calltrace port.call(address('kernel32.dll', 'GetCurrentProcessId')) == port.process_id"
    count = 'log "{$breakpointcounter}"'
    shown = evaluate(
        [session_calls(), f"{kind} session_calls:leaf", *["run", call, count] * LEAF_CALLS, "run"]
    )
    assert [said for given, said in shown.commands if given == call] == ["True\n"] * LEAF_CALLS
    assert [said for given, said in shown.commands if given == count] == [
        f"{number:X}\n" for number in range(1, LEAF_CALLS + 1)
    ]
    assert CALLS_END in shown.commands[-1][1]


def test_breakpoints_of_the_user_do_not_stop_a_call() -> None:
    call = "calltrace port.call(address('kernel32.dll', 'GetCurrentProcessId')) == port.process_id"
    state = "calltrace raw(address('kernel32.dll', 'GetCurrentProcessId'), 1)"
    function = "kernel32:GetCurrentProcessId"
    shown = evaluate([session_calls(), f"bp {function}", call, state, f"bph {function}", call])
    assert [said for given, said in shown.commands if given == call] == ["True\n"] * 2
    assert shown.said(state) == "'cc'\n"


def test_a_call_that_does_not_end_is_given_up_and_the_thread_goes_on() -> None:
    call = "calltrace limited(lambda: port.call(code_of('ebfe c3')))"  # jmp $; ret
    shown = evaluate(
        [session_calls(), "bp session_calls:work", "run", call, "calltrace port.threads() != []"]
    )
    assert "EngineError" in shown.said(call)
    assert "did not come back" in shown.said(call)
    assert shown.said("calltrace port.threads() != []") == "True\n"
