"""Relocated copies behave as their originals, and record what single steps of the originals say.

Each case is a small program whose function `f` is called in an emulated processor with arbitrary registers,
flags and memory, once as it is and once instrumented.
"""

from __future__ import annotations

import functools
import random
import struct
from collections.abc import Iterable, Iterator

import pytest

from calltrace.errors import OutOfSpace
from calltrace.model import Source
from rig import emulator, images
from rig.emulator import IMPORTED, Machine, Pair, State

SETTINGS = [("all", "none"), ("all", "tsc"), ("all", "coarse"), ("outward", "none"), ("functions", "tsc")]
CONDITIONS = "o no b ae e ne be a s ns p np l ge le g".split()
RUNS = 6
VA = f"- image + {images.BASE:#x}"
PADDING = "end\n.space 16, 0xcc\n"
FAR = (
    "function far\n .space 300, 0x90\n call f\n ret\n"  # keeps what is behind it out of a short jump's reach
)


def conditional(gap: int) -> str:
    """Every condition once, over `gap` bytes."""
    body = "".join(
        f"""
    j{condition} over_{condition}
    lea rax, [rax + rax*2 + {number}]
    .space {gap}, 0x90
over_{condition}:
    lea rax, [rax + rax*4 + 1]"""
        for number, condition in enumerate(CONDITIONS, 1)
    )
    return f"leaf f\n{body}\n ret\n"


def counting(branch: str) -> str:
    """A loop of at most nine turns whose last instruction is `branch`."""
    return f"""
leaf f
    and ecx, 7
    inc rcx
again:
    lea rax, [rax + rax*2 + 1]
    test al, 4
    {branch} again
    mov rbx, rcx
    ret
"""


