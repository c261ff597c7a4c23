"""The names of C++ types as gcc and clang mangle them: ``N3zoo4CageI4LionEE``.

What comes out is what a debugger shows: ``zoo::Cage<Lion>``. Format: the Itanium C++ ABI, 5.1, "External
Names".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from calltrace.pe.cpp import Reader, Type, UnknownError, limited, template

_BUILTIN = {
    "v": "void",
    "w": "wchar_t",
    "b": "bool",
    "c": "char",
    "a": "signed char",
    "h": "unsigned char",
    "s": "short",
    "t": "unsigned short",
    "i": "int",
    "j": "unsigned int",
    "l": "long",
    "m": "unsigned long",
    "x": "long long",
    "y": "unsigned long long",
    "n": "__int128",
    "o": "unsigned __int128",
    "f": "float",
    "d": "double",
    "e": "long double",
    "g": "__float128",
    "z": "...",
    "Di": "char32_t",
    "Ds": "char16_t",
    "Du": "char8_t",
    "Dn": "decltype(nullptr)",
}
_LIBRARY = {
    "Sa": "std::allocator",
    "Sb": "std::basic_string",
    "Ss": "std::string",
    "Si": "std::istream",
    "So": "std::ostream",
    "Sd": "std::iostream",
}
_QUALIFIERS = {"r": " restrict", "V": " volatile", "K": " const"}
_POINTERS = {"P": "*", "R": "&", "O": "&&"}
_SUFFIXES = {"i": "", "j": "u", "l": "l", "m": "ul", "x": "ll", "y": "ull"}  # of numbers
_ANONYMOUS = re.compile(r"_GLOBAL_[._$]N")
_LENGTH = re.compile(r"\d{1,5}")
_SIZE = re.compile(r"(\d*)_")
_SEQUENCE = re.compile(r"S([0-9A-Z]*)_")
_VALUE = re.compile(r"(n?\d+)E")


def type_name(mangled: str) -> str | None:
    """What a type's mangled name says; None if it is none or of a kind that is not known here."""
    return _Reader(mangled).whole()


class _Reader(Reader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._known: list[Type] = []  # what S_, S0_, S1_ ... stand for

    def type(self) -> Type:
        """One type."""
        with self._nested():
            for code, name in _BUILTIN.items():
                if self._take(code):
                    return Type(name)
            return self._compound() or self._named()

    def _compound(self) -> Type | None:
        """A type made of others."""
        for code, mark in _POINTERS.items():
            if self._take(code):
                return self._keep(self.type().pointed_to(mark))
        qualifiers = ""
        while self._peek() in _QUALIFIERS:
            qualifiers = _QUALIFIERS[self._next()] + qualifiers
        if qualifiers:
            return self._keep(self.type().qualified(qualifiers))
        if self._take("F"):
            self._take("Y")
            result = self.type()
            return self._keep(Type(result.before, f"({self._parameters()}){result.behind}", ""))
        if self._take("A"):
            size = self._matched(_SIZE)[1]
            of = self.type()
            return self._keep(Type(of.before, f"[{size}]{of.behind}", ""))
        return None

    def _parameters(self) -> str:
        found = []
        while not self._take("E"):
            found.append(self.type().text)
        return "" if found == ["void"] else ",".join(found)

    def _named(self) -> Type:
        if self._take("N"):
            return self._nested_name()
        if self._take("St"):
            name = self._keep(Type(f"std::{self._source()}"))
        elif self._peek() == "S":
            name = self._substitution()
        else:
            name = self._keep(Type(self._source()))
        return self._keep(self._arguments(name)) if self._take("I") else name

    def _nested_name(self) -> Type:
        name = Type("")
        while not self._take("E"):
            if self._take("St"):
                name = Type("std")
            elif self._peek() == "S":
                name = self._substitution()
            elif self._take("I"):
                name = self._keep(self._arguments(name))
            else:
                inner = self._source()
                name = self._keep(Type(f"{name.text}::{inner}" if name.before else inner))
        return name

    def _source(self) -> str:
        """A name with its length in front."""
        length = int(self._matched(_LENGTH)[0])
        name = self._text[self._at : self._at + length]
        if not length or len(name) < length:
            raise UnknownError
        self._at += length
        if self._take("B"):  # what tells apart two versions of the same
            with self._nested():
                name += f"[abi:{self._source()}]"
        return "(anonymous namespace)" if _ANONYMOUS.match(name) else name

    def _substitution(self) -> Type:
        for code, name in _LIBRARY.items():
            if self._take(code):
                return Type(name)
        digits = self._matched(_SEQUENCE)[1]
        number = int(digits, 36) + 1 if digits else 0
        if number >= len(self._known):
            raise UnknownError
        return self._known[number]

    def _arguments(self, of: Type) -> Type:
        return Type(template(of.text, list(self._until_end())))

    def _until_end(self) -> Iterator[str]:
        while not self._take("E"):
            if self._take("J"):  # several in place of one
                with self._nested():
                    yield from self._until_end()
            elif self._peek() == "L":
                yield self._literal()
            else:
                yield self.type().text

    def _literal(self) -> str:
        self._expect("L")
        code = self._peek()
        kind = self.type().text
        value = self._matched(_VALUE)[1].replace("n", "-")
        if code == "b":
            return "true" if value == "1" else "false"
        return value + _SUFFIXES[code] if code in _SUFFIXES else f"({kind}){value}"

    def _keep(self, name: Type) -> Type:
        limited(name.text)
        self._known.append(name)
        return name
