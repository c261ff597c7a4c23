"""The notation in which targets state their call trees, and the comparison with what was recorded."""

from __future__ import annotations

import pytest

from rig import stated
from rig.stated import Line

COMMENT = """ Sorts.
 *
 * Expects: nothing.
 * exit: 3
 * output:
 *     a b
 *       c
 * not traced: odd one, other -- they read
 *     their own code
 * arguments: 1 TARGET(session_plugin)
 * tree:
 *     main
 *         step  x2
 *             inner
 *         [qsort]
 *             compare  x+
 *         [*]
 *             chosen
 *         descend  x3 deep  unwound
 *             bottom
 *         x2
 *             even  tail
 *             odd
 * thread x2:
 *     worker
 """

MAIN = [
    Line(0, "main"),
    *[Line(1, "step"), Line(2, "inner")] * 2,
    Line(1, "[qsort]"),
    Line(2, "compare", many=True),
    Line(1, "[*]"),
    Line(2, "chosen"),
    *[Line(depth, "descend", "unwound") for depth in (1, 2, 3)],
    Line(4, "bottom"),
    *[Line(1, "even", "tail"), Line(1, "odd")] * 2,
]


def test_a_statement_is_read_with_repetitions_written_out() -> None:
    made = stated.parse(COMMENT)
    assert made
    assert made.threads == [MAIN, [Line(0, "worker")], [Line(0, "worker")]]
    assert (made.exit_code, made.output) == (3, "a b\n  c\n")
    assert made.not_traced == {"odd one", "other"}
    assert made.arguments == ["1", "TARGET(session_plugin)"]
    assert made.calls() == {"[qsort]", "[*]"}


def test_a_comment_without_statement_has_none() -> None:
    assert stated.parse(" Prints a line.\n * exit: now\n") is None


@pytest.mark.parametrize("line", ["main  x", "main  unwinding", "main  x3 times", "x+", "[f]  x+\n    g"])
def test_a_line_that_makes_no_sense_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"x|unwinding"):
        stated.tree(["main", *("    " + each for each in line.split("\n"))])


def test_what_is_below_calls_moves_up_without_them() -> None:
    lines = stated.tree(
        ["main", "    [qsort]", "        compare", "            [*]", "                less", "    end"]
    )
    assert stated.without_calls(lines) == stated.tree(["main", "    compare", "        less", "    end"])


FOUND = [line._replace(many=False) for line in MAIN]
MANY = FOUND.index(Line(2, "compare"))


def test_once_or_more_is_any_number_but_none() -> None:
    for times in (1, 2, 7):
        assert stated.difference(MAIN, FOUND[:MANY] + [FOUND[MANY]] * times + FOUND[MANY + 1 :]) is None
    assert stated.difference(MAIN, FOUND[:MANY] + FOUND[MANY + 1 :])


@pytest.mark.parametrize("at", range(len(FOUND)))
def test_each_line_counts(at: int) -> None:
    line = FOUND[at]
    others = [
        line._replace(name="other"),
        line._replace(end="tail" if not line.end else ""),
        line._replace(depth=9),
    ]
    for changed in ([], *([other] for other in others)):
        assert stated.difference(MAIN, [*FOUND[:at], *changed, *FOUND[at + 1 :]])
    if at != MANY:
        assert stated.difference(MAIN, [*FOUND[:at], line, *FOUND[at:]])


def test_threads_are_held_against_each_other_in_any_order() -> None:
    worker = [Line(0, "worker")]
    assert stated.unmatched([MAIN, worker, worker], [worker, [], FOUND, worker]) is None
    assert stated.unmatched([MAIN, worker], [worker, FOUND, worker])
    assert stated.unmatched([MAIN, worker, worker], [worker, FOUND])
