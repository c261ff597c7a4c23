"""Stack walks through the unwind data in the target's memory.

Source: Microsoft, "x64 exception handling" (UNWIND_INFO, UNWIND_CODE, epilog rules). What it says of
nonvolatile XMM registers is left out: no frame's place depends on them.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from calltrace.errors import AccessRefused
from calltrace.ports import Registers

_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
_RSP = 4
_CHAINED = 4  # UNW_FLAG_CHAININFO
_MOST_CHAINED = 32
_MOST_FRAMES = 1024
_PUSH, _ALLOC_LARGE, _ALLOC_SMALL, _SET_FRAME, _SAVE, _SAVE_FAR, _EPILOG, _SPARE = range(8)
_SAVE_XMM, _SAVE_XMM_FAR, _MACHINE_FRAME = 8, 9, 10
_FURTHER_SLOTS = {_SAVE: 1, _SAVE_FAR: 2, _EPILOG: 1, _SPARE: 2, _SAVE_XMM: 1, _SAVE_XMM_FAR: 2}

Read = Callable[[int, int], bytes]  # VA, size; raises AccessRefused


class Entry(NamedTuple):
    """A RUNTIME_FUNCTION; RVAs."""

    begin: int
    end: int
    info: int


class _Code(NamedTuple):
    offset: int  # in the prolog, of the instruction behind
    operation: int
    operand: int
    value: int  # of the further slots: unscaled


@dataclass(frozen=True)
class _Info:
    version: int
    prolog: int
    frame_register: int
    frame_offset: int
    codes: tuple[_Code, ...]
    chain: Entry | None


class Damaged(Exception):
    """Unwind data that cannot be understood."""


class FunctionTable:
    """The unwind data of one module, or of whatever else has them."""

    def __init__(self, read: Read, base: int, begin: int, size: int) -> None:
        """`begin` and `size` (RVA, bytes) of the RUNTIME_FUNCTIONs, which are relative to VA `base`."""
        self.base = base
        self._read = read
        data = read(base + begin, size - size % 12) if size else b""
        words = memoryview(data).cast("I").tolist() if data else []
        self._entries = sorted(
            Entry(*words[at : at + 3]) for at in range(0, len(words), 3) if words[at] < words[at + 1]
        )
        self._begins = [entry.begin for entry in self._entries]
        self._infos: dict[int, _Info] = {}

    def find(self, rva: int) -> Entry | None:
        """The RUNTIME_FUNCTION whose code lies at `rva`."""
        at = bisect.bisect_right(self._begins, rva) - 1
        if at < 0 or rva >= self._entries[at].end:
            return None
        entry = self._entries[at]
        if entry.info & 1:  # an indirection: the RVA of another RUNTIME_FUNCTION
            return self._entry_at(entry.info & ~1)
        return entry

    def begins_between(self, first: int, last: int) -> bool:
        """Does a function with unwind data begin at an RVA from `first` to `last`?"""
        at = bisect.bisect_left(self._begins, first)
        return at < len(self._begins) and self._begins[at] <= last

    def primary(self, entry: Entry) -> Entry:
        """The one that `entry` is chained to over any number of steps: the function's first part."""
        for _ in range(_MOST_CHAINED):
            chain = self.info(entry).chain
            if chain is None:
                return entry
            entry = chain
        raise Damaged(f"unwind data at {self.base + entry.info:#x} are chained in a circle")

    def _entry_at(self, rva: int) -> Entry:
        words = memoryview(self._read(self.base + rva, 12)).cast("I")
        return Entry(*words)

    def info(self, entry: Entry) -> _Info:
        """The UNWIND_INFO of an entry. Damaged, or AccessRefused."""
        known = self._infos.get(entry.info)
        if known is None:
            known = self._infos[entry.info] = self._parse(self.base + entry.info)
        return known

    def _parse(self, address: int) -> _Info:
        first, prolog, count, frame = self._read(address, 4)
        version, flags = first & 7, first >> 3
        if version not in (1, 2):
            raise Damaged(f"unwind data at {address:#x} are of version {version}")
        slots = memoryview(self._read(address + 4, 2 * count)).cast("H").tolist() if count else []
        codes, at = [], 0
        while at < count:
            operation, operand = slots[at] >> 8 & 15, slots[at] >> 12
            further = _FURTHER_SLOTS.get(operation, 0)
            if operation == _ALLOC_LARGE:
                further = 1 + operand
            if operation > _MACHINE_FRAME or at + further >= count:
                raise Damaged(f"unwind data at {address:#x} have a code {operation} that is none")
            value = sum(slot << 16 * place for place, slot in enumerate(slots[at + 1 : at + 1 + further]))
            codes.append(_Code(slots[at] & 0xFF, operation, operand, value))
            at += 1 + further
        chain = None
        if flags & _CHAINED:
            chain = self._entry_at(address - self.base + 4 + 2 * (count + count % 2))
        return _Info(version, prolog, frame & 15, (frame >> 4) * 16, tuple(codes), chain)


