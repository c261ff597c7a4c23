"""Parts of traces, as a user names them, and expressions of them.

A part is ``FILE``: all of a trace; ``FILE@MARK``: from a mark to the next; ``FILE@MARK..MARK``,
``FILE@MARK..`` or ``FILE@..MARK``: between marks, to the end, or from the beginning. Without a file, or with
``.`` for it, it is one of the live session's trace. Of several marks of one name the first is meant;
``MARK#2`` is the second. A number that is no such name is a mark that the program has set itself (see
program_marks): from that to the next of either kind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from calltrace.errors import UsageError
from calltrace.model import PAUSED, RESUMED
from calltrace.tracefile import TraceFile

_TOKEN = re.compile(r'[()]|(?<=\))[&|-]|(?:"[^"]*"|[^\s()"])+')
_SEVERAL = re.compile(r"(?:\A|\s)[&|-](?:\s|\Z)|[()]")  # in a word: it is more than one part
_MARKS = re.compile(r'@(?:"[^"]*"|[^\s()"])*')  # behind a file's name
_BEHIND_FILE = re.compile(r"[@\s()]|\Z")
_NUMBERED = re.compile(r"(.+)#([1-9]\d*)\Z", re.DOTALL)
_LIVE = ("", ".")
_LONGEST_FILE = 4096  # characters of a path
_MOST = 26  # parts, which are told apart by a letter each

_Set = set[Hashable]
_Result = Callable[[Sequence[_Set]], _Set]
_OPERATORS: dict[str, Callable[[_Set, _Set], _Set]] = {
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "-": lambda a, b: a - b,
}


@dataclass(frozen=True)
class Part:
    """A part of a trace."""

    text: str  # as its user wrote it
    file: Path | None  # none: the live session's trace
    marks: str | None  # what is behind the @; none: all of it

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part written so. A file of that name comes first."""
        if "@" not in text or os.path.isfile(text):
            return cls(text, None if text in _LIVE else Path(text), None)
        splits = [(text[:at], text[at + 1 :]) for at, each in enumerate(text) if each == "@"]
        file, marks = next((split for split in splits if _exists(split[0])), splits[0])
        return cls(text, None if file in _LIVE else Path(file), marks.strip())

    def bounds(self, trace: TraceFile) -> list[str]:
        """The names of the marks behind the @."""
        first, _, last = _split(trace, self.marks or "")
        return [name for name in (first.strip(), last.strip()) if name]

    def stretches(self, trace: TraceFile) -> range:
        """Which stretches of its trace it is: 0 before the first mark, 1 behind that, and so on.

        UsageError if there is no such mark, or if the second comes before the first.
        """
        count = len(trace.marks) + 1
        if self.marks is None:
            return range(count)
        first, dots, last = (word.strip() for word in _split(trace, self.marks))
        begin = _number(trace, first) if first else 0
        if dots:
            end = _number(trace, last) if last else count
        else:
            also_program = begin and trace.marks[begin - 1].by_program
            later = (
                at
                for at, mark in enumerate(trace.marks, 1)
                if mark.name not in (PAUSED, RESUMED) and (also_program or not mark.by_program)
            )
            end = next((at for at in later if at > begin), count)
        if not first and not dots:
            raise UsageError(f"{self.text}: name a mark behind @")
        if end <= begin:
            raise UsageError(f"{self.text}: {last} does not come after {first}")
        return range(begin, end)


def _exists(file: str) -> bool:
    return file in _LIVE or os.path.isfile(file)


def _split(trace: TraceFile, marks: str) -> tuple[str, str, str]:
    """The first mark, dots, and the last; dots within the name of a mark that there is separate nothing."""
    splits = [(marks, "", "")]
    splits += [
        (marks[: dots.start()], "..", marks[dots.end() + 2 :]) for dots in re.finditer(r"(?=\.\.)", marks)
    ]

    def is_known(name: str) -> bool:
        return not name.strip() or number_of(trace, name.strip()) is not None

    known = (split for split in splits if marks and is_known(split[0]) and is_known(split[2]))
    return next(known, splits[1] if len(splits) > 1 else splits[0])


