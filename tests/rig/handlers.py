"""What language handlers find in exception data, read as their run-time libraries do: an oracle for clones.

Sources: Microsoft, "x64 exception handling" (scope tables); ehdata.h and ehdata4_export.h of the Visual C++
runtime (__CxxFrameHandler3 and 4); the Itanium C++ ABI's LSDA, as libgcc and libstdc++ read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rig.unwinding import Entry, Tables

Read = Callable[[int, int], bytes]


class Reader:
    """Reads numbers one after the other, from an RVA on."""

    def __init__(self, read: Read, at: int) -> None:
        self.read, self.at = read, at

    def u8(self) -> int:
        """One byte."""
        self.at += 1
        return self.read(self.at - 1, 1)[0]

    def u32(self) -> int:
        """Four bytes, unsigned."""
        self.at += 4
        return int.from_bytes(self.read(self.at - 4, 4), "little")

    def packed(self) -> int:
        """__CxxFrameHandler4's integer: the low bits of its first byte tell its length."""
        first = self.read(self.at, 1)[0]
        length = {0: 1, 1: 2, 2: 1, 3: 3}[first & 3] if first & 7 != 7 else 4 if first & 15 == 7 else 5
        value = int.from_bytes(self.read(self.at, length), "little")
        self.at += length
        return value >> 8 if length == 5 else value >> length

    def uleb(self) -> int:
        """DWARF's unsigned variable-length integer."""
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def sleb(self) -> int:
        """The signed one."""
        start = self.at
        value = self.uleb()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) else value


@dataclass(frozen=True)
class Place:
    """A code address in exception data; where it is differs between original and clone."""

    what: str  # "land": execution goes on there; "funclet": it is called
    rva: int


def scope(read: Read, data: int, pc: int) -> tuple[object, ...]:
    """__C_specific_handler: the scopes around `pc`, innermost first, as (filter, where execution goes on)."""
    reader = Reader(read, data)
    found: list[object] = []
    for _ in range(reader.u32()):
        begin, end, handler, target = (reader.u32() for _ in range(4))
        if begin <= pc < end:
            found.append((handler, Place("land", target) if target else None))
    return tuple(found)


def fh3(read: Read, data: int, pc: int) -> tuple[object, ...]:
    """__CxxFrameHandler3: the state at `pc`, and what can be done in it."""
    info = Reader(read, Reader(read, data).u32())
    magic, states, unwind_map, tries, try_map, ips, ip_map, frame, types, flags = (
        info.u32() for _ in range(10)
    )
    reader, state = Reader(read, ip_map), 0xFFFFFFFF
    last = -1
    for _ in range(ips):
        ip, following = reader.u32(), reader.u32()
        assert ip >= last, "IP-to-state map not in order"
        last = ip
        if ip <= pc:
            state = following
    blocks: list[object] = []
    reader = Reader(read, try_map)
    for _ in range(tries):
        low, high, catch_high, count, catches = (reader.u32() for _ in range(5))
        handlers = Reader(read, catches)
        made = []
        for _ in range(count):
            adjectives, kind, object_, funclet, parent = (handlers.u32() for _ in range(5))
            made.append((adjectives, kind, object_, Place("funclet", funclet), parent))
        blocks.append((low, high, catch_high, *made))
    return magic, states, unwind_map, state, frame, types, flags, *blocks


def fh4(read: Read, data: int, pc: int, function: int) -> tuple[object, ...]:
    """__CxxFrameHandler4: the same; `function`: start of the RUNTIME_FUNCTION that holds `pc`."""
    info = Reader(read, Reader(read, data).u32())
    header = info.u8()
    flags = info.packed() if header & 4 else 0
    unwind_map = info.u32() if header & 8 else 0
    try_map = info.u32() if header & 16 else 0
    ip_map = info.u32()
    frame = info.packed() if header & 1 else 0
    if header & 2:  # one map for each separated part
        parts = Reader(read, ip_map)
        maps = {}
        for _ in range(parts.packed()):
            start = parts.u32()
            maps[start] = parts.u32()
        ip_map = maps.get(function, 0)
    state, at = 0, function
    if ip_map:
        reader = Reader(read, ip_map)
        for _ in range(reader.packed()):
            at += reader.packed()
            following = reader.packed()
            if at <= pc:
                state = following
    blocks: list[object] = []
    if try_map:
        reader = Reader(read, try_map)
        for _ in range(reader.packed()):
            low, high, catch_high = (reader.packed() for _ in range(3))
            blocks.append((low, high, catch_high, *_fh4_catches(read, reader.u32(), function)))
    return header & ~2, flags, unwind_map, frame, state, *blocks


