"""What the engine calls the functions of a module: windbg_ext/symbols.h."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from ctypes import POINTER, c_int32, c_uint32, c_uint64, c_wchar_p
from typing import Any

from calltrace.errors import EngineError
from calltrace.ports import ModuleSymbols, TargetModule

_NONE = 1  # S_FALSE
_PATH = 32768  # characters
_ROOM = 1 << 16  # characters, for the names of some functions; more than the longest has
_AT_ONCE = 1024  # functions


def of_module(library: ctypes.CDLL, module: TargetModule) -> ModuleSymbols | None:
    """The engine's symbols of a module as they are now; None if it knows no more than the exports.

    `library` is the extension DLL. While a command runs.
    """
    file = ctypes.create_unicode_buffer(_PATH)
    told = _function(library, "ct_symbol_file", [c_uint64, c_wchar_p, c_uint32])(module.base, file, _PATH)
    if told < 0 or told == _NONE:
        return None
    return ModuleSymbols(file.value, functools.partial(_names, library, module.base))


def _names(library: ctypes.CDLL, base: int, rvas: Sequence[int]) -> Mapping[int, str]:
    arguments = [c_uint64, POINTER(c_uint32), c_uint32, POINTER(ctypes.c_wchar), c_uint32, POINTER(c_uint32)]
    ask = _function(library, "ct_names", arguments)
    room = ctypes.create_unicode_buffer(_ROOM)
    found: dict[int, str] = {}
    at = 0
    while at < len(rvas):
        some = rvas[at : at + _AT_ONCE]
        done = c_uint32()
        result = ask(base, (c_uint32 * len(some))(*some), len(some), room, _ROOM, ctypes.byref(done))
        if result < 0:
            raise EngineError(
                f"the debugger's engine does not name the functions at {base:#x}: {result & 0xFFFFFFFF:#010x}"
            )
        names = ctypes.wstring_at(room, _ROOM).split("\0", done.value)
        found.update((rva, name) for rva, name in zip(some, names[: done.value]) if name)
        at += done.value
    return found


def _function(library: ctypes.CDLL, name: str, arguments: list[Any]) -> Any:
    function = library[name]
    function.argtypes, function.restype = arguments, c_int32
    return function