# name: code, data. Every function of these is instrumented.
CASES: dict[str, tuple[str, str]] = {
    "short conditional jumps": (conditional(1), ""),
    "near conditional jumps": (conditional(140), ""),
    "loop": (counting("loop"), ""),
    "loope": (counting("loope"), ""),
    "loopne": (counting("loopne"), ""),
    "jrcxz": ("leaf f\n and ecx, 1\n jrcxz out\n lea rax, [rax+1]\nout:\n lea rbx, [rax*2]\n ret\n", ""),
    "jecxz, with a high half that must not count": (
        "leaf f\n mov rcx, 0x100000000\n jecxz out\n lea rax, [rax+1]\nout:\n mov rbx, rax\n ret\n",
        "",
    ),
    "jrcxz out of the function": (
        f"leaf f\n and ecx, 1\n inc rax\n jrcxz g\n inc rbx\n ret\n{PADDING}leaf g\n lea rax, [rax+7]\n ret\n"
        f"{PADDING}function h\n call g\n ret\n",
        "",
    ),
    "RIP-relative operands with and without immediates": (
        """
leaf f
    mov rax, qword ptr [rip + scratch]
    mov ecx, dword ptr [rip + scratch + 8]
    mov dx, word ptr [rip + scratch + 12]
    mov bl, byte ptr [rip + scratch + 14]
    movzx esi, byte ptr [rip + scratch + 15]
    movsxd rdi, dword ptr [rip + scratch + 16]
    mov byte ptr [rip + scratch + 20], 0x12
    mov word ptr [rip + scratch + 22], 0x1234
    mov dword ptr [rip + scratch + 24], 0x12345678
    mov qword ptr [rip + scratch + 32], 0x12345678
    add qword ptr [rip + scratch + 40], 5
    adc dword ptr [rip + scratch + 48], 0x1000
    sbb word ptr [rip + scratch + 52], 0x1000
    xor byte ptr [rip + scratch + 54], 0x55
    imul r8d, dword ptr [rip + scratch + 56], 1000
    imul r9, qword ptr [rip + scratch + 64], 10
    shl dword ptr [rip + scratch + 72], 3
    ror qword ptr [rip + scratch + 80], cl
    bts dword ptr [rip + scratch + 88], 7
    shld qword ptr [rip + scratch + 96], rax, 9
    inc word ptr [rip + scratch + 104]
    neg byte ptr [rip + scratch + 106]
    xchg qword ptr [rip + scratch + 112], r10
    lock xadd dword ptr [rip + scratch + 120], r11d
    cmovb r12, qword ptr [rip + scratch + 128]
    seta byte ptr [rip + scratch + 136]
    popcnt r13, qword ptr [rip + scratch + 144]
    push qword ptr [rip + scratch + 152]
    pop qword ptr [rip + scratch + 160]
    lea r14, [rip + scratch + 168]
    crc32 r15d, dword ptr [rip + scratch + 176]
    test byte ptr [rip + scratch + 184], 0x40
    setne byte ptr [rip + scratch + 186]
    test dword ptr [rip + scratch + 188], 0x40404040
    setne byte ptr [rip + scratch + 192]
    cmp word ptr [rip + scratch + 194], 0x4040
    sbb rbp, rbp
    ret
""",
        "",
    ),
    "RIP-relative operands of SSE and VEX instructions": (
        """
leaf f
    movups xmm0, xmmword ptr [rip + scratch]
    paddd xmm1, xmmword ptr [rip + scratch + 16]
    pshufd xmm2, xmmword ptr [rip + scratch + 32], 0x1b
    pinsrw xmm3, word ptr [rip + scratch + 48], 5
    palignr xmm4, xmmword ptr [rip + scratch + 64], 3
    shufps xmm5, xmmword ptr [rip + scratch + 80], 0x4e
    cvtsi2sd xmm6, dword ptr [rip + scratch + 96]
    movss xmm7, dword ptr [rip + scratch + 100]
    pextrb byte ptr [rip + scratch + 104], xmm1, 3
    movups xmmword ptr [rip + scratch + 112], xmm0
    andn eax, ebx, dword ptr [rip + scratch + 128]
    rorx ecx, dword ptr [rip + scratch + 136], 5
    shlx rdx, qword ptr [rip + scratch + 144], rsi
    mulx r8, r9, qword ptr [rip + scratch + 152]
    ret
""",
        "",
    ),
    "calls direct, through registers, through memory and through the stack": (
        """
function f
    sub rsp, 0x28
    %alloc 0x28
    lea rax, [rip + g]
    mov qword ptr [rsp + 8], rax
    call g
    lea rbx, [rip + g]
    call rbx
    lea r12, [rip + g]
    call r12
    call qword ptr [rsp + 8]
    call qword ptr [rip + pointer]
    lea rsi, [rip + pointer]
    xor edi, edi
    call qword ptr [rsi]
    call qword ptr [rsi + rdi*8]
    call qword ptr [rip + import]
    lea rbx, [rip + import]
    call qword ptr [rbx]
    add rsp, 0x28
    ret
end
    .space 16, 0xcc
leaf g
    lea rcx, [rcx + rcx*2 + 1]
    add rdx, rcx
    ret
end
    .space 16, 0xcc
""",
        f"pointer:\n.quad g {VA}\nimport:\n.quad {IMPORTED:#x}\n",
    ),
    "tail jumps direct and conditional": (
        f"""
leaf f
    lea rcx, [rcx + 1]
    je g
    js h
    jmp k
{PADDING}
leaf g
    add rax, rcx
    jmp k
{PADDING}
leaf h
    sbb rax, rcx
    ja k
    jmp g
{PADDING}
leaf k
    adc rax, 1
    ret
{PADDING}
function callers
    sub rsp, 0x28
    %alloc 0x28
    call g
    call h
    call k
    add rsp, 0x28
    ret
""",
        "",
    ),
    **{
        f"tail jump by {jump}": (
            f"""
function f
    lea rax, [rip + g]
    lea r11, [rip + g]
    lea rbx, [rip + pointer]
    xor ecx, ecx
    mov qword ptr [rsp - 8], rax
    stc
    {jump}
{PADDING}
leaf g
    adc rdx, rax
    ret
{PADDING}
""",
            f".quad 0\npointer:\n.quad g {VA}\n",
        )
        for jump in (
            "jmp rax",
            "rex64 jmp rax",
            "jmp r11",
            ".byte 0x49, 0xff, 0xe3 # jmp r11 with REX.W",
            "jmp qword ptr [rip + pointer]",
            "rex64 jmp qword ptr [rip + pointer]",
            "jmp qword ptr [rbx]",
            "jmp qword ptr [rbx + rcx*8]",
            "jmp qword ptr [rsp - 8]",
            ".byte 0x3e, 0xff, 0xe0 # notrack jmp rax",
            ".byte 0xf2, 0xff, 0xe0 # bnd jmp rax",
        )
    },
    "tail jump to an import": (
        "leaf f\n lea rax, [rax + 1]\n jmp qword ptr [rip + import]\n",
        f"import:\n.quad {IMPORTED:#x}\n",
    ),
    "jump table of RVAs, as MSVC makes it": (
        """
function f
    and eax, 3
    .byte 0x48, 0x8d, 0x15 # lea rdx, [image base]
    .long image - after
after:
    .byte 0x8b, 0x8c, 0x82 # mov ecx, [rdx + rax*4 + table's RVA]
    .long table - image
    add rcx, rdx
    jmp rcx
case_0:
    lea rbx, [rbx + 1]
    ret
case_1:
    lea rbx, [rbx + 2]
case_2:
    lea rbx, [rbx + 4]
    jmp case_0
case_3:
    ret
""",
        "table:\n.long case_0 - image, case_1 - image, case_2 - image, case_3 - image\n",
    ),
    "two-level jump table, as MSVC makes it": (
        """
function f
    and eax, 7
    .byte 0x48, 0x8d, 0x15
    .long image - after
after:
    .byte 0x0f, 0xb6, 0x84, 0x02 # movzx eax, byte ptr [rdx + rax + index's RVA]
    .long index - image
    .byte 0x8b, 0x8c, 0x82
    .long table - image
    add rcx, rdx
    jmp rcx
case_0:
    lea rbx, [rbx + 1]
    ret
case_1:
    lea rbx, [rbx + 2]
    ret
table: # inside the function, as older MSVC has it
    .long case_0 - image, case_1 - image
index:
    .byte 0, 1, 1, 0, 1, 0, 0, 1
""",
        "",
    ),
    "jump table of distances, as gcc makes it": (
        """
function f
    and ecx, 3
    lea rdx, [rip + table]
    movsxd rax, dword ptr [rdx + rcx*4]
    add rax, rdx
    jmp rax
case_0:
    lea rbx, [rbx + 1]
    ret
case_1:
    lea rbx, [rbx + 2]
case_2:
    adc rbx, 4
    jmp case_0
case_3:
    ret
""",
        "table:\n.long case_0 - table, case_1 - table, case_2 - table, case_3 - table\n",
    ),
    "jump table of addresses": (
        """
function f
    and ecx, 3
    lea rdx, [rip + table]
    jmp qword ptr [rdx + rcx*8]
case_0:
    lea rbx, [rbx + 1]
    ret
case_1:
    lea rbx, [rbx + 2]
case_2:
    adc rbx, 4
    jmp case_0
case_3:
    ret
""",
        f"table:\n.quad case_0 {VA}, case_1 {VA}, case_2 {VA}, case_3 {VA}\n",
    ),
    "jump through RCX and RAX keeps flags, also the overflow flag": (
        f"""
function f
    lea rcx, [rip + inside]
    mov rax, 0x7fffffffffffffff
    add rax, r8
    jmp rcx
inside:
    seto bl
    lahf
    lea rcx, [rip + g]
    jmp rcx
{PADDING}
leaf g
    seto bh
    ret
{PADDING}
""",
        "",
    ),
    "cases that no table names are found between the instructions": (
        f"""
function f
    mov rax, qword ptr [rip + secret]
    not rax
    jmp rax
hidden:
    lea rbx, [rbx + 9]
    ret
{PADDING}
""",
        f"secret:\n.quad -1 - (hidden {VA})\n",
    ),
    "loop back to the function's first byte": (
        f"leaf f\n lea rax, [rax + 3]\n inc cl\n jne f\n ret\n{PADDING}",
        "",
    ),
    "loop back to the first byte by an unconditional jump": (
        f"leaf f\n inc cl\n jz out\n jmp f\nout:\n ret\n{PADDING}",
        "",
    ),
    "recursion, direct and through memory": (
        """
function f
    push rbx
    %push rbx
    movzx ecx, cl
    and ecx, 3
    jrcxz out
    dec ecx
    mov ebx, ecx
    call f
    mov ecx, ebx
    call qword ptr [rip + pointer]
    add rax, rbx
out:
    pop rbx
    ret
""",
        f"pointer:\n.quad f {VA}\n",
    ),
    "ret that takes arguments off the stack": (
        f"""
function f
    push rax
    push rcx
    call g
    jc out
    inc rbx
out:
    ret
{PADDING}
leaf g
    mov rdx, qword ptr [rsp + 8]
    add rdx, qword ptr [rsp + 16]
    ret 16
{PADDING}
""",
        "",
    ),
    "rep ret, bnd ret and several rets": (
        f"""
leaf f
    js other
    jp third
    rep ret
other:
    inc rax
    ret
third:
    .byte 0xf2, 0xc3
{PADDING}
""",
        "",
    ),
    "one-byte function with padding": (
        f"function f\n call g\n inc rax\n ret\n{PADDING}leaf g\n ret\nend\n.space 4, 0xcc\n"
        f"leaf h\n ret\n{PADDING}"
        "function callers\n call h\n ret\n",
        "",
    ),
    "functions of two to five bytes with nop padding": (
        f"""
function f
    call g2
    call g3
    call g4
    call g5
    ret
{PADDING}
leaf g2
    jmp g5
end
    .space 3, 0x90
leaf g3
    xor eax, eax
    ret
end
    .byte 0x66, 0x90
leaf g4
    rol ecx, 1
    nop
    ret
end
    .byte 0x0f, 0x1f, 0
leaf g5
    rol edx, 5
    nop
    ret
""",
        "",
    ),
    "two-byte jump into nearby padding, where a branch goes to the third byte": (
        f"{PADDING}leaf f\n xor eax, eax\nagain:\n inc cl\n jne again\n ret\n",
        "",
    ),
    "flags and volatile registers live across calls and returns": (
        f"""
function f
    stc
    call g
    adc rax, rcx
    mov r11, rdx
    call g
    sbb rax, r11
    pushfq
    pop r10
    call g
    jc carry
    inc rbx
carry:
    ret
{PADDING}
leaf g
    rcl rcx, 1
    rcr rdx, 1
    ret
{PADDING}
""",
        "",
    ),
    "function that runs into the next": (
        f"leaf f\n lea rax, [rax + 1]\n add rcx, rax\nend\nleaf g\n adc rcx, 5\n ret\n{PADDING}"
        "function callers\n call f\n call g\n ret\n",
        "",
    ),
    "function that runs into the next behind a nop": (
        f"leaf f\n lea rax, [rax + 1]\n add rcx, rax\n nop\nend\nleaf g\n adc rcx, 5\n ret\n{PADDING}"
        "function callers\n call f\n call g\n ret\n",
        "",
    ),
    "chained part": (
        """
function f
    sub rsp, 0x28
    %alloc 0x28
    test cl, 1
    jne rare
    call g
back:
    add rsp, 0x28
    ret
function g
    lea rax, [rax + 1]
    ret
part rare of f
    lea rax, [rax + 100]
    call g
    jmp back
""",
        "",
    ),
    "separated part without a chain, as gcc splits a function": (
        """
function f
    sub rsp, 0x28
    %alloc 0x28
    test cl, 1
    jne f.cold
    call g
back:
    add rsp, 0x28
    ret
function g
    lea rax, [rax + 1]
    ret
cold f.cold of f
    %alloc 0x28
    lea rax, [rax + 100]
    call g
    jmp back
""",
        "",
    ),
    "call in a prolog": (
        f"""
function f
    mov eax, 0x1000
    call probe
    sub rsp, rax
    %alloc 0x1000
    mov qword ptr [rsp + 0x20], rcx
    call probe
    add rsp, 0x1000
    ret
{PADDING}
leaf probe
    lea rcx, [rcx + 1]
    ret
{PADDING}
""",
        "",
    ),
    "instructions that overlap": (
        f"""
leaf f
    test cl, 1
    jne inside
    .byte 0xb8 # mov eax, 0xc3c8ff48
inside:
    .byte 0x48, 0xff, 0xc8, 0xc3 # dec rax; ret
    inc rbx
    ret
{PADDING}
""",
        "",
    ),
    "string instructions and the direction flag": (
        f"""
leaf f
    lea rsi, [rip + scratch]
    lea rdi, [rip + scratch + 512]
    mov ecx, 40
    rep movsb
    lea rdi, [rip + scratch + 1000]
    mov ecx, 9
    std
    rep stosw
    call g
    cld
    ret
{PADDING}
leaf g
    lodsb
    ret
{PADDING}
""",
        "",
    ),
}


