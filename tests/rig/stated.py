"""What a target's source states about itself: what it prints, how it ends, and its call tree.

The statement stands in the comment at the top of tests/targets/NAME.c, .cpp or .S, behind its prose::

    /* Sorts three numbers.
     *
     * exit: 3
     * output:
     *     1 2 3
     * tree:
     *     main
     *         [qsort]
     *             compare  x+
     *         descend  x1000 deep
     *             bottom
     *         even  tail
     *         odd
     */

The sections, each optional:

``tree:``        the tree of the thread that runs main
``thread:``      that of one further thread; ``thread x4:`` of four alike; threads in any order
``exit:``        the low 8 bits of the exit code; without it 0
``output:``      the standard output, line by line; without it only the untraced run says what is printed
``arguments:``   words passed to the program; TARGET(name) becomes the Windows path of another target, built
``modules:``     other targets that are traced too, and whose functions the trees name
``exclude:``     patterns of functions that are left out
``not traced:``  functions of the source that cannot be instrumented, comma-separated; why comes behind ``--``
``stripped: yes``  the program runs without its symbol table: discovery gets no help from it

A line of a tree is a function of the target's own source, indented below its caller, by its name as gcc has
it (C++: demangled, without parameters). Functions of the C and C++ runtime are left out. Behind the name,
each two spaces apart:

``x3``        so often in a row, with all that is below
``x+``        once or more in a row; nothing is below
``x9 deep``   a recursion of nine levels; what is below is in the innermost
``tail``, ``unwound``, ...  its end if it did not return, in the words of `calltrace tree`

A line ``x500`` repeats what is below it, and is no frame itself. A frame ``NAME (goes on)`` is no new call,
but one that its thread comes back to from another fiber. ``[name]`` is a call of an imported function and
``[*]`` one through a register or memory. With ``--events functions`` these lines are absent, and what is
below them moves up. An import that no line names need not be stated as long as none of the target's
functions runs below its call; indirect calls need not be unless one is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from calltrace.model import Cause

_SECTION = re.compile(r"(tree|thread|exit|output|arguments|modules|exclude|not traced|stripped)( x\d+)?:(.*)")
_TIMES = re.compile(r"x(\d+)( deep)?\Z")
_NAME = re.compile(r"\[.+\]\Z|(?!x\+)[\w~(?]")
_ENDS = {Cause(cause).text for cause in Cause} - {""}


class Line(NamedTuple):
    """One frame of a call tree."""

    depth: int
    name: str
    end: str = ""  # nothing: by returning
    many: bool = False  # once or more in a row; of stated lines only


@dataclass
class Statement:
    """What must come out of a run."""

    exit_code: int = 0
    output: str | None = None
    arguments: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    not_traced: set[str] = field(default_factory=set)
    stripped: bool = False
    threads: list[list[Line]] = field(default_factory=list)

    def calls(self) -> set[str]:
        """The calls that the trees name: "[name]" or "[*]"."""
        return {line.name for lines in self.threads for line in set(lines) if line.name[0] == "["}


def read(source: Path) -> Statement | None:
    """The statement in a target's source; None if it has none. ValueError names a senseless line."""
    comment = re.match(r"(?://[^\n]*\n)?/\*(.*?)\*/", source.read_text(encoding="utf-8"), re.DOTALL)
    return parse(comment[1]) if comment else None


def parse(comment: str) -> Statement | None:
    """The statement in the text of a comment."""
    sections: list[tuple[str, str, list[str]]] = []
    for raw in comment.splitlines():
        text = raw.strip().removeprefix("*").removeprefix(" ").rstrip()
        found = _SECTION.fullmatch(text)
        if found:
            sections.append((found[1], found[2] or "", [found[3].strip()] if found[3].strip() else []))
        elif sections and text:
            if text[0] != " ":
                raise ValueError(f"prose behind the first section: {text}")
            sections[-1][2].append(text)
    if not any(name in ("tree", "output") for name, _, _ in sections):
        return None
    made = Statement()
    for name, times, lines in sections:
        _add(made, name, int(times[2:] or 1), lines)
    return made


def _add(made: Statement, name: str, times: int, lines: list[str]) -> None:
    words = " ".join(lines).split()
    if name in ("tree", "thread"):
        made.threads += [tree(lines)] * times
    elif name == "exit":
        made.exit_code = int(words[0])
    elif name == "output":
        made.output = "".join(line.removeprefix("    ") + "\n" for line in lines)
    elif name == "not traced":
        listed = " ".join(lines).partition("--")[0]
        made.not_traced = {each.strip() for each in listed.split(",")}
    elif name == "stripped":
        made.stripped = words == ["yes"]
    else:
        getattr(made, name).extend(words)


