"""Calls of setjmp and SwitchToFiber, however they are made, are recorded as what they are."""

from __future__ import annotations

import itertools
import random

import pytest

from calltrace.model import Source
from calltrace.pe.known import Trait, known_functions
from rig import images
from rig.emulator import Event, Pair, State, assert_same, decoder
from rig.images import Program
from rig.unwinding import Tables, Walk

CODE = """
function f
    push rbx
    %push rbx
    sub rsp, 0x20
    %alloc 0x20
    xor ebx, ebx
    CALL
    add rsp, 0x20
    pop rbx
    ret
end
    .space 16, 0xcc
function yield
    sub rsp, 0x28
    %alloc 0x28
    LOAD
    add rsp, 0x28
    JUMP
end
    .space 16, 0xcc
leaf g
    lea rax, [rax + rcx + 1]
    ret
end
    .space 16, 0xcc
"""
DATA = f"slot:\n.quad g - image + {images.BASE:#x}\n"
CALLS = {
    "directly": "call g",
    "through its slot": "call qword ptr [rip + slot]",
    "through a register": "mov rbx, qword ptr [rip + slot]\n mov rcx, rax\n call yield\n call rbx",
}
JUMPS = {  # before the epilog, and behind it
    "directly": ("nop", "jmp g"),
    "through its slot": ("nop", "jmp qword ptr [rip + slot]"),
    "through a register": ("mov rax, qword ptr [rip + slot]", ".byte 0x48, 0xff, 0xe0"),
    "through an extended register": ("mov r9, qword ptr [rip + slot]", ".byte 0x49, 0xff, 0xe1"),
}


def program_of(call: str, jump: tuple[str, str], name: str) -> Program:
    """A program in which `g` is known by `name`, and so is its slot in the import address table."""
    code = CODE.replace("CALL", call).replace("LOAD", jump[0]).replace("JUMP", jump[1])
    program = images.build(code, DATA, seeds=[("g", Source.EXPORT)])
    program.image.names[program.symbols["g"]] = name
    program.image.imports[program.symbols["slot"]] = f"KERNEL32.dll!{name}"
    return program


def run_and_walk(pair: Pair, start: str, state: State) -> list[Event]:
    """What the copy recorded, after making sure that it did what the original does and unwinds everywhere."""
    machine, made = pair.patched, pair.patched.composition
    assert made is not None
    tables = [(machine.image.pdata[0], machine.image.pdata[1] // 12), (made.table_rva, made.table_count)]
    walked = Walk(machine, Tables(lambda rva, size: machine.read(images.BASE + rva, size), tables))
    begin = pair.program.symbols[start]
    after = machine.run(begin, state, each=walked.step)
    assert_same(pair.original.run(begin, state).state, after.state)
    return pair.decode(after.units)


@pytest.mark.parametrize("events", ["functions", "all"])
@pytest.mark.parametrize("jump", JUMPS)
def test_a_tail_jump_to_another_stack_is_recorded_as_a_call(jump: str, events: str) -> None:
    program = program_of("nop", JUMPS[jump], "SwitchToFiber")
    pair = Pair(program, events)
    site = last_jump(program)
    recorded = run_and_walk(pair, "yield", State.arbitrary(random.Random(3)))
    (_, before), (_, after) = recorded[1], recorded[5]
    assert before == after  # the stack pointer by which the reader knows the stack again
    yields, g = program.symbols["yield"], program.symbols["g"]
    assert recorded == [
        ("enter", yields), ("frame", before), ("call", site), ("enter", g),
        ("leave", g), ("frame", before), ("return", site), ("leave", yields),
    ]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_goes_on_with_another_stack_is_recorded_with_its_stack_pointer(call: str) -> None:
    program = program_of(CALLS[call], ("nop", "ret"), "SwitchToFiber")
    recorded = run_and_walk(Pair(program, "functions"), "f", State.arbitrary(random.Random(4)))
    kinds = [kind for kind, _ in recorded]
    others = ["enter", "leave"] if "register" in call else []
    assert kinds == ["enter", *others, "frame", "call", "enter", "leave", "frame", "return", "leave"]


@pytest.mark.parametrize("call", CALLS)
def test_behind_setjmp_execution_may_go_on_once_more(call: str) -> None:
    program = program_of(CALLS[call], ("nop", "ret"), "_setjmp")
    recorded = run_and_walk(Pair(program, "functions"), "f", State.arbitrary(random.Random(5)))
    kinds = [kind for kind, _ in recorded]
    others = ["enter", "leave"] if "register" in call else []
    assert kinds == ["frame", "enter", *others, "enter", "leave", "frame", "land", "leave"]
    assert recorded[0][1] > recorded[-3][1]  # the frame that goes on lies above


def test_other_functions_are_not_known() -> None:
    program = program_of(CALLS["through a register"], JUMPS["through its slot"], "Sleep")
    assert known_functions(program.image) == {}


def test_setjmp_without_a_name_is_known_by_its_bytes() -> None:
    code = "leaf g\n mov [rcx], rdx\n mov [rcx+8], rbx\n mov [rcx+24], rbp\n mov [rcx+32], rsi\n ret"
    program = images.build(code)
    assert known_functions(program.image) == {program.symbols["g"]: Trait.RETURNS_TWICE}


def last_jump(program: Program) -> int:
    """The RVA of the instruction that `yield` ends with."""
    start = program.symbols["yield"]
    code = program.image.data[start : start + 32]
    return max(
        start + insn.address
        for insn in itertools.takewhile(lambda insn: insn.mnemonic != "int3", decoder().disasm(code, 0))
    )