@dataclass(frozen=True)
class Frame:
    """One frame of a walk, with the registers as they are, or will be again, in its function."""

    registers: Registers
    slot: int  # VA of the stack slot with its return address: what tells one frame from another
    back: int  # that return address, VA; where its caller goes on


class Walk(NamedTuple):
    """A stack from the innermost frame outwards."""

    frames: list[Frame]
    incomplete: str  # why it ends before the thread's first frame; empty if it does not


class Unwinder:
    """Walks stacks of one target."""

    def __init__(
        self,
        read: Read,
        find: Callable[[int], FunctionTable | None],
        original: Callable[[int], int] = lambda address: address,
    ) -> None:
        """`find` gives the table of what is mapped at a VA, or None.

        `original` turns an address in the copy of a function, whose frame is laid out as the function's own,
        into that of the function; all frames are told as of these.
        """
        self._read = read
        self._find = find
        self._original = original

    def walk(self, registers: Registers, top: int = 1 << 64) -> Walk:
        """The frames of a thread that stands at `registers`; `top`: the VA its stack begins at."""
        frames: list[Frame] = []
        state = registers
        while len(frames) < _MOST_FRAMES:
            try:
                caller = self.caller(state, innermost=not frames)
            except (AccessRefused, Damaged) as error:
                return Walk(frames, str(error))
            if caller is None:
                return Walk(frames, f"there is no unwind data for {state.rip:#x}")
            slot = caller.rsp - 8
            frames.append(Frame(state, slot, caller.rip))
            if not caller.rip or slot + 8 >= top:
                return Walk(frames[: -1 if not caller.rip else None], "")
            if caller.rsp <= state.rsp:
                return Walk(frames, f"the stack does not grow at {state.rip:#x}")
            state = caller
        return Walk(frames, f"it has more than {_MOST_FRAMES:,} frames")

    def caller(self, registers: Registers, innermost: bool = True) -> Registers | None:
        """The registers of the caller, as they will be when it goes on; volatile ones mean nothing.

        None if nothing is known of the function: only the innermost one may be a leaf without unwind data.
        AccessRefused or Damaged if stack or data cannot be read.
        """
        state = [getattr(registers, name) for name in _NAMES]
        # Behind a call that never returns the next function may begin.
        place = registers.rip if innermost else registers.rip - 1
        table = self._find(place)
        entry = table.find(place - table.base) if table else None
        rip = None
        if table and entry:
            rva = registers.rip - table.base
            if not self._run_epilog(table, entry, registers.rip, state):
                rip = self._undo(table, entry, rva - entry.begin, state)
        elif not innermost:
            return None
        if rip is None:
            rip = self._u64(state[_RSP])
            state[_RSP] += 8
        return dataclasses.replace(registers, rip=self._original(rip), **dict(zip(_NAMES, state)))

    def _u64(self, address: int) -> int:
        return int.from_bytes(self._read(address, 8), "little")

    def _undo(self, table: FunctionTable, entry: Entry, offset: int, state: list[int]) -> int | None:
        """Take back what the prolog has done as far as `offset`; RIP, if a machine frame tells it."""
        rip = None
        for _ in range(_MOST_CHAINED):
            info = table.info(entry)
            frame = state[_RSP]
            established = [code.offset for code in info.codes if code.operation == _SET_FRAME]
            if info.frame_register and (not established or offset >= established[0]):
                frame = state[info.frame_register] - info.frame_offset
            for code in info.codes:
                if code.operation == _EPILOG and info.version == 2:
                    continue
                if offset < code.offset:
                    continue
                if code.operation == _PUSH:
                    state[code.operand] = self._u64(state[_RSP])
                    state[_RSP] += 8
                elif code.operation == _ALLOC_LARGE:
                    state[_RSP] += code.value if code.operand else code.value * 8
                elif code.operation == _ALLOC_SMALL:
                    state[_RSP] += code.operand * 8 + 8
                elif code.operation == _SET_FRAME:
                    state[_RSP] = state[info.frame_register] - info.frame_offset
                elif code.operation == _SAVE:
                    state[code.operand] = self._u64(frame + code.value * 8)
                elif code.operation == _SAVE_FAR:
                    state[code.operand] = self._u64(frame + code.value)
                elif code.operation == _MACHINE_FRAME:
                    at = state[_RSP] + 8 * code.operand
                    rip, state[_RSP] = self._u64(at), self._u64(at + 24)
            if info.chain is None:
                return rip
            entry, offset = info.chain, 1 << 32
        raise Damaged(f"unwind data at {table.base + entry.info:#x} are chained in a circle")

    def _run_epilog(self, table: FunctionTable, entry: Entry, rip: int, state: list[int]) -> bool:
        """If an epilog stands at `rip`, do what is left of it, short of its last instruction."""
        info = table.info(entry)
        if rip - table.base - entry.begin < info.prolog:
            return False
        code = _Bytes(self._read, rip)
        after = list(state)
        at = self._skip_release(code, info, after)
        if at is None:
            return False
        while True:
            rex = code[at] if code[at] & 0xF0 == 0x40 else 0
            if code[at + bool(rex)] & 0xF8 != 0x58:  # pop
                break
            after[code[at + bool(rex)] & 7 | (rex & 1) << 3] = self._u64(after[_RSP])
            after[_RSP] += 8
            at += 1 + bool(rex)
        if not self._ends_epilog(table, entry, code, rip, at):
            return False
        state[:] = after
        return True

    @staticmethod
    def _skip_release(code: _Bytes, info: _Info, state: list[int]) -> int | None:
        """Offset behind `add rsp, imm` or `lea rsp, [frame + disp]`, done to `state`; None: another lea."""
        if code[0] == 0x48 and code[1] in (0x83, 0x81) and code[2] == 0xC4:
            wide = 1 if code[1] == 0x83 else 4
            state[_RSP] += code.signed(3, wide)
            return 3 + wide
        if code[0] & 0xFE == 0x48 and code[1] == 0x8D and code[2] & 0x38 == 0x20 and code[2] >> 6 in (1, 2):
            register = code[2] & 7 | (code[0] & 1) << 3
            if register != info.frame_register or not register:
                return None
            at = 4 if code[2] & 7 == 4 else 3  # r12 takes a SIB byte
            wide = 1 if code[2] >> 6 == 1 else 4
            state[_RSP] = state[register] + code.signed(at, wide)
            return at + wide
        return 0

    def _ends_epilog(self, table: FunctionTable, entry: Entry, code: _Bytes, rip: int, at: int) -> bool:
        """Is the instruction at `rip` + `at` one that leaves the function?"""
        if code[at] in (0xC3, 0xC2) or (code[at] in (0xF3, 0xF2) and code[at + 1] == 0xC3):
            return True
        if code[at] in (0xE9, 0xEB):
            wide = 4 if code[at] == 0xE9 else 1
            target = rip + at + 1 + wide + code.signed(at + 1, wide) - table.base
            other, primary = table.find(target), table.primary(entry)
            return other is None or table.primary(other) != primary or target == primary.begin
        rex = code[at] & 0xF8 == 0x48
        if code[at + rex] != 0xFF or code[at + rex + 1] & 0x38 != 0x20:
            return False
        # A jump through memory, or with REX.W through a register: without that it is a switch.
        return rex or code[at + 1] == 0x25


class _Bytes:
    """Code that is read as far as it is looked at: an epilog may be the last of what is mapped."""

    def __init__(self, read: Read, address: int) -> None:
        self._read, self._address = read, address
        self._known = b""

    def __getitem__(self, at: int) -> int:
        while at >= len(self._known):
            start = self._address + len(self._known)
            size = 16 - start % 16
            self._known += self._read(start, size)
        return self._known[at]

    def signed(self, at: int, size: int) -> int:
        """A little-endian number of `size` bytes."""
        return int.from_bytes(bytes(self[at + i] for i in range(size)), "little", signed=True)