class _Node(NamedTuple):
    name: str  # empty: only repeats what is below
    end: str
    times: int
    deep: bool
    many: bool
    below: list[_Node]


def tree(lines: Iterable[str]) -> list[Line]:
    """The frames that indented lines state, repetitions written out."""
    top: list[_Node] = []
    open_lists = [(-1, top)]
    for text in lines:
        indent = len(text) - len(text.lstrip())
        while open_lists[-1][0] >= indent:
            open_lists.pop()
        node = _node(text.strip())
        open_lists[-1][1].append(node)
        open_lists.append((indent, node.below))
    made: list[Line] = []
    for node in top:
        made += _written_out(node, 0)
    return made


def _node(text: str) -> _Node:
    name, *fields = re.split(r" {2,}", text)
    if _TIMES.match(name):
        name, fields = "", [name, *fields]
    elif not _NAME.match(name):
        raise ValueError(f"{name!r} is no name")
    end, times, deep, many = "", 1, False, False
    for each in fields:
        found = _TIMES.match(each)
        if found:
            times, deep = int(found[1]), bool(found[2])
        elif each == "x+":
            many = True
        elif each in _ENDS:
            end = each
        else:
            raise ValueError(f"{each!r} in {text!r} is neither a number of times nor an end")
    return _Node(name, end, times, deep, many, [])


def _written_out(node: _Node, depth: int) -> list[Line]:
    if node.many and node.below:
        raise ValueError(f"{node.name}: x+ is for lines with nothing below")
    inner = depth + (node.times if node.deep else 1 if node.name else 0)
    below = [line for each in node.below for line in _written_out(each, inner)]
    if node.deep:
        return [Line(depth + level, node.name, node.end) for level in range(node.times)] + below
    own = [Line(depth, node.name, node.end, node.many)] if node.name else []
    return (own + below) * node.times


def without_calls(lines: Iterable[Line]) -> list[Line]:
    """The frames of functions alone."""
    return list(lifted(lines, lambda line: line.name[0] == "["))


def lifted(lines: Iterable[Line], left_out: Callable[[Line], bool]) -> Iterator[Line]:
    """The lines but for some; what is below those moves up."""
    around: list[int] = []  # depths of what is left out around the line
    for line in lines:
        while around and around[-1] >= line.depth:
            around.pop()
        if left_out(line):
            around.append(line.depth)
        elif around:
            yield line._replace(depth=line.depth - len(around))
        else:
            yield line


def difference(stated: Sequence[Line], found: Sequence[Line]) -> str | None:
    """Where two trees first part, as text; None if they are the same."""
    at = 0
    for position, line in enumerate(stated):
        if at == len(found) or found[at][:3] != line[:3]:
            return _context(stated, position, found, at)
        at += 1
        while line.many and at < len(found) and found[at][:3] == line[:3]:
            at += 1
    return None if at == len(found) else _context(stated, len(stated), found, at)


def _context(stated: Sequence[Line], position: int, found: Sequence[Line], at: int) -> str:
    before = [*_texts(found[max(at - 6, 0) : at], "  ")]
    wanted = [*_texts(stated[position : position + 4], "- ")] or ["- (the end)"]
    got = [*_texts(found[at : at + 4], "+ ")] or ["+ (the end)"]
    return "\n".join(
        [f"stated (-) and recorded (+) part at line {at} of {len(found)}:", *before, *wanted, *got]
    )


def _texts(lines: Iterable[Line], mark: str) -> Iterator[str]:
    for line in lines:
        yield mark + "  ".join(
            [
                "    " * line.depth + line.name,
                *(["x+"] if line.many else []),
                *([line.end] if line.end else []),
            ]
        )


def unmatched(stated: Iterable[Sequence[Line]], found: Iterable[Sequence[Line]]) -> str | None:
    """What is wrong if the trees of the threads, in any order, are not those stated; None if they are."""
    left = [lines for lines in found if lines]
    for wanted in stated:
        differences = [difference(wanted, lines) for lines in left]
        if None in differences:
            del left[differences.index(None)]
        elif len(differences) > 0:
            # The most telling is the one of the thread that begins alike.
            alike = [at for at, lines in enumerate(left) if lines[0].name == wanted[0].name]
            return differences[alike[0] if alike else 0]
        else:
            return "a thread is missing:\n" + "\n".join(_texts(wanted[:10], "- "))
    if left:
        return "a thread that is not stated:\n" + "\n".join(_texts(left[0][:10], "+ "))
    return None
