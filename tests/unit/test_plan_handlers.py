"""Cloned handler data gives, for every instruction of a copy, the answer that the original data gives.

Over real programs: all instructions of all functions with a language handler.
"""

from __future__ import annotations

import collections
import functools
import itertools

import capstone
import pytest

from calltrace.model import NONE_ID
from calltrace.pe.image import Image, from_file
from calltrace.plan import Composition, ModulePlan
from rig import corpus, handlers, images, targets
from rig.emulator import IMPORTED, Slots
from rig.handlers import Place
from rig.unwinding import Entry, Tables


class Clones:
    """A program's exception data beside that of its copies."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.plan = ModulePlan(image)
        size = self.plan.lay_out(Slots(), "all", "none", 0, 0)
        self.region = -(-image.size // 0x10000) * 0x10000 + 0x50000
        self.made: Composition = self.plan.compose(image.base + self.region, 0)
        assert size == len(self.made.code)
        self.before = Tables(self.original, [(image.pdata[0], image.pdata[1] // 12)])
        self.after = Tables(self.read, [(self.made.table_rva, self.made.table_count)])
        self.decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self.checked: collections.Counter[str] = collections.Counter()

    def original(self, rva: int, size: int) -> bytes:
        assert 0 <= rva <= self.image.size - size
        return self.image.data[rva : rva + size]

    def read(self, rva: int, size: int) -> bytes:
        if rva < self.region:
            return self.original(rva, size)
        assert rva + size <= self.region + len(self.made.code)
        return self.made.code[rva - self.region : rva - self.region + size]

    def mapped(self, rva: int) -> int | None:
        """RVA of an instruction's copy."""
        address = self.made.copies.copy(self.image.base + rva)
        return None if address is None else address - self.image.base

    def returns_to(self, copy: int) -> int:
        """Where the call returns to that was copied to `copy`, behind events, which call into the region."""
        raw = self.read(copy, 200)
        for address, length, mnemonic, operand in self.decoder.disasm_lite(raw, copy):
            if mnemonic.endswith("call") and not (
                operand.startswith("0x") and int(operand, 16) >= self.region
            ):
                return address + length
        raise AssertionError(f"no call at {copy:#x}")

    def follow(self, place: Place, expected: object) -> None:
        """`expected`, of the original, is `place` in the clone."""
        assert isinstance(expected, Place)
        assert place.what == expected.what
        copy = self.mapped(expected.rva)
        if place.what == "entry" or copy is None:  # reached through the original's patched entry
            assert place.rva == expected.rva
        elif place.what == "funclet":  # recognised by the start of its RUNTIME_FUNCTION
            entry = self.after.find(copy)
            assert entry
            assert entry[0] == place.rva
        else:  # at the instruction, or before it with only an event between
            starts = [insn[0] for insn in self.decoder.disasm_lite(self.read(place.rva, 300), place.rva)]
            assert copy in starts

    def same(self, after: object, before: object) -> None:
        """Equal but for where code is."""
        if isinstance(after, Place):
            self.follow(after, before)
        elif isinstance(after, tuple) and isinstance(before, tuple):
            assert len(after) == len(before)
            for one, other in zip(after, before):
                self.same(one, other)
        else:
            assert after == before

    def check(self, step: int = 1) -> None:
        """Compare every `step`th of the functions that have a handler."""
        statuses = {function.rva: function.status for function in self.plan.functions}
        owners: dict[Entry, list[Entry]] = collections.defaultdict(list)
        for entry in self.before.entries:
            owners[self.before.primary(entry)].append(entry)
        is_code = functools.lru_cache(maxsize=None)(
            lambda rva: any(begin <= rva < end for begin, end in self.image.executable)
        )
        users: dict[int, list[Entry]] = collections.defaultdict(list)
        for primary in owners:
            if handler := self.before.info(primary[2]).handler:
                users[handler].append(primary)
        kinds = {
            handler: handlers.kind_of(self.before, primaries, is_code, self.image.size)
            for handler, primaries in users.items()
        }
        for primary, parts in itertools.islice(owners.items(), None, None, step):
            handler = self.before.info(primary[2]).handler
            if not handler or statuses.get(primary[0]):
                continue
            kind = kinds[handler]
            for part in parts:
                self.check_part(kind, primary, part)

    def check_part(self, kind: str, primary: Entry, part: Entry) -> None:
        raw = self.original(part[0], part[1] - part[0])
        for rva, length, mnemonic, _ in self.decoder.disasm_lite(raw, part[0]):
            copy = self.mapped(rva)
            if copy is None:
                continue
            pc, pc_after = rva, copy
            if mnemonic.endswith("call"):
                pc, pc_after = rva + length, self.returns_to(copy)
            elif kind == "lsda":
                continue
            if pc >= part[1]:
                continue
            entry = self.after.find(pc_after)
            assert entry, f"{copy:#x} is in no RUNTIME_FUNCTION"
            owner = self.after.primary(entry)
            infos = self.before.info(primary[2]), self.after.info(owner[2])
            assert infos[0].handler == infos[1].handler
            if kind == "gs":
                assert self.original(infos[0].data, 4) == self.read(infos[1].data, 4)
            else:
                try:
                    self.same(
                        self.answer(kind, self.read, infos[1].data, pc_after, entry[0]),
                        self.answer(kind, self.original, infos[0].data, pc, part[0]),
                    )
                except AssertionError as error:
                    raise AssertionError(
                        f"{kind} at {rva:#x} {mnemonic} of {primary[0]:#x}, copied to {copy:#x}: {error}"
                    ) from error
            self.checked[kind] += 1
            if part != primary:
                self.checked[f"chained {kind}"] += 1

    def returned(self, funclet: int) -> int:
        """Where the copy of a __CxxFrameHandler3 catch funclet tells the runtime to go on."""
        copy = self.mapped(funclet)
        assert copy
        for address, length, mnemonic, operand in self.decoder.disasm_lite(self.read(copy, 1000), copy):
            if mnemonic == "lea" and operand.startswith("rax, [rip"):
                return address + length + int(operand[9:-1].replace(" ", ""), 16)
        raise AssertionError(f"{funclet:#x} does not say")

    def told(self, funclet: int) -> int:
        """Where cloned __CxxFrameHandler4 data tells it to."""
        for entry in self.after.entries:
            info = self.after.info(entry[2])
            if info.handler:
                for block in handlers.fh4(self.read, info.data, entry[0], entry[0])[5:]:
                    assert isinstance(block, tuple)
                    for handler in block[3:]:
                        if handler[3].rva == funclet:
                            return int(handler[4].rva)
        raise AssertionError(f"nothing leads from {funclet:#x}")

    def answer(self, kind: str, read: handlers.Read, data: int, pc: int, function: int) -> object:
        if kind == "scope":
            return handlers.scope(read, data, pc)
        if kind == "fh3":
            return handlers.fh3(read, data, pc)
        if kind == "fh4":
            return handlers.fh4(read, data, pc, function)
        if kind == "labels":
            return handlers.labels(read, data, pc)
        return handlers.lsda(read, data, pc, function, self.image.base)


