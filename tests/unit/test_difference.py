"""Two traces are equal if the same happened in them, or else it is said where they part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from calltrace import difference
from calltrace.tracefile import TraceFile
from rig import tracewriter
from rig.tracewriter import CALL, ENTER, LAND, LEAVE, NONE, RETURN, TAIL, TraceWriter, Units

RVAS = (0x1000, 0x2000, 0x3000)
NAMES = [(0x1000, "outer"), (0x2000, "middle"), (0x3000, "inner")]
OUTER, MIDDLE, INNER = range(3)

Scene = Callable[
    [Units, int], None
]  # writes into a thread's units; the numbers of functions begin at the second


def calls_of_three(units: Units, first: int) -> None:
    for number in (OUTER, MIDDLE, INNER):
        units.event(ENTER, first + number)
    for number in (INNER, MIDDLE, OUTER):
        units.event(LEAVE, first + number)


def one_call(units: Units, first: int) -> None:
    units.event(ENTER, first + INNER)
    units.event(LEAVE, first + INNER)


def write(
    path: Path, scenes: Sequence[Scene], first: int = 0, base: int = 0x140000000, **header: int
) -> TraceFile:
    writer = TraceWriter(**header)
    functions = [(rva, 16, 1, 0, 0, NONE) for rva in RVAS]
    sites = [(0x1004, first + OUTER, 0x2000, NONE), (0x1008, first + OUTER, 0x2000, NONE)]
    told = {"name": "program.exe", "names": NAMES}
    writer.module(told, functions, sites, base, first_function=first, first_site=first)
    for thread, scene in enumerate(scenes):
        units = Units()
        scene(units, first)
        writer.thread(units, thread)
    return TraceFile(writer.write(path))


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., difference.Comparison]:
    def comparison(
        first: Sequence[Scene], second: Sequence[Scene], **second_header: int
    ) -> difference.Comparison:
        with (
            write(tmp_path / "1", first) as one,
            write(tmp_path / "2", second, 70, 0x7FF600000000, **second_header) as other,
        ):
            return difference.compare(one, other, ("one", "other"))

    return comparison


Compare = Callable[..., difference.Comparison]


def test_numbers_and_addresses_make_no_difference(compare: Compare) -> None:
    found = compare([calls_of_three], [calls_of_three])
    assert (found.threads, found.frames, found.differences) == (1, 3, [])


def test_which_of_two_threads_was_first_makes_no_difference(compare: Compare) -> None:
    found = compare([calls_of_three, one_call], [one_call, calls_of_three])
    assert (found.threads, found.frames, found.differences) == (2, 4, [])


def test_a_thread_too_many_is_named(compare: Compare) -> None:
    found = compare([calls_of_three], [calls_of_three, one_call])
    assert found.threads == 1
    assert found.differences[0] == "one has 1 threads, other 2"
    assert "no thread of one, thread 1 (id 1004) of other" in found.differences[1]
    assert len(found.differences) == 2


def test_a_missing_frame_is_shown_where_it_is_missing(compare: Compare) -> None:
    def without_inner(units: Units, first: int) -> None:
        for event, number in ((ENTER, OUTER), (ENTER, MIDDLE), (LEAVE, MIDDLE), (LEAVE, OUTER)):
            units.event(event, first + number)

    [text] = compare([calls_of_three], [without_inner]).differences
    assert text.splitlines() == [
        "thread 0 (id 1000) of one, thread 0 (id 1000) of other: the first 2 steps are equal",
        "  inside program!outer > program!middle",
        "      program!outer",
        "        program!middle",
        "  one:",
        "          program!inner",
        "          end of program!inner: return",
        "        end of program!middle: return",
        "  other:",
        "        end of program!middle: return",
        "      end of program!outer: return",
    ]


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([(TAIL, INNER), (LEAVE, MIDDLE), (LEAVE, OUTER)], "end of program!inner: tail"),
        ([(LEAVE, MIDDLE), (LEAVE, OUTER)], "end of program!inner: end not recorded"),
        ([(LAND, OUTER), (LEAVE, OUTER)], "end of program!inner: unwound"),
    ],
)
def test_how_a_frame_ended_is_a_difference(
    compare: Compare, ends: Sequence[tuple[int, int]], told: str
) -> None:
    def entered(units: Units, first: int) -> None:
        for depth, number in enumerate((OUTER, MIDDLE, INNER)):
            units.frame(0x8000 - 0x100 * depth)
            units.event(ENTER, first + number)

    def returning(units: Units, first: int) -> None:
        entered(units, first)
        for number in (INNER, MIDDLE, OUTER):
            units.event(LEAVE, first + number)

    def ending(units: Units, first: int) -> None:
        entered(units, first)
        for event, number in ends:
            if event == LAND:
                units.frame(0x7FF0)
            units.event(event, first + number)

    [text] = compare([returning], [ending]).differences
    one, other = text.split("  one:\n")[1].split("  other:\n")
    assert one.splitlines()[0].strip() == "end of program!inner: return"
    assert other.splitlines()[0].strip() == told


def test_another_call_site_of_the_same_function_is_a_difference(compare: Compare) -> None:
    def calling(site: int) -> Scene:
        def scene(units: Units, first: int) -> None:
            units.event(ENTER, first + OUTER)
            units.event(CALL, first + site)
            units.event(RETURN, first + site)
            units.event(LEAVE, first + OUTER)

        return scene

    assert compare([calling(0)], [calling(0)]).differences == []
    [text] = compare([calling(0)], [calling(1)]).differences
    assert "call program!middle from program.exe+0x1004" in text
    assert "call program!middle from program.exe+0x1008" in text


def test_another_end_of_the_program_is_a_difference(compare: Compare) -> None:
    found = compare([one_call], [one_call], state=tracewriter.KILLED, exit_code=3)
    assert found.differences == ["one: exited with exit code 0, other: killed with exit code 3"]
    assert found.threads == 1


def test_of_many_threads_that_differ_only_some_are_shown(compare: Compare) -> None:
    found = compare([one_call] * 9, [calls_of_three] * 9)
    assert len(found.differences) == 5
    assert found.differences[-1] == "5 more threads differ"
