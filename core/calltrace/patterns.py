"""Patterns by which a user names functions: ``module!function`` with ``*``, a VA, or ``module+0xRVA``.

A module is named regardless of case and with or without its extension. ``*`` stands for any run of
characters; nothing else is special, since ``?`` begins the decorated names of C++. The first ``!`` ends the
module's name, unless it belongs to that of a C++ function: ``Cage<Lion>::operator!=``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from calltrace.errors import UsageError
from calltrace.model import module_stem

# Debuggers write long addresses as 00007ff6`12345678.
_NUMBER = re.compile(r"0x[0-9a-f]+(?:`[0-9a-f]+)?\Z", re.IGNORECASE)
# What no module's name has in it, and is in front of the ! of the operators ! and !=.
_CPP_NAME = re.compile(r'[:<>"]|\Aoperator\Z')
_RVA = re.compile(r"(?P<module>[^!]+)\+(?P<rva>0x.*)$", re.IGNORECASE)


@dataclass(frozen=True)
class Pattern:
    """One pattern: `va`, `rva` or `function` says which functions are meant; none: all of the module."""

    text: str
    module: re.Pattern[str] | None = None  # none: any module
    function: re.Pattern[str] | None = None
    rva: int | None = None
    va: int | None = None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern written as `text`; without ``!`` it is the function's name alone.

        Raises UsageError if it is empty or its number is none.
        """
        text = text.strip()
        if not text:
            raise UsageError("empty pattern: write module!function, module+0xRVA or 0xVA")
        if text.lower().startswith("0x") and "!" not in text:
            return cls(text, va=_number(text, text))
        by_rva = _RVA.match(text)
        if by_rva:
            return cls(
                text, module=_wildcards(by_rva["module"], re.IGNORECASE), rva=_number(by_rva["rva"], text)
            )
        module, bang, function = text.partition("!")
        if not bang or _CPP_NAME.search(module):
            return cls(text, function=_wildcards(text))
        if not module or not function:
            raise UsageError(f"pattern {text}: write module!function, with * for any module or function")
        return cls(text, _wildcards(module, re.IGNORECASE), None if function == "*" else _wildcards(function))

    def matches(
        self, module_name: str, function_name: str | None, rva: int, base: int, size: int = 1
    ) -> bool:
        """Is the function at `rva`, `size` bytes there, of the module at VA `base` meant?

        One without a name only by ``*``; by an address also if that is in its middle.
        """
        if self.va is not None:
            return 0 <= self.va - base - rva < max(size, 1)
        if self.rva is not None and not 0 <= self.rva - rva < max(size, 1):
            return False
        if self.module is not None and not self.matches_module(module_name):
            return False
        if self.function is None:
            return True
        return function_name is not None and self.function.match(function_name) is not None

    def matches_module(self, module_name: str) -> bool:
        """Can functions of this module be meant?"""
        if self.module is None:
            return True
        return bool(self.module.match(module_name) or self.module.match(module_stem(module_name)))


def matches_any(
    patterns: Iterable[Pattern],
    module_name: str,
    function_name: str | None,
    rva: int,
    base: int,
    size: int = 1,
) -> bool:
    """Does one of the patterns mean this function?"""
    return any(pattern.matches(module_name, function_name, rva, base, size) for pattern in patterns)


def reaches(functions: Sequence[tuple[int, int]]) -> list[int]:
    """Bytes from the start of each function, of which `functions` has RVA and size, that are surely its own.

    The size is that of all its parts, some of which may lie elsewhere; RVAs ascend.
    """
    starts = [rva for rva, _ in functions]
    return [min(size, after - rva) for (rva, size), after in zip(functions, [*starts[1:], 1 << 32])]


def module_matches(text: str, module_name: str) -> bool:
    """Does `text`, a module's name with ``*``, mean this module?"""
    named = _wildcards(text.strip(), re.IGNORECASE)
    return bool(named.match(module_name) or named.match(module_stem(module_name)))


def _wildcards(text: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))) + r"\Z", flags | re.DOTALL)


def _number(text: str, pattern: str) -> int:
    if not _NUMBER.match(text):
        raise UsageError(f"pattern {pattern}: {text} is no hexadecimal number")
    return int(text.replace("`", ""), 16)
