"""Names of virtual functions, by the type information that programs have at run time: ``Cage::vfunc[3]``.

A function that several vtables have belongs to the class that all of them are derived from; one that
unrelated classes share, since the linker folds equal ones, gets no name.
"""

from __future__ import annotations

import re

from calltrace.pe import rtti_gcc, rtti_microsoft
from calltrace.pe.image import Image
from calltrace.pe.vtables import find, functions

_LEA = re.compile(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]")  # lea r64, [rip + ...]


def virtual_functions(image: Image) -> dict[int, str]:
    """Names of functions that lie in vtables, by RVA. What is damaged gives fewer names, never an error."""
    microsoft = [(vtable, list(functions(image, vtable.rva))) for vtable in rtti_microsoft.vtables(image)]
    slots = {vtable.rva + 8 * number for vtable, held in microsoft for number in range(1, len(held))}
    others = _pointed_to(image, slots) if slots else set()
    gcc = [(vtable, list(functions(image, vtable.rva))) for vtable in rtti_gcc.vtables(image)]
    common: dict[int, list[str]] = {}  # what all vtables call a function, the most derived class's first
    for vtable, held in (*microsoft, *gcc):
        for number, function in enumerate(held):
            if vtable.rva + 8 * number in others:
                break
            here = [place.slot(number) for place in vtable.places]
            common[function] = [name for name in common.get(function, here) if name in here]
    return {rva: names[0] for rva, names in common.items() if names}


def _pointed_to(image: Image, slots: set[int]) -> set[int]:
    """Where another vtable begins, of a class without such information: code or data point there.

    gcc's vtables need no such look: each begins with what is no function.
    """
    found = {pointer - image.base for _, pointer in find(image, {image.base + slot for slot in slots})}
    for begin, end in image.executable:
        for match in _LEA.finditer(image.data, begin, end - 4):
            behind = match.end() + 4
            displacement = int.from_bytes(image.data[behind - 4 : behind], "little", signed=True)
            if behind + displacement in slots:
                found.add(behind + displacement)
    return found