@pytest.mark.parametrize(
    ("name", "step", "kinds"),
    [
        ("ninja", 1, {"fh4": 40_000, "gs": 10_000, "scope": 3_000, "fh3": 1_000}),
        ("dbgeng", 4, {"fh3": 50_000}),
    ],
)
def test_handlers_of_the_visual_c_runtime_find_the_same(name: str, step: int, kinds: dict[str, int]) -> None:
    clones = Clones(from_file(corpus.program(name)))
    clones.check(step)
    assert all(clones.checked[kind] > count for kind, count in kinds.items()), clones.checked


def test_landing_pads_of_gcc_are_found_for_the_same_calls() -> None:
    clones = Clones(from_file(targets.build("throws")))
    clones.check()
    assert clones.checked["lsda"] > 100


def test_labels_in_the_data_of_handlers_in_assembly() -> None:
    clones = Clones(from_file(targets.build("seh_labels")))
    clones.check()
    assert clones.checked["labels"] > 30


def test_scope_that_reaches_into_chained_parts() -> None:
    program = images.build(
        """
function f
    sub rsp, 0x28
    %alloc 0x28
    %handler handler
    %data .long 2, inner - image, inner_end - image, 1, caught - image
    %data .long outer - image, outer_end - image, 1, caught - image
    call g
outer:
    call g
part f.second of f
    mov qword ptr [rsp + 0x20], rbx
    %save rbx 0x20
inner:
    call g
    mov rbx, qword ptr [rsp + 0x20]
part f.third of f
    call g
inner_end:
    call g
outer_end:
    nop
caught:
    add rsp, 0x28
    ret
function g
    lea rax, [rax + 1]
    ret
function handler
    xor eax, eax
    ret
"""
    )
    clones = Clones(program.image)
    clones.check()
    assert clones.checked["chained scope"] > 5


