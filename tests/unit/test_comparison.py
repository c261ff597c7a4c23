"""What ran in parts of traces: as simulated threads say, and as the user sees it."""

from __future__ import annotations

import io
import json
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace import comparison, dispatch
from calltrace.commands import Console
from calltrace.errors import CalltraceError, UsageError
from calltrace.model import Policy
from calltrace.parts import Expression, Part, parse
from calltrace.recorder import TraceFile as TraceRecording
from calltrace.tracefile import TraceFile
from rig import callers, simulated, tracewriter
from rig.callers import Truth
from rig.simulated import Frame, SimulatedThread
from rig.tracewriter import TraceWriter, Units

NONE = tracewriter.NONE
ENTER, LEAVE, CALL, RETURN = tracewriter.ENTER, tracewriter.LEAVE, tracewriter.CALL, tracewriter.RETURN


def simulated_thread(program: bytes) -> SimulatedThread:
    thread = SimulatedThread(unit_size=8)
    thread.run(program)
    thread.finish(6)
    return thread


def called(name: str) -> str:
    """A function by its name, also where only a call of it is known; else the call by its place."""
    return name if name.startswith("call at ") else name.removeprefix("call ")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(max_size=160), min_size=1, max_size=3),
    st.lists(st.tuples(*[st.integers(0, 120)] * 3), max_size=4),
    st.data(),
)
def test_each_call_counts_in_the_part_in_which_it_was_made(
    tmp_path: Path, programs: list[bytes], moments: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    threads = [simulated_thread(program) for program in programs]
    writer = TraceWriter(8)
    simulated.describe(writer)
    for index, thread in enumerate(threads):
        writer.thread(thread.units, index)
    # Each thread goes on from mark to mark; one that has recorded nothing yet is not known to a mark.
    passed = [
        sorted(min(moment[index], len(thread.units)) for moment in moments)
        for index, thread in enumerate(threads)
    ]
    rows = [
        [[index, positions[at]] for index, positions in enumerate(passed) if positions[at]]
        for at in range(len(moments))
    ]
    writer.info({"marks": [{"name": f"m{at}", "tsc": 0, "positions": row} for at, row in enumerate(rows)]})
    path = writer.write(tmp_path / "t.calltrace")
    begin = data.draw(st.integers(0, len(moments)))
    end = data.draw(st.integers(begin + 1, len(moments) + 1))
    text = f"{path}@{f'm{begin - 1}' if begin else ''}..{f'm{end - 1}' if end <= len(moments) else ''}"

    functions: Counter[str] = Counter()
    edges: Counter[tuple[str, str, bool]] = Counter()
    for thread, positions in zip(threads, passed):
        truth = Truth(thread)
        for frame in truth.frames:
            stretch = sum(position <= truth.begin(frame) for position in positions)
            if frame.kind != simulated.CALL_NODE and begin <= stretch < end:
                caller, key = truth.caller(frame), truth.key(frame)
                above = callers.name(truth.key(caller) if caller else callers.NOBODY)
                functions[called(callers.name(key))] += 1
                edges[called(above), called(callers.name(key)), key[2]] += 1

    part = Part.parse(text)
    with TraceFile(path) as trace:
        by_function = comparison.count([part], [trace], callers=False)
        by_edge = comparison.count([part], [trace], callers=True)
    assert functions == {item.name: by_function.calls[0][key] for key, item in by_function.items.items()}
    found: Counter[tuple[str, str, bool]] = Counter()
    for key, item in by_edge.items.items():
        assert item.caller
        found[item.caller, item.name, item.tail] += by_edge.calls[0][key]
    assert found == edges


# ---- two recordings ----

FUNCTIONS = {0x1000: "main", 0x2000: "draw", 0x3000: "count", 0x4000: None}


@dataclass(frozen=True)
class Moment:
    """A mark: of which thread's program, or with where each thread was when its user set it."""

    name: str
    time: int
    thread: int | None
    positions: Sequence[int]

    def is_before(self, index: int, frame: Frame) -> bool:
        """Whether the frame of a thread was opened behind it."""
        if self.thread is not None and index != self.thread:
            return frame.begin >= self.time
        return Truth.begin(frame) >= self.positions[index]


def moments_of(threads: Sequence[SimulatedThread], by_user: Sequence[int]) -> list[Moment]:
    """All marks, in order of time."""
    found = []
    for number, time in enumerate(by_user):
        # Everything stands still: no event is half recorded.
        positions = [bisect_left(thread.units.times, time) for thread in threads]
        found.append(Moment(f"u{number}", time, None, positions))
    times: Counter[int] = Counter()
    program = [
        (thread.units.times[position], index, value, position)
        for index, thread in enumerate(threads)
        for value, position in zip(thread.marks, thread.mark_positions)
    ]
    for time, index, value, position in sorted(program, key=lambda each: each[0]):
        times[value] += 1
        name = str(value) if times[value] == 1 else f"{value}#{times[value]}"
        found.append(Moment(name, time, index, [position] * len(threads)))
    return sorted(found, key=lambda each: (each.time, each.thread is not None))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 1 << 32),
    st.lists(st.integers(1, 500_000), max_size=2).map(sorted),
    st.data(),
)
def test_marks_that_the_program_set_part_its_threads_by_time(
    tmp_path: Path, seed: int, by_user: list[int], data: st.DataObject
) -> None:
    # Acts of any kind, some of them at the same time, and some marks among them.
    acts = random.Random(seed)
    programs = [
        bytes(
            acts.choice((acts.randrange(16), 0, 0, 14)) if at % 2 == 0 else acts.choice((0, 12, 13, 200))
            for at in range(120)
        )
        for _ in range(3)
    ]
    threads = [simulated_thread(program) for program in programs]
    writer = TraceWriter(8)
    simulated.describe(writer)
    for index, thread in enumerate(threads):
        writer.thread(thread.units, index, block_units=data.draw(st.sampled_from([None, 7])))
    moments = moments_of(threads, by_user)
    told = [
        {
            "name": each.name,
            "tsc": each.time,
            "positions": [list(row) for row in enumerate(each.positions) if row[1]],
        }
        for each in moments
        if each.thread is None
    ]
    writer.info({"marks": told})
    path = writer.write(tmp_path / "t.calltrace")

    first = data.draw(st.integers(0, len(moments) - 1))
    last = data.draw(st.integers(first + 1, len(moments)))
    text = f"{path}@{moments[first].name}.."
    end: Moment | None = moments[last] if last < len(moments) else None
    if end:
        text += end.name
    elif data.draw(st.booleans()):
        text = text[:-2]  # to the next that counts
        alike = (
            each for each in moments[first + 1 :] if each.thread is None or moments[first].thread is not None
        )
        end = next(alike, None)
    expected = Counter(
        called(callers.name(Truth(thread).key(frame)))
        for index, thread in enumerate(threads)
        for frame in thread.frames()
        if frame.kind != simulated.CALL_NODE
        and moments[first].is_before(index, frame)
        and not (end and end.is_before(index, frame))
    )
    with TraceFile(path) as trace:
        found = comparison.count([Part.parse(text)], [trace], callers=False)
    assert expected == {item.name: found.calls[0][key] for key, item in found.items.items()}


