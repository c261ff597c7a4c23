"""Copies as the debugger's call stack and names show them: x64dbg_plugin/copies.h asks, here is what."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_bool, c_uint32, c_uint64, c_void_p
from typing import Any

from calltrace.errors import EngineError
from calltrace.places import Copied

_FIND = ctypes.CFUNCTYPE(c_uint64, c_uint64)


class _Region(ctypes.Structure):
    """struct ct_region."""

    _fields_ = [("base", c_uint64), ("size", c_uint64)]


class ShownCopies:
    """The copies in one process."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """`library` is the plugin."""
        self._function = library.ct_copies_show
        self._function.argtypes = [c_void_p, POINTER(_Region), c_uint32, _FIND]
        self._function.restype = c_bool
        self._find: Any = _FIND()  # it must live as long as the plugin knows it

    def show(self, process: int | None, copied: Sequence[Copied]) -> None:
        """These, and no others, are the copies in the process (a handle).

        EngineError if the debugger's call stack will end at them.
        """

        def find(address: int) -> int:
            return next((each.original(address) or 0 for each in copied if address in each), 0)

        regions = (_Region * len(copied))(*(_Region(each.region, each.size) for each in copied))
        callback = _FIND(find)
        done = self._function(process, regions, len(copied), callback)
        self._find = callback
        if not done:
            raise EngineError("this release's call stack ends at traced functions: use `calltrace stacks`")
