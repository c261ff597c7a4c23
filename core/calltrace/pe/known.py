"""Functions that do not return like others, found by name or by their bytes."""

from __future__ import annotations

import enum

from calltrace.pe.image import Image


class Trait(enum.IntEnum):
    """enum ct_trait."""

    RETURNS_TWICE = 1  # once more when longjmp goes back to it
    SWITCHES = 2  # comes back when the thread goes on with this stack again


_BY_NAME = {
    "RtlCaptureContext": Trait.RETURNS_TWICE,  # RtlRestoreContext
    "SwitchToFiber": Trait.SWITCHES,
    "_setjmp": Trait.RETURNS_TWICE,
    "_setjmpex": Trait.RETURNS_TWICE,
    "setjmp": Trait.RETURNS_TWICE,
    "setjmpex": Trait.RETURNS_TWICE,
    "__intrinsic_setjmp": Trait.RETURNS_TWICE,
    "__intrinsic_setjmpex": Trait.RETURNS_TWICE,
}
# How Microsoft's setjmp begins, which programs have inside them without a name: rdx, rbx, rbp and rsi go to
# Frame, Rbx, Rbp and Rsi of the _JUMP_BUFFER (winnt.h, setjmp.h) at rcx.
_SETJMP = bytes.fromhex("488911 48895908 48896918 48897120")


def known_functions(image: Image) -> dict[int, Trait]:
    """RVAs of functions, and of import address table slots, that have a trait."""
    found = {}
    for rva, name in image.names.items():
        if name in _BY_NAME:
            found[rva] = _BY_NAME[name]
    for slot, imported in image.imports.items():
        name = imported.partition("!")[2]
        if name in _BY_NAME:
            found[slot] = _BY_NAME[name]
    at = image.data.find(_SETJMP)
    while at >= 0:
        found[at] = Trait.RETURNS_TWICE
        at = image.data.find(_SETJMP, at + 1)
    return found
