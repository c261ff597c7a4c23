"""Leaf functions that nothing names: what counts as one, and what is left alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from calltrace.model import FunctionFlag, Source
from calltrace.plan import Function, ModulePlan
from rig import images
from rig.emulator import Slots

# g is what the question is about; f and its ret come before, and room for a jump behind each
F = "function f\n add rcx, 1\nmiddle:\n inc eax\n ret\nend\n"
INT3 = " .space 9, 0xcc\n"
H = "leaf h\n lea eax, [rcx + rdx]\n ret\nend\n"


def functions_of(code: str, data: str = "") -> tuple[Mapping[str, Function], images.Program]:
    """The functions found, by the labels they start at; others by their RVA."""
    program = images.build(code, data)
    names = {rva: name for name, rva in program.symbols.items()}
    found = ModulePlan(program.image).functions
    return {names.get(function.rva, hex(function.rva)): function for function in found}, program


SWITCH = """
    cmp ecx, 1
    ja other
    lea rdx, [rip + table]
    movsxd rax, dword ptr [rdx + rcx*4]
    add rax, rdx
    jmp rax
none:
    xor eax, eax
    ret
one:
    mov eax, 5
    ret
other:
    or eax, -1
    ret
"""
TABLE = "table:\n .long none - table, one - table\n"

LEAVES = {
    "shortest": "leaf g\n ret\n",
    "arguments in registers and on the stack": "leaf g\n mov eax, [rsp + 0x28]\n add eax, r9d\n ret\n",
    "idioms that make a constant": "leaf g\n xor eax, eax\n or r11, -1\n sub edx, edx\n and r8d, 0\n ret\n",
    "loop": "leaf g\n xor eax, eax\nagain:\n add eax, [rcx]\n add rcx, 4\n dec edx\n jne again\n ret\n",
    "aligned loop": "leaf g\n xor eax, eax\n .byte 0x66, 0x90\nagain:\n dec edx\n jne again\n ret\n",
    "loop entered at its end": "leaf g\n jmp check\nagain:\n inc ecx\ncheck:\n dec edx\n jns again\n ret\n",
    "jump to another function": "leaf g\n inc ecx\n jmp f\n",
    "jump to another function on a condition": "leaf g\n test ecx, ecx\n jne f\n ret\n",
    "jump through a pointer": "leaf g\n jmp qword ptr [rip + scratch]\n",
    "jump through a register": "leaf g\n mov rax, [rcx]\n jmp [rax + 8]\n",
    "jump over nothing to the next": "leaf g\n inc ecx\n .byte 0xe9, 0, 0, 0, 0\n",
    "fast fail on one path": "leaf g\n test ecx, ecx\n jne good\n int 0x29\ngood:\n ret\n",
    "flags of a test in memory": "leaf g\n test byte ptr [rcx], dl\n setne al\n ret\n",
    "no arguments removed": "leaf g\n mov eax, ecx\n .byte 0xc2, 0, 0\n",
    "nested function": "leaf g\n mov eax, [r10]\n ret\n",
}


@pytest.mark.parametrize("case", LEAVES)
def test_leaf_function_that_nothing_names_is_found(case: str) -> None:
    found, program = functions_of(F + INT3 + LEAVES[case] + "end\n" + H)
    assert set(found) == {"f", "g", "h"}
    assert found["g"].sources == found["h"].sources == Source.GAP
    assert found["g"].size == program.symbols["g.end"] - program.symbols["g"]


@pytest.mark.parametrize(
    "padding",
    ["", "cc", "90", "6690", "0f1f00", "0f1f4000", "0f1f840000000000", "662e0f1f840000000000",
     "66662e0f1f840000000000", "0f1f440000cccccc", "9066900f1f00"],
)  # fmt: skip
def test_padding_of_every_kind_is_skipped(padding: str) -> None:
    space = "".join(f" .byte {byte}\n" for byte in bytes.fromhex(padding))
    found, _ = functions_of(F + space + "leaf g\n mov eax, ecx\n ret\nend\n" + space + H)
    assert set(found) == {"f", "g", "h"}


@pytest.mark.parametrize("where", ["data", "behind it", "behind padding"])
def test_jump_table_of_a_leaf_function_and_what_follows_it(where: str) -> None:
    between = {"data": INT3, "behind it": TABLE, "behind padding": " .byte 0x66, 0x90\n" + TABLE + INT3}[
        where
    ]
    code = f"{F}{INT3}leaf g\n{SWITCH}end\n{between}{H}"
    found, program = functions_of(code, TABLE if where == "data" else "")
    assert set(found) == {"f", "g", "h"}
    assert found["g"].size == program.symbols["g.end"] - program.symbols["g"]


NO_LEAVES = {
    "calls": "leaf g\n call f\n ret\n",
    "calls through a pointer": "leaf g\n call qword ptr [rip + scratch]\n ret\n",
    "moves the stack pointer": "leaf g\n push rcx\n pop rcx\n ret\n",
    "allocates": "leaf g\n sub rsp, 8\n add rsp, 8\n ret\n",
    "writes a nonvolatile register": "leaf g\n xor ebx, ebx\n ret\n",
    "writes a part of one": "leaf g\n mov sil, 1\n ret\n",
    "writes r15": "leaf g\n lea r15, [rcx + 1]\n ret\n",
    "writes a nonvolatile vector register": "leaf g\n pxor xmm6, xmm6\n ret\n",
    "reads what nobody passes": "leaf g\n mov ecx, eax\n ret\n",
    "reads a nonvolatile register": "leaf g\n mov eax, ebx\n ret\n",
    "reads the flags": "leaf g\n jne f\n ret\n",
    "reads the carry": "leaf g\n sbb eax, eax\n ret\n",
    "removes arguments": "leaf g\n ret 8\n",
    "is privileged": "leaf g\n cli\n ret\n",
    "does input": "leaf g\n mov eax, ecx\n in al, dx\n ret\n",
    "is no code on one path": "leaf g\n test ecx, ecx\n jne bad\n ret\nbad:\n .byte 6\n",
    "never leaves": "leaf g\n inc ecx\n jmp g\n",
    "only traps": "leaf g\n ud2\n",
    "goes on behind the code": "leaf g\n mov eax, ecx\n",
    "jumps into the middle of a function": "leaf g\n inc ecx\n jmp middle\n",
    "jumps into an instruction of its own": "leaf g\n mov eax, 1\n inc ecx\n .byte 0x75, 0xf8\n ret\n",
    "refers to what is outside the image": "leaf g\n mov eax, [rip + 0x40000000]\n ret\n",
    "switches without a limit": SWITCH.replace(
        "cmp ecx, 1\n    ja other", "test ecx, ecx\n    js other"
    ).replace("\n", "leaf g\n", 1),
}


@pytest.mark.parametrize("case", NO_LEAVES)
def test_what_no_leaf_function_does_is_left_alone(case: str) -> None:
    found, _ = functions_of(F + INT3 + NO_LEAVES[case] + "end\n", TABLE if "table" in NO_LEAVES[case] else "")
    assert set(found) == {"f"}


@pytest.mark.parametrize(
    "reference",
    ["mov eax, dword ptr [rip + g]", "mov eax, dword ptr [rip + g + 2]", "lea rax, [rip + g + 2]",
     "movups xmm0, [rip + g - 4 + 5]", "cmp byte ptr [rip + g], 1"],
)  # fmt: skip
def test_data_that_looks_like_a_leaf_function_is_left_alone(reference: str) -> None:
    code = f"function f\n {reference}\n ret\nend\n{INT3}leaf g\n mov eax, ecx\n inc eax\n ret\nend\n"
    found, _ = functions_of(code)
    assert set(found) == {"f"}


@pytest.mark.parametrize("constants", [0x428A2F98, 0x5A827999, 0x01010101, 0x50A7F451, 0x5451F4A7])
def test_table_of_constants_among_code_is_no_function_for_a_pointer_to_it(constants: int) -> None:
    """Those of SHA and AES, which libraries keep beside their code; some decode up to a branch."""
    table = " .balign 16, 0xcc\ntable:\n" + f" .long {constants}\n" * 16
    found, _ = functions_of(f"function f\n lea rax, [rip + table]\n ret\nend\n{table}")
    assert set(found) == {"f"}


def test_nothing_is_taken_for_a_function_behind_what_is_not_understood() -> None:
    found, _ = functions_of(f"{F}leaf g\n push rbx\n pop rbx\n ret\nend\n{INT3}{H}")
    assert set(found) == {"f"}


def test_leaf_function_that_is_only_jumped_to() -> None:
    found, _ = functions_of(f"function f\n inc ecx\n jmp g\nend\n{INT3}leaf g\n mov eax, ecx\n ret\nend\n")
    assert {name: function.sources for name, function in found.items()} == {
        "f": Source.PDATA,
        "g": Source.JUMP,
    }


def test_leaf_function_does_not_swallow_the_one_it_ends_in() -> None:
    program = images.build(
        f"leaf f\n inc ecx\n jmp g\nend\n .byte 0x66, 0x90\nleaf g\n mov eax, ecx\n ret\nend\n{INT3}",
        seeds=[("f", Source.EXPORT)],
    )
    found = {function.rva: function for function in ModulePlan(program.image).functions}
    assert set(found) == {program.symbols["f"], program.symbols["g"]}
    assert found[program.symbols["f"]].size == program.symbols["f.end"] - program.symbols["f"]


def test_gaps_of_a_directory_that_contradicts_itself_are_left_alone() -> None:
    program = images.build(f"{F}{INT3}function k\n ret\nend\n{INT3}leaf g\n mov eax, ecx\n ret\nend\n{INT3}")
    begin, _ = program.image.pdata
    data = bytearray(program.image.data)
    data[begin + 12 : begin + 16] = data[begin : begin + 4]  # k begins where f does
    found = {
        function.rva
        for function in ModulePlan(dataclasses.replace(program.image, data=bytes(data))).functions
    }
    assert found == {program.symbols["f"]}
    assert program.symbols["g"] in {function.rva for function in ModulePlan(program.image).functions}


def test_function_that_ends_in_a_leaf_function_is_no_piece_of_the_one_that_jumps_to_it() -> None:
    """g is only jumped to and has no ret, like a piece moved out of f: but it goes elsewhere."""
    found, _ = functions_of(
        """
