"""What the debugger's user calls the functions of a module: his labels."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from ctypes import POINTER, c_bool, c_char, c_uint32, c_uint64

from calltrace.ports import ModuleSymbols, TargetModule

_SOURCE = "labels in x64dbg"


class _Label(ctypes.Structure):
    """struct label_info."""

    _fields_ = [("mod", c_char * 256), ("rva", c_uint64), ("text", c_char * 256), ("manual", c_bool)]


def of_module(library: ctypes.CDLL, module: TargetModule) -> ModuleSymbols | None:
    """The labels in a module as they are now; None if there are none. `library` is the plugin."""
    name = module.name.lower()
    found = {
        label.rva: label.text.decode(errors="replace")
        for label in _all(library)
        if label.mod.decode(errors="replace").lower() == name
    }
    if not found:
        return None
    digest = hashlib.sha1(repr(sorted(found.items())).encode()).hexdigest()[:8]

    def names(rvas: Sequence[int]) -> Mapping[int, str]:
        return {rva: found[rva] for rva in rvas if rva in found}

    return ModuleSymbols(f"{_SOURCE} ({digest})", names)


def _all(library: ctypes.CDLL) -> Iterator[_Label]:
    ask = library.ct_views_labels
    ask.argtypes, ask.restype = [POINTER(_Label), c_uint32], c_uint32
    room = ask(None, 0)
    labels = (_Label * room)()
    yield from labels[: min(room, ask(labels, room))]