def runs(pair: Pair, name: str = "f") -> None:
    for number in range(RUNS):
        pair.check(name, State.arbitrary(random.Random(number)))


@pytest.mark.parametrize(("events", "clock"), SETTINGS)
@pytest.mark.parametrize("case", CASES)
def test_copy_behaves_and_records_like_its_original(case: str, events: str, clock: str) -> None:
    code, data = CASES[case]
    exported = [name for name in "fg" if f"leaf {name}\n" in code or f"function {name}\n" in code]
    program = images.build(code, data, seeds=[(name, Source.EXPORT) for name in exported])
    pair = Pair(program, events, clock)
    assert not {hex(rva): status for rva, status in pair.statuses.items() if status}
    assert {function.start for function in program.functions} <= set(pair.statuses)
    runs(pair)


@pytest.mark.parametrize("case", CASES)
def test_copy_that_tells_of_entries_only_calls_its_hook_at_each_and_behaves_like_its_original(
    case: str,
) -> None:
    code, data = CASES[case]
    exported = [name for name in "fg" if f"leaf {name}\n" in code or f"function {name}\n" in code]
    pair = Pair(images.build(code, data, seeds=[(name, Source.EXPORT) for name in exported]), mode="hits")
    start, ids = pair.program.symbols["f"], [function.rva for function in pair.plan.functions]
    for number in range(RUNS):
        state = State.arbitrary(random.Random(number))
        before = pair.original.run(start, state, watch=True)
        emulator.assert_same(before.state, pair.patched.run(start, state).state)
        hooks = [struct.unpack("<II", pair.patched.read(at - 13, 8)) for at in pair.patched.callers]
        assert all((at - 5) % 8 == 0 for at in pair.patched.callers), "one aligned store changes the call"
        assert [ids[number - emulator.FIRST_FUNCTION] for _, number in hooks] == [rva for rva, _ in hooks]
        events = emulator.expected(pair, start, before.path)
        assert [rva for rva, _ in hooks] == [rva for kind, rva in events if kind == "enter"]


