"""Writes trace files by the text of native/include/trace_format.h, for tests of the reader.

Nothing of the reader is used here. `Units` makes a thread's units, `TraceWriter` puts them into blocks.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BLOCK = 0x10000
BLOCK_UNITS = {4: (BLOCK - 64) // 4, 8: (BLOCK - 64) // 8}
HEADER = struct.Struct("<8s6I9Q4IQ2IQ2I1016s2I")
NONE = 0xFFFFFFFF

FRAME, ENTER, LEAVE, TAIL, CALL, RETURN, LAND, EXT = range(8)
WHOLE = 1 << 24
THREAD_START, THREAD_EXIT, MARK, API_ENTER, API_EXIT, API_CALL, API_RET, API_GOTO, RESET, STOP = range(1, 11)
RECORDING, EXITED, STOPPED, KILLED = range(4)
HOLE, LIVE, EVENTS, MODULE, INFO = range(5)


class Units:
    """The units of one thread, in order. `now` is the time stamp counter, if there is a clock."""

    def __init__(self, unit_size: int = 4, now: int = 0) -> None:
        self.unit_size = unit_size
        self.now = now
        self.data = bytearray()
        self.times: list[int] = []  # one per unit
        self.inner: set[int] = set()  # positions of units that no block may begin with

    def __len__(self) -> int:
        return len(self.data) // self.unit_size

    def frame(self, sp: int) -> None:
        """A stack pointer."""
        self._put(sp)

    def event(self, event: int, number: int) -> None:
        """An event with an id."""
        code = event | number << 3
        self._put(code if self.unit_size == 4 else code | (self.now & (1 << 40) - 1) << 24)

    def whole(self, function: int) -> None:
        """A function entered and left at once; in 4-byte units only."""
        assert self.unit_size == 4
        self._put(WHOLE | ENTER | function << 3)

    def ext(self, kind: int, *values: int) -> None:
        """An extended event with its 64-bit values."""
        self.event(EXT, kind)
        start = len(self)
        for value in values:
            if self.unit_size == 8:
                self._put(value)
            else:
                self._put(value & 0xFFFFFFFF)
                self._put(value >> 32)
        self.inner.update(range(start, len(self)))

    def _put(self, unit: int) -> None:
        self.data += (unit & (1 << 8 * self.unit_size) - 1).to_bytes(self.unit_size, "little")
        self.times.append(self.now)


class TraceWriter:
    """A trace file in memory."""

    def __init__(self, unit_size: int = 4, state: int = EXITED, **fields: int) -> None:
        self.unit_size = unit_size
        self.fields: dict[str, Any] = {
            "magic": b"CALLTRC\0",
            "version": 1,
            "header_size": HEADER.size,
            "block_size": BLOCK,
            "unit_size": unit_size,
            "clock": 0 if unit_size == 4 else 1,
            "policy": 0,
            "created_ns": 1_700_000_000 * 10**9,
            "tsc_start": 0,
            "tsc_hz": 0 if unit_size == 4 else 10**9,
            "max_size": 0,
            "ring_start": 0,
            "ring_next": 0,
            "append_end": None,  # where the file ends
            "units_total": 0,
            "units_lost": 0,
            "threads": 0,
            "state": state,
            "exit_code": 0,
            "process_id": 4711,
            "tsc_end": 0,
            "blocked": 0,
            "stop": 0,
            "load_base": 0,
            "load_size": 0,
            "load_answer": 0,
            "load_path": b"",
            "pause": 0,
            "reserved": 0,
        } | fields
        self.chunks: list[bytes] = []

    def chunk(
        self, kind: int, rest: bytes, payload_size: int | None = None, length: int | None = None
    ) -> None:
        """Append a chunk; `rest` is what follows its 32 bytes of header."""
        whole = -(-(32 + len(rest)) // BLOCK) * BLOCK
        header = struct.pack(
            "<IIQQQ", kind, 0, whole if length is None else length, payload_size or len(rest), 0
        )
        self.chunks.append((header + rest).ljust(whole, b"\0"))

    def info(self, told: Mapping[str, Any]) -> None:
        """Append an INFO chunk."""
        self.chunk(INFO, json.dumps(told).encode())

    def module(
        self,
        told: Mapping[str, Any],
        functions: Sequence[tuple[int, int, int, int, int, int]] = (),
        sites: Sequence[tuple[int, int, int, int]] = (),
        base: int = 0x140000000,
        size: int = 0x100000,
        index: int = 0,
        first_function: int = 0,
        first_site: int = 0,
    ) -> None:
        """Append a MODULE chunk. Functions and sites: the fields of their records, in order."""
        text = json.dumps(told).encode()
        head = struct.pack(
            "<QIIIIIIIIQ",
            base, size, index, first_function, len(functions), first_site, len(sites), len(text), 0, 0,
        )  # fmt: skip
        records = b"".join(struct.pack("<IIHBBI", *record) for record in functions)
        records += b"".join(struct.pack("<IIII", *record) for record in sites)
        self.chunk(MODULE, head + records + text)

    def events_block(
        self,
        units: bytes,
        thread: int = 0,
        first_unit: int = 0,
        closed: bool = True,
        open_tsc: int = 0,
        close_tsc: int = 0,
        thread_id: int | None = None,
    ) -> bytes:
        """One block of events, as it lies in the file or in a slot."""
        head = struct.pack("<IIQQQ", EVENTS, 0, BLOCK, len(units) if closed else 0, 0)
        thread_id = 1000 + 4 * thread if thread_id is None else thread_id
        head += struct.pack("<IIQQQ", thread, thread_id, first_unit, open_tsc, close_tsc)
        return (head + units).ljust(BLOCK, b"\0")

    def blocks_of(self, units: Units, thread: int = 0, block_units: int | None = None) -> list[bytes]:
        """All of a thread's units in closed blocks of up to `block_units` units (none: full ones)."""
        blocks = []
        first = 0
        while first < len(units):
            end = min(first + (block_units or BLOCK_UNITS[self.unit_size]), len(units))
            while end in units.inner:
                end -= 1
            timed = self.unit_size == 8
            blocks.append(
                self.events_block(
                    bytes(units.data[first * self.unit_size : end * self.unit_size]),
                    thread,
                    first,
                    open_tsc=units.times[first] if timed else 0,
                    close_tsc=units.times[end - 1] if timed else 0,
                )
            )
            first = end
        return blocks

    def thread(self, units: Units, thread: int = 0, block_units: int | None = None) -> None:
        """Append all of a thread's units."""
        self.chunks += self.blocks_of(units, thread, block_units)

    def live(self, slots: Sequence[bytes]) -> None:
        """Append the LIVE chunk with these slots, each one block; an empty one is not in use."""
        head = struct.pack("<IIQQQ", LIVE, 0, (1 + len(slots)) * BLOCK, len(slots) * BLOCK, 0)
        self.chunks.append(head.ljust(BLOCK, b"\0") + b"".join(slot.ljust(BLOCK, b"\0") for slot in slots))

    def bytes(self) -> bytes:
        """The file."""
        body = b"".join(self.chunks)
        fields = dict(self.fields)
        if fields["append_end"] is None:
            fields["append_end"] = BLOCK + len(body)
        return HEADER.pack(*fields.values()).ljust(BLOCK, b"\0") + body

    def write(self, path: Path) -> Path:
        """Write the file; its path."""
        path.write_bytes(self.bytes())
        return path
