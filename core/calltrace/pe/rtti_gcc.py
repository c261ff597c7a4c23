"""Vtables of gcc, and of clang where it does as gcc does, in programs that have the C++ library in them.

In front of each lie its offset in the object and a pointer to the type information of its class, whose own
vtable tells of which kind it is. Layouts: the Itanium C++ ABI, 2.5 and 2.9.5.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from calltrace.pe.image import Image
from calltrace.pe.mangled import type_name
from calltrace.pe.vtables import Base, Place, Vtable, find, functions, places_of, text_at

# A class without bases, one with a single base at its beginning, any other.
_PLAIN, _SINGLE, _MANY = (
    f"N10__cxxabiv1{name}E".encode()
    for name in ("17__class_type_info", "20__si_class_type_info", "21__vmi_class_type_info")
)
_BASES_LIMIT = 128
_DIRECT_LIMIT, _DEPTH = 32, 16
_OBJECT_LIMIT = 1 << 32  # bytes


def vtables(image: Image) -> Iterator[Vtable]:
    """Each vtable whose class is told."""
    kinds = _kinds(image)
    infos = {image.base + rva: kinds[vptr] for rva, vptr in find(image, kinds)} if kinds else {}
    places: dict[tuple[int, int], list[Place]] = {}
    for rva, info in find(image, infos):
        offset = -image.u64(rva - 8) % (1 << 64)
        if offset < _OBJECT_LIMIT and next(functions(image, rva + 8), None) is not None:
            if (info, offset) not in places:
                bases = list(itertools.islice(_bases(image, infos, info, 0), _BASES_LIMIT))
                places[info, offset] = places_of(bases, offset)
            yield Vtable(rva + 8, places[info, offset])


def _kinds(image: Image) -> dict[int, bytes]:
    """What type information begins with, by its kind: a pointer into the vtable of that kind."""
    names = {}
    for kind in (_PLAIN, _SINGLE, _MANY):
        at = image.data.find(kind + b"\0")
        if at >= 0:
            names[image.base + at] = kind
    infos = {image.base + rva - 8: names[name] for rva, name in find(image, names)} if names else {}
    return {
        image.base + rva + 8: infos[info]
        for rva, info in find(image, infos)
        if next(functions(image, rva + 8), None) is not None
    }


def _bases(image: Image, infos: dict[int, bytes], info: int, depth: int) -> Iterator[Base]:
    """The class of this type information (VA), and all that it is derived from."""
    at = info - image.base
    mangled = text_at(image, image.u64(at + 8) - image.base).removeprefix("*")  # of one source file's own
    yield Base(type_name(mangled) or mangled, 0)
    if depth == _DEPTH:
        return
    if infos[info] == _SINGLE:
        direct = [(image.u64(at + 16), 0)]
    elif infos[info] == _MANY:
        count = min(image.u32(at + 20), _DIRECT_LIMIT)
        direct = [
            (image.u64(at + 24 + 16 * number), image.u64(at + 32 + 16 * number)) for number in range(count)
        ]
    else:
        return
    for base, about in direct:
        offset = None if about & 1 else about >> 8  # 1: a virtual base
        if base in infos:
            for name, inner in _bases(image, infos, base, depth + 1):
                yield Base(name, None if offset is None or inner is None else offset + inner)
