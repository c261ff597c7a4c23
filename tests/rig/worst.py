"""Damaged or hostile images in which work could grow faster than they do.

Each makes one part of the planner go through the same things again and again. `WORST` has them by name; their
argument says how many functions there are, or what else there is many of.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from calltrace.pe.image import Image
from rig.images import BASE, CODE

ALLOC_40, RET = b"\x48\x83\xec\x28", b"\xc3"  # sub rsp, 40; ret
FRAME = bytes([4, 1, 0, 4, 0x42, 0, 0])  # unwind data, behind version and flags: what ALLOC_40 did
BODY = ALLOC_40 + b"\x90\x48\x83\xc4\x28" + RET  # nop; add rsp, 40
HANDLER, CHAINED = 3 << 3, 4 << 3  # flags of unwind data


class _Made:
    """What an image is made of: code from CODE on, `data` behind it; int3 where there is nothing."""

    def __init__(self, code_bytes: int, data_bytes: int) -> None:
        self.data = CODE + code_bytes
        self._bytes = bytearray(b"\xcc" * (self.data + data_bytes))
        self._table: list[tuple[int, int, int]] = []

    def put(self, at: int, piece: bytes) -> None:
        assert at + len(piece) <= len(self._bytes)
        self._bytes[at : at + len(piece)] = piece

    def function(self, at: int, code: bytes, unwind: int) -> None:
        self.put(at, code)
        self._table.append((at, at + len(code), unwind))

    def handler(self) -> int:
        """A language handler, the last of the code."""
        at = self.data - 16
        self.put(self.data, b"\1\0\0\0")
        self.function(at, RET, self.data)
        return at

    def image(self) -> Image:
        table = b"".join(struct.pack("<III", *entry) for entry in sorted(self._table))
        return Image(
            path="made.exe",
            base=BASE,
            data=bytes(self._bytes) + table,
            timestamp=0,
            checksum=0,
            executable=[(CODE, self.data)],
            pdata=(len(self._bytes), len(table)),
            relocations=(0, 0),
        )


def _branches(at: int, targets: list[int]) -> bytes:
    """je rel32 to each target, to lie at `at`."""
    return b"".join(
        b"\x0f\x84" + struct.pack("<i", target - (at + 6 * i + 6)) for i, target in enumerate(targets)
    )


def far_parts(count: int) -> Image:
    """Functions of two parts, far from each other, with an indirect jump: address maps."""
    distance = 0x3F000
    made = _Made(distance + 16 * count, 32 * count)
    for i in range(count):
        at, unwind = CODE + 16 * i, made.data + 32 * i
        made.function(at, ALLOC_40 + b"\xff\xe0", unwind)  # jmp rax
        made.put(unwind, b"\1" + FRAME)
        made.put(unwind + 8, bytes([1 | CHAINED, 0, 0, 0]) + struct.pack("<III", at, at + 6, unwind))
        made.function(at + distance, b"\x90\x90\xff\xe0", unwind + 8)
    return made.image()


def continuations(count: int) -> Image:
    """Parts without a prolog of their own, each found to belong to the function through the one before."""
    made = _Made(16 * count + 64, 64)
    made.put(made.data, b"\1" + FRAME)
    made.put(made.data + 8, b"\1\0\1\0\0\x42\0\0")
    at = CODE
    made.function(at, ALLOC_40 + b"\xe9" + struct.pack("<i", 24), made.data)  # to the next one's second byte
    for i in range(count):
        at = CODE + 32 + 16 * i
        made.function(
            at, b"\xf4\xe9" + struct.pack("<i", 11) if i + 1 < count else b"\xf4" + RET, made.data + 8
        )
    return made.image()


def padding(count: int) -> Image:
    """Functions of two bytes behind padding of megabytes: room for their jumps."""
    made = _Made(8 << 20 if count > 30 else 1 << 20, 16)
    made.put(made.data, b"\1\0\0\0")
    made.function(CODE, b"\x90" * 6, made.data)
    for i in range(count):
        made.function(made.data - 16 - 2 * (count - i), b"\x90\x90", made.data)
    return made.image()


def shared_states(count: int) -> Image:
    """A function in many pieces, some with __CxxFrameHandler3's data of their own, which all are the same."""
    made = _Made(6 * count + 16 * count + 64, 0x280)
    information, types, states = made.data + 0x100, made.data + 0x140, made.data + 0x200
    called = struct.pack("<II", made.handler(), information)
    first, piece, chained = made.data + 16, made.data + 48, made.data + 80
    made.put(first, bytes([1 | HANDLER]) + FRAME + called)
    made.put(piece, bytes([1 | HANDLER, 0, 1, 0, 0, 0x42, 0, 0]) + called)
    joined = [CODE + 6 * count + 32 + 16 * i for i in range(count)]
    code = ALLOC_40 + _branches(CODE + 4, joined) + RET
    made.put(chained, bytes([1 | CHAINED, 0, 0, 0]) + struct.pack("<III", CODE, CODE + len(code), first))
    made.function(CODE, code, first)
    for at in joined:
        made.function(at, RET, piece)
        made.function(at + 8, RET, chained)
    made.put(information, struct.pack("<10I", 0x19930522, 1, types, 0, 0, 10, states, 0, 0, 1))
    made.put(types, struct.pack("<II", 0xFFFFFFFF, 0))
    made.put(states, struct.pack("<II", CODE, 0xFFFFFFFF) * 10)
    return made.image()