def recorded(
    path: Path,
    called: str,
    base: int = 0x140000000,
    moved: int = 0,
    status: int = 0,
    marks: Sequence[tuple[str, int]] = (),
    mode: str = "trace",
    **about: Any,
) -> Path:
    """A trace in which main calls what the letters say: d, c, an unnamed function u, or an import i.

    `moved` is what is added to RVAs: another build. `status` is that of count: not instrumented.
    """
    units = Units(4)
    units.event(ENTER, 0)
    for letter in called:
        if letter == "i":
            units.event(CALL, 0)
            units.event(RETURN, 0)
        else:
            number = "dcu".index(letter) + 1
            units.event(ENTER, number)
            units.event(LEAVE, number)
    units.event(LEAVE, 0)
    writer = TraceWriter(4)
    told = {
        "name": "m.exe",
        "timestamp": 0x5000 + moved,
        "names": [[rva + moved, name] for rva, name in FUNCTIONS.items() if name],
        "imports": ["USER32.dll!MessageBoxW"],
        **about,
    }
    functions = [
        (rva + moved, 16, 1, 0, status if name == "count" else 0, NONE) for rva, name in FUNCTIONS.items()
    ]
    writer.module(told, functions, [(0x1008 + moved, 0, 0, 0)], base=base)
    writer.thread(units)
    rows = [{"name": name, "tsc": 0, "positions": [[0, 1 + 2 * at]]} for name, at in marks]
    writer.info({"marks": rows, "options": {"mode": mode}})
    return writer.write(path)


