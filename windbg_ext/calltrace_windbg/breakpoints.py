"""The user's breakpoints beside the trace: windbg_ext/breakpoints.h moves them, here is where to."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from ctypes import POINTER, c_int, c_int32, c_uint32, c_uint64
from typing import Any

from calltrace.errors import CalltraceError, EngineError
from calltrace.places import Copied, places
from calltrace.ports import Memory

_MOST = 8  # CT_PLACES
_FIND = ctypes.CFUNCTYPE(c_uint32, c_uint64, POINTER(c_uint64))
_LOOK = ctypes.CFUNCTYPE(c_uint64, c_int)
_INT3 = 0xCC
_PIECE = 4096  # bytes compared at once


class UserBreakpoints:
    """The breakpoints in one process, which follow their instructions into copies and back."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """`library` is the extension DLL."""
        self._function = library.ct_breakpoints_follow
        self._function.argtypes, self._function.restype = [c_uint32, _FIND, _LOOK], c_int32
        self._callbacks: tuple[Any, Any] = (_FIND(), _LOOK())  # they must live as long as the DLL knows them

    def follow(self, process_id: int, memory: Memory, copied: Sequence[Copied]) -> None:
        """From the next run of the process on they stand where the instructions run: in `copied`, too.

        Within a command only. `memory` is the process's as it is, with the engine's breakpoints in it.
        EngineError if the debugger's engine refuses to tell when the process runs.
        """
        hidden = _Hidden(memory, copied)

        def find(address: int, found: Any) -> int:
            hidden.known.add(address)
            stand = places(copied, address)[:_MOST]
            for index, place in enumerate(stand):
                found[index] = place
            return len(stand)

        self._do(process_id, _FIND(find), _LOOK(hidden.look))

    def release(self) -> None:
        """The process is gone, or needs no more of this."""
        self._do(0, _FIND(), _LOOK())

    def _do(self, process_id: int, find: Any, look: Any) -> None:
        result = self._function(process_id, find, look)
        if result < 0:
            raise EngineError(
                f"the debugger's engine does not tell when the target runs: {result & 0xFFFFFFFF:#010x}"
            )
        self._callbacks = (find, look)


class _Hidden:
    """Finds breakpoints that the engine shows nobody, as that of `g ADDRESS`, by what they do to the code."""

    def __init__(self, memory: Memory, copied: Sequence[Copied]) -> None:
        self.known: set[int] = set()  # where the others were set
        self._found: set[int] = set()
        self._memory, self._copied = memory, copied
        self._before: list[tuple[Copied, int, bytes]] = []  # with the code's VA

    def look(self, before: int) -> int:
        """The VA of one that stands on an instruction that runs elsewhere, or elsewhere, too; 0: none.

        To be called before the engine puts its breakpoints into the code, and then when it has. A jump to a
        copy is put in order again: no breakpoint can stand in its middle.
        """
        try:
            if before:
                self.known.clear()
                self._found.clear()
                self._before = list(self._read())
                return 0
            return self._find()
        except CalltraceError:  # the process is gone
            return 0

    def _read(self) -> Iterator[tuple[Copied, int, bytes]]:
        for each in self._copied:
            start, size = each.code
            if size:
                yield each, start, self._memory.read(start, size)

    def _find(self) -> int:
        found = 0
        for each, start, old in self._before:
            new = self._memory.read(start, len(old))
            for offset in _changes(old, new):
                address = start + offset
                strange = new[offset] == _INT3 and address not in self.known - self._found
                jump = each.jump_offset(address) if each.active else None
                # On the jump itself it is hit when the function is called.
                if not strange or jump == 0 or places(self._copied, address) == [address]:
                    continue
                found = address
                self._found.add(address)
                if jump is not None:
                    self._memory.write(address, old[offset : offset + 1])
        return found


def _changes(old: bytes, new: bytes) -> Iterator[int]:
    """The offsets at which two byte strings of the same length differ."""
    for start in range(0, len(old), _PIECE):
        if old[start : start + _PIECE] != new[start : start + _PIECE]:
            for offset in range(start, min(start + _PIECE, len(old))):
                if old[offset] != new[offset]:
                    yield offset
