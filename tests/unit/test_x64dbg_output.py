"""What goes between the core and x64dbg: command lines, and text for its log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from calltrace.commands import COMMANDS
from calltrace_x64dbg.host import printable, with_addresses, words

LINKS = ("callers m!leaf", "m"), ("!disasm 0000000140001580", "!leaf")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (" tree file.calltrace", " tree file.calltrace"),
        (" tree, file.calltrace, --depth 2", " tree  file.calltrace  --depth 2"),
        (" tree,file --columns a,b", " tree file --columns a,b"),
        (' tree "a, b.calltrace", -x', ' tree "a, b.calltrace"  -x'),
        (" tree file,", " tree file "),
        ("", ""),
    ],
)
def test_commas_between_arguments_are_blanks(line: str, expected: str) -> None:
    assert words(line) == expected


def test_text_is_cut_into_pieces_that_are_logged_whole() -> None:
    text = "\N{MATHEMATICAL SCRIPT CAPITAL A}" * 10_000
    pieces = list(printable(text))
    assert "".join(pieces) == text
    assert all(len(piece.encode()) < 16_384 for piece in pieces)


def test_each_menu_entry_stands_for_a_command() -> None:
    source = (Path(__file__).parents[2] / "x64dbg_plugin" / "plugin.c").read_text()
    lines = re.findall(r'\{(?:true|false), "[^"]+", "([^"]+)"', source)
    verbs = {command.verb for command in COMMANDS if not command.shell_only}
    assert len(lines) >= 10
    for line in lines:
        name, verb, *_ = line.split()
        assert name == "calltrace"
        assert verb in verbs


def test_the_address_of_what_a_name_stands_for_is_behind_it() -> None:
    command, code = ("\x1b]8;;{}\x1b\\{}\x1b]8;;\x1b\\".format(*link) for link in LINKS)
    assert with_addresses(f"a  {command}{code} b") == "a  m!leaf 0000000140001580 b"
