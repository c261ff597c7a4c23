"""Runs an image and its instrumented form in an emulated processor, and holds one against the other.

`Machine.run` starts at a function as a caller would, with the registers, flags and memory of a `State`, and
gives what is left of them when it returns, and what the instrumented form has recorded; `expected`
says what should have been recorded, from single steps of the original alone.
"""

from __future__ import annotations

import ctypes
import functools
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import capstone
import unicorn
from unicorn import x86_const as x86

from calltrace.model import ENTRY_SHIFT, Entry
from calltrace.pe.image import Image
from calltrace.plan import Composition, ModulePlan
from rig.images import BASE, SCRATCH_BYTES, Program

GENERAL = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
NONVOLATILE = "rbx rbp rsi rdi r12 r13 r14 r15".split()
VECTORS = [f"xmm{number}" for number in range(16)]
_IDS = {name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in (*GENERAL, *VECTORS, "rip", "rflags")}
_FLAGS = 0x8D5 | 0x400  # OF, DF, SF, ZF, AF, PF, CF

STACK, STACK_BYTES = 0x7_0000_0000, 0x40000
STACK_TOP = STACK + STACK_BYTES - 0x1000  # above it lies what belongs to the callers
TEB, TEB_BYTES = 0x7_1000_0000, 0x2000
BLOCKS, BLOCKS_BYTES = 0x7_2000_0000, 0x100_0000
SERVICES = 0x7_3000_0000  # the slow path, an import, the coarse clock's word
SLOW_PATH, IMPORTED, CLOCK_WORD = SERVICES, SERVICES + 0x100, SERVICES + 0x200
RETURN = 0x7_4000_0000  # where the caller called from
INSTRUCTIONS = 2_000_000

CLOCK_NOW = 0x12_3456_789A
FRAME, ENTER, LEAVE, TAIL, CALL, RETURN_EVENT, LAND = range(7)
WHOLE = 1 << 24  # CT_WHOLE: entered and left at once
NAMES = {ENTER: "enter", LEAVE: "leave", TAIL: "tail", CALL: "call", RETURN_EVENT: "return", LAND: "land"}
FIRST_FUNCTION, FIRST_SITE = 1000, 50_000

Event = tuple[str, int]


@dataclass
class Slots:
    """What ct_start would have answered: TLS slots among the TEB's 64, the lowest and the highest too."""

    cursor: int = 0x1480
    scratch: Any = field(default_factory=lambda: (ctypes.c_uint32 * 3)(0x1488, 0x14F8, 0x1678))
    coarse_clock: int = CLOCK_WORD
    slow_path: int = SLOW_PATH


@dataclass
class State:
    """Registers by name, and what memory holds that code may write."""

    registers: dict[str, int]
    scratch: bytes
    stack: bytes  # from RSP up

    @classmethod
    def arbitrary(cls, chance: random.Random) -> State:
        """Any values, but a clear direction flag and a stack."""
        registers = {name: chance.getrandbits(64) for name in GENERAL}
        registers.update({name: chance.getrandbits(128) for name in VECTORS})
        registers["rsp"] = STACK_TOP - 8
        registers["rflags"] = chance.getrandbits(12) & _FLAGS & ~0x400 | 2
        stack = RETURN.to_bytes(8, "little") + chance.randbytes(0x1000)
        return cls(registers, chance.randbytes(SCRATCH_BYTES), stack)


@dataclass
class Run:
    """How a run ended."""

    state: State
    path: list[int]  # VAs of the instructions run, if they were asked for
    units: list[int]