def run(*words: str | Path, expect: int = 0) -> tuple[list[str], list[str]]:
    """What a command shows, and what it tells beside that."""
    out, told = io.StringIO(), []
    code = dispatch.run_words([str(word) for word in words], Console(out, told.append))
    assert code == expect
    return out.getvalue().splitlines(), told


def as_json(*words: str | Path, expect: int = 0) -> Any:
    """What a command shows."""
    return json.loads("\n".join(run(*words, "--json", expect=expect)[0]))


def test_functions_are_the_same_wherever_their_module_was_loaded(tmp_path: Path) -> None:
    a = recorded(tmp_path / "a", "dduci")
    b = recorded(tmp_path / "b", "ciuuu", base=0x7FF6_1234_0000)
    assert run("diff", a, b, expect=1) == (
        [
            f"A  {a}: 5 functions, 6 calls",
            f"B  {b}: 4 functions, 6 calls",
            "",
            "only in A: 1 function",
            "             A  function",
            "             2  m!draw",
            "",
            "only in B: nothing",
            "",
            "in both, another number of times: 1 function",
            "             A             B  function",
            "             1             3  m+0x4000",
        ],
        [],
    )
    same = recorded(tmp_path / "same", "uddic", base=0x10000)
    assert "nothing" in run("diff", a, same)[0][-1]


def test_edges_are_told_apart_by_their_callers(tmp_path: Path) -> None:
    a, b = recorded(tmp_path / "a", "di"), recorded(tmp_path / "b", "c", base=0x10000)
    shown, _ = run("diff", "--edges", a, b, expect=1)
    assert shown[3:10] == [
        "only in A: 2 edges",
        "             A  caller → function",
        "             1  m!main → m!draw",
        "             1  m!main → USER32.dll!MessageBoxW",
        "",
        "only in B: 1 edge",
        "             B  caller → function",
    ]
    told = as_json("diff", "--edges", a, b, expect=1)
    assert [(row["caller"], row["name"], row["rva"], row["calls"]) for row in told["found"]] == [
        ("m!main", "m!draw", "0x2000", [1, 0]),
        ("m!main", "USER32.dll!MessageBoxW", None, [1, 0]),
        ("m!main", "m!count", "0x3000", [0, 1]),
    ]


def test_another_build_is_compared_by_names_which_is_told(tmp_path: Path) -> None:
    a, b = recorded(tmp_path / "a", "dc"), recorded(tmp_path / "b", "du", moved=0x40)
    shown, told = run("diff", a, b, expect=1)
    assert told == ["m.exe is not the same build everywhere: its functions are compared by their names"]
    rows = [line.split() for line in shown if line.startswith("   ") and "function" not in line]
    assert rows == [["1", "m!count"], ["1", "m+0x4040", "not", "traced", "in", "A"]]


def test_two_modules_of_one_name_are_two_if_all_traces_have_both(tmp_path: Path) -> None:
    units = Units(4)
    for number in (0, 1, 1):
        units.event(ENTER, number)
        units.event(LEAVE, number)
    writer = TraceWriter(4)
    for index in (0, 1):
        writer.module(
            {"name": "plugin.dll", "timestamp": index, "names": [[0x1000, "run"]]},
            [(0x1000, 16, 1, 0, 0, NONE)],
            base=0x10000000 << index,
            index=index,
            first_function=index,
        )
    writer.thread(units)
    writer.info({"marks": [{"name": "second", "tsc": 0, "positions": [[0, 2]]}]})
    path = writer.write(tmp_path / "t")
    copy = writer.write(tmp_path / "copy")
    for other in (path, copy):
        shown, told = run("diff", f"{path}@second", other, expect=1)
        assert told == []
        assert [line.split() for line in shown if line.startswith("    ") and "!" in line] == [
            ["1", "plugin!run"]
        ]


@pytest.mark.parametrize(
    ("about", "function"),
    [({"status": 3}, "m!count"), ({"events": "functions"}, "USER32.dll!MessageBoxW")],
)
def test_what_one_trace_would_not_show_is_said(tmp_path: Path, about: dict[str, Any], function: str) -> None:
    a, b = recorded(tmp_path / "a", "dci"), recorded(tmp_path / "b", "d", **about)
    shown, _ = run("diff", a, b, expect=1)
    rows = [line.split() for line in shown if "not traced" in line]
    assert rows == [["1", function, "not", "traced", "in", "B"]]
    told = as_json("diff", a, b, expect=1)
    assert {row["name"]: row["untraced"] for row in told["found"]}[function] == [False, True]