def number_of(trace: TraceFile, name: str) -> int | None:
    """The number of the mark that is meant, from 1 on; None if there is no such mark."""
    numbered = _NUMBERED.match(name)
    for wanted, which in ((name, 1), (numbered[1], int(numbered[2])) if numbered else (name, 1)):
        found = [number for number, mark in enumerate(trace.marks, 1) if mark.name == wanted]
        if len(found) >= which:
            return found[which - 1]
    return None


def _number(trace: TraceFile, name: str) -> int:
    """The number of the mark that is meant, from 1 on."""
    number = number_of(trace, name)
    if number is not None:
        return number
    names = list(dict.fromkeys(mark.name for mark in trace.marks))
    told = f"its marks are {', '.join(names)}" if names else "it has none"
    raise UsageError(f"{trace.path} has no mark {name}: {told}")


@dataclass(frozen=True)
class Expression:
    """Sets of what ran in parts, put together: ``A & B - C``, from left to right, with parentheses."""

    parts: Sequence[Part]  # in the order in which they are named
    result: _Result  # of one set for each part


def parse(words: Sequence[str]) -> tuple[Part, Part] | Expression:
    """Two parts to be compared, if there is nothing between them; else an expression.

    A word that names a file is a part, whatever is in it; within a word with several, quotes keep blanks in
    a part. UsageError if it makes no sense.
    """
    tokens = [token for word in words for token in _tokens(word)]
    parts = [token for token in tokens if isinstance(token, Part)]
    if len(parts) > _MOST or tokens.count("(") > _MOST:
        raise UsageError(f"name {_MOST} parts at most, and as many parentheses")
    if len(tokens) == len(parts) == 2:
        return parts[0], parts[1]
    reader = _Reader(tokens)
    result = reader.expression()
    if reader.left():
        raise UsageError(f"{reader.left()}: write & (in both), | (in either) or - (but not in) between parts")
    return Expression(reader.parts, result)


def _tokens(word: str) -> Iterator[str | Part]:
    if word in _OPERATORS:
        yield word
        return
    if not _SEVERAL.search(word, _file_end(word, 0)):
        yield Part.parse(word)
        return
    at = 0
    while at < len(word):
        behind = _file_end(word, at)
        found = _MARKS.match(word, behind) if behind > at else _TOKEN.match(word, at)
        end = found.end() if found else max(behind, at + 1)
        token = word[at:behind] + word[behind:end].replace('"', "")
        at = end
        if token in _OPERATORS or token in ("(", ")"):
            yield token
        elif not token.isspace():
            yield Part.parse(token)


def _file_end(word: str, at: int) -> int:
    """Where the longest name of a file ends that begins at `at`, whatever is in it; `at` if none does."""
    if word[at : at + 1] in ("", "(", ")", " "):
        return at
    ends = [found.start() for found in _BEHIND_FILE.finditer(word, at, at + _LONGEST_FILE)]
    return next((end for end in reversed(ends) if os.path.isfile(word[at:end])), at)


def _joined(operator: str, a: _Result, b: _Result) -> _Result:
    return lambda sets: _OPERATORS[operator](a(sets), b(sets))


class _Reader:
    """Reads an expression from its tokens."""

    def __init__(self, tokens: Sequence[str | Part]) -> None:
        self.parts: list[Part] = []
        self._tokens = list(tokens)

    def left(self) -> str:
        """What was not read."""
        return " ".join(token if isinstance(token, str) else token.text for token in self._tokens)

    def expression(self) -> _Result:
        result = self._term()
        while self._tokens and self._tokens[0] in _OPERATORS:
            result = _joined(str(self._tokens.pop(0)), result, self._term())
        return result

    def _term(self) -> _Result:
        token = self._tokens.pop(0) if self._tokens else None
        if isinstance(token, Part):
            self.parts.append(token)
            at = len(self.parts) - 1
            return lambda sets: sets[at]
        if token == "(":
            result = self.expression()
            if not self._tokens or self._tokens.pop(0) != ")":
                raise UsageError("a parenthesis is not closed")
            return result
        raise UsageError(f"name a trace, or a part of one as FILE@MARK, instead of {token or 'nothing'}")
