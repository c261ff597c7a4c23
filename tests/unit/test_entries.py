"""How the starts of functions lead to their copies: which rung of the ladder each takes, and that every
function of one byte and up takes one.
"""

from __future__ import annotations

import random

import pytest

from calltrace.model import ENTRY_SHIFT, Entry, Source
from calltrace.tracefile import FUNCTION
from rig import images
from rig.emulator import Pair, State, assert_same

RUNS = 4
# Keeps the padding behind the code out of a short jump's reach.
FAR = "end\nfunction far\n .space 300, 0x90\n call f\n ret\n"
PADDING = "end\n.space 16, 0xcc\n"
JUMP, PADDED, SHORT, BREAKPOINT = Entry
MODULE_HEADER = 80  # sizeof(struct ct_module)

# Functions one behind the other, without padding: name, body, rung. Each is called once.
PACKED: dict[str, list[tuple[str, str, Entry]]] = {
    "functions of one to six bytes": [
        ("one", "ret", BREAKPOINT),
        ("two", "rep ret", BREAKPOINT),
        ("jump", "jmp five", BREAKPOINT),
        ("three", "xor eax, eax\n ret", BREAKPOINT),
        ("four", "lea eax, [rcx + 1]\n ret", BREAKPOINT),
        ("five", "lea eax, [rcx + 1]\n nop\n ret", JUMP),
        ("six", "rol rdx, 1\n inc eax\n ret", JUMP),
        ("last", "ret", BREAKPOINT),
    ],
    "loops back to the first bytes": [
        ("to_0", "again_0:\n lea eax, [rax*2 + 1]\n dec cl\n jne again_0\n ret", JUMP),
        ("to_1", "cld\nagain_1:\n lea eax, [rax*2 + 1]\n dec cl\n jne again_1\n ret", BREAKPOINT),
        ("to_2", "xor eax, eax\nagain_2:\n inc eax\n dec cl\n jne again_2\n ret", BREAKPOINT),
        ("to_3", "lea eax, [rcx + 1]\nagain_3:\n dec eax\n dec cl\n jne again_3\n ret", BREAKPOINT),
        ("to_4", "add rax, 5\nagain_4:\n dec eax\n dec cl\n jne again_4\n ret", BREAKPOINT),
        ("to_5", "mov eax, 77\nagain_5:\n dec eax\n dec cl\n jne again_5\n ret", JUMP),
    ],
    "calls that return to the first bytes": [
        ("callee", "lea rdx, [rdx*2 + 1]\n ret", JUMP),
        ("caller", "call r11\n inc rax\n ret", BREAKPOINT),
    ],
}


def packed(case: str) -> images.Program:
    functions = PACKED[case]
    code = "function f\n"
    if case.startswith("calls"):
        code += " lea r11, [rip + callee]\n"
    code += "".join(f" call {name}\n" for name, _, _ in functions) + " ret\n"
    code += "".join(f"leaf {name}\n {body}\n" for name, body, _ in functions)
    return images.build(code + FAR, seeds=[("f", Source.EXPORT)])


def changed_bytes(pair: Pair) -> dict[int, int]:
    """Every byte of the image that is patched: RVA -> new value."""
    return {rva + at: byte for rva, _, new in pair.composition.patches for at, byte in enumerate(new)}


@pytest.mark.parametrize("events", ["functions", "outward", "all"])
@pytest.mark.parametrize("case", PACKED)
def test_every_function_is_instrumented_however_short(case: str, events: str) -> None:
    program = packed(case)
    pair = Pair(program, events)
    assert {name: pair.entries[program.symbols[name]] for name, _, _ in PACKED[case]} == {
        name: rung for name, _, rung in PACKED[case]
    }
    assert not any(pair.statuses.values())
    for number in range(RUNS):
        pair.check("f", State.arbitrary(random.Random(number)))


@pytest.mark.parametrize("case", PACKED)
def test_no_byte_of_a_neighbour_or_of_a_jumps_target_changes(case: str) -> None:
    program = packed(case)
    pair = Pair(program)
    changed = changed_bytes(pair)
    for function in program.functions:
        begin, end = function.parts[0]
        ours = {at - begin: byte for at, byte in changed.items() if begin <= at < end}
        if pair.entries[begin] is BREAKPOINT:
            assert ours == {0: 0xCC}
        else:
            assert list(ours) == [0, 1, 2, 3, 4]
            assert ours[0] == 0xE9
    assert all(program.function_at(at) for at in changed)


def test_the_better_rung_is_taken_where_there_is_room() -> None:
    program = images.build(
        "function f\n call own\n call padded\n call short\n call packed\n ret\n"
        f"leaf own\n mov eax, 5\n ret\n{PADDING}leaf padded\n ret\n{PADDING}"
        f"leaf short\n xor eax, eax\nagain:\n dec cl\n jne again\n ret\n{PADDING}"
        f"leaf filler\n .space 200, 0x90\n ret\nleaf packed\n ret\n{FAR} call filler\n ret\n"
    )
    pair = Pair(program)
    names = ("own", "padded", "short", "packed")
    assert [pair.entries[program.symbols[name]] for name in names] == list(Entry)
    for number in range(RUNS):
        pair.check("f", State.arbitrary(random.Random(number)))


def test_functions_stay_as_they_are_if_breakpoints_are_not_wanted() -> None:
    program = packed("functions of one to six bytes")
    pair = Pair(program, breakpoints=False)
    assert pair.entries == {program.symbols[name]: JUMP for name in ("f", "far", "five", "six")}
    assert not pair.patched.breakpoints
    assert 0xCC not in (new[0] for _, _, new in pair.composition.patches)
    for number in range(RUNS):
        pair.check("f", State.arbitrary(random.Random(number)))


@pytest.mark.parametrize("body", ["int3\n ret", "int3\n inc rax\n inc rcx\n ret", "inc eax\n int3\n ret"])
@pytest.mark.parametrize("kind", ["leaf", "function"])
def test_int3s_that_are_stepped_over_are_part_of_their_function(kind: str, body: str) -> None:
    program = images.build(f"{kind} f\n {body}\n{FAR}", seeds=[("f", Source.EXPORT)])
    pair = Pair(program)
    rung = JUMP if "rcx" in body else BREAKPOINT
    assert pair.entries[program.symbols["f"]] is rung
    for number in range(RUNS):
        pair.check("f", State.arbitrary(random.Random(number)))


def test_an_int3_behind_a_call_that_does_not_return_ends_the_function() -> None:
    program = images.build(
        "function f\n inc rax\n inc rcx\n inc rdx\n call g\n int3\n .byte 6\n"
        f"function g\n lea rsp, [rsp + 8]\n ret\n{FAR}",
        seeds=[("f", Source.EXPORT)],
    )
    pair = Pair(program)
    start = program.symbols["f"]
    assert pair.entries[start] is JUMP
    for number in range(RUNS):
        state = State.arbitrary(random.Random(number))
        assert_same(pair.original.run(start, state).state, pair.patched.run(start, state).state)


def test_the_trace_tells_the_rung_of_each_function() -> None:
    program = packed("functions of one to six bytes")
    made = Pair(program).composition
    records = made.module_chunk[MODULE_HEADER : MODULE_HEADER + FUNCTION.size * made.function_count]
    told = {rva: flags >> ENTRY_SHIFT for rva, _, _, flags, _, _ in FUNCTION.iter_unpack(records)}
    for name, _, rung in PACKED["functions of one to six bytes"]:
        assert told[program.symbols[name]] == rung
    assert made.breakpoint_count == 6