def test_first_entries_alone_tell_nothing_of_imports_and_of_parts_only_what_began_there(
    tmp_path: Path,
) -> None:
    hits = recorded(tmp_path / "hits", "d", marks=[("idle", 1)], mode="hits")
    shown, notes = run("diff", hits, recorded(tmp_path / "all", "di"), expect=1)
    assert [line.split() for line in shown if "Message" in line] == [
        ["1", "USER32.dll!MessageBoxW", "not", "traced", "in", "A"]
    ]
    assert notes == []
    _, notes = run("diff", f"{hits}@idle - {hits}@..idle")
    assert notes == [
        f"{hits} has the first entry of each function alone: a part of it shows what began in that part"
    ]


def test_a_function_whose_calls_alone_are_seen_is_told_as_such(tmp_path: Path) -> None:
    """A call site whose callee is left alone counts for it; calls from elsewhere are not seen."""
    traces = []
    for name, status in (("a", 0), ("b", 3)):
        units = Units(4)
        units.event(ENTER, 0)
        units.event(CALL, 0)
        if not status:
            units.event(ENTER, 1)
            units.event(LEAVE, 1)
        units.event(RETURN, 0)
        units.event(LEAVE, 0)
        writer = TraceWriter(4)
        names = [[0x1000, "main"], [0x2000, "f"]]
        functions = [(0x1000, 16, 1, 0, 0, NONE), (0x2000, 16, 1, 0, status, NONE)]
        writer.module({"name": "m.exe", "names": names}, functions, [(0x1008, 0, 0x2000, NONE)])
        writer.thread(units)
        traces.append(writer.write(tmp_path / name))
    assert run("diff", *traces)[0][-1] == "in both, another number of times: nothing"
    shown, _ = run("diff", f"{traces[1]}", "-", f"{traces[0]}")
    assert shown[-1] == "nothing"
    shown, _ = run("diff", f"{traces[0]} & {traces[1]}")
    assert shown[-1] == "             1             1  m!f  in B only calls by traced code"


# ---- marks and sets ----


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """d before the first mark; c and d behind `idle`; u, i and c behind `click`; d behind `idle` again."""
    marks = [("idle", 1), ("paused", 2), ("resumed", 2), ("click", 3), ("idle", 6)]
    return recorded(tmp_path / "t.calltrace", "dcduicd", marks=marks)


def names(shown: list[str]) -> list[str]:
    rows = [line for line in shown if line.startswith("     ") and not line.endswith("  function")]
    return [line.split()[-1].split("!")[-1] for line in rows]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("{}@click - {}@idle", ["m+0x4000", "MessageBoxW"]),
        ("{}@click", ["m+0x4000", "MessageBoxW", "count"]),
        ("{}@click..", ["m+0x4000", "MessageBoxW", "count", "draw"]),
        ("{}@..click & {}@click..", ["draw", "count"]),
        ("{}@..idle", ["main", "draw"]),
        ("{}@idle..click", ["count", "draw"]),
        ("{}@idle..idle#2 - {}@idle#2", ["count", "m+0x4000", "MessageBoxW"]),
        ("{} - ({}@idle | {}@click)", ["main"]),
        ("{} - {}@idle - {}@click", ["main"]),
        ('"{}@ idle" - {}@click', ["draw"]),
        ("({})", ["main", "draw", "count", "m+0x4000", "MessageBoxW"]),
    ],
)
def test_sets_are_put_together(marked: Path, expression: str, expected: list[str]) -> None:
    assert sorted(names(run("diff", expression.replace("{}", str(marked)))[0])) == sorted(expected)


def test_a_set_is_shown_with_counts_in_the_order_of_calls(marked: Path) -> None:
    assert run("diff", f"{marked}@idle..", "-", f"{marked}@idle#2")[0] == [
        f"A  {marked}@idle..: 4 functions, 6 calls",
        f"B  {marked}@idle#2: 1 function, 1 call",
        "",
        "3 functions",
        "             A  function",
        "             2  m!count",
        "             1  m+0x4000",
        "             1  USER32.dll!MessageBoxW",
    ]
    assert names(run("diff", f"{marked}", "-", f"{marked}@click..", "--limit", "0")[0]) == ["main"]
    limited, _ = run("diff", marked, "-", f"{marked}@idle#2..", "--limit", "1")
    assert limited[-2:] == ["             1  m!main", "3 more: --limit 0 shows all"]


