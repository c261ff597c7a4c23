"""From every instruction of a copy, the cloned tables lead to the callers as the original tables do."""

from __future__ import annotations

import random

import pytest

from calltrace.model import Source
from calltrace.pe import image as pe_image
from rig import images, targets
from rig.emulator import Machine, Pair, State
from rig.images import Program
from rig.unwinding import Tables, Walk

PROLOG_TOO_LONG = 7
LEAF = "end\n .space 16, 0xcc\nleaf g\n lea rax, [rax + rcx + 1]\n ret\nend\n .space 16, 0xcc\n"

# name: code. Every function keeps to the calling convention.
CASES = {
    "pushes, a fixed frame and saved vectors": """
function f
    mov qword ptr [rsp + 8], rbx
    push rsi
    %push rsi
    push r12
    %push r12
    sub rsp, 0x58
    %alloc 0x58
    movaps xmmword ptr [rsp + 0x20], xmm6
    %savexmm 6 0x20
    movaps xmmword ptr [rsp + 0x30], xmm15
    %savexmm 15 0x30
    mov qword ptr [rsp + 0x40], rdi
    %save rdi 0x40
    xor esi, esi
    xor r12d, r12d
    xor edi, edi
    pxor xmm6, xmm6
    pxor xmm15, xmm15
    call g
    lea r10, [rip + g]
    call r10
    movaps xmm6, xmmword ptr [rsp + 0x20]
    movaps xmm15, xmmword ptr [rsp + 0x30]
    mov rdi, qword ptr [rsp + 0x40]
    add rsp, 0x58
    pop r12
    pop rsi
    ret
""",
    "a frame pointer and a frame that grows": """
function f
    push rbp
    %push rbp
    push rbx
    %push rbx
    sub rsp, 0x48
    %alloc 0x48
    lea rbp, [rsp + 0x20]
    %setframe rbp 0x20
    mov qword ptr [rbp + 0x10], rsi
    %save rsi 0x30
    xor esi, esi
    call g
    sub rsp, 0x230
    lea rbx, [rsp + 0x20]
    call g
    mov rsi, qword ptr [rbp + 0x10]
    lea rsp, [rbp + 0x28]
    pop rbx
    pop rbp
    ret
""",
    "a large frame after a call in the prolog": """
function f
    push rdi
    %push rdi
    mov eax, 0x9000
    call probe
    sub rsp, rax
    %alloc 0x9000
    xor edi, edi
    call g
    add rsp, 0x9000
    pop rdi
    ret
leaf probe
    mov r11, rax
    ret
""",
    "a very large frame": """
function f
    sub rsp, 0x12340
    %alloc 0x12340
    call g
    add rsp, 0x12340
    ret
""",
    "chained parts that save more": """
function f
    sub rsp, 0x38
    %alloc 0x38
    test rcx, rcx
    call g
    jmp more
back:
    add rsp, 0x38
    ret
end
    .space 7, 0xcc
part more of f
    mov qword ptr [rsp + 0x40], rbx
    %save rbx 0x40
    mov qword ptr [rsp + 0x28], rsi
    %save rsi 0x28
    xor ebx, ebx
    xor esi, esi
    call g
    mov rbx, qword ptr [rsp + 0x40]
    mov rsi, qword ptr [rsp + 0x28]
    jmp back
""",
    "tail jumps of each kind": """
function f
    sub rsp, 0x28
    %alloc 0x28
    call t1
    call t2
    call t3
    call t4
    add rsp, 0x28
    ret
function t1
    push rbx
    %push rbx
    xor ebx, ebx
    pop rbx
    jmp g
function t2
    sub rsp, 0x28
    %alloc 0x28
    call g
    add rsp, 0x28
    rex64 jmp qword ptr [rip + pointer]
function t3
    sub rsp, 0x28
    %alloc 0x28
    lea rax, [rip + g]
    add rsp, 0x28
    rex64 jmp rax
function t4
    test rcx, rcx
    jne g
    jmp g
""",
    "several epilogs, version 2": """
function f
    push rbx
    %push rbx
    sub rsp, 0x20
    %alloc 0x20
    %epilogs 2 end first second
    xor ebx, ebx
    call g
    test al, 1
    je one
    test al, 2
    je two
    jmp three
one:
    add rsp, 0x20
first:
    pop rbx
    ret
two:
    add rsp, 0x20
second:
    pop rbx
    ret
three:
    add rsp, 0x20
    pop rbx
    ret
""",
    "version 2 without an epilog at the end": """
function f
    push rbx
    %push rbx
    push rdi
    %push rdi
    sub rsp, 0x28
    %alloc 0x28
    %epilogs 3 first
    xor ebx, ebx
    xor edi, edi
    call g
    add rsp, 0x28
first:
    pop rdi
    pop rbx
    ret
    ud2
""",
    "a prolog of nearly 255 bytes": """
function f
    push rbx
    %push rbx
    .space 232, 0x90
    sub rsp, 0x20
    %alloc 0x20
    mov qword ptr [rsp + 0x30], rsi
    %save rsi 0x30
    xor esi, esi
    call g
    mov rsi, qword ptr [rsp + 0x30]
    add rsp, 0x20
    pop rbx
    ret
""",
    "a prolog with a branch, which is longer in the copy": """
function f
    push rbx
    %push rbx
    test cl, 1
    jne saved
    nop
saved:
    sub rsp, 0x20
    %alloc 0x20
    xor ebx, ebx
    call g
    add rsp, 0x20
    pop rbx
    ret
""",
    "a part that gcc separated": """
function f
    push rbx
    %push rbx
    sub rsp, 0x20
    %alloc 0x20
    xor ebx, ebx
    test rcx, rcx
    jns cold
    js cold
back:
    add rsp, 0x20
    pop rbx
    ret
end
    .space 3, 0xcc
cold cold of f
    %push rbx
    %alloc 0x20
    nop
    call g
    test rax, rax
    js back
    jns back
    ud2
""",
    "no frame at all, and frames without a RUNTIME_FUNCTION below": """
function f
    jmp h
end
    .space 5, 0xcc
function h
    sub rsp, 8
    %alloc 8
    call g
    add rsp, 8
    ret
""",
    "a prolog of 249 bytes with branches, calls and a ret in it": """
function f
    test rsp, rsp
    jne goes_on
    ret
goes_on:
    sub rsp, 0x48
    %alloc 0x48
    mov qword ptr [rsp + 0x50], rbx
    %save rbx 0x50
    xor ebx, ebx
again:
    call g
    test cl, 1
    jne odd
    .space 40, 0x90
    jmp both
odd:
    .space 40, 0x90
both:
    inc ebx
    cmp ebx, 2
    jb again
    .space 128, 0x90
    mov qword ptr [rsp + 0x58], rsi
    %save rsi 0x58
    xor esi, esi
    call g
    mov rsi, qword ptr [rsp + 0x58]
    mov rbx, qword ptr [rsp + 0x50]
    add rsp, 0x48
    ret
""",
    "recursion": """
function f
    push rbx
    %push rbx
    sub rsp, 0x20
    %alloc 0x20
    and ecx, 3
    mov ebx, ecx
    je out
    dec ecx
    call f
    lea rcx, [rbx - 1]
    call qword ptr [rip + self]
out:
    call g
    add rsp, 0x20
    pop rbx
    ret
""",
}
DATA = f"pointer:\n.quad g - image + {images.BASE:#x}\nself:\n.quad f - image + {images.BASE:#x}\n"


