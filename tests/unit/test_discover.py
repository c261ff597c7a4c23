"""Discovery of functions and of their code, where it is not straightforward."""

from __future__ import annotations

import random
import struct

from calltrace.model import Source
from calltrace.pe.image import Image
from calltrace.plan import ModulePlan
from rig import images
from rig.emulator import Pair, Slots, State

PADDING = "end\n.space 16, 0xcc\n"


def with_pdata(entries: list[tuple[int, int, int]], unwind: bytes, code: bytes) -> Image:
    data = bytearray(0x10000 + 12 * len(entries))
    data[0x1000:0x8000] = code * (0x7000 // len(code))
    data[0x8000 : 0x8000 + len(unwind)] = unwind
    data[0x10000:] = b"".join(struct.pack("<III", *entry) for entry in entries)
    return Image(
        "made.exe", images.BASE, bytes(data), 0, 0, [(0x1000, 0x8000)], (0x10000, 12 * len(entries)), (0, 0)
    )


def test_chain_of_continuations_that_join_backwards() -> None:
    """Each part only jumps to the one before it, as gcc's separated parts may."""
    code = b"\xeb\xde".ljust(32, b"\x90")  # jmp to the part before
    entries = [(0x1020 + 32 * i, 0x1040 + 32 * i, 0x8000) for i in range(0x300)]
    # prolog 0 with an unwind code: a frame that the part does not build
    plan = ModulePlan(with_pdata(entries, b"\1\0\1\0\0\x02\0\0", code))
    plan.lay_out(Slots(), "all", "none", 0, 0)


def test_second_jump_table_of_distances_behind_and_inside_the_first() -> None:
    def switch(table: str) -> str:
        return f"""
    and ecx, 1
    lea rdx, [rip + {table}]
    movsxd rax, dword ptr [rdx + rcx*4]
    add rax, rdx
    jmp rax
{table}_0:
    inc rbx
    jmp {table}_out
{table}_1:
    dec rcx
{table}_out:
"""

    tables = "".join(
        f"{name}:\n.long {name}_0 - {name}, {name}_1 - {name}\n.quad 0\n" for name in ("one", "two")
    )
    program = images.build(f"function f\n{switch('one')}{switch('two')} ret\n", tables)
    pair = Pair(program)
    for seed in range(4):
        pair.check(
            "f", State.arbitrary(random.Random(seed))
        )  # a TAIL instead of a LEAVE: the original body ran on


def test_jump_table_ends_where_one_begins_that_only_its_cases_name() -> None:
    """Taken for an entry of the first table, the second's first leads into a constant: a call to nowhere."""
    switch = """
    and ecx, 1
    lea rdx, [rip + {table}]
    movsxd rax, dword ptr [rdx + rcx*4]
    add rax, rdx
    jmp rax
"""
    program = images.build(
        f"""function f
{switch.format(table="one")}
one_0:
    ret
one_1:
    mov rcx, rbx
{switch.format(table="two")}
two_1:
    movabs r8, 0x9090907fffffffe8
two_0:
    inc rbx
    ret
""",
        "one:\n.long one_0 - one, one_1 - one\ntwo:\n.long two_0 - two, two_1 - two\n",
    )
    pair = Pair(program)
    assert pair.copied("f")
    for seed in range(4):
        pair.check("f", State.arbitrary(random.Random(seed)))


def test_what_follows_a_jump_table_is_not_code() -> None:
    """Nothing says that the table of RVAs has two entries: a third leads to bytes that call to nowhere."""
    program = images.build(
        """function f
    and eax, 1
    .byte 0x48, 0x8d, 0x15 # lea rdx, [image base]
    .long image - after
after:
    .byte 0x8b, 0x8c, 0x82 # mov ecx, [rdx + rax*4 + table's RVA]
    .long table - image
    add rcx, rdx
    jmp rcx
one:
    inc rbx
    ret
two:
    dec rbx
    ret
table: # inside the function, as older MSVC has it
    .long one - image, two - image, data - image
data:
    .byte 0xe8, 0, 0, 0, 0x60
""",
    )
    pair = Pair(program)
    assert pair.copied("f")
    for seed in range(4):
        pair.check("f", State.arbitrary(random.Random(seed)))


def test_leaf_function_that_only_a_leaf_function_names() -> None:
    padding = "end\n .space 16, 0xcc\n"
    program = images.build(
        f"leaf f\n lea rax, [rip + g]\n rex64 jmp rax\n{padding}leaf g\n lea rcx, [rcx + 1]\n ret\n{padding}",
        seeds=[("f", Source.EXPORT)],
    )
    plan = ModulePlan(program.image)
    assert program.symbols["g"] in {function.rva for function in plan.functions}


def test_data_behind_a_leaf_function_is_no_function() -> None:
    """It decodes as `add eax, [rcx]; add al, 1`, and runs into a function that has unwind data."""
    program = images.build(
        "leaf reader\n lea rdx, [rip + table]\n cmp rcx, rdx\n jae over\n ret\nover:\n ret\ntable:\n"
        " .byte 3, 1, 4, 1\n nop\n nop\nend\nfunction next\n call reader\n ret\n" + PADDING,
    )
    plan = ModulePlan(program.image)
    assert program.symbols["table"] not in {function.rva for function in plan.functions}


def test_data_that_looks_like_a_function_is_none_when_it_is_read() -> None:
    code = "function user\n lea r8, [rip + like]\n {}\n ret\nend\nleaf like\n mov eax, 1\n ret\nend\n"
    for used, is_function in (
        ("mov [rcx], r8", True),
        ("mov eax, [r8]", False),
        ("mov eax, [r8 + 8*rcx]", False),
        ("mov r8d, ecx\n mov eax, [r8]", True),
        ("mov eax, [r8 + 0x100000]", True),
    ):
        program = images.build(code.format(used) + PADDING)
        plan = ModulePlan(program.image)
        found = program.symbols["like"] in {function.rva for function in plan.functions}
        assert found == is_function, used
