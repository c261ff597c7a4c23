"""Names of virtual functions, by the run-time type information of Microsoft's compilers: ``Cage::vfunc[3]``.

In front of each vtable lies a pointer to its complete object locator, which leads to the name of the class
and to the classes it is derived from. A function that several vtables have belongs to the class that all of
them are derived from; one that unrelated classes share, since the linker folds equal ones, gets no name.
Layouts: rttidata.h of Visual C++, for x64: RVAs in place of pointers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from calltrace.pe.image import Image
from calltrace.pe.undecorate import type_name

_NAME = b".?A"
_SIGNATURE = (1).to_bytes(4, "little")  # of a complete object locator with RVAs
_LOCATOR_SIZE = 24  # signature, offset, constructor displacement; RVAs: type, hierarchy, itself
_LEA = re.compile(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]")  # lea r64, [rip + ...]
_TYPE_NAME = 16  # behind a type descriptor's vtable pointer and spare pointer
_LONGEST_NAME = 4096
_BASES_LIMIT = 128
_LOCATORS_LIMIT = 1 << 17


class _Slot(NamedTuple):
    """A place in vtables: of a class, or of one of its bases within it."""

    class_name: str
    base: str  # "" for the class itself
    number: int

    @property
    def text(self) -> str:
        return f"{self.class_name}{f'{{for {self.base}}}' if self.base else ''}::vfunc[{self.number}]"


class _Base(NamedTuple):
    """A class as a base of another, or itself."""

    name: str
    offset: int | None  # in an object of the other; none: not always the same


def virtual_functions(image: Image) -> dict[int, str]:
    """Names of functions that lie in vtables, by RVA. What is damaged gives fewer names, never an error."""
    found: dict[int, list[_Slot]] = {}  # that all vtables have in common, the most derived class's first
    if _NAME not in image.data:
        return {}
    vtables = [(vtable, classes, list(_functions(image, vtable))) for vtable, classes in _vtables(image)]
    slots = {vtable + 8 * index for vtable, _, functions in vtables for index in range(1, len(functions))}
    starts = _pointed_to(image, slots)
    for vtable, classes, functions in vtables:
        for index, function in enumerate(functions):
            if vtable + 8 * index in starts:
                break
            here = [_Slot(class_name, base, index) for class_name, base in classes]
            found[function] = [slot for slot in found.get(function, here) if slot in here]
    return {rva: common[0].text for rva, common in found.items() if common}


def _pointed_to(image: Image, slots: set[int]) -> set[int]:
    """Where another vtable begins, of a class without such information: code or data point there."""
    starts = set()
    for begin, end in image.executable:
        for match in _LEA.finditer(image.data, begin, end - 4):
            behind = match.end() + 4
            displacement = int.from_bytes(image.data[behind - 4 : behind], "little", signed=True)
            if behind + displacement in slots:
                starts.add(behind + displacement)
    pointers = {image.base + slot for slot in slots}
    for _, words in _words(image):
        starts |= {word - image.base for word in words if word in pointers}
    return starts


def _words(image: Image) -> Iterator[tuple[int, memoryview]]:
    """What lies in sections of data, in units of eight bytes, with the RVA of the first."""
    for section in image.sections:
        if not section.executable:
            begin = -(-section.begin // 8) * 8
            end = begin + max(section.end - begin, 0) // 8 * 8
            yield begin, memoryview(image.data)[begin:end].cast("Q")


def _vtables(image: Image) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """RVA of each vtable, and which classes', and bases within them, it can be: the most derived first."""
    locators = dict(itertools.islice(_locators(image), _LOCATORS_LIMIT))
    by_pointer = {image.base + rva: rva for rva in locators}
    classes: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for begin, words in _words(image):
        for at, word in enumerate(words):
            if word in by_pointer:
                offset, hierarchy = locators[by_pointer[word]]
                if (hierarchy, offset) not in classes:
                    classes[hierarchy, offset] = _classes(image, hierarchy, offset)
                if classes[hierarchy, offset]:
                    yield begin + 8 * at + 8, classes[hierarchy, offset]


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


def _classes(image: Image, hierarchy: int, offset: int) -> list[tuple[str, str]]:
    bases = _bases(image, hierarchy)
    if not bases:
        return []
    own = bases[0].name
    within = [base.name for base in bases[1:] if base.offset == offset]
    if not offset:
        return [(own, ""), *((name, "") for name in within)]
    return [(own, within[0] if within else f"+{offset:#x}"), *((name, "") for name in within)]


def _bases(image: Image, hierarchy: int) -> list[_Base]:
    """The class that a hierarchy descriptor is of, and all that it is derived from."""
    count, array = image.u32(hierarchy + 8), image.u32(hierarchy + 12)
    found = []
    for at in range(min(count, _BASES_LIMIT)):
        descriptor = image.u32(array + 4 * at)
        name = _type_name(image, image.u32(descriptor))
        if name is None:
            return []
        static = image.u32(descriptor + 12) == 0xFFFFFFFF  # no virtual base
        found.append(_Base(name, image.u32(descriptor + 8) if static else None))
    return found


def _type_name(image: Image, descriptor: int) -> str | None:
    begin = descriptor + _TYPE_NAME
    if not image.data.startswith(_NAME, begin):
        return None
    end = image.data.find(b"\0", begin, begin + _LONGEST_NAME)
    decorated = image.data[begin:end].decode("utf-8", "replace") if end >= 0 else ""
    return type_name(decorated) or decorated or None


def _functions(image: Image, vtable: int) -> Iterator[int]:
    """RVAs of the functions in a vtable, which ends where something else lies."""
    while True:
        rva = image.u64(vtable) - image.base
        if not any(begin <= rva < end for begin, end in image.executable):
            return
        yield rva
        vtable += 8