@pytest.mark.parametrize("events", ["functions", "all"])
@pytest.mark.parametrize("case", CASES)
def test_what_runs_in_copies_is_mapped_to_what_runs_in_the_original(case: str, events: str) -> None:
    code, data = CASES[case]
    exported = [name for name in "fg" if f"leaf {name}\n" in code or f"function {name}\n" in code]
    pair = Pair(images.build(code, data, seeds=[(name, Source.EXPORT) for name in exported]), events)
    mapped = 0
    for number in range(4):
        state = State.arbitrary(random.Random(number))
        rva = pair.program.symbols["f"]
        expected = pair.original.run(rva, state, watch=True).path
        run = pair.patched.run(rva, state, watch=True).path
        mapped += sum(at in pair.composition.copies for at in run)
        assert without_repeats(pair, originals(pair, run)) == without_repeats(pair, expected)
    assert mapped


def originals(pair: Pair, path: Iterable[int]) -> Iterator[int]:
    """A patched run's path without what only recording needs, its addresses in copies mapped back."""
    starts = {images.BASE + function.rva for function in pair.plan.functions}
    patches = {images.BASE + patch[0] for patch in pair.composition.patches} - starts
    for at in path:
        if at in pair.composition.copies:
            original = pair.composition.copies.original(at)
            if original is not None:
                yield original
        elif at != emulator.SLOW_PATH and at not in patches:
            yield at