def test_frame_handler_3_of_a_function_with_chained_parts() -> None:
    program = images.build(
        """
function f
    sub rsp, 0x28
    %alloc 0x28
    %handler handler
    %data .long info - image
    call g
state_0:
    call g
part f.second of f
    call g
state_1:
    call g
back_to_0:
    call g
part f.third of f
    call g
    add rsp, 0x28
    ret
function caught
    sub rsp, 0x28
    %alloc 0x28
    call g
    lea rax, [rip + back_to_0]
    add rsp, 0x28
    ret
function g
    lea rax, [rax + 1]
    ret
function handler
    xor eax, eax
    ret
""",
        """
info:
    .long 0x19930522, 2, unwind_map - image, 1, try_map - image, 4, ip_map - image, 0x20, 0, 1
unwind_map:
    .long -1, 0, 0, 0
try_map:
    .long 1, 1, 1, 1, catches - image
catches:
    .long 0x40, 0, 0, caught - image, 0x38
ip_map:
    .long f - image, -1, state_0 - image, 0, state_1 - image, 1, back_to_0 - image, 0
""",
    )
    clones = Clones(program.image)
    clones.check()
    assert clones.checked["chained fh3"] == 5


# A try inside a catch block: `inner` is called on top of `outer`, and goes on in it.
NESTED = """
function f
    sub rsp, 0x28
    %alloc 0x28
    %handler handler
    %data .long F_INFO - image
state_0:
    call g
back_in_f:
    add rsp, 0x28
    ret
function outer
    sub rsp, 0x28
    %alloc 0x28
    %handler handler
    %data .long OUTER_INFO - image
outer_state:
    call g
back_in_outer:
    call g
    BACK_IN_F
    add rsp, 0x28
    ret
function inner
    sub rsp, 0x28
    %alloc 0x28
    %handler handler
    %data .long INNER_INFO - image
inner_state:
    call g
    BACK_IN_OUTER
    add rsp, 0x28
    ret
function cleanup
    sub rsp, 0x28
    %alloc 0x28
    call g
    add rsp, 0x28
    ret
function other
    sub rsp, 0x28
    %alloc 0x28
    %handler handler
    %data .long OTHER_INFO - image
other_state:
    call g
    BACK_IN_F
    add rsp, 0x28
    ret
function g
    lea rax, [rax + 1]
    ret
leaf handler
    jmp qword ptr [rip + import]
"""

FRAME_HANDLER_3 = """
    .balign 8
import:
    .quad IMPORTED
info:
    .long 0x19930522, 6, unwind_map - image, 2, try_map - image, 10, ip_map - image, 0x20, 0, 1
unwind_map: # a state that is left leads to another, by way of a cleanup
    .long -1, 0, -1, 0, 1, 0, 1, cleanup - image, 3, 0, -1, 0
try_map: # states of the try block, and the last one of its handlers
    .long 0, 0, 5, 2, catches - image
    .long 3, 3, 4, 1, nested_catches - image
catches:
    .long 0x40, 0, 0, other - image, 0x38, 0x40, 0, 0, outer - image, 0x38
nested_catches:
    .long 0x40, 0, 0, inner - image, 0x38
ip_map:
    .long f - image, -1, state_0 - image, 0, back_in_f - image, -1
    .long outer - image, 1, outer_state - image, 3, back_in_outer - image, 1
    .long inner - image, 4, cleanup - image, -1, other - image, 1, other_state - image, 5
"""

