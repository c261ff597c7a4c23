"""What reading the two kinds of decorated names of C++ types has in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

_DEPTH = 64
_LONGEST = 1 << 16


class UnknownError(Exception):
    """A name is none, or of a kind that is not known here."""


class Type(NamedTuple):
    """A type as what comes before and behind the name of what has it."""

    before: str
    behind: str = ""
    convention: str | None = None  # of a function; "" for an array, and where there is but one

    @property
    def text(self) -> str:
        """The type by itself."""
        if self.convention is None:
            return self.before + self.behind
        return f"{self.before} {self.convention}{self.behind}"

    def qualified(self, qualifiers: str) -> Type:
        """The same with const and the like."""
        return self._replace(before=self.before + qualifiers)

    def pointed_to(self, mark: str) -> Type:
        """A pointer to it, or a reference."""
        if self.convention is None:
            return Type(f"{self.before} {mark}", self.behind)
        convention = f"{self.convention} " if self.convention else ""
        return Type(f"{self.before} ({convention}{mark}", f"){self.behind}")


def limited(text: str) -> str:
    """The text, if it is not too long: one character can stand for much, and there can be many."""
    if len(text) > _LONGEST:
        raise UnknownError
    return text


def template(name: str, arguments: list[str]) -> str:
    """A template with its arguments."""
    inside = ",".join(arguments)
    return limited(f"{name}<{inside}{' ' if inside.endswith('>') else ''}>")


class Reader:
    """Reads a name from its begin to its end. Every method raises UnknownError for what it does not find."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._depth = 0

    def type(self) -> Type:
        """One type."""
        raise NotImplementedError

    def whole(self) -> str | None:
        """The type that the text is; None if it is none, or of a kind that is not known here."""
        try:
            name = self.type().text
            return name if self.ended() else None
        except UnknownError:
            return None

    def ended(self) -> bool:
        """Whether all is read."""
        return self._at == len(self._text)

    @contextmanager
    def _nested(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > _DEPTH:
            raise UnknownError
        yield
        self._depth -= 1

    def _peek(self) -> str:
        if self.ended():
            raise UnknownError
        return self._text[self._at]

    def _next(self) -> str:
        found = self._peek()
        self._at += 1
        return found

    def _take(self, wanted: str) -> bool:
        if not self._text.startswith(wanted, self._at):
            return False
        self._at += len(wanted)
        return True

    def _expect(self, wanted: str) -> None:
        if not self._take(wanted):
            raise UnknownError

    def _one_of(self, codes: dict[str, str]) -> str:
        for code, meaning in codes.items():
            if self._take(code):
                return meaning
        raise UnknownError

    def _matched(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if not found:
            raise UnknownError
        self._at = found.end()
        return found