def test_what_is_new_since_a_mark(marked: Path) -> None:
    assert names(run("new", marked, "click")[0]) == ["m+0x4000", "MessageBoxW"]
    assert names(run("new", marked, "idle")[0]) == ["count", "m+0x4000", "MessageBoxW"]
    assert run("new", marked)[0][-1] == "nothing"  # since the last mark, the second idle
    assert as_json("new", marked, "idle")["found"][0]["calls"] == [2, 0]


def test_the_file_comes_before_the_at_sign_in_its_name(tmp_path: Path) -> None:
    plain = recorded(tmp_path / "me@home - 1.calltrace", "d")
    marked = recorded(tmp_path / "you@home.calltrace", "dc", marks=[("a@b", 1)])
    assert names(run("diff", plain, f"{marked}@a@b", expect=1)[0]) == ["main", "draw", "count"]


def test_names_of_files_and_marks_may_hold_what_expressions_are_made_of(tmp_path: Path) -> None:
    folder = tmp_path / "Program Files (x86) & more | less"
    folder.mkdir()
    marks = [("x..y", 1), ("a & (b) - c", 2), ("in between", 3), ("..", 4)]
    trace = recorded(folder / "me@work (1).calltrace", "dcui", marks=marks)
    assert names(run("diff", f'{trace}@x..y - {trace}@"in between"')[0]) == ["count"]
    compared = names(run("diff", f"{trace}@x..y", f"{trace}@in between", expect=1)[0])
    assert compared == ["count", "MessageBoxW"]
    assert names(run("diff", f'{trace}@"a & (b) - c" - {trace}@..x..y')[0]) == ["m+0x4000"]
    assert names(run("diff", f'({trace}@x..y | {trace}@"a & (b) - c")-{trace}@x..y')[0]) == ["m+0x4000"]
    assert names(run("diff", f'{trace}@"x..y..in between" - {trace}@..x..y')[0]) == ["count", "m+0x4000"]
    assert names(run("diff", f"{trace}@x..y....", f"{trace}@....", expect=1)[0]) == ["main", "draw"]
    assert names(run("new", trace, "x..y")[0]) == ["count", "m+0x4000", "MessageBoxW"]
    assert run("new", trace)[0][-1] == "nothing"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{}@klick", "{}"], "{} has no mark klick: its marks are idle, paused, resumed, click"),
        (["{}@idle#3", "{}"], "{} has no mark idle#3: its marks are idle, paused, resumed, click"),
        (["{}@click..idle", "{}"], "{}@click..idle: idle does not come after click"),
        (["{}@", "{}"], "{}@: name a mark behind @"),
        (["{}", "{}", "{}"], "{} {}: write & (in both), | (in either) or - (but not in) between parts"),
        (["{}", "-"], "name a trace, or a part of one as FILE@MARK, instead of nothing"),
        (["{} -"], "name a trace, or a part of one as FILE@MARK, instead of nothing"),
        (["& {}"], "name a trace, or a part of one as FILE@MARK, instead of &"),
        (["({} - {}@idle"], "a parenthesis is not closed"),
        (["{} | " * 26 + "{}"], "name 26 parts at most, and as many parentheses"),
        (["(" * 9999 + "{}" + ")" * 9999], "name 26 parts at most, and as many parentheses"),
        (["@idle", "{}"], "@idle: name a trace file: no recording is under way in a shell"),
    ],
)
def test_mistakes_are_told_in_one_line(marked: Path, words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        run("diff", *(word.replace("{}", str(marked)) for word in words))
    assert str(caught.value) == message.replace("{}", str(marked))


def test_a_part_of_no_file_and_marks_that_are_not_there_are_told(tmp_path: Path, marked: Path) -> None:
    with pytest.raises(CalltraceError, match=r"no such file: .*gone"):
        run("diff", f"{tmp_path / 'gone'}@idle", marked)
    with pytest.raises(UsageError, match="new: name a trace file"):
        run("new")
    plain = recorded(tmp_path / "plain", "d")
    with pytest.raises(UsageError, match="has no mark: set one with"):
        run("new", plain)
    with pytest.raises(UsageError, match="plain has no mark idle: it has none"):
        run("new", plain, "idle")


def self_marked(path: Path, clock: int, threads: int = 1) -> Path:
    """Threads call draw; the first marks 7, calls count, marks 8, calls what has no name, marks 7, draws."""
    size = 8 if clock else 4
    writer = TraceWriter(size, clock=clock)
    names = [[rva, name] for rva, name in FUNCTIONS.items() if name]
    writer.module({"name": "m.exe", "names": names}, [(rva, 16, 1, 0, 0, NONE) for rva in FUNCTIONS])
    for index in range(threads):
        units = Units(size, now=100 * index)
        for what in (1, 7, 2, 8, 3, 7, 1) if not index else (1,):
            units.now += 10
            if what > 3:
                units.ext(tracewriter.MARK, what)
            else:
                units.event(ENTER, what)
                units.event(LEAVE, what)
        writer.thread(units, index)
    return writer.write(path)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("{}@7", ["count"]),
        ("{}@7..7#2", ["count", "m+0x4000"]),
        ("{}@7#2", ["draw"]),
        ("{}@..8", ["draw", "count"]),
        ("{}@8..", ["m+0x4000", "draw"]),
        ("{}@8.. - {}@7#2", ["m+0x4000"]),
    ],
)
def test_marks_of_the_program_bound_parts(tmp_path: Path, expression: str, expected: list[str]) -> None:
    for clock in (0, 1):
        path = self_marked(tmp_path / "t.calltrace", clock)
        assert names(run("diff", expression.replace("{}", str(path)))[0]) == expected


