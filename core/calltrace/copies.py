"""Copies on their way out of a stopped target: jumps to them go, and they when nobody can return.

The recorder in the target lists them (struct ct_code), with the bytes that lead there, so that all of this
works for what an earlier process of ours left, too. Whoever frees a copy that something still refers to ends
the program; whoever keeps one wastes memory. So everything that is not known counts as a reference:

- Any register of any thread, and any aligned word of its stack from the stack pointer up, that holds an
  address in the code of the copies. That covers return addresses, contexts of exceptions in flight, and
  whoever set up a jump buffer, since it has called something since. What the recorder's slow path has left
  there is no reference: it tells when it has returned.
- Any aligned word of other writable memory that holds a return address there: stacks of fibers and of other
  coroutines, which no thread stands on just now, and their saved contexts.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from ctypes import POINTER, c_char_p, c_uint32, c_uint64

from calltrace import native
from calltrace.errors import AccessRefused
from calltrace.patches import Patch, restore
from calltrace.ports import Port, Registers, TargetModule
from calltrace.recorder import DLL, Code, CodeState, Recorder

PATCH = struct.Struct("<II8s8s")  # struct ct_patch

_MOST = 2 << 30  # bytes of memory beside the stacks that are searched; with more, copies stay
_PIECE = 1 << 20
_UNIT_MAX = 8  # bytes of one unit of a trace
_TEB_STACK, _TEB_ALLOCATION = 0x08, 0x1478  # StackBase, then StackLimit; DeallocationStack
_JUMP, _SHORT_JUMP = 0xE9, 0xEB
_SLOW_PATH = 0x400  # in a region: the thunk through which event code calls it (native/planner/compose.c)


def pack_patches(patches: Sequence[Patch]) -> bytes:
    """Patches as a region carries them: an array of struct ct_patch."""
    return b"".join(PATCH.pack(rva, len(original), original, new) for rva, original, new in patches)


def withdraw(port: Port, recorder: Recorder, codes: Iterable[Code], progress: Callable[[str], None]) -> None:
    """`take_out` these copies, and prepare all threads for ct_stop."""
    codes = list(codes)
    take_out(port, codes, progress)
    regions = [(code.region, code.region + code.code_size, code.cursor) for code in codes]
    for thread in port.threads():
        registers = port.registers(thread)
        for start, end, cursor in regions:
            if start <= registers.rip < end and _is_unit(port, thread, cursor, registers.rcx):
                port.set_registers(thread, dataclasses.replace(registers, rcx=recorder.nowhere))


def take_out(port: Port, codes: Iterable[Code], progress: Callable[[str], None]) -> None:
    """Put the original bytes back wherever jumps lead to these copies.

    A thread that stands at a function's first byte stays there, and one on its way through padding goes on
    to the copy. `progress` is told what could not be put back.
    """
    modules = {module.base: module for module in port.modules()}
    detours: dict[int, int] = {}
    for code in codes:
        module = modules.get(code.base, TargetModule(code.base, 0, f"module at {code.base:#x}"))
        try:
            patches = patches_of(port, code)
            foreign = restore(port, module, patches)
        except AccessRefused as error:
            progress(f"{module.name} could not be left as it was: {error}")
            continue
        if foreign:
            progress(f"{module.name}: {foreign:,} places, changed by others, stay so")
        detours.update(_detours(code.base, patches))
    for thread in port.threads():
        registers = port.registers(thread)
        if registers.rip in detours:
            port.set_registers(thread, dataclasses.replace(registers, rip=detours[registers.rip]))


def free_unused(port: Port, recorder: Recorder) -> int:
    """Free the copies of stopped recordings that nothing refers to; the number of bytes that stay."""
    left = [code for code in recorder.codes() if code.state in (CodeState.LEFT, CodeState.UNLOADED)]
    used = _referenced(port, left)
    stay = 0
    for index, code in enumerate(left):
        if index in used:
            stay += code.region_size
        else:
            recorder.remove_code(code)
            port.free(code.region)
    return stay


def patches_of(port: Port, code: Code) -> list[Patch]:
    """The bytes that lead to these copies."""
    data = port.read(code.base + code.patches, code.patch_count * PATCH.size)
    return [(rva, original[:size], new[:size]) for rva, size, original, new in PATCH.iter_unpack(data)]


def _detours(base: int, patches: Sequence[Patch]) -> dict[int, int]:
    """The jumps of ours in padding, to which short jumps lead: VA of each -> VA of the copy."""
    places = {
        rva + 2 + _signed(new[1:2]) for rva, _, new in patches if len(new) == 2 and new[0] == _SHORT_JUMP
    }
    return {
        base + rva: base + rva + 5 + _signed(new[1:5])
        for rva, _, new in patches
        if rva in places and len(new) == 5 and new[0] == _JUMP
    }


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _is_unit(port: Port, thread: int, cursor: int, value: int) -> bool:
    """Whether a thread that stands in a copy is about to write a unit at `value`, or just has."""
    (unit,) = struct.unpack("<Q", port.read(port.teb(thread) + cursor, 8))
    return bool(unit) and 0 <= value - unit <= _UNIT_MAX


class _Span(ctypes.LittleEndianStructure):
    _fields_ = [("start", c_uint64), ("end", c_uint64)]


@functools.cache
def _engine() -> ctypes.CDLL:
    library = native.library()
    library.ct_find_values.argtypes = [c_char_p, c_uint32, POINTER(_Span), c_uint32, POINTER(c_uint32)]
    library.ct_find_values.restype = c_uint32
    return library


class _Search:
    """Which of some copies are referred to."""

    def __init__(self, port: Port, codes: Sequence[Code]) -> None:
        self.used: set[int] = set()  # indexes of codes
        self._port = port
        self._ranges = sorted(
            (code.region, code.region + code.code_size, at) for at, code in enumerate(codes)
        )
        self._starts = [start for start, _, _ in self._ranges]
        self._spans = (_Span * len(codes))(*(_Span(start, end) for start, end, _ in self._ranges))
        self._found = (c_uint32 * (_PIECE // 8))()
        self._bytes: dict[int, bytes] = {}
        self._recorder = next(module for module in port.modules() if module.name.lower() == DLL)

    @property
    def is_over(self) -> bool:
        """Whether all are."""
        return len(self.used) == len(self._ranges)

    def registers(self, registers: Registers) -> None:
        """Whatever points into copies refers to them."""
        for value in dataclasses.astuple(registers):
            self._refer(self._range_of(value))

    def stack(self, start: int, end: int) -> None:
        """Whatever points into copies refers to them, but for where the slow path has returned already."""
        below = 0
        for place, data, found in self._pieces(start, end):
            words = memoryview(data).cast("Q")
            for index in found:
                range_ = self._range_of(words[index])
                inner = words[index - 1] if index else below
                if (
                    place + 8 * index == start
                    or not self._is_behind_slow_path(range_, words[index])
                    or (self._recorder.base <= inner < self._recorder.end)
                ):
                    self._refer(range_)
            below = words[-1]

    def memory(self, start: int, end: int) -> None:
        """Only what points behind a call in copies refers to them."""
        for _, data, found in self._pieces(start, end):
            words = memoryview(data).cast("Q")
            for index in found:
                range_ = self._range_of(words[index])
                if range_ and range_[2] not in self.used:
                    code = self._code(range_)
                    if _is_behind_call(code, words[index] - range_[0]):
                        self._refer(range_)

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, bytes, Sequence[int]]]:
        """The aligned words of [start, end): address and bytes of each piece, indexes of those to copies."""
        for place in range(-(-start // 8) * 8, end & -8, _PIECE):
            if self.is_over:
                return
            data = self._port.read(place, min(_PIECE, (end & -8) - place))
            count = _engine().ct_find_values(data, len(data) // 8, self._spans, len(self._spans), self._found)
            yield place, data, self._found[:count]

    def _range_of(self, value: int) -> tuple[int, int, int] | None:
        at = bisect_right(self._starts, value) - 1
        return self._ranges[at] if at >= 0 and value < self._ranges[at][1] else None

    def _refer(self, range_: tuple[int, int, int] | None) -> None:
        if range_:
            self.used.add(range_[2])

    def _code(self, range_: tuple[int, int, int]) -> bytes:
        start, end, index = range_
        if index not in self._bytes:
            self._bytes[index] = self._port.read(start, end - start)
        return self._bytes[index]

    def _is_behind_slow_path(self, range_: tuple[int, int, int] | None, value: int) -> bool:
        if not range_:
            return False
        code, at = self._code(range_), value - range_[0]
        return code[at - 5 : at - 4] == b"\xe8" and at + _signed(code[at - 4 : at]) == _SLOW_PATH


def _referenced(port: Port, codes: Sequence[Code]) -> set[int]:
    """The indexes of those copies that anything in the stopped target may return to."""
    if not codes:
        return set()
    search = _Search(port, codes)
    try:
        stacks = []
        for thread in port.threads():
            registers = port.registers(thread)
            search.registers(registers)
            base, limit, allocation = _stack(port, thread)
            if limit <= registers.rsp <= base:
                search.stack(registers.rsp, base)
                stacks.append((allocation, base))
        others = list(_without(port.writable(), sorted(stacks)))
        if sum(end - start for start, end in others) > _MOST:
            return set(range(len(codes)))
        for start, end in others:
            search.memory(start, end)
    except AccessRefused:
        return set(range(len(codes)))
    return search.used


def _stack(port: Port, thread: int) -> tuple[int, int, int]:
    """StackBase, StackLimit and DeallocationStack of a thread."""
    teb = port.teb(thread)
    base, limit = struct.unpack("<QQ", port.read(teb + _TEB_STACK, 16))
    (allocation,) = struct.unpack("<Q", port.read(teb + _TEB_ALLOCATION, 8))
    return base, limit, allocation


def _without(
    ranges: Iterable[tuple[int, int]], holes: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """What is left of ascending ranges without ascending holes."""
    for start, end in ranges:
        at = start
        for hole_start, hole_end in holes:
            if hole_start < end and at < hole_end:
                if at < hole_start:
                    yield at, hole_start
                at = hole_end
        if at < end:
            yield at, end


def _is_behind_call(code: bytes, at: int) -> bool:
    """Whether a call may end at this offset: E8 rel32, or FF /2 in any of its forms."""
    if at >= 5 and code[at - 5] == 0xE8:
        return True
    starts = range(max(at - 7, 0), at - 1)
    return any(code[start] == 0xFF and code[start + 1] >> 3 & 7 == 2 for start in starts)