def without_repeats(pair: Pair, path: Iterable[int]) -> list[int | str]:
    """A path in which what follows itself is there once; rets are all one, as they are in copies."""
    run: list[int | str] = []
    decoder = emulator.decoder()
    for at in path:
        instruction = next(decoder.disasm(pair.original.read(at, 15), at))
        step = "ret" if instruction.mnemonic.endswith("ret") else at
        if run[-1:] != [step]:
            run.append(step)
    return run


def test_int3_that_a_debugger_steps_over_goes_on_in_the_original() -> None:
    program = images.build(
        f"leaf f\n test cl, 1\n je out\n int3\n inc rbx\n ret\nout:\n dec rbx\n ret\n{PADDING}",
        seeds=[("f", Source.EXPORT)],
    )
    pair = Pair(program)
    for number in range(RUNS):
        state = State.arbitrary(random.Random(number))
        before = pair.original.run(images.CODE, state)
        after = pair.patched.run(images.CODE, state)
        emulator.assert_same(before.state, after.state)


def test_code_that_only_an_unknown_table_names_runs_in_the_original_body() -> None:
    program = images.build(
        """
function f
    and ecx, 1
    lea rdx, [rip + table]
    movsxd rax, dword ptr [rdx + rcx*4]
    add rax, rdx
    jmp rax
case_0:
    inc rbx
    ret
case_1:
    mov rax, qword ptr [rip + secret]
    not rax
    jmp rax
hidden:
    lea rbx, [rbx + 9]
    lea rdx, [rip + table]
    movsxd rax, dword ptr [rdx]
    add rax, rdx
    jmp rax
""",
        f"table:\n.long case_0 - table, case_1 - table\nsecret:\n.quad -1 - (hidden {VA})\n",
    )
    pair = Pair(program)
    start = program.symbols["f"]
    state = State.arbitrary(random.Random(1))
    for odd in (0, 1):
        state.registers["rcx"] = odd
        before = pair.original.run(start, state, watch=True)
        after = pair.patched.run(start, state, watch=True)
        emulator.assert_same(before.state, after.state)
        left = [("tail", start)] if odd else [("leave", start)]
        assert pair.decode(after.units) == [("enter", start), *left]
        assert (images.BASE + program.symbols["hidden"] in after.path) == bool(odd)


