"""Where breakpoints on traced functions have to stand: on planned images, held against their code."""

from __future__ import annotations

import capstone

from calltrace.pe.image import from_file
from calltrace.pe.symbols import add_symbols
from calltrace.places import Copied, places
from calltrace.plan import Composition, ModulePlan
from calltrace.survey import _SLOTS
from rig import targets

_PAGE = 0x1000


class Planned:
    """The target of the breakpoints, composed for a region right behind it."""

    def __init__(self) -> None:
        self.image = from_file(targets.build("breakpoints"))
        add_symbols(self.image)
        self.plan = ModulePlan(self.image)
        self.plan.lay_out(_SLOTS, "outward", "none", 0, 0, breakpoints=False)
        self.region = self.image.base + -(-self.image.size // _PAGE) * _PAGE
        self.made: Composition = self.plan.compose(self.region, 0)
        self.names = {name: self.image.base + rva for rva, name in self.image.names.items()}

    def copied(self) -> Copied:
        made = self.plan.compose(self.region, 0)
        made.copies.lead_in(made.patches)
        return made.copies

    def instruction(self, address: int) -> str:
        """What stands at a VA of the module or of the copies."""
        data, at = self.image.data, address - self.image.base
        if address >= self.region:
            data, at = self.made.code, address - self.region
        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        found = next(decoder.disasm(data[at : at + 15], address))
        return found.mnemonic if found.op_str.startswith("0x") else f"{found.mnemonic} {found.op_str}"


PLANNED = Planned()
STRAIGHT = PLANNED.names["straight"]
TURNS = PLANNED.names["turns"]


def test_an_entry_that_every_call_passes_keeps_its_breakpoint() -> None:
    assert places([PLANNED.copied()], STRAIGHT) == [STRAIGHT]


def test_an_entry_that_a_loop_goes_back_to_has_it_in_the_copy_only() -> None:
    [place] = places([PLANNED.copied()], TURNS)
    assert place > PLANNED.region
    assert PLANNED.instruction(place) == PLANNED.instruction(TURNS) == "add edx, ecx"


def test_in_the_middle_of_the_jump_it_stands_in_the_copy_only() -> None:
    [place] = places([PLANNED.copied()], STRAIGHT + 4)
    assert PLANNED.instruction(place) == PLANNED.instruction(STRAIGHT + 4) == "mov eax, ecx"


def test_behind_the_jump_it_stands_in_the_copy_and_in_the_original() -> None:
    address = STRAIGHT + 6
    copy, original = places([PLANNED.copied()], address)
    assert original == address
    assert PLANNED.instruction(copy) == PLANNED.instruction(address) == "add eax, 1"


def test_what_is_no_instruction_of_a_traced_function_stands_nowhere_in_a_jump_and_else_where_it_is() -> None:
    copied = PLANNED.copied()
    assert places([copied], STRAIGHT + 2) == [PLANNED.region]  # in the middle of its first instruction
    assert places([copied], STRAIGHT + 7) == [STRAIGHT + 7]
    assert places([copied], PLANNED.image.base) == [PLANNED.image.base]
    short_one = PLANNED.names["short_one"] - PLANNED.image.base
    [jump] = [new for rva, _, new in PLANNED.made.patches if rva == short_one]
    assert (len(jump), jump[0]) == (2, 0xEB)
    pad = short_one + 2 + int.from_bytes(jump[1:], "little", signed=True)
    for offset in range(5):
        assert places([copied], PLANNED.image.base + pad + offset) == [PLANNED.region]


def test_after_a_recording_it_stands_in_the_original_and_in_copies_that_are_left() -> None:
    left, again = PLANNED.copied(), PLANNED.copied()
    left.active = again.active = False
    for address in (STRAIGHT + 4, STRAIGHT + 6):
        original, copy = places([left], address)
        assert original == address
        assert PLANNED.instruction(copy) == PLANNED.instruction(address)
    assert places([left], STRAIGHT) == [STRAIGHT]
    again.active = True
    assert places([left, again], STRAIGHT + 6) == [copy, STRAIGHT + 6, copy]
