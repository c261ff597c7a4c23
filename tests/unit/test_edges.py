"""Callers and callees: counts and times are those of the calls that were made."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace import edges
from calltrace.calltree import summarize
from calltrace.edges import NOBODY_NAME, Context, callers, contexts
from calltrace.errors import UsageError
from calltrace.patterns import Pattern
from calltrace.tracefile import TraceFile
from rig import simulated, tracewriter
from rig.callers import Key, Truth, name
from rig.commands import run
from rig.simulated import simulated_trace
from rig.tracewriter import TraceWriter, Units

NONE = tracewriter.NONE


def expected(truth: Truth, chosen: set[int], depth: int, callees: bool) -> Counter[object]:
    """Sums by context, recursion counted once in each: what is inside another frame of the same one."""
    sums: dict[tuple[tuple[str, bool], ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    open_in: dict[int, set[tuple[Key, ...]]] = {}
    for frame in truth.frames:
        if truth.stands_for_callee(frame):
            paths = []
        elif callees:
            paths = [
                path
                for path, root in truth.chain(frame, depth)
                if root and root.kind == simulated.FUNCTION and root.id in chosen
            ]
        elif frame.kind == simulated.FUNCTION and frame.id in chosen:
            paths = [path for path, _ in truth.chain(frame, depth)]
        else:
            paths = []
        open_in[id(frame)] = set(paths)
        for path in paths:
            if callees:  # from the chosen one down; the jump is told of with the callee
                keys = list(reversed(path))
                named = tuple(
                    (name(key), False if at == 0 else keys[at - 1][2]) for at, key in enumerate(keys)
                )
            else:
                named = tuple((name(key), key[2]) for key in path)
            sum_of = sums[named]
            sum_of[0] += 1
            sum_of[1] += frame.self_time()
            outer = truth.parents[id(frame)]
            while outer and path not in open_in[id(outer)]:
                outer = truth.parents[id(outer)]
            if outer is None:
                sum_of[2] += frame.end - frame.begin
    return Counter({(path, tuple(values)): 1 for path, values in sums.items()})


def found(roots: list[Context], above: tuple[tuple[str, bool], ...] = ()) -> Counter[object]:
    counted: Counter[object] = Counter()
    for context in roots:
        path = (*above, (context.name, context.tail))
        counted[path, (context.calls, context.self_time, context.total_time)] += 1
        counted += found(list(context.others.values()), path)
    return counted


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=240),
    st.sets(st.integers(0, simulated.FUNCTION_COUNT - 1), min_size=1, max_size=8),
    st.integers(1, 4),
    st.booleans(),
)
def test_every_call_counts_for_its_caller(
    tmp_path: Path, program: bytes, chosen: set[int], depth: int, callees: bool
) -> None:
    path, (thread,) = simulated_trace(tmp_path / "t.calltrace", program)
    truth = Truth(thread)
    patterns = [Pattern.parse(f"simulated!f{number}") for number in chosen]
    with TraceFile(path) as trace:
        roots = contexts(trace, patterns, callees=callees, depth=depth)
        assert found(roots) == expected(truth, chosen, depth, callees)
        if not callees:
            calls = Counter(frame.id for frame in truth.frames if frame.kind == simulated.FUNCTION)
            assert {root.name: root.calls for root in roots} == {
                f"simulated!f{number}": calls[number] for number in chosen if calls[number]
            }
            for root in roots:
                assert sum(caller.calls for caller in root.others.values()) == root.calls


# ---- what the user sees ----


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """main sorts by an import that calls back less, which jumps to f; f calls an import from two places."""
    units = Units(8)

    def record(event: int, number: int) -> None:
        units.now += 100
        units.event(event, number)

    record(tracewriter.ENTER, 0)
    for _ in range(3):
        record(tracewriter.CALL, 0)
        for site in (1, 2):
            record(tracewriter.ENTER, 1)
            record(tracewriter.TAIL, 1)
            record(tracewriter.ENTER, 2)
            record(tracewriter.CALL, site)
            record(tracewriter.RETURN, site)
            record(tracewriter.LEAVE, 2)
        record(tracewriter.RETURN, 0)
    record(tracewriter.LEAVE, 0)
    writer = TraceWriter(8)
    names = [[0x1000, "main"], [0x2000, "less"], [0x3000, "f"]]
    sites = [(0x1010, 0, 0, 0), (0x3010, 2, 0, 1), (0x3020, 2, 0, 1)]
    told = {"name": "m.exe", "names": names, "imports": ["C.dll!qsort", "C.dll!puts"]}
    writer.module(told, [(rva, 16, 1, 0, 0, NONE) for rva, _ in names], sites)
    writer.thread(units)
    other = Units(8)
    other.event(tracewriter.ENTER, 2)
    other.event(tracewriter.LEAVE, 2)
    writer.thread(other, 1)
    return writer.write(tmp_path / "t.calltrace")


def test_callers_are_told_with_jumps_and_callbacks(trace: Path) -> None:
    assert run(f'callers "{trace}" f --depth 4').splitlines() == [
        "          self         total         calls  function, and who calls it",
        "       1.20 µs       1.80 µs             7  m!f",
        "       1.20 µs       1.80 µs             6    ← m!less  by a tail jump",
        "       1.20 µs       1.80 µs             6      ← C.dll!qsort",
        "       1.20 µs       1.80 µs             6        ← m!main",
        "       1.20 µs       1.80 µs             6          ← code not traced",
        "          0 ns          0 ns             1    ← code not traced",
    ]
    assert run(f'callers "{trace}" C!puts --thread 0').splitlines()[1:] == [
        "        600 ns        600 ns             6  C.dll!puts",
        "        600 ns        600 ns             6    ← m!f",
    ]
    assert run(f'callers "{trace}" C!puts --thread 1').splitlines() == ["no call of C!puts was recorded"]


def test_callees_are_told_with_jumps_and_callbacks(trace: Path) -> None:
    assert run(f'callees "{trace}" m!main --depth 3 --limit 4').splitlines() == [
        "          self         total         calls  function, and what it calls",
        "        400 ns       4.30 µs             1  m!main",
        "       1.50 µs       3.90 µs             3    → C.dll!qsort",
        "        600 ns        600 ns             6      → m!less",
        "       1.20 µs       1.80 µs             6        → m!f  by a tail jump",
    ]
    assert (
        run(f'callees "{trace}" m!main --depth 4 --limit 3').splitlines()[-1] == "2 more: --limit 0 shows all"
    )


def test_a_call_of_a_function_that_is_traced_is_no_level(tmp_path: Path) -> None:
    units = Units()
    for event, number in ((1, 0), (4, 0), (1, 1), (2, 1), (5, 0), (4, 1), (1, 1), (2, 1), (5, 1), (2, 0)):
        units.event(
            event, number
        )  # by site 0, whose callee is f, and by site 1, whose callee is not recorded
    writer = TraceWriter()
    names = [[0x1000, "main"], [0x2000, "f"], [0x3000, "refused"]]
    sites = [(0x1010, 0, 0x2000, NONE), (0x1020, 0, 0x3000, NONE)]
    functions = [(rva, 16, 1, 0, int(rva == 0x3000), NONE) for rva, _ in names]
    writer.module({"name": "m.exe", "names": names}, functions, sites)
    writer.thread(units)
    path = writer.write(tmp_path / "t.calltrace")
    assert run(f'callers "{path}" f').splitlines()[1:] == [
        "             2  m!f",
        "             1    ← call m!refused",
        "             1    ← m!main",
    ]
    assert run(f'callees "{path}" main').splitlines()[1:] == [
        "             1  m!main",
        "             1    → call m!refused",
        "             1    → m!f",
    ]


def test_an_import_of_a_traced_module_is_the_function_there(tmp_path: Path) -> None:
    units = Units()
    for event, number in ((1, 0), (4, 0), (1, 1), (2, 1), (5, 0), (2, 0)):
        units.event(event, number)
    writer = TraceWriter()
    told = {"name": "m.exe", "names": [[0x1000, "main"]], "imports": ["P.dll!work"]}
    writer.module(told, [(0x1000, 16, 1, 0, 0, NONE)], [(0x1010, 0, 0, 0)])
    told = {"name": "p.dll", "names": [[0x1000, "work"]]}
    writer.module(
        told, [(0x1000, 16, 1, 0, 0, NONE)], base=0x180000000, index=1, first_function=1, first_site=1
    )
    writer.thread(units)
    path = writer.write(tmp_path / "t.calltrace")
    assert run(f'callers "{path}" p!work').splitlines()[1:] == [
        "             1  p!work",
        "             1    ← m!main",
    ]


def test_only_the_last_of_endless_jumps_are_kept(tmp_path: Path) -> None:
    units = Units()
    units.event(tracewriter.ENTER, 0)
    for number in range(1, 10000):
        units.event(tracewriter.TAIL, (number - 1) % 2)
        units.event(tracewriter.ENTER, number % 2)
    writer = TraceWriter()
    names = [[0x1000, "even"], [0x2000, "odd"]]
    writer.module({"name": "m.exe", "names": names}, [(rva, 16, 1, 0, 0, NONE) for rva, _ in names])
    writer.thread(units)
    path = writer.write(tmp_path / "t.calltrace")
    assert run(f'callers "{path}" odd --depth 2').splitlines()[1:] == [
        "         5,000  m!odd",
        "         5,000    ← m!even  by a tail jump",
        "         4,999      ← m!odd  by a tail jump",
        "             1      ← code not traced",
    ]


def test_json_is_complete(trace: Path) -> None:
    told = json.loads(run(f'callees "{trace}" m!less --json'))
    assert told.pop("file") == str(trace)
    assert told == {
        "clock": "tsc",
        "ticks_per_second": 10**9,
        "functions": [
            {
                "name": "m!less",
                "tail": False,
                "calls": 6,
                "self": 600,
                "total": 600,
                "callees": [
                    {"name": "m!f", "tail": True, "calls": 6, "self": 1200, "total": 1800, "callees": []}
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("nosuch", "no function or import of .* matches nosuch"),
        ("f --depth 0", "out of range"),
        ("f --depth 65", "out of range"),
        ("f --thread 9", "has no thread 9"),
        ("m!", "write module!function"),
    ],
)
@pytest.mark.parametrize("verb", ["callers", "callees"])
def test_mistakes_are_one_line(trace: Path, verb: str, options: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(f'{verb} "{trace}" {options}')


def test_no_more_chains_of_calls_are_told_apart_than_fit_into_memory(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    six = run(f'callers "{trace}" f --depth 4')  # the function itself, and what stands below it
    monkeypatch.setattr(edges, "_CONTEXTS", 6)
    assert run(f'callers "{trace}" f --depth 4') == six
    monkeypatch.setattr(edges, "_CONTEXTS", 5)
    with pytest.raises(UsageError, match="more than 5 different chains of calls: give a smaller --depth"):
        run(f'callers "{trace}" f --depth 4')
    assert run(f'callers "{trace}" f').splitlines()[1:] == [
        line for line in six.splitlines()[1:] if "     ←" not in line
    ]


def test_top_of_one_thread_in_any_order(trace: Path) -> None:
    def names(options: str) -> list[str]:
        return [row.split()[-1] for row in run(f'top "{trace}" {options}').splitlines()[1:]]

    assert names("--thread 1") == ["m!f"]
    assert names("--sort calls") == ["m!f", "C.dll!puts", "m!less", "C.dll!qsort", "m!main"]
    assert names("--sort self") == names("") == ["C.dll!qsort", "m!f", "C.dll!puts", "m!less", "m!main"]
    assert names("--sort total")[:2] == ["m!main", "C.dll!qsort"]
    told = json.loads(run(f'top "{trace}" --sort total --limit 1 --json'))
    assert told["functions"] == [
        {"name": "m!main", "kind": "function", "calls": 1, "self": 400, "total": 4300}
    ]
    with TraceFile(trace) as opened:
        whole = {stat.name: stat.calls for stat in summarize(opened).stats}
        parts = [{stat.name: stat.calls for stat in summarize(opened, thread).stats} for thread in (0, 1)]
    assert whole == {name: sum(part.get(name, 0) for part in parts) for name in whole}


def test_an_order_by_time_needs_a_clock(tmp_path: Path) -> None:
    units = Units()
    units.event(tracewriter.ENTER, 0)
    writer = TraceWriter()
    writer.thread(units)
    path = writer.write(tmp_path / "t.calltrace")
    with pytest.raises(UsageError, match="no times to sort by"):
        run(f'top "{path}" --sort self')


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_callers_of_everything_are_those_of_each(tmp_path: Path, program: bytes) -> None:
    # Without the C API, whose functions can have the names of recorded ones.
    pairs = [pair for pair in zip(program[::2], program[1::2]) if pair[0] % 16 not in (13, 15)]
    program = bytes(byte for pair in pairs for byte in pair)
    path, _ = simulated_trace(tmp_path / "t.calltrace", program, unit_size=4)
    with TraceFile(path) as trace:
        whole = callers(trace)
        each = contexts(trace, [Pattern.parse("*")], callees=False)
    for called in whole.values():
        assert called == sorted(called, key=lambda one: (-one[1], one[0]))
    for function in each:
        counts: Counter[str] = Counter()
        for caller in function.others.values():
            if caller.name != NOBODY_NAME:
                counts[caller.name] += caller.calls
        assert dict(whole.get(function.name, ())) == counts
