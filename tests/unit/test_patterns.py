"""Patterns mean the functions that a user would expect."""

from __future__ import annotations

import pytest

from calltrace.errors import UsageError
from calltrace.patterns import Pattern, matches_any, module_matches, reaches

BASE = 0x7FF612340000


@pytest.mark.parametrize(
    ("text", "module", "function", "meant"),
    [
        ("demo!main", "demo.exe", "main", True),
        ("DEMO!main", "Demo.exe", "main", True),
        ("demo.exe!main", "demo.exe", "main", True),
        ("demo!Main", "demo.exe", "main", False),
        ("demo!main", "demo2.exe", "main", False),
        ("demo!main", "demo.exe", "mainly", False),
        ("demo!main*", "demo.exe", "mainly", True),
        ("demo!*", "demo.exe", None, True),
        ("demo!*x", "demo.exe", None, False),
        ("*!main", "any.dll", "main", True),
        ("lib*!f", "libc++.dll", "f", True),
        ("lib*!f", "glib.dll", "f", False),
        ("foo.bar!f", "foo.bar.dll", "f", True),
        ("foo!f", "foo.bar.dll", "f", False),
        ("main", "any.dll", "main", True),
        ("ma*n", "any.dll", "mainn", True),
        ("m!?f@@YAXXZ", "m.exe", "?f@@YAXXZ", True),
        ("m!?f@@YAXXZ", "m.exe", "xf@@YAXXZ", False),
        ("m!a.b[c]", "m.exe", "a.b[c]", True),
        ("m!a.b", "m.exe", "axb", False),
        ("m!operator!", "m.exe", "operator!", True),
        ("m!a*b", "m.exe", "a\nb", True),
        ("m!operator!=", "m.exe", "operator!=", True),
        ("operator!=", "m.exe", "operator!=", True),
        ("operator!", "m.exe", "operator!", True),
        ("zoo::Lion::operator!=", "m.exe", "zoo::Lion::operator!=", True),
        ("zoo::*!=", "m.exe", "zoo::operator!=", True),
        ("m!zoo::operator!=", "m.exe", "zoo::operator!=", True),
        ("Cage<*>!=", "m.exe", "Cage<Lion>!=", True),
        ("zoo::Cage<zoo::Lion *>::feed", "m.exe", "zoo::Cage<zoo::Lion *>::feed", True),
        ("`anonymous namespace'::*", "m.exe", "`anonymous namespace'::bottom", True),
        ("operators!f", "m.exe", "f", False),
        ("operators!f", "operators.dll", "f", True),
    ],
)
def test_names_and_stars(text: str, module: str, function: str | None, meant: bool) -> None:
    assert Pattern.parse(text).matches(module, function, 0x1000, BASE) is meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0x7ff612341000", True),
        ("0x00007ff6`12341000", True),
        ("0X7FF612341000", True),
        ("0x7ff612341001", False),
        ("demo+0x1000", True),
        ("DEMO.EXE+0x1000", True),
        ("demo+0x1001", False),
        ("other+0x1000", False),
        ("de*+0x1000", True),
    ],
)
def test_addresses(text: str, meant: bool) -> None:
    assert Pattern.parse(text).matches("demo.exe", "main", 0x1000, BASE) is meant


@pytest.mark.parametrize("text", ["", "  ", "!", "demo!", "!main", "0x", "0xzz", "demo+0x", "demo+0x12q"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Pattern.parse(text)


def test_one_of_several_is_enough() -> None:
    patterns = [Pattern.parse("a!x"), Pattern.parse("b!y")]
    assert matches_any(patterns, "b.dll", "y", 0, 0)
    assert not matches_any(patterns, "b.dll", "x", 0, 0)
    assert not matches_any([], "b.dll", "x", 0, 0)


@pytest.mark.parametrize(
    ("text", "meant"), [("zlib1", True), ("ZLIB1.DLL", True), ("zlib*", True), ("zlib", False), ("*", True)]
)
def test_module_patterns(text: str, meant: bool) -> None:
    assert module_matches(text, "zlib1.dll") is meant


def test_an_address_means_the_function_that_it_is_in() -> None:
    # The first has 0x20 bytes of its 0x50 elsewhere; between the other two lie 0x10 of nobody.
    functions = [(0x1000, 0x50), (0x1030, 0x20), (0x1060, 0x10)]
    sizes = reaches(functions)

    def meant(text: str) -> list[int]:
        pattern = [Pattern.parse(text)]
        return [
            rva
            for (rva, _), size in zip(functions, sizes)
            if matches_any(pattern, "demo.exe", None, rva, BASE, size)
        ]

    for rva, expected in [
        (0xFFF, []),
        (0x1000, [0x1000]),
        (0x102F, [0x1000]),
        (0x1030, [0x1030]),
        (0x104F, [0x1030]),
        (0x1050, []),
        (0x106F, [0x1060]),
        (0x1070, []),
    ]:
        assert meant(f"{BASE + rva:#x}") == expected
        assert meant(f"demo+{rva:#x}") == expected