TOO_SHORT, BRANCH_INTO_ENTRY, CALL_IN_ENTRY, UNDECODABLE = 1, 2, 3, 4
POSITION_DEPENDENT = 11


@pytest.mark.parametrize("events", ["all", "outward", "functions"])
def test_short_functions_without_padding_stay_as_they_are_and_so_do_their_neighbours(events: str) -> None:
    code = "function f\n"
    shorts = {"g1": "ret", "g2": "jmp g7", "g3": "inc eax\nret", "g4": "rol ecx, 1\nnop\nret", "g7": ""}
    code += "".join(f" call {name}\n" for name in shorts) + " ret\n"
    shorts["g7"] = "rol rdx, 3\nror rcx, 2\nret"
    code += "".join(f"leaf {name}\n{body}\n" for name, body in shorts.items())
    program = images.build(code + FAR)
    pair = Pair(program, events, breakpoints=False)
    runs(pair)
    refused = [name for name in shorts if pair.statuses[program.symbols[name]] == TOO_SHORT]
    assert refused == ["g1", "g2", "g3", "g4"]
    covered = {rva + at for rva, original, _ in pair.composition.patches for at in range(len(original))}
    assert not any(program.symbols["g1"] <= rva < program.symbols["g7"] for rva in covered)


@pytest.mark.parametrize("distance", [0, 60, 100, 116, 118, 119, 120, 140])
@pytest.mark.parametrize("where", ["before", "behind"])
def test_short_jump_is_used_only_where_padding_is_in_reach(where: str, distance: int) -> None:
    filler = f"leaf filler\n .space {distance}, 0x90\n ret\nend\n" if distance else ""
    callers = (
        "function callers\n call f\n call filler\n ret\n" if distance else "function callers\n call f\n ret\n"
    )
    body = "leaf f\n xor eax, eax\nagain:\n inc cl\n jne again\n ret\nend\n"
    padding = ".space 7, 0xcc\n"
    first = "function first\n call f\n ret\nend\n"
    around = [first, padding, filler, body] if where == "before" else [body, filler, padding]
    program = images.build("".join(around) + callers + FAR)
    pair = Pair(program, breakpoints=False)
    start = program.symbols["f"]
    runs(pair)
    patches = {rva: (original, changed) for rva, original, changed in pair.composition.patches}
    status = pair.statuses[start]
    if status:
        assert status == BRANCH_INTO_ENTRY
        assert start not in patches
    else:
        original, changed = patches[start]
        assert len(original) == 2
        hole = start + 2 + int.from_bytes(changed[1:], "little", signed=True)
        assert patches[hole][0] == b"\xcc" * 5
    assert status == 0 if distance <= 100 else distance < 140 or status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("push rbp\n .byte 0x67, 0x8d, 0x05 # lea eax, [eip + 0]\n .long 0\n pop rbp\n ret\n", UNDECODABLE),
        ("int3\n nop\n inc rax\n ret\n", UNDECODABLE),
        (".byte 0x67, 0x8d, 0x05\n .long 0\n ret\n", UNDECODABLE),
        ("call behind\nbehind:\n pop rax\n ret\n", POSITION_DEPENDENT),
    ],
    ids=[
        "undecodable second instruction",
        "int3 first",
        "undecodable first instruction",
        "reads its own address",
    ],
)
def test_what_cannot_be_copied_still_behaves(body: str, status: int) -> None:
    program = images.build(f"{PADDING}function f\n{body}", seeds=[("f", Source.EXPORT)])
    pair = Pair(program, breakpoints=False)
    start = program.symbols["f"]
    state = State.arbitrary(random.Random(1))
    emulator.assert_same(pair.original.run(start, state).state, pair.patched.run(start, state).state)
    assert pair.statuses[start] == status
    assert not pair.composition.patches


