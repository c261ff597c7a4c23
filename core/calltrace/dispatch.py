"""From a line or a list of words to a command that runs: the same in every host.

A word ends at a blank; double quotes keep blanks in a word, and two of them within quotes stand for one.
Nothing else is special, so Windows paths stay whole. What follows a lone ``--`` belongs to the program and is
kept to the letter.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from calltrace import __version__
from calltrace.commands import Console, Request, find, parser_for
from calltrace.errors import EngineError, UsageError

_HELP = {"-h", "--help", "-?"}
_NEEDED = ("capstone", "keystone-engine", "pefile")


def split(line: str) -> list[str]:
    """The words of a line. UsageError if a quote is not closed."""
    return [word for word, _, _ in _words(line)]


def split_program(line: str) -> tuple[str, str | None]:
    """A line before its first lone ``--``, and what follows that; None without one."""
    for word, start, end in _words(line, whole=False):
        if word == "--" and line[start:end] == "--":
            return line[:start], line[end:].lstrip(" \t")
    return line, None


def run_line(line: str, console: Console) -> int:
    """Run a command line as a debugger hands it over, from the verb on; its exit code.

    Raises CalltraceError, for the host to print.
    """
    ours, program_line = split_program(line)
    program = None if program_line is None else split(program_line)
    return _run(split(ours), program, program_line, console)


def run_words(words: Sequence[str], console: Console, program_line: str | None = None) -> int:
    """Run a command line that comes in words, from the verb on; its exit code.

    `program_line` is what follows ``--`` to the letter, if that is known. Raises CalltraceError, for the host
    to print.
    """
    ours, program = list(words), None
    if "--" in ours:
        at = ours.index("--")
        ours, program = ours[:at], ours[at + 1 :]
    return _run(ours, program, program_line, console)


def _run(words: list[str], program: list[str] | None, program_line: str | None, console: Console) -> int:
    if not words or words[0] in _HELP:
        words = ["help"]
    if words == ["--version"]:
        console.out.write(f"calltrace {__version__}\n")
        return 0
    command = find(words[0], console)
    parser = parser_for(words[0], console)
    if _HELP & set(words[1:]):
        console.out.write(parser.format_help())
        return 0
    if program is not None and not command.takes_program:
        raise UsageError(f"{command.verb} runs no program: nothing can follow --")
    request = Request(
        parser.parse_intermixed_args(words[1:]), tuple(words), tuple(program or ()), program_line
    )
    try:
        return command.handler(request, console)
    except ImportError as error:
        # keystone and capstone raise it, too, where their own library is missing.
        raise EngineError(
            f"{command.verb}: {error}: this Python ({sys.prefix}) lacks a package that calltrace needs; "
            f"`pip install {' '.join(_NEEDED)}` in it"
        ) from error


def _words(line: str, whole: bool = True) -> list[tuple[str, int, int]]:
    """Each word with the place of its first character and the one behind its last."""
    words: list[tuple[str, int, int]] = []
    at = 0
    while at < len(line):
        if line[at] in " \t\r\n":
            at += 1
            continue
        start, word, quoted = at, "", False
        while at < len(line) and (quoted or line[at] not in " \t\r\n"):
            if line[at] != '"':
                word += line[at]
            elif quoted and line[at : at + 2] == '""':
                word += '"'
                at += 1
            else:
                quoted = not quoted
            at += 1
        if quoted and whole:
            raise UsageError(f"a double quote is not closed: {line[start:].strip()}")
        words.append((word, start, at))
    return words
