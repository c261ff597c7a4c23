"""The names of functions as Rust's compiler mangles them, before and since version 0 of its own scheme.

What comes out is what rustc says of them: ``<Vec<u8> as Write>::write``; crates without what tells their
versions apart. Formats: "Rust Symbol Name Mangling v0" (RFC 2603); before, names with lengths as in the
Itanium C++ ABI, a hash, and escapes with ``$`` (rustc's legacy mangling).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from calltrace.pe.cpp import Reader, UnknownError, limited

_LEGACY = re.compile(r"_ZN(.+)17h[0-9a-f]{16}E(?:\..*)?", re.DOTALL)
_ESCAPES = {
    "SP": "@",
    "BP": "*",
    "RF": "&",
    "LT": "<",
    "GT": ">",
    "LP": "(",
    "RP": ")",
    "C": ",",
}
_ESCAPED = re.compile(r"\$(?:([A-Z]+)|u([0-9a-f]{1,6}))\$|(\.\.)")
_LENGTH = re.compile(r"[1-9]\d{0,4}|0")
_BASIC = {
    "a": "i8",
    "b": "bool",
    "c": "char",
    "d": "f64",
    "e": "str",
    "f": "f32",
    "h": "u8",
    "i": "isize",
    "j": "usize",
    "l": "i32",
    "m": "u32",
    "n": "i128",
    "o": "u128",
    "p": "_",
    "s": "i16",
    "t": "u16",
    "u": "()",
    "v": "...",
    "x": "i64",
    "y": "u64",
    "z": "!",
}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CONSTANT = re.compile(r"(n?)([0-9a-f]*)_")
_MOST_REFERENCES = 1 << 12
_SPECIAL = {"C": "closure", "S": "shim"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def function_name(mangled: str) -> str | None:
    """The name of a function; None if it is none, or of a kind that is not known."""
    try:
        if mangled.startswith("_R"):
            return _Reader(mangled[2:].partition(".")[0]).function()
        legacy = _LEGACY.fullmatch(mangled)
        return _legacy_name(legacy[1]) if legacy else None
    except UnknownError:
        return None


def _legacy_name(text: str) -> str:
    pieces: list[str] = []
    while text:
        length = _LENGTH.match(text)
        if not length:
            raise UnknownError
        begin = length.end()
        end = begin + int(length[0])
        if begin == end or end > len(text):
            raise UnknownError
        piece, text = text[begin:end], text[end:]
        pieces.append(_ESCAPED.sub(_unescaped, piece[1:] if piece.startswith("_$") else piece))
    return limited("::".join(pieces))


def _unescaped(found: re.Match[str]) -> str:
    if found[3]:
        return "::"
    if found[1]:
        return _ESCAPES.get(found[1], found[0])
    code = int(found[2], 16)
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else found[0]


class _Reader(Reader):
    """Version 0. Positions that others refer back to count from behind the ``_R``."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._lifetimes = 0  # bound by what encloses what is read
        self._followed = 0  # references to earlier positions, each of which can hold more

    def function(self) -> str | None:
        """A whole name; behind it may be the crate that wanted the function."""
        name = self.path(in_value=True)
        if not self.ended():
            self.path()
        return name if self.ended() else None

    def path(self, *, in_value: bool = False) -> str:
        """A path; in a value its generic arguments come behind ``::``."""
        with self._nested():
            return limited(self._path(self._next(), in_value)[0])

    def _path(self, tag: str, in_value: bool, open_ended: bool = False) -> tuple[str, bool]:
        """A path, and whether its generic arguments are to be closed by the caller."""
        if tag == "C":
            self._disambiguator()
            return self._identifier(), False
        if tag in "MX":
            self._disambiguator()
            self.path()
            return self._implementation(tag == "X"), False
        if tag == "Y":
            return self._implementation(True), False
        if tag == "N":
            return self._inner(in_value), False
        if tag == "I":
            base = self.path(in_value=in_value)
            arguments = []
            while not self._take("E"):
                arguments.append(self._argument())
            text = f"{base}{'::' if in_value else ''}<{', '.join(arguments)}"
            return (text, True) if open_ended else (f"{text}>", False)
        if tag == "B":
            with self._referred():
                return self._path(self._next(), in_value, open_ended)
        raise UnknownError

    def _implementation(self, of_trait: bool) -> str:
        kind = self.kind()
        return f"<{kind} as {self.path()}>" if of_trait else f"<{kind}>"

    def _inner(self, in_value: bool) -> str:
        space = self._next()
        if not space.isalpha():
            raise UnknownError
        outer = self.path(in_value=in_value)
        number = self._disambiguator()
        name = self._identifier()
        if space.isupper():
            what = _SPECIAL.get(space, space)
            return f"{outer}::{{{what}{f':{name}' if name else ''}#{number}}}"
        return f"{outer}::{name}" if name else outer

    def kind(self) -> str:
        """A type."""
        with self._nested():
            return limited(self._kind(self._next()))

    def _kind(self, tag: str) -> str:
        if tag in _BASIC:
            return _BASIC[tag]
        if tag in "RQ":
            lifetime = self._lifetime()
            return f"&{lifetime + ' ' if lifetime else ''}{'mut ' if tag == 'Q' else ''}{self.kind()}"
        if tag in "PO":
            return f"*{'const' if tag == 'P' else 'mut'} {self.kind()}"
        if tag == "A":
            of = self.kind()
            return f"[{of}; {self._constant()}]"
        if tag == "S":
            return f"[{self.kind()}]"
        if tag == "T":
            kinds = list(self._until_end())
            return f"({', '.join(kinds)}{',' if len(kinds) == 1 else ''})"
        if tag == "F":
            with self._bound() as bound:
                return bound + self._signature()
        if tag == "D":
            with self._bound() as bound:
                traits = f"dyn {bound}{' + '.join(self._traits())}"
            lifetime = self._lifetime()
            return f"{traits} + {lifetime}" if lifetime else traits
        if tag == "B":
            with self._referred():
                return self.kind()
        return self._path(tag, in_value=False)[0]

    def _until_end(self) -> Iterator[str]:
        while not self._take("E"):
            yield self.kind()

    def _signature(self) -> str:
        before = "unsafe " if self._take("U") else ""
        if self._take("K"):
            abi = "C" if self._take("C") else self._identifier().replace("_", "-")
            before += f'extern "{abi}" '
        parameters = ", ".join(self._until_end())
        result = self.kind()
        return f"{before}fn({parameters}){'' if result == '()' else f' -> {result}'}"

    def _traits(self) -> Iterator[str]:
        while not self._take("E"):
            with self._nested():
                trait, is_open = self._path(self._next(), in_value=False, open_ended=True)
            while self._take("p"):
                name = self._identifier()
                trait += f"{', ' if is_open else '<'}{name} = {self.kind()}"
                is_open = True
            yield limited(f"{trait}>" if is_open else trait)

    def _argument(self) -> str:
        if self._peek() == "L":
            return self._lifetime() or "'_"
        return self._constant() if self._take("K") else self.kind()

    def _constant(self) -> str:
        with self._nested():
            tag = self._next()
            if tag == "B":
                with self._referred():
                    return self._constant()
            if tag == "p":
                return "_"
            sign, digits = self._matched(_CONSTANT).groups()
            value = int(digits or "0", 16)
            if tag == "b" and value < 2:
                return ("false", "true")[value]
            if tag == "c" and value < 0x110000:
                return repr(chr(value))
            if tag not in "ahilmnosxyjt":
                raise UnknownError
            return f"{'-' if sign else ''}{value}"

    def _lifetime(self) -> str:
        """A lifetime, if one is stated and bound within the name."""
        if not self._take("L"):
            return ""
        number = self._number()
        return self._letter(self._lifetimes - number) if number else ""

    def _letter(self, depth: int) -> str:
        if depth < 0:
            raise UnknownError
        return f"'{_LETTERS[depth]}" if depth < len(_LETTERS) else f"'_{depth}"

    @contextmanager
    def _bound(self) -> Iterator[str]:
        """Lifetimes that are bound here, and their introduction."""
        count = self._number() + 1 if self._take("G") else 0
        if count > len(self._text):
            raise UnknownError
        first = self._lifetimes
        self._lifetimes += count
        names = ", ".join(self._letter(first + at) for at in range(count))
        yield f"for<{names}> " if count else ""
        self._lifetimes = first

    @contextmanager
    def _referred(self) -> Iterator[None]:
        """Read on at an earlier position for a while."""
        here = self._at - 1
        place = self._number()
        back, self._at = self._at, place
        self._followed += 1
        if place >= here or self._followed > _MOST_REFERENCES:
            raise UnknownError
        with self._nested():
            yield
        self._at = back

    def _disambiguator(self) -> int:
        return self._number() + 1 if self._take("s") else 0

    def _number(self) -> int:
        """A number with the base 62."""
        value = 0
        if self._take("_"):
            return 0
        while not self._take("_"):
            digit = _DIGITS.find(self._next())
            if digit < 0 or value >> 64:
                raise UnknownError
            value = 62 * value + digit
        return value + 1

    def _identifier(self) -> str:
        encoded = self._take("u")
        length = int(self._matched(_LENGTH)[0])
        self._take("_")
        name = self._text[self._at : self._at + length]
        if len(name) < length:
            raise UnknownError
        self._at += length
        if not encoded:
            return name
        plain, _, rest = name.rpartition("_")
        try:
            return f"{plain}{'-' if plain else ''}{rest}".encode().decode("punycode")
        except UnicodeError:
            raise UnknownError from None
