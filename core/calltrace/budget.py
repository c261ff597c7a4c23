"""Writing what budgets leave of a target's events, while they are counted (--budget)."""

from __future__ import annotations

import ctypes
from ctypes import c_uint32, c_uint64
from typing import Any

from calltrace.errors import EngineError
from calltrace.recorder import TraceFile
from calltrace.tracefile import BLOCK, reader_library

_KINDS = {"functions": 0, "sites": 1}  # enum ct_muted_kind


class Budget:
    """The first calls of each function and call site, by thread, on their way into one file."""

    def __init__(self, file: TraceFile, calls: int, max_size: int) -> None:
        """`calls` are written of each; the file grows to `max_size` bytes (0: no limit). EngineError."""
        self._file = file
        self._max_size = max_size
        self._library = reader_library()
        self.handle = self._library.ct_budget_open(calls)
        if not self.handle:
            raise EngineError("no memory to count calls in")

    def settle(self, last: bool) -> None:
        """Let what is open, and what was muted so far, be among what is written; EngineError without memory.

        `last`: nothing comes any more.
        """
        if not self._library.ct_budget_settle(self.handle, last):
            raise EngineError("no memory to write down what was recorded")

    def write(self, *, everything: bool = False) -> None:
        """Write the blocks that are full; `everything`: the others as well. What finds no room is lost."""
        library, place = self._library, c_uint64()
        while block := library.ct_budget_block(self.handle, everything, ctypes.byref(place)):
            data = ctypes.string_at(block, BLOCK)
            offset = self._file.put_events(data, place.value, self._max_size)
            units = library.ct_budget_written(self.handle, block, offset)
            if not offset:
                self._file.add_lost(units)

    def muted(self) -> dict[str, Any]:
        """How many calls were muted and told, for an INFO chunk: pairs of id and number."""
        told = {}
        for name, kind in _KINDS.items():
            count = c_uint32()
            address = self._library.ct_budget_muted(self.handle, kind, ctypes.byref(count))
            numbers = (c_uint64 * count.value).from_address(address) if address else ()
            told[name] = [[at, number] for at, number in enumerate(numbers) if number]
        return {"muted": told}

    def close(self) -> None:
        """Give up what is not written."""
        self._library.ct_budget_close(self.handle)