def _fh4_catches(read: Read, rva: int, function: int) -> list[object]:
    reader = Reader(read, rva)
    made: list[object] = []
    for _ in range(reader.packed()):
        header = reader.u8()
        adjectives = reader.packed() if header & 1 else 0
        kind = reader.u32() if header & 2 else 0
        object_ = reader.packed() if header & 4 else 0
        funclet = reader.u32()
        goes_on = [
            Place("land", reader.u32() if header & 8 else function + reader.packed())
            for _ in range(header >> 4 & 3)
        ]
        made.append((adjectives, kind, object_, Place("entry", funclet), *goes_on))
    return made


def lsda(read: Read, data: int, pc: int, function: int, base: int) -> tuple[object, ...] | None:
    """gcc's personality routines: the landing pad for a call that returns to `pc`, and the types it is for.

    None: no call site covers it, which ends the program.
    """
    reader = Reader(read, data)
    assert reader.u8() == 0xFF, "landing pads count from the function"
    type_encoding = reader.u8()
    types = 0
    if type_encoding != 0xFF:
        distance = reader.uleb()
        types = reader.at + distance
    encoding = reader.u8()
    length = reader.uleb()
    actions = reader.at + length
    while reader.at < actions:
        number = reader.uleb if encoding == 1 else reader.u32
        begin, size, pad = number(), number(), number()
        action = reader.uleb()
        if begin <= pc - 1 - function < begin + size:
            found = _actions(read, actions, action, types, type_encoding, base)
            return (Place("land", function + pad) if pad else None, *found)
    return None


def _actions(read: Read, table: int, action: int, types: int, encoding: int, base: int) -> list[object]:
    found: list[object] = []
    at = table + action - 1
    while action and len(found) < 1000:
        reader = Reader(read, at)
        chosen = reader.sleb()
        behind = reader.at
        following = reader.sleb()
        if chosen > 0:
            found.append(_type(read, types, chosen, encoding, base))
        elif chosen < 0:
            spec, allowed = Reader(read, types - chosen - 1), []
            while number := spec.uleb():
                allowed.append(_type(read, types, number, encoding, base))
            found.append(tuple(allowed))
        else:
            found.append("cleanup")
        if not following:
            break
        at = behind + following
    return found


def _type(read: Read, types: int, number: int, encoding: int, base: int) -> int:
    size = {0: 8, 3: 4, 4: 8, 11: 4, 12: 8}[encoding & 15]
    at = types - number * size
    value = int.from_bytes(read(at, size), "little", signed=True)
    if value and encoding & 0x70 == 0x10:
        value += at
    return value - base if value and encoding & 0x70 == 0 else value


def labels(read: Read, data: int, pc: int) -> tuple[object, ...]:
    """Assembly in OpenSSL's style: has `pc` come to the body, and to the epilogue?"""
    reader = Reader(read, data)
    return tuple(pc >= reader.u32() for _ in range(2))


def kind_of(tables: Tables, entries: list[Entry], code: Callable[[int], bool], size: int) -> str:
    """Whose data the functions of one handler have: what fits all of them."""
    fits = {
        "fh3": _fits_fh3,
        "lsda": _fits_lsda,
        "scope": _fits_scope,
        "fh4": _fits_fh4,
        "labels": _fits_labels,
    }
    for kind, check in fits.items():
        if all(check(tables, tables.info(entry[2]).data, code, size) for entry in entries):
            return kind
    return "gs"


def _fits_fh3(tables: Tables, data: int, _: Callable[[int], bool], size: int) -> bool:
    info = tables.u32(data)
    return info + 40 <= size and 0x19930520 <= tables.u32(info) <= 0x19930522


def _fits_lsda(tables: Tables, data: int, _: Callable[[int], bool], __: int) -> bool:
    first, second = tables.read(data, 2)
    return first == 0xFF and second in (0xFF, 0x9B, 0x00, 0x1B)


def _fits_scope(tables: Tables, data: int, code: Callable[[int], bool], size: int) -> bool:
    count = tables.u32(data)
    if data + 16 * count + 4 > size:
        return False
    reader = Reader(tables.read, data + 4)
    for _ in range(count):
        begin, end, handler, target = (reader.u32() for _ in range(4))
        if not (begin <= end and code(begin) and (target == 0 or code(target))):
            return False
        if not (code(handler) or (handler == 1 and target)):
            return False
    return True


def _fits_fh4(tables: Tables, data: int, code: Callable[[int], bool], size: int) -> bool:
    info = tables.u32(data)
    return info >= 0x1000 and info + 16 <= size and not code(info) and tables.read(info, 1)[0] < 0x80


def _fits_labels(tables: Tables, data: int, code: Callable[[int], bool], _: int) -> bool:
    return code(tables.u32(data)) and code(tables.u32(data + 4))
