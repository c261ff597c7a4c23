"""Names of C++ types, held against other demanglers; and vtables whose ends nothing but the code tells."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace.pe import mangled
from calltrace.pe.image import from_file
from calltrace.pe.rtti import virtual_functions
from calltrace.pe.undecorate import type_name
from rig import corpus, demanglers, targets
from rig.demanglers import by_binutils, llvm, standard_library, without_parameters

LONG_STRING = "std::__cxx11::basic_string<char,std::char_traits<char>,std::allocator<char> >"
_LOCAL = re.compile(r"\?(\d|[A-P]*@)\?\?")  # within a function, which LLVM shows with its type


def descriptors(program: Path) -> list[str]:
    """The names of all type descriptors in a program."""
    found = re.findall(rb"\.\?A[TUVW][!-~]+(?=\0)", program.read_bytes())
    return sorted({name.decode() for name in found})


def by_llvm(names: list[str]) -> list[str]:
    return [text.replace(" `RTTI Type Descriptor Name'", "") for text in demanglers.by_llvm(names)]


def type_informations(library: Path) -> list[str]:
    """The names of all types in gcc's or clang's code of which there is type information."""
    found = re.findall(rb"_ZT[SI]([!-~]+)(?=\0)", library.read_bytes())
    return sorted({name.decode() for name in found})


def compact(name: str) -> str:
    """Without what debuggers write differently: words for kinds of types, blanks, types of functions."""
    name = re.sub(r"\b(class|struct|union|enum) ", "", name).replace(" ", "")
    return name.replace("__cdecl(", "(")


@pytest.mark.parametrize(("program", "least"), [("cmake", 2500), ("duckdb", 3500), ("clang-format", 5)])
def test_types_are_named_as_llvm_names_them(program: str, least: int) -> None:
    names = descriptors(corpus.program(program))
    whole = [name for name in names if not _LOCAL.search(name) and "$1?" not in name]
    assert len(whole) >= least
    ours = {name: compact(str(type_name(name))) for name in whole}
    assert ours == {name: compact(theirs) for name, theirs in zip(whole, by_llvm(whole))}


@pytest.mark.parametrize("program", ["cmake", "clang-format", "duckdb"])
def test_names_with_functions_in_them_have_those_of_llvm(program: str) -> None:
    names = [name for name in descriptors(corpus.program(program)) if _LOCAL.search(name) or "$1?" in name]
    assert len(names) > 20
    for name, theirs in zip(names, by_llvm(names)):
        ours = type_name(name)
        assert ours
        at, expected = 0, compact(theirs)
        for piece in re.split(r"[`'&<>,]", compact(ours)):  # in the same order
            at = expected.find(piece, at)
            assert at >= 0, (name, ours, theirs)


@pytest.mark.parametrize(("library", "least"), [(standard_library, 300), (llvm, 2700)])
def test_types_are_named_as_binutils_name_them(library: Callable[[], Path], least: int) -> None:
    names = [name for name in type_informations(library()) if not re.fullmatch("S[aosid]", name)]
    ours = {name: mangled.type_name(name) for name in names}
    told = {name: without_parameters(theirs) for name, theirs in zip(names, by_binutils(names, "-t"))}
    known = {name: without_parameters(text) for name, text in ours.items() if text}
    assert known == {name: told[name] for name in known}
    assert len(known) >= least
    assert len(known) > 0.95 * len(names)


@pytest.mark.parametrize(
    ("decorated", "name"),
    [
        ("4Lion", "Lion"),
        ("N3zoo4CageI4LionLi3EEE", "zoo::Cage<Lion,3>"),
        ("N12_GLOBAL__N_14LionE", "(anonymous namespace)::Lion"),
        ("St6vectorIiSaIiEE", "std::vector<int,std::allocator<int> >"),
        ("1fIPFiPKcS1_EE", "f<int (*)(char const *,char const *)>"),
        ("1fIJ1a1bEE", "f<a,b>"),
        ("NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", LONG_STRING),
        ("", None),
        ("4Lio", None),
        ("4Lionx", None),
        ("S_", None),
        ("N3zoo", None),
        ("99999999999Lion", None),
        ("P" * 1000 + "i", None),
        ("1f" + "I1f" * 1000, None),
        ("1fI" + "J" * 1000, None),
        ("1a" + "B1a" * 1000, None),
        ("Z4mainE4Lion", "main::Lion"),
        ("Z4mainE", None),
    ],
)
def test_a_mangled_name_is_read_or_refused(decorated: str, name: str | None) -> None:
    assert mangled.type_name(decorated) == name


@given(
    st.text(alphabet="?$@ABDHPVXZ0126<_E", max_size=60), st.sampled_from(["", "?$f@", "P6AX", "x@?1??f@@"])
)
def test_whatever_is_decorated_is_read_or_refused(rest: str, begin: str) -> None:
    name = type_name(f".?AV{begin}{rest}")
    assert name is None or name


@given(
    st.text(alphabet="1234NSIEPKFLJtsa_ivT", max_size=60), st.sampled_from(["", "1fI", "N1a", "PF", "St1v"])
)
def test_whatever_is_mangled_is_read_or_refused(rest: str, begin: str) -> None:
    name = mangled.type_name(begin + rest)
    assert name is None or name


@pytest.mark.parametrize(
    ("decorated", "name"),
    [
        (".?AVLion@@", "Lion"),
        (".?AUCage@zoo@@", "zoo::Cage"),
        (".?AV?$Cage@VLion@@$02@zoo@@", "zoo::Cage<Lion,3>"),
        (".?AV?$Cage@$$BY0A@D@@", "Cage<char []>"),
        (".?AV?$f@P6AHPEBD0@Z@@", "f<int (__cdecl *)(char const *,char const *)>"),
        (".?AV?$f@P8Lion@@EBAXXZ@@", "f<void (__cdecl Lion::*)(void) const>"),
        (".?AV?$f@V?$g@H@@@@", "f<g<int> >"),
        (".?AVLion@?A0x12345678@@", "`anonymous namespace'::Lion"),
        (".?AV<lambda_1>@?1??roar@Lion@@QEAAXH@Z@", "`Lion::roar'::`2'::<lambda_1>"),
        (".?AVDoor@?1???0Cage@@QEAA@XZ@", "`Cage::Cage'::`2'::Door"),
        (".?AVDoor@?L@???RCage@@QEAAHXZ@", "`Cage::operator()'::`11'::Door"),
        ("", None),
        ("Lion", None),
        (".?AV", None),
        (".?AVLion@", None),
        (".?AVLion@@@", None),
        (".?AV9@", None),
        (".?AV?$f@" + "PEA" * 1000 + "H@@", None),
        (".?AVx@" + "?1??" * 1000, None),
        (".?AV" + "?$f@V" * 1000, None),
    ],
)
def test_a_decorated_name_is_read_or_refused(decorated: str, name: str | None) -> None:
    assert type_name(decorated) == name


def nested(levels: int) -> str:
    """A function that takes nine of the function before: its name would have 9 ** levels parts."""
    types = "P6AHXZ"
    for level in range(levels):
        types += "P6AH" + str(level) * 9 + "@Z"
    return f".?AV?$f@P6AH{types}@Z@@"


def test_a_name_that_would_be_endless_is_refused() -> None:
    assert str(type_name(nested(2))).count("(void)") == 1 + 9 + 9 * 9
    assert type_name(nested(9)) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)), max_size=40))
@pytest.mark.parametrize("program", [lambda: corpus.program("ninja"), lambda: targets.build("virtuals_gcc")])
def test_damaged_type_information_gives_no_error(
    damage: list[tuple[int, bytes]], program: Callable[[], Path]
) -> None:
    image = from_file(program())
    begin = next(section.begin for section in image.sections if section.name == ".rdata")
    data = bytearray(image.data)
    for where, change in damage:
        at = begin + where % (len(data) - begin)
        data[at : at + len(change)] = change
    names = virtual_functions(dataclasses.replace(image, data=bytes(data[: len(image.data)])))
    assert all("::vfunc[" in name for name in names.values())


def test_a_vtable_ends_where_that_of_a_class_without_type_information_begins() -> None:
    """LLVM's own classes have none; their vtables follow directly on those of the library, which have it."""
    names = virtual_functions(from_file(corpus.program("clang-format")))
    assert set(names.values()) == {
        "std::exception::vfunc[0]",
        "std::exception::vfunc[1]",
        "type_info::vfunc[0]",
    }


@pytest.mark.parametrize(("program", "least"), [("cmake", 3000), ("duckdb", 7000), ("ninja", 50)])
def test_what_a_vtable_has_is_code_and_each_slot_has_one_function(program: str, least: int) -> None:
    image = from_file(corpus.program(program))
    names = virtual_functions(image)
    assert len(names) >= least
    assert all(any(begin <= rva < end for begin, end in image.executable) for rva in names)
    assert all(re.search(r"::vfunc\[\d+\]\Z", name) for name in names.values())
