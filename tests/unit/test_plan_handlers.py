"""Cloned handler data gives, for every instruction of a copy, the answer that the original data gives.

Over real programs: all instructions of all functions with a language handler.
"""

from __future__ import annotations

import collections
import functools
from pathlib import Path

import capstone
import pytest

from calltrace.pe import image as pe_image
from calltrace.plan import Composition, ModulePlan
from rig import corpus, handlers, targets
from rig.emulator import Slots
from rig.handlers import Place
from rig.unwinding import Entry, Tables


class Clones:
    """A program's exception data beside that of its copies."""

    def __init__(self, path: Path) -> None:
        image = self.image = pe_image.from_file(path)
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
        """Where the call returns to that was copied to `copy`, behind events that call into the region only."""
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
        if place.what == "entry":  # reached through the original's patched entry
            assert place.rva == expected.rva
        elif copy is None:
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

    def check(self) -> None:
        """Compare all functions that have a handler."""
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
        for primary, parts in owners.items():
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


def test_frame_handler_4_scopes_and_security_cookies_of_ninja() -> None:
    clones = Clones(corpus.program("ninja"))
    clones.check()
    print(clones.checked)


def test_landing_pads_of_gcc() -> None:
    clones = Clones(targets.build("throws"))
    clones.check()
    print(clones.checked)
