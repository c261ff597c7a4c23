"""What the extension gives the engine to print."""

from __future__ import annotations

import html
import re

import pytest

from calltrace_windbg.host import printable

_MOST_UNITS = 16384  # of UTF-16 that the engine prints at once; found by printing more


def _link(text: str, line: str) -> str:
    return f"\x1b]8;;{line}\x1b\\{text}\x1b]8;;\x1b\\"


@pytest.mark.parametrize("dml", [False, True])
@pytest.mark.parametrize(
    "text", ["", "a\n", "<&\"'>" * 9000, "\N{MATHEMATICAL SCRIPT CAPITAL A}" * 20000, "x" * 40000]
)
def test_long_text_is_printed_in_pieces_and_whole(text: str, dml: bool) -> None:
    pieces = list(printable(text, dml))
    assert max(len(piece.encode("utf-16-le")) // 2 for piece in pieces) < _MOST_UNITS
    assert "".join(html.unescape(piece) if dml else piece for piece in pieces) == text


def test_links_run_our_commands_and_everything_else_is_escaped() -> None:
    text = "<b> " + _link("std::vector<int>", 'tree "a & b"') + " & " + _link("x", "help") + "\n"
    assert "".join(printable(text, True)) == (
        '&lt;b&gt; <exec cmd="!calltrace tree &quot;a &amp; b&quot;">std::vector&lt;int&gt;</exec> &amp; '
        '<exec cmd="!calltrace help">x</exec>\n'
    )


def test_a_link_is_never_cut() -> None:
    text = "".join(f"{'y' * (number % 97)}{_link('f', f'tree {number}')}" for number in range(3000))
    pieces = list(printable(text, True))
    assert len(pieces) > 3
    for piece in pieces:
        assert "<" not in re.sub(r'<exec cmd="!calltrace tree \d+">f</exec>', "", piece)