def test_jump_from_another_function_into_the_first_bytes_keeps_them_whole() -> None:
    program = images.build(
        """
function f
    test cl, 1
    je inside
    call g
    ret
function g
    xor eax, eax
inside:
    inc rbx
    inc rdx
    ret
"""
        + FAR
    )
    pair = Pair(program, breakpoints=False)
    assert pair.statuses[program.symbols["g"]] == BRANCH_INTO_ENTRY
    assert pair.copied("f")
    for number in range(RUNS):
        state = State.arbitrary(random.Random(number))
        before = pair.original.run(images.CODE, state)
        emulator.assert_same(before.state, pair.patched.run(images.CODE, state).state)


def test_instructions_no_emulator_knows_keep_their_operands() -> None:
    operands = """
    vaddps ymm0, ymm1, ymmword ptr [rip + scratch]
    vpalignr xmm0, xmm1, xmmword ptr [rip + scratch], 4
    vmovdqu ymmword ptr [rip + scratch], ymm3
    vpaddd zmm1, zmm2, zmmword ptr [rip + scratch]
    vpinsrw xmm1, xmm2, word ptr [rip + scratch], 3
    fld qword ptr [rip + scratch]
    prefetcht0 byte ptr [rip + scratch]
    ldmxcsr dword ptr [rip + scratch]
    lock cmpxchg16b xmmword ptr [rip + scratch]
"""
    program = images.build(f"function f\n{operands}\n .byte 0xc7, 0xf8\n .long 0\n ret\n")
    pair = Pair(program)
    assert pair.copied("f")
    decoder = emulator.decoder()
    rva, seen = program.symbols["f"], 0
    while rva < program.functions[0].parts[0][1]:
        mapped = pair.composition.copies.copy(images.BASE + rva)
        assert mapped is not None
        before = next(decoder.disasm(program.image.data[rva : rva + 15], images.BASE + rva))
        after = next(decoder.disasm(pair.patched.read(mapped, 15), mapped))
        if before.disp_offset:
            assert before.mnemonic == after.mnemonic
            assert before.size == after.size
            scratch = images.BASE + program.symbols["scratch"]
            assert before.address + before.size + before.disp == scratch
            assert after.address + after.size + after.disp == scratch
            seen += 1
        elif before.mnemonic == "xbegin":
            resumed = pair.composition.copies.copy(images.BASE + rva + 6)
            assert (after.mnemonic, after.op_str) == ("xbegin", f"{resumed:#x}")
            seen += 1
        rva += before.size
    assert seen == 10