def test_a_part_behind_a_user_s_mark_goes_on_to_the_next_of_a_user(tmp_path: Path) -> None:
    path = self_marked(tmp_path / "t.calltrace", 0)
    with closing(TraceRecording.join(path)) as joined:
        joined.mark("mine", {0: 0})
    # Between the two the program's own marks are known, since another part begins at one.
    assert names(run("diff", f"{path}@mine - {path}@7")[0]) == ["draw", "m+0x4000"]
    assert names(run("diff", f"{path}@7#2 - {path}@mine")[0]) == []
    assert names(run("new", path, "8")[0]) == ["m+0x4000"]


def test_what_cannot_be_known_of_a_program_s_mark_is_told(tmp_path: Path) -> None:
    without_times = self_marked(tmp_path / "none", 0, threads=2)
    with pytest.raises(UsageError, match=r"none has no times: where its other threads were when .* mark 7"):
        run("diff", f"{without_times}@7")
    coarse = self_marked(tmp_path / "coarse", 2, threads=2)
    assert run("diff", f"{coarse}@7")[1] == [
        "threads other than the one that set a mark are parted to some microseconds: --clock coarse"
    ]
    with pytest.raises(UsageError, match=r"coarse has no mark 7#3: its program has set 7, 8$"):
        run("diff", f"{coarse}@7#3")
    with pytest.raises(UsageError, match=r"coarse has no mark seven: it has none$"):
        run("diff", f"{coarse}@seven")


def test_counts_without_events_have_no_parts(tmp_path: Path) -> None:
    units = Units(4)
    writer = TraceWriter(4)
    writer.thread(units)
    writer.info({"options": {"mode": "graph"}, "marks": [{"name": "a", "tsc": 0, "positions": []}]})
    path = writer.write(tmp_path / "t")
    with pytest.raises(UsageError, match="recorded with --mode graph, which counts without regard to marks"):
        run("diff", f"{path}@a")
    assert run("diff", path, path)[0][0].endswith("nothing, 0 calls")


def test_two_parts_are_compared_and_one_is_a_set(marked: Path) -> None:
    assert isinstance(parse([str(marked)]), Expression)
    assert isinstance(parse([str(marked), f"{marked}@idle"]), tuple)


def test_names_are_links_in_a_debugger_where_all_are_of_one_trace(tmp_path: Path, marked: Path) -> None:
    def shown(*words: str | Path) -> str:
        out = io.StringIO()
        console = Console(
            out,
            lambda line: None,
            link=lambda text, line: f"<{line}|{text}>",
            code_link=lambda text, address: f"<{address:#x}|{text}>",
            shell=False,
        )
        dispatch.run_words([str(word) for word in words], console)
        return out.getvalue()

    linked = f"<callers {marked} m!draw|m><0x140002000|!draw>"
    assert linked in shown("diff", f"{marked}@click", f"{marked}@idle")
    assert f"<callers {marked} m!main|m>!main → {linked}" in shown("diff", "--edges", marked)
    other = recorded(tmp_path / "other", "", base=0x10000)
    assert "m!draw" in shown("diff", marked, other)
    assert "<" not in shown("diff", marked, other)