class Machine:
    """An image, original or (with a composition) instrumented, mapped into an emulated process."""

    def __init__(
        self,
        image: Image,
        scratch: int,
        composition: Composition | None = None,
        region: int = 0,
        unit_size: int = 4,
    ) -> None:
        self.image, self.scratch, self.unit_size = image, image.base + scratch, unit_size
        self.composition, self.region = composition, region
        self.breakpoints = breakpoints(composition, image.base, region) if composition else {}
        self.blocks: list[tuple[int, int]] = []  # first and behind the last unit of those handed out
        self.callers: list[int] = []  # of the slow path: where it returned to
        uc = self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        for base, size in (
            (STACK, STACK_BYTES),
            (TEB, TEB_BYTES),
            (BLOCKS, BLOCKS_BYTES),
            (SERVICES, 0x1000),
            (RETURN, 0x1000),
            (image.base, -(-image.size // 0x1000) * 0x1000),
        ):
            uc.mem_map(base, size)
        uc.mem_write(image.base, image.data)
        uc.mem_write(SLOW_PATH, b"\xc3")
        uc.mem_write(IMPORTED, b"\x48\x83\xc0\x11\xc3")  # add rax, 11h; ret: also changes the flags
        uc.mem_write(CLOCK_WORD, (CLOCK_NOW << 24).to_bytes(8, "little"))
        uc.hook_add(unicorn.UC_HOOK_CODE, self._slow_path, begin=SLOW_PATH, end=SLOW_PATH)
        uc.hook_add(unicorn.UC_HOOK_INTR, self._breakpoint)
        if composition:
            uc.mem_map(region, -(-len(composition.code) // 0x1000) * 0x1000)
            uc.mem_write(region, composition.code)
            for rva, original, changed in composition.patches:
                assert bytes(uc.mem_read(image.base + rva, len(original))) == original
                uc.mem_write(image.base + rva, changed)

    def run(
        self, rva: int, state: State, watch: bool = False, each: Callable[[int], None] | None = None
    ) -> Run:
        """Call the function at `rva`. `watch` collects the path; `each` is called before every instruction
        with its VA. Raises AssertionError if it does not return to its caller.
        """
        uc = self.uc
        for name, value in state.registers.items():
            uc.reg_write(_IDS[name], value)
        uc.mem_write(self.scratch, state.scratch)
        uc.mem_write(state.registers["rsp"], state.stack)
        uc.mem_write(TEB, bytes(TEB_BYTES))
        uc.reg_write(x86.UC_X86_REG_GS_BASE, TEB)
        self.blocks = []
        self.callers = []
        path: list[int] = []
        hooks = []
        if watch:
            hooks.append(uc.hook_add(unicorn.UC_HOOK_CODE, lambda _, at, __, ___: path.append(at)))
        if each:
            hooks.append(uc.hook_add(unicorn.UC_HOOK_CODE, lambda _, at, __, ___: each(at)))
        try:
            uc.emu_start(self.image.base + rva, RETURN, timeout=10_000_000, count=INSTRUCTIONS)
        except unicorn.UcError as error:
            raise AssertionError(f"{error} at {uc.reg_read(x86.UC_X86_REG_RIP):#x}") from error
        finally:
            for hook in hooks:
                uc.hook_del(hook)
        at = uc.reg_read(x86.UC_X86_REG_RIP)
        assert at == RETURN, f"did not return: RIP is {at:#x}"
        registers = {name: uc.reg_read(_IDS[name]) for name in (*GENERAL, *VECTORS)}
        registers["rflags"] = uc.reg_read(_IDS["rflags"]) & _FLAGS
        above = STACK + STACK_BYTES - registers["rsp"]
        left = State(
            registers,
            bytes(uc.mem_read(self.scratch, len(state.scratch))),
            bytes(uc.mem_read(registers["rsp"], above)),
        )
        return Run(left, path, self._units())

    def register(self, name: str) -> int:
        """A register's value while a run is stopped in `each`."""
        return int(self.uc.reg_read(_IDS[name]))

    def read(self, address: int, size: int) -> bytes:
        """Memory at a VA."""
        return bytes(self.uc.mem_read(address, size))

    def _breakpoint(self, uc: unicorn.Uc, number: int, _: object) -> None:
        """A debugger that steps over the program's int3s, behind a recorder that sees its own."""
        assert number == 3, f"interrupt {number}"
        copy = self.breakpoints.get(uc.reg_read(x86.UC_X86_REG_RIP) - 1)
        if copy:
            uc.reg_write(x86.UC_X86_REG_RIP, copy)

    def _slow_path(self, *_: object) -> None:
        """A block with room for few units, so that the slow path is taken in many places."""
        room = (5, 67, 130)[len(self.blocks) % 3]
        end = BLOCKS + 0x10000 * (len(self.blocks) + 1)
        self.callers.append(int.from_bytes(self.read(self.register("rsp"), 8), "little"))
        self.blocks.append((end - room * self.unit_size, end))
        self.uc.mem_write(TEB + Slots().cursor, self.blocks[-1][0].to_bytes(8, "little"))

    def _units(self) -> list[int]:
        """All units that were written."""
        size = self.unit_size
        cursor = int.from_bytes(self.uc.mem_read(TEB + Slots().cursor, 8), "little")
        units = []
        for start, limit in self.blocks:
            end = cursor if start <= cursor <= limit else limit
            raw = bytes(self.uc.mem_read(start, end - start))
            units += [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]
        return units


class Pair:
    """An image beside its instrumented form."""

    def __init__(
        self,
        program: Program,
        events: str = "all",
        clock: str = "none",
        region: int | None = None,
        breakpoints: bool = True,
        mode: str = "trace",
    ) -> None:
        self.program, self.events, self.clock = program, events, clock
        image = program.image
        self.plan = plan = ModulePlan(image)
        size = plan.lay_out(Slots(), events, clock, FIRST_FUNCTION, FIRST_SITE, breakpoints, mode)
        self.region = image.base + -(-image.size // 0x10000) * 0x10000 if region is None else region
        self.composition = plan.compose(self.region, 0)
        assert len(self.composition.code) == size
        scratch = program.symbols["scratch"]
        self.statuses = {function.rva: function.status for function in plan.functions}
        self.entries = {
            function.rva: Entry(function.flags >> ENTRY_SHIFT)
            for function in plan.functions
            if function.status == 0
        }
        self.original = Machine(image, scratch)
        self.unit_size = 4 if clock == "none" else 8
        self.patched = Machine(image, scratch, self.composition, self.region, self.unit_size)
        self.sites = plan_sites(self.composition)

    def check(self, name: str, state: State) -> list[Event]:
        """Run function `name` both ways from one state; assert that nothing differs and that what was
        recorded is what single steps of the original say. Returns the events.
        """
        rva = self.program.symbols[name]
        before = self.original.run(rva, state, watch=True)
        after = self.patched.run(rva, state)
        assert_same(before.state, after.state)
        events = self.decode(after.units)
        assert events == expected(self, rva, before.path)
        return events

    def copied(self, name: str) -> bool:
        """Is this function instrumented?"""
        return self.statuses.get(self.program.symbols[name]) == 0

    def decode(self, units: Sequence[int]) -> list[Event]:
        """(kind, RVA of function or call instruction), or ("frame", stack pointer)."""
        functions = [function.rva for function in self.plan.functions]
        events: list[Event] = []
        last = 0
        for unit in units:
            kind, number = unit & 7, (unit & 0xFFFFFF) >> 3
            if kind == FRAME:
                events.append(("frame", unit))
                continue
            whole = self.unit_size == 4 and unit & WHOLE and kind == ENTER
            if self.unit_size == 4:
                assert unit & ~(WHOLE if whole else 0) < 1 << 24
            elif self.clock == "coarse":
                assert unit >> 24 == CLOCK_NOW & (1 << 40) - 1
            else:
                assert unit >> 24 >= last
                last = unit >> 24
            if kind in (CALL, RETURN_EVENT):
                events.append((NAMES[kind], self.sites[number - FIRST_SITE]))
            else:
                events.append((NAMES[kind], functions[number - FIRST_FUNCTION]))
            if whole:
                events.append((NAMES[LEAVE], functions[number - FIRST_FUNCTION]))
        return events


def breakpoints(composition: Composition, base: int, region: int) -> dict[int, int]:
    """What ct_add_code is told: VA of an int3 -> VA where it leads."""
    start = composition.breakpoints_rva + base - region
    table = composition.code[start : start + 8 * composition.breakpoint_count]
    return {base + rva: base + copy for rva, copy in struct.iter_unpack("<II", table)}


def plan_sites(composition: Composition) -> list[int]:
    """RVAs of the call sites, read from the trace's MODULE chunk."""
    start = 80 + 16 * composition.function_count
    records = composition.module_chunk[start : start + 16 * composition.site_count]
    return [int.from_bytes(records[at : at + 4], "little") for at in range(0, len(records), 16)]


def assert_same(before: State, after: State) -> None:
    """Nothing that a program can see differs."""
    different = {
        name: (hex(value), hex(after.registers[name]))
        for name, value in before.registers.items()
        if value != after.registers[name]
    }
    assert not different
    assert before.scratch == after.scratch
    assert before.stack == after.stack


@functools.cache
def decoder() -> capstone.Cs:
    """A disassembler with details."""
    made = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    made.detail = True
    return made


_CALLS = ("call", "bnd call", "notrack call")


def expected(pair: Pair, start: int, path: Sequence[int]) -> list[Event]:
    """What the recorder should see, from the instructions that the original ran."""
    program, image = pair.program, pair.program.image
    copied = {rva for rva, status in pair.statuses.items() if status == 0}
    events: list[Event] = []
    returns: dict[int, int] = {}  # return address -> call instruction

    def enters(rva: int) -> None:
        if rva in copied:
            events.append(("enter", rva))

    decoded: dict[int, tuple[str, str, int]] = {}
    enters(start)
    for position, address in enumerate(path):
        rva = address - BASE
        function = program.function_at(rva) if 0 <= rva < image.size else None
        following = path[position + 1] - BASE if position + 1 < len(path) else RETURN - BASE
        if rva not in decoded:
            raw = bytes(image.data[rva : rva + 15]) if function else b"\xc3"
            insn = next(decoder().disasm(raw, address))
            decoded[rva] = insn.mnemonic, insn.op_str, insn.size
        mnemonic, operand, size = decoded[rva]
        ours = function is not None and function.start in copied
        if mnemonic in _CALLS:
            if ours and _is_site(pair, rva, operand, copied):
                events.append(("call", rva))
                returns[rva + size] = rva
            enters(following)
        elif function is None:
            if 0 <= following < image.size and following in returns:
                events.append(("return", returns[following]))
        elif "ret" in mnemonic.split()[-1]:
            if ours:
                events.append(("leave", function.start))
            if following in returns:
                events.append(("return", returns[following]))
        elif not 0 <= following < image.size or program.function_at(following) is not function:
            if ours:
                events.append(("tail", function.start))
            enters(following)
    return events


def _is_site(pair: Pair, rva: int, operand: str, copied: set[int]) -> bool:
    if pair.events == "functions" or _in_prolog(pair.program, rva):
        return False
    direct = operand.startswith("0x")
    return pair.events == "all" or not direct or int(operand, 16) - BASE not in copied


def _in_prolog(program: Program, rva: int) -> bool:
    """There is no place for an event in a prolog: the unwinder would take it for part of the next code."""
    image = program.image
    for entry in range(image.pdata[0], sum(image.pdata), 12):
        begin, end, unwind = (image.u32(entry + at) for at in (0, 4, 8))
        if begin <= rva < end:
            return rva < begin + image.data[unwind + 1]
    return False
