"""Reads trace files by the words of trace_format.h, with nothing of the package's own reader."""

from __future__ import annotations

import functools
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

BLOCK = 0x10000
HOLE, LIVE, EVENTS = 0, 1, 2
FRAME, ENTER, LEAVE, TAIL, CALL, RETURN, LAND, EXT = range(8)
START, EXIT, MARK, API_ENTER, API_EXIT, API_CALL, API_RET, API_GOTO, RESET, STOP = range(1, 11)
VALUES = {MARK: 1, API_ENTER: 2, API_EXIT: 2, API_CALL: 2, API_RET: 2, API_GOTO: 2}
RECORDING, EXITED, STOPPED = 0, 1, 2

_HEADER = (
    ("magic", "8s"),
    *((name, "I") for name in ("version", "header_size", "block_size", "unit_size", "clock", "policy")),
    *((name, "Q") for name in ("created_ns", "tsc_start", "tsc_hz", "max_size", "ring_start", "ring_next")),
    *((name, "Q") for name in ("append_end", "units_total", "units_lost")),
    *((name, "I") for name in ("threads", "state", "exit_code", "process_id")),
    *(("tsc_end", "Q"), ("blocked", "I"), ("stop", "I")),
)
_HEADER_FORMAT = "<" + "".join(form for _, form in _HEADER)


@dataclass(frozen=True)
class Block:
    """One chunk of one thread: its header, and the bytes of its units."""

    thread: int
    thread_id: int
    first_unit: int
    open_tsc: int
    close_tsc: int
    units: array[int]
    in_live: bool
    offset: int


def header_of(path: Path) -> dict[str, int]:
    with open(path, "rb") as file:
        data = file.read(struct.calcsize(_HEADER_FORMAT))
    return dict(zip((name for name, _ in _HEADER), struct.unpack(_HEADER_FORMAT, data)))


def ext_code(kind: int) -> int:
    return kind << 3 | EXT


def _open_units(units: array[int], width: int) -> array[int]:
    """The units before the first zero one; the values of an EXT may be zero."""
    at = 0
    while at < len(units) and units[at]:
        code = units[at] & 0xFFFFFF
        at += 1 + (VALUES.get(code >> 3, 0) * (8 // width) if code & 7 == EXT else 0)
    return units[:at]


def _block(data: memoryview, offset: int, in_live: bool, width: int) -> Block:
    _kind, _flags, length, payload, reserved = struct.unpack_from("<IIQQQ", data)
    thread, thread_id, first, opened, closed = struct.unpack_from("<IIQQQ", data, 32)
    assert length == BLOCK
    assert reserved == 0
    assert payload <= BLOCK - 64
    units = array("I" if width == 4 else "Q", bytes(data[64 : 64 + payload] if payload else data[64:BLOCK]))
    if payload:
        assert closed >= opened > 0
    else:
        assert in_live, f"an open block at {offset:#x}"
        units = _open_units(units, width)
    return Block(thread, thread_id, first, opened, closed, units, in_live, offset)


class Trace:
    """A whole trace file."""

    def __init__(self, path: Path) -> None:
        self.header = header_of(path)
        assert self.header["magic"] == b"CALLTRC\0"
        self.width = self.header["unit_size"]
        data = memoryview(path.read_bytes())
        self.size = len(data)
        self.blocks: list[Block] = []
        self.holes: list[int] = []
        at = BLOCK
        while at + BLOCK <= len(data):
            kind, flags, length = struct.unpack_from("<IIQ", data, at)
            if kind == HOLE:
                self.holes.append(at)
                at += BLOCK
                continue
            assert length >= BLOCK
            assert length % BLOCK == 0
            if kind == LIVE:
                for slot in range(at + BLOCK, at + length, BLOCK):
                    if struct.unpack_from("<I", data, slot)[0] == EVENTS:
                        self.blocks.append(_block(data[slot : slot + BLOCK], slot, True, self.width))
            elif kind == EVENTS:
                assert flags == 0
                self.blocks.append(_block(data[at : at + BLOCK], at, False, self.width))
            at += length
        # A process killed between writing a block and clearing its slot leaves it twice.
        best: dict[tuple[int, int], Block] = {}
        for block in sorted(self.blocks, key=lambda block: block.in_live):
            known = best.get((block.thread, block.first_unit))
            assert known is None or block.in_live, "a block twice in the file"
            best[block.thread, block.first_unit] = block
        self.threads: dict[int, list[Block]] = {}
        for _, block in sorted(best.items()):
            self.threads.setdefault(block.thread, []).append(block)

    def runs(self, thread: int) -> list[tuple[int, array[int]]]:
        """The thread's units in runs without a gap: number of the first unit, codes of all."""
        runs: list[tuple[int, array[int]]] = []
        for block in self.threads[thread]:
            if runs and block.first_unit < runs[-1][0] + len(runs[-1][1]):
                raise AssertionError(f"blocks of thread {thread} overlap at unit {block.first_unit}")
            if runs and block.first_unit == runs[-1][0] + len(runs[-1][1]):
                runs[-1][1].extend(block.units)
            else:
                runs.append((block.first_unit, block.units[:]))
        return runs

    def units(self, thread: int) -> array[int]:
        """All units of a thread that lost none."""
        [(first, units)] = self.runs(thread)
        assert first == 0
        return units

    def codes(self, thread: int) -> array[int]:
        """The codes of all units of a thread that lost none and has no EXT with values."""
        return codes(self.units(thread), self.width)


def codes(units: array[int], width: int) -> array[int]:
    if width == 4:
        return units
    data, low = units.tobytes(), bytearray(4 * len(units))
    for at in range(3):  # of each unit the three lowest bytes, many units at a time
        low[at::4] = data[at::8]
    return array("I", bytes(low))


@functools.cache
def _once_round() -> array[int]:
    return array("I", (number << 3 | ENTER for number in range(0x200000)))


def counted(start: int, stop: int) -> array[int]:
    """The codes that the host program's threads record: ENTER with ids that count up and wrap."""
    first, count = start & 0x1FFFFF, stop - start
    found = _once_round()[first : first + count]
    while len(found) < count:
        found += _once_round()[: count - len(found)]
    return found


def decoded(units: array[int], width: int) -> list[tuple[int, ...]]:
    """(kind, id, values…) of every unit."""
    events: list[tuple[int, ...]] = []
    at = 0
    while at < len(units):
        code = units[at] & 0xFFFFFF
        at += 1
        values = []
        for _ in range(VALUES.get(code >> 3, 0) if code & 7 == EXT else 0):
            values.append(units[at] | units[at + 1] << 32 if width == 4 else units[at])
            at += 8 // width
        events.append((code & 7, code >> 3, *values))
    return events