def tables_of(machine: Machine) -> Tables:
    """The image's table, and the copies' if there are any."""
    image, made = machine.image, machine.composition
    tables = [(image.pdata[0], image.pdata[1] // 12)]
    if made:
        tables.append((made.table_rva, made.table_count))
    return Tables(lambda rva, size: machine.read(image.base + rva, size), tables)


def walk(machine: Machine, start: int, state: State) -> Walk:
    walked = Walk(machine, tables_of(machine))
    machine.run(start, state, each=walked.step)
    return walked


@pytest.mark.parametrize(("events", "clock"), [("all", "none"), ("outward", "tsc"), ("functions", "coarse")])
@pytest.mark.parametrize("case", CASES)
def test_every_instruction_unwinds_to_its_callers(case: str, events: str, clock: str) -> None:
    program = images.build(CASES[case] + LEAF, DATA, seeds=[("g", Source.EXPORT)])
    pair = Pair(program, events, clock)
    assert pair.copied("f")
    start = program.symbols["f"]
    for number in range(4):
        state = State.arbitrary(random.Random(number))
        if (
            "version 2" not in case
        ):  # the unwinder here knows epilogs by their instructions, as version 1 does
            walk(pair.original, start, state)
        walked = walk(pair.patched, start, state)
        assert walked.unwinder.bodies
        assert walked.unwinder.epilogs
        pair.check("f", state)


def test_copies_of_version_2_are_version_1() -> None:
    program = images.build(CASES["several epilogs, version 2"] + LEAF, DATA)
    pair = Pair(program)
    original = Tables(lambda rva, size: program.image.data[rva : rva + size], [])
    assert original.info(program.symbols["f.unwind"]).version == 2
    copies = tables_of(pair.patched)
    made = [entry for entry in copies.entries if entry[0] >= program.image.size]
    assert {copies.info(entry[2]).version for entry in made} == {1}


@pytest.mark.parametrize(("nops", "status"), [(241, 0), (242, PROLOG_TOO_LONG)])
def test_prolog_that_grows_beyond_255_bytes_is_refused(nops: int, status: int) -> None:
    program = images.build(
        f"""
function f
    push rbx # 1 byte
    %push rbx
    .space {nops}, 0x90
    jrcxz over # 2 bytes, 9 in the copy
over:
    sub rsp, 0x20 # 4 bytes
    %alloc 0x20
    call g
    add rsp, 0x20
    pop rbx
    ret
{LEAF}"""
    )
    pair = Pair(program, "functions")
    assert pair.statuses[program.symbols["f"]] == status
    state = State.arbitrary(random.Random(5))
    walk(pair.patched, program.symbols["f"], state)
    pair.check("f", state)


@pytest.mark.parametrize(("events", "clock"), [("all", "tsc"), ("outward", "none"), ("functions", "coarse")])
def test_code_of_a_compiler_unwinds_from_every_instruction(events: str, clock: str) -> None:
    image = pe_image.from_file(targets.build("frames"))
    run = next(rva for rva, name in image.names.items() if name == "run")
    scratch = next(
        rva for rva in range(0, image.size, 0x1000) if image.data[rva : rva + 0x1000] == bytes(0x1000)
    )
    program = Program(image, {"run": run, "scratch": scratch}, ())
    pair = Pair(program, events, clock)
    assert not any(pair.statuses.values())
    state = State.arbitrary(random.Random(1))
    before = pair.original.run(run, state)
    walk(pair.original, run, state)
    walked = walk(pair.patched, run, state)
    assert walked.steps > 2000
    assert walked.deepest > 5
    after = pair.patched.run(run, state)
    assert before.state == after.state
