"""What goes between the core and x64dbg: command lines, and text for its log."""

from __future__ import annotations

import pytest

from calltrace_x64dbg.host import printable, words


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