# ---- damage ----


def test_what_is_missing_from_a_trace_is_told_and_the_rest_compared(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "whole", "dc")
    data = recorded(tmp_path / "cut", "d").read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(data[:-1000])
    shown, told = run("diff", whole, cut, expect=1)
    assert told == [f"{cut} is cut off: what comes later is missing"]
    assert names(shown) == ["count"]


@pytest.mark.parametrize(
    "words",
    [
        "tree {}",
        "top {}",
        "info {}",
        "stacks {}",
        "callers {} draw",
        "callees {} main",
        "export csv {}",
        "export drcov {} -o {}.out",
        "diff {}",
        "new {} idle",
    ],
)
def test_a_truncated_trace_answers_for_what_is_there_and_says_so(tmp_path: Path, words: str) -> None:
    path = recorded(tmp_path / "t", "dc", marks=[("idle", 0)])
    data = path.read_bytes()
    path.write_bytes(data + data[-0x10000:][:5000])  # a block of which the rest is missing
    shown, told = run(*(word.replace("{}", str(path)) for word in words.split()))
    assert told == [f"{path} is cut off: what comes later is missing"]
    expected = {"stacks": "no open frame", "info": "events", "export": ""}.get(words.split()[0], "m!draw")
    assert expected in "\n".join(shown)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "is not a calltrace trace"),
        (lambda data: b"PK" + data[2:], "is not a calltrace trace"),
        (lambda data: data[:100], "is cut off within its header: nothing of the trace is left"),
        (lambda data: data[:8] + b"\x09" + data[9:], "is of trace version 9, this calltrace reads version 1"),
        (lambda data: data[:16] + b"\xff" * 8 + data[24:], "is damaged: the sizes in its header make"),
    ],
)
@pytest.mark.parametrize("words", ["diff {} {}", "diff {}@a - {}@b", "new {}", "mark {} here"])
def test_a_file_that_is_no_trace_is_told_in_one_line(
    tmp_path: Path, words: str, damage: Any, message: str
) -> None:
    path = recorded(tmp_path / "t", "d")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CalltraceError) as caught:
        run(*(word.replace("{}", str(path)) for word in words.split()))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- marks from a shell ----


def test_a_mark_is_set_in_a_trace_under_way_only(tmp_path: Path) -> None:
    units = Units(4)
    for event in (ENTER, LEAVE):
        units.event(event, 0)
    writer = TraceWriter(4, state=tracewriter.RECORDING)
    simulated.describe(writer)
    writer.thread(units)
    path = writer.write(tmp_path / "t.calltrace")
    for name in ("first one", "second"):
        assert run("mark", path, *name.split()) == ([], [])
    with TraceFile(path) as trace:
        assert [(mark.name, mark.positions) for mark in trace.marks] == [
            ("first one", {0: 2}),
            ("second", {0: 2}),
        ]
        assert not trace.index.truncated
        assert not trace.index.damaged_chunks
    done = TraceWriter(4)
    done.thread(units)
    with pytest.raises(UsageError, match="is finished: a mark is for a trace that is being recorded"):
        run("mark", done.write(tmp_path / "done"), "late")


def test_a_mark_has_a_name_that_can_be_typed_and_stands_among_events(tmp_path: Path) -> None:
    path = TraceWriter(4, state=tracewriter.RECORDING).write(tmp_path / "t.calltrace")
    run("mark", path, "  red \x1b[31m", "")
    for empty in ("", "  "):
        with pytest.raises(UsageError, match="mark: the name is empty"):
            run("mark", path, empty)
    with TraceFile(path) as trace:
        [mark] = trace.marks
    assert mark.name == "red \N{REPLACEMENT CHARACTER}[31m"
    counts = TraceWriter(4, state=tracewriter.RECORDING, policy=Policy.COUNT).write(tmp_path / "counts")
    with pytest.raises(UsageError, match="with --mode graph no order is recorded"):
        run("mark", counts, "here")
