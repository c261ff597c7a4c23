"""The user's breakpoints beside the trace: x64dbg_plugin/breakpoints.h has them hit, here is where."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_bool, c_uint32, c_uint64, c_void_p
from typing import Any

from calltrace.errors import EngineError
from calltrace.places import Copied, places

_MOST = 8  # CT_PLACES
_FIND = ctypes.CFUNCTYPE(c_uint32, c_uint64, POINTER(c_uint64), POINTER(c_bool))


class UserBreakpoints:
    """The breakpoints in one process, which hit in copies of their instructions, too."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """`library` is the plugin."""
        self._function = library.ct_breakpoints_follow
        self._function.argtypes, self._function.restype = [c_void_p, _FIND], c_bool
        self._find: Any = _FIND()  # it must live as long as the plugin knows it

    def follow(self, process: int, copied: Sequence[Copied]) -> None:
        """From the next run of the process (a handle) on they hit in `copied`, too.

        EngineError if the debugger's engine cannot be reached.
        """

        def find(address: int, found: Any, in_jump: Any) -> int:
            stand = places(copied, address)[:_MOST]
            in_jump[0] = any(each.active and each.jump_offset(address) is not None for each in copied)
            for index, place in enumerate(stand):
                found[index] = place
            return len(stand)

        self._do(process, _FIND(find))

    def release(self) -> None:
        """The process is gone, or needs no more of this."""
        self._do(None, _FIND())

    def _do(self, process: int | None, find: Any) -> None:
        if not self._function(process, find):
            raise EngineError("the debugger's TitanEngine.dll lacks what breakpoints in copies need")
        self._find = find
