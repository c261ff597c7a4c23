"""Vtables of Microsoft's compilers, and of clang where it does as they do.

In front of each lies a pointer to its complete object locator, which leads to the name of the class and to
the classes it is derived from. Layouts: rttidata.h of Visual C++, for x64: RVAs in place of pointers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from calltrace.pe.image import Image
from calltrace.pe.undecorate import type_name
from calltrace.pe.vtables import Base, Place, Vtable, find, places_of, text_at

_NAME = b".?A"
_SIGNATURE = (1).to_bytes(4, "little")  # of a complete object locator with RVAs
_LOCATOR_SIZE = 24  # signature, offset, constructor displacement; RVAs: type, hierarchy, itself
_TYPE_NAME = 16  # behind a type descriptor's vtable pointer and spare pointer
_BASES_LIMIT = 128
_LOCATORS_LIMIT = 1 << 17


def vtables(image: Image) -> Iterator[Vtable]:
    """Each vtable whose class is told."""
    if _NAME not in image.data:
        return
    locators = dict(itertools.islice(_locators(image), _LOCATORS_LIMIT))
    places: dict[tuple[int, int], list[Place]] = {}
    for rva, pointer in find(image, {image.base + locator for locator in locators}):
        offset, hierarchy = locators[pointer - image.base]
        if (hierarchy, offset) not in places:
            bases = _bases(image, hierarchy)
            places[hierarchy, offset] = places_of(bases, offset) if bases else []
        if places[hierarchy, offset]:
            yield Vtable(rva + 8, places[hierarchy, offset])


def _locators(image: Image) -> Iterator[tuple[int, tuple[int, int]]]:
    """RVA of each complete object locator; where in an object its vtable's is, RVA of the class hierarchy."""
    for section in image.sections:
        if section.executable:
            continue
        at = image.data.find(_SIGNATURE, section.begin, section.end)
        while at >= 0:
            if at % 4 == 0 and image.u32(at + 20) == at and at + _LOCATOR_SIZE <= section.end:
                yield at, (image.u32(at + 4), image.u32(at + 16))
            at = image.data.find(_SIGNATURE, at + 1, section.end)


def _bases(image: Image, hierarchy: int) -> list[Base]:
    """The class that a hierarchy descriptor is of, and all that it is derived from."""
    count, array = image.u32(hierarchy + 8), image.u32(hierarchy + 12)
    found = []
    for at in range(min(count, _BASES_LIMIT)):
        descriptor = image.u32(array + 4 * at)
        name = _type_name(image, image.u32(descriptor))
        if name is None:
            return []
        static = image.u32(descriptor + 12) == 0xFFFFFFFF  # no virtual base
        found.append(Base(name, image.u32(descriptor + 8) if static else None))
    return found


def _type_name(image: Image, descriptor: int) -> str | None:
    decorated = text_at(image, descriptor + _TYPE_NAME)
    return type_name(decorated) or decorated if decorated.startswith(".?A") else None
