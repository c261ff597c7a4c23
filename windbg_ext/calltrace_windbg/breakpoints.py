"""The user's breakpoints beside the trace: windbg_ext/breakpoints.h moves them, here is where to."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from ctypes import POINTER, c_int32, c_uint32, c_uint64
from typing import Any

from calltrace.errors import EngineError
from calltrace.places import Copied, places

_MOST = 8  # CT_PLACES
_FIND = ctypes.CFUNCTYPE(c_uint32, c_uint64, POINTER(c_uint64))


class UserBreakpoints:
    """The breakpoints in one process, which follow their instructions into copies and back."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """`library` is the extension DLL."""
        self._function = library.ct_breakpoints_follow
        self._function.argtypes, self._function.restype = [c_uint32, _FIND], c_int32
        self._find: Any = _FIND()  # the DLL calls it: it must live as long as it is known there

    def follow(self, process_id: int, copied: Callable[[], Iterable[Copied]]) -> None:
        """From the next run of the process on they stand where `copied` says. Within a command only.

        EngineError if the debugger's engine refuses to tell when it runs.
        """

        def find(address: int, found: Any) -> int:
            stand = places(copied(), address)[:_MOST]
            for index, place in enumerate(stand):
                found[index] = place
            return len(stand)

        self._do(process_id, _FIND(find))

    def release(self) -> None:
        """The process is gone, or needs no more of this."""
        self._do(0, _FIND())

    def _do(self, process_id: int, find: Any) -> None:
        result = self._function(process_id, find)
        if result < 0:
            raise EngineError(
                f"the debugger's engine does not tell when the target runs: {result & 0xFFFFFFFF:#010x}"
            )
        self._find = find
