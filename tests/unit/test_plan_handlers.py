"""Cloned handler data gives, for every instruction of a copy, the answer that the original data gives.

Over real programs: all instructions of all functions with a language handler.
"""

from __future__ import annotations

import collections
import functools
import itertools

import capstone
import pytest

from calltrace.pe.image import Image, from_file
from calltrace.plan import Composition, ModulePlan
from rig import corpus, handlers, images, targets
from rig.emulator import Slots
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
        address = self.made.map_address(rva)
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

    def answer(self, kind: str, read: handlers.Read, data: int, pc: int, function: int) -> object:
        if kind == "scope":
            return handlers.scope(read, data, pc)
        if kind == "fh3":
            return handlers.fh3(read, data, pc)
        if kind == "fh4":
            return handlers.fh4(read, data, pc, function)
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