# Its integers take one byte as long as they are below 128: twice the number.
FRAME_HANDLER_4 = """
    .balign 8
import:
    .quad IMPORTED
f_info:
    .byte 0x18
    .long f_unwind - image, f_tries - image, f_ips - image
    .balign 4
f_unwind:
    .byte 4, 16, 16
f_tries:
    .byte 2, 0, 0, 2
    .long f_catches - image
f_catches:
    .byte 4
    .byte 0x11, 128
    .long outer - image
    .byte 2 * (back_in_f - f)
    .byte 0x11, 128
    .long other - image
    .byte 2 * (back_in_f - f)
f_ips:
    .byte 4, 2 * (state_0 - f), 2, 2 * (back_in_f - state_0), 0
    .balign 4
outer_info:
    .byte 0x19
    .long outer_unwind - image, outer_tries - image, outer_ips - image
    .byte 2 * 0x38
    .balign 4
outer_unwind: # the second state with a cleanup
    .byte 6, 16, 2 * (8 + 3)
    .long cleanup - image
    .byte 16
outer_tries:
    .byte 2, 2, 2, 4
    .long outer_catches - image
outer_catches:
    .byte 2
    .byte 0x11, 128
    .long inner - image
    .byte 2 * (back_in_outer - outer)
outer_ips:
    .byte 6, 0, 2, 2 * (outer_state - outer), 4, 2 * (back_in_outer - outer_state), 2
    .balign 4
inner_info:
    .byte 0x09
    .long no_unwind - image, inner_ips - image
    .byte 2 * 0x38
    .balign 4
no_unwind:
    .byte 2, 16
inner_ips:
    .byte 2, 0, 2
    .balign 4
other_info:
    .byte 0x09
    .long no_unwind - image, inner_ips - image
    .byte 2 * 0x38
"""


def nested(version: int) -> images.Program:
    """A function with nested handlers, for __CxxFrameHandler3 or 4."""
    code, data = NESTED, FRAME_HANDLER_4 if version == 4 else FRAME_HANDLER_3
    for name in ("F", "OUTER", "INNER", "OTHER"):
        code = code.replace(f"{name}_INFO", f"{name.lower()}_info" if version == 4 else "info")
    for place in ("back_in_f", "back_in_outer"):  # version 4's handlers return a number
        goes_on = f"lea rax, [rip + {place}]" if version == 3 else "xor eax, eax"
        code = code.replace(place.upper(), goes_on)
    program = images.build(code, data.replace("IMPORTED", hex(IMPORTED)))
    program.image.imports[program.symbols["import"]] = "runtime.dll!__CxxFrameHandler"
    return program


@pytest.mark.parametrize("version", [3, 4])
def test_a_handler_inside_a_catch_block_belongs_to_that_block(version: int) -> None:
    program = nested(version)
    names = {rva: name for name, rva in program.symbols.items()}
    plan = ModulePlan(program.image)
    parents = {
        names[function.rva]: names[plan.functions[function.parent].rva]
        for function in plan.functions
        if function.parent != NONE_ID
    }
    assert parents == {"outer": "f", "other": "f", "inner": "outer", "cleanup": "outer"}


@pytest.mark.parametrize("version", [3, 4])
def test_what_comes_behind_a_nested_handler_is_recorded(version: int) -> None:
    """It goes on in the copy of the outer handler, before the event that says so."""
    program = nested(version)
    clones = Clones(program.image)
    clones.check()
    assert clones.checked[f"fh{version}"] > 10
    for place, funclets in (("back_in_f", ("outer", "other")), ("back_in_outer", ("inner",))):
        goes_on = clones.mapped(program.symbols[place])
        assert goes_on
        for funclet in funclets:
            to = (clones.returned if version == 3 else clones.told)(program.symbols[funclet])
            behind = clones.decoder.disasm_lite(clones.read(to, 300), to)
            assert to < goes_on
            assert goes_on in [insn[0] for insn in behind], (place, funclet)
