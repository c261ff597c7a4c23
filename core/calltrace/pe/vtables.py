"""Vtables in an image, however its compiler tells the classes of objects at run time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import compress
from typing import NamedTuple

from calltrace.pe.image import Image


class Base(NamedTuple):
    """A class as a base of another, or itself."""

    name: str
    offset: int | None  # in an object of the other; none: not always the same


class Place(NamedTuple):
    """Whose vtable one can be: that of a class, or of one of its bases within it."""

    class_name: str
    base: str = ""  # "" for the class itself

    def slot(self, number: int) -> str:
        """What a function there is called."""
        return f"{self.class_name}{f'{{for {self.base}}}' if self.base else ''}::vfunc[{number}]"


class Vtable(NamedTuple):
    """A vtable."""

    rva: int  # of its first function's address
    places: Sequence[Place]  # the most derived class's first


def places_of(bases: Sequence[Base], offset: int) -> list[Place]:
    """Of the vtable that an object of class `bases[0]` points to from this offset in it."""
    own = bases[0].name
    within = [base.name for base in bases[1:] if base.offset == offset]
    first = Place(own, (within[0] if within else f"+{offset:#x}") if offset else "")
    return [first, *map(Place, within)]


def functions(image: Image, vtable: int) -> Iterator[int]:
    """RVAs of the functions in a vtable, which ends where something else lies."""
    while True:
        rva = image.u64(vtable) - image.base
        if not any(begin <= rva < end for begin, end in image.executable):
            return
        yield rva
        vtable += 8


def find(image: Image, values: Collection[int]) -> Iterator[tuple[int, int]]:
    """Where one of the values lies in the data, aligned to eight bytes: RVA and value."""
    for section in image.sections:
        if not section.executable:
            begin = -(-section.begin // 8) * 8
            end = begin + max(section.end - begin, 0) // 8 * 8
            words = memoryview(image.data)[begin:end].cast("Q")
            for at in compress(range(len(words)), map(values.__contains__, words)):
                yield begin + 8 * at, words[at]


def text_at(image: Image, rva: int, longest: int = 4096) -> str:
    """A text that ends with a zero; "" if there is none."""
    end = image.data.find(b"\0", rva, rva + longest) if 0 <= rva < image.size else -1
    return image.data[rva:end].decode("utf-8", "replace") if end >= 0 else ""