def snapshot(machine: Machine, kept: list[tuple[int, dict[str, int]]], at: int) -> None:
    names = [*emulator.GENERAL, *emulator.VECTORS, "rflags"]
    kept.append((at, {name: machine.register(name) for name in names}))


def test_thread_that_stands_in_a_function_goes_on_in_its_copy() -> None:
    program = images.build(*CASES["jump table of distances, as gcc makes it"])
    pair = Pair(program)
    original, patched = pair.original, pair.patched
    start = program.symbols["f"]
    for seed in range(4):
        state = State.arbitrary(random.Random(seed))
        path = original.run(start, state, watch=True)
        snapshots: list[tuple[int, dict[str, int]]] = []
        keep = functools.partial(snapshot, original, snapshots)
        original.run(start, state, each=keep)
        for at, registers in snapshots:
            mapped = pair.composition.copies.copy(at)
            assert mapped is not None
            moved = State(registers, state.scratch, state.stack)
            emulator.assert_same(path.state, patched.run(mapped - images.BASE, moved).state)


@pytest.mark.parametrize("distance", [0x10000, 0x1000_0000, 0x7FF0_0000])
def test_region_may_lie_anywhere_within_two_gigabytes_above(distance: int) -> None:
    code, data = CASES["calls direct, through registers, through memory and through the stack"]
    runs(Pair(images.build(code, data), region=images.BASE + distance))


@pytest.mark.parametrize("distance", [0x7FFF_F000, 0x8000_0000, -0x10000, 0x10800, 0])
def test_region_out_of_reach_is_refused(distance: int) -> None:
    code, data = CASES["jrcxz"]
    with pytest.raises(OutOfSpace, match=r"made\.exe: .* out of reach"):
        Pair(images.build(code, data), region=images.BASE + distance)


def test_second_composition_elsewhere_is_as_good_as_the_first() -> None:
    code, data = CASES["jump table of RVAs, as MSVC makes it"]
    program = images.build(code, data)
    pair = Pair(program)
    region = images.BASE + 0x1230_0000
    again = pair.plan.compose(region, 0)
    pair.patched = emulator.Machine(program.image, program.symbols["scratch"], again, region)
    runs(pair)