function f
    sub rsp, 0x28
    %alloc 0x28
    call k
    add rsp, 0x28
    jmp g
function g
    push rbx
    %push rbx
    lea rbx, [rcx + 1]
    pop rbx
    jmp k
leaf k
    lea eax, [rcx + 1]
    ret
end
"""
    )
    assert set(found) == {"f", "g", "k"}


def test_table_ends_where_the_next_begins() -> None:
    """Read on from the first table's address, the second's distances lead into instructions of f."""

    def switch(name: str) -> str:
        return f"""
    and ecx, 1
    lea rdx, [rip + {name}]
    movsxd rax, dword ptr [rdx + rcx*4]
    add rax, rdx
    jmp rax
{name}_0:
    inc rbx
    jmp {name}_out
{name}_1:
    dec r8
{name}_out:
"""

    def bytes_of_the_copy(between: str) -> int:
        tables = (f"{name}:\n .long {name}_0 - {name}, {name}_1 - {name}\n" for name in ("one", "two"))
        code = f"function f\n{switch('one')}{switch('two')} ret\nend\n"
        plan = ModulePlan(images.build(code, between.join(tables)).image)
        plan.lay_out(Slots(), "all", "none", 0, 0)
        return plan.copy_bytes

    assert bytes_of_the_copy("") == bytes_of_the_copy(" .quad 0\n")


def test_cleanup_funclet_without_unwind_data_belongs_to_its_function() -> None:
    program = images.build(
        f"""
function f
    sub rsp, 0x28
    %alloc 0x28
    %handler handler
    %data .long info - image
    call k
    add rsp, 0x28
    ret
end
{INT3}leaf cleanup
    lea rcx, [rdx + 0x20]
    jmp k
end
{INT3}function k
    lea eax, [rcx + 1]
    ret
leaf handler
    jmp qword ptr [rip + scratch]
end
""",
        """
info:
    .long 0x19930522, 1, unwind_map - image, 0, 0, 2, ip_map - image, 0x20, 0, 1
unwind_map:
    .long -1, cleanup - image
ip_map:
    .long f - image, -1, f + 9 - image, 0
""",
    )
    imports = {program.symbols["scratch"]: "vcruntime140.dll!__CxxFrameHandler3"}
    functions = ModulePlan(dataclasses.replace(program.image, imports=imports)).functions
    [cleanup] = [function for function in functions if function.rva == program.symbols["cleanup"]]
    assert cleanup.sources == Source.HANDLER
    assert cleanup.flags == FunctionFlag.FUNCLET
    assert functions[cleanup.parent].rva == program.symbols["f"]