def shared_scopes(count: int) -> Image:
    """Functions that name one C scope table, which is as long."""
    made = _Made(16 * count + 64, 64 + 16 * count)
    unwind = made.data + 16
    made.put(unwind, bytes([1 | HANDLER]) + FRAME + struct.pack("<II", made.handler(), count))
    made.put(unwind + 16, struct.pack("<IIII", CODE, CODE + 5, 1, CODE + 5) * count)
    for i in range(count):
        made.function(CODE + 16 * i, BODY, unwind)
    return made.image()


def crossings(count: int) -> Image:
    """Two functions with many jumps to each other, one of which also goes elsewhere."""
    step = 6 * count + 64
    first, second, third = (CODE + step * i for i in range(3))
    made = _Made(3 * step, 16)
    made.put(made.data, b"\1" + FRAME + b"\1\0\0\0")
    made.function(first, ALLOC_40 + _branches(first + 4, [second] * count) + RET, made.data)
    back = _branches(second, [first + 4] * count)
    away = b"\xe9" + struct.pack("<i", third - (second + len(back) + 5))
    made.function(second, back + away, made.data + 8)
    made.function(third, BODY, made.data)
    return made.image()


def _lsda(calls: bytes) -> bytes:
    return b"\xff\xff\1" + bytes([len(calls)]) + calls  # no types; numbers are ULEB128


def far_actions(count: int) -> Image:
    """Functions of gcc's whose action table is said to reach over a megabyte: copied for each."""
    made = _Made(16 * count + 64, 0x110000)
    unwind, far = made.data + 16, b"\x80\x80\x40"  # action 0x100000
    data = _lsda(b"\0\5\5" + far)
    made.put(unwind, bytes([1 | HANDLER]) + FRAME + struct.pack("<I", made.handler()) + data)
    made.put(unwind + 12 + len(data) + 0xFFFFF, b"\0\0")
    for i in range(count):
        made.function(CODE + 16 * i, BODY, unwind)
    return made.image()


def refusals(count: int) -> Image:
    """Functions of gcc's that land in the next one, the last one nowhere: its refusal is that of all."""
    made = _Made(16 * count + 64, 16 + 32 * count)
    handler = made.handler()
    for i in range(count):
        unwind, pad = made.data + 16 + 32 * i, 21 if i + 1 < count else 15
        made.put(
            unwind, bytes([1 | HANDLER]) + FRAME + struct.pack("<I", handler) + _lsda(bytes([0, 5, pad, 0]))
        )
        made.function(CODE + 16 * i, BODY, unwind)
    return made.image()


WORST: dict[str, Callable[[int], Image]] = {
    make.__name__: make
    for make in (
        far_parts, continuations, padding, shared_states, shared_scopes, crossings, far_actions, refusals
    )
}  # fmt: skip
