"""An unwinder for x64 tables, by Microsoft's "x64 exception handling", as an oracle for cloned ones.

`Walk` follows an emulated run instruction by instruction, remembers what every call really was made with, and
asserts that from each instruction the tables lead back to exactly that.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rig.emulator import GENERAL, NONVOLATILE, RETURN, Machine, decoder

_EHANDLER, _UHANDLER, _CHAININFO = 1, 2, 4
_XMM_NONVOLATILE = [f"xmm{number}" for number in range(6, 16)]
Entry = tuple[int, int, int]  # a RUNTIME_FUNCTION


@dataclass(frozen=True)
class UnwindInfo:
    """UNWIND_INFO, its codes as (prolog offset, operation, operation info, further slots)."""

    version: int
    flags: int
    prolog: int
    frame_register: int
    frame_offset: int
    codes: tuple[tuple[int, int, int, tuple[int, ...]], ...]
    handler: int  # RVA, 0 = none
    data: int  # RVA of the handler's data
    chain: Entry | None


_SLOTS = {0: 1, 2: 1, 3: 1, 4: 2, 5: 3, 6: 1, 8: 2, 9: 3, 10: 1}


class Tables:
    """Function tables of one module, read through `read(RVA, size)`."""

    def __init__(self, read: Callable[[int, int], bytes], tables: Sequence[tuple[int, int]]) -> None:
        """`tables`: RVA and number of entries of each RUNTIME_FUNCTION array; each must be sorted."""
        self.read = read
        self.entries: list[Entry] = []
        for rva, count in tables:
            entries = [tuple(self.u32(rva + 12 * i + at) for at in (0, 4, 8)) for i in range(count)]
            ends = [0] + [end for _, end, _ in entries]
            assert all(last <= begin < end for last, (begin, end, _) in zip(ends, entries)), "not in order"
            self.entries += entries
        self.entries.sort()
        self.info = functools.lru_cache(maxsize=None)(self._info)

    def u32(self, rva: int) -> int:
        """32 bits at an RVA."""
        return int.from_bytes(self.read(rva, 4), "little")

    def find(self, rva: int) -> Entry | None:
        """The RUNTIME_FUNCTION that covers `rva`."""
        at = bisect.bisect_right(self.entries, (rva, 1 << 32, 0)) - 1
        return self.entries[at] if at >= 0 and rva < self.entries[at][1] else None

    def primary(self, entry: Entry) -> Entry:
        """The RUNTIME_FUNCTION that `entry` is chained to over any number of steps."""
        for _ in range(32):
            chain = self.info(entry[2]).chain
            if not chain:
                return entry
            entry = chain
        raise AssertionError("a cyclic chain")

    def _info(self, rva: int) -> UnwindInfo:
        first, prolog, count, frame = self.read(rva, 4)
        raw = self.read(rva + 4, 2 * count)
        slots = [int.from_bytes(raw[at : at + 2], "little") for at in range(0, 2 * count, 2)]
        codes, at = [], 0
        while at < count:
            operation, info = slots[at] >> 8 & 15, slots[at] >> 12
            size = 2 + info if operation == 1 else _SLOTS[operation]
            codes.append((slots[at] & 255, operation, info, tuple(slots[at + 1 : at + size])))
            at += size
        assert at == count, "codes do not fill their array"
        tail = rva + 4 + 2 * (count + count % 2)
        flags = first >> 3
        chain = tuple(self.u32(tail + step) for step in (0, 4, 8)) if flags & _CHAININFO else None
        handled = bool(flags & (_EHANDLER | _UHANDLER)) and not chain
        return UnwindInfo(
            first & 7, flags, prolog, frame & 15, (frame >> 4) * 16, tuple(codes),
            self.u32(tail) if handled else 0, tail + 4 if handled else 0, chain,
        )  # fmt: skip


class Unwinder:
    """Virtual unwinding of frames in an emulated process."""

    def __init__(self, machine: Machine, tables: Tables) -> None:
        self.machine, self.tables, self.base = machine, tables, machine.image.base
        self.epilogs = self.bodies = 0  # how often each way was taken

    def u64(self, address: int) -> int:
        """64 bits of memory."""
        return int.from_bytes(self.machine.read(address, 8), "little")

    def caller(self, registers: dict[str, int]) -> dict[str, int]:
        """The registers of the caller; takes and gives the nonvolatile ones, rsp and rip."""
        state = dict(registers)
        pc = state["rip"] - self.base
        entry = self.tables.find(pc)
        if entry and not self._epilog(entry, state):
            self.bodies += 1
            self._undo(entry, pc - entry[0], state)
        if entry and self.tables.info(entry[2]).codes and self._machine_frame(entry):
            return state
        state["rip"] = self.u64(state["rsp"])
        state["rsp"] += 8
        return state

    def _machine_frame(self, entry: Entry) -> bool:
        return any(code[1] == 10 for code in self.tables.info(entry[2]).codes)

    def _undo(self, entry: Entry, offset: int, state: dict[str, int]) -> None:
        info = self.tables.info(entry[2])
        frame = state["rsp"]
        if info.frame_register:
            established = [code[0] for code in info.codes if code[1] == 3]
            if offset >= info.prolog or info.chain or (established and offset >= established[0]):
                frame = state[GENERAL[info.frame_register]] - info.frame_offset
        for at, operation, what, more in info.codes:
            if offset < at:
                continue
            if operation == 0:
                state[GENERAL[what]] = self.u64(state["rsp"])
                state["rsp"] += 8
            elif operation == 1:
                state["rsp"] += more[0] * 8 if what == 0 else more[0] | more[1] << 16
            elif operation == 2:
                state["rsp"] += what * 8 + 8
            elif operation == 3:
                state["rsp"] = state[GENERAL[info.frame_register]] - info.frame_offset
            elif operation in (4, 5):
                distance = more[0] * 8 if operation == 4 else more[0] | more[1] << 16
                state[GENERAL[what]] = self.u64(frame + distance)
            elif operation in (8, 9):
                distance = more[0] * 16 if operation == 8 else more[0] | more[1] << 16
                state[f"xmm{what}"] = int.from_bytes(self.machine.read(frame + distance, 16), "little")
            elif operation == 10:
                error = 8 * what
                state["rip"], state["rsp"] = (self.u64(state["rsp"] + error + at) for at in (0, 24))
        if info.chain:
            self._undo(info.chain, 1 << 32, state)

    def _epilog(self, entry: Entry, state: dict[str, int]) -> bool:
        """If an epilog stands at RIP, run it as far as its last instruction."""
        info = self.tables.info(entry[2])
        if state["rip"] - self.base - entry[0] < info.prolog:
            return False
        after = dict(state)
        at, first = state["rip"], True
        while True:
            code = self.machine.read(at, 16)
            rex, op = (code[0], code[1:]) if code[0] & 0xF0 == 0x40 else (0, code)
            size = 1 + bool(rex)
            if first and rex == 0x48 and op[0] in (0x83, 0x81) and op[1] == 0xC4:  # add rsp, imm
                wide = 1 if op[0] == 0x83 else 4
                after["rsp"] += int.from_bytes(op[2 : 2 + wide], "little", signed=True)
                size += 1 + wide
            elif (
                first
                and rex & 0xFE == 0x48
                and op[0] == 0x8D
                and op[1] & 0x38 == 0x20
                and info.frame_register
            ):
                register = op[1] & 7 | (rex & 1) << 3  # lea rsp, [frame + disp]
                wide = {1: 1, 2: 4}.get(op[1] >> 6, 0)
                if register != info.frame_register or op[1] & 7 == 4:
                    return False
                distance = int.from_bytes(op[2 : 2 + wide], "little", signed=True)
                after["rsp"] = after[GENERAL[register]] + distance
                size += 1 + wide
            elif op[0] & 0xF8 == 0x58 and rex in (0, 0x41, 0x40, 0x48, 0x49):  # pop
                after[GENERAL[op[0] & 7 | (rex & 1) << 3]] = self.u64(after["rsp"])
                after["rsp"] += 8
            else:
                break
            at, first = at + size, False
        if not self._leaves(entry, at):
            return False
        self.epilogs += 1
        state.update(after)
        return True

    def _leaves(self, entry: Entry, at: int) -> bool:
        """Is this an instruction that an epilog may end with?"""
        code = self.machine.read(at, 8)
        if code[0] in (0xC3, 0xC2) or code[:2] == b"\xf3\xc3":
            return True
        if code[0] in (0xE9, 0xEB):
            wide = 4 if code[0] == 0xE9 else 1
            target = at + 1 + wide + int.from_bytes(code[1 : 1 + wide], "little", signed=True) - self.base
            other = self.tables.find(target)
            primary = self.tables.primary(entry)
            return not (other and self.tables.primary(other) == primary) or target == primary[0]
        indirect = code[1:] if code[0] & 0xF8 == 0x48 else code
        return (
            indirect[0] == 0xFF
            and indirect[1] & 0x38 == 0x20
            and (indirect[1] >> 6 == 0 or indirect is not code)
        )


class Walk:
    """Unwinds from every instruction of a run; give `step` to Machine.run as `each`."""

    def __init__(self, machine: Machine, tables: Tables) -> None:
        self.machine, self.unwinder = machine, Unwinder(machine, tables)
        self.frames: list[dict[str, int]] = []  # of each call that is running: the registers it was made with
        self.called, self.steps, self.deepest = True, 0, 0
        self._calls: dict[int, bool] = {}

    def step(self, address: int) -> None:
        """One instruction is about to run. Raises AssertionError if the tables lead astray."""
        registers = {name: self.machine.register(name) for name in (*NONVOLATILE, *_XMM_NONVOLATILE, "rsp")}
        while self.frames and self.frames[-1]["rsp"] <= registers["rsp"]:
            self.frames.pop()
        if self.called:
            frame = dict(registers, rip=self.unwinder.u64(registers["rsp"]), rsp=registers["rsp"] + 8)
            self.frames.append(frame)
        if address not in self._calls:
            insn = next(decoder().disasm(self.machine.read(address, 15), address))
            self._calls[address] = insn.mnemonic == "call"
        self.called = self._calls[address]
        self.steps += 1
        self.deepest = max(self.deepest, len(self.frames))
        registers["rip"] = address
        for depth, truth in enumerate(reversed(self.frames)):
            registers = self.unwinder.caller(registers)
            wrong = {
                name: (hex(registers[name]), hex(value))
                for name, value in truth.items()
                if registers[name] != value
            }
            assert not wrong, f"at {address:#x}, {depth} frames up: {wrong}"
        assert registers["rip"] == RETURN
