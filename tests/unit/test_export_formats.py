"""What `export` writes for other tools, read back by them where they can be had, else by its rules."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calltrace.edges import call_graph
from calltrace.export import FORMATS, folded
from calltrace.tracefile import TraceFile
from rig import readers, simulated, tracewriter
from rig.commands import exported, run
from rig.simulated import Frame, simulated_trace
from rig.tracewriter import TraceWriter, Units

NONE = tracewriter.NONE


# Short ones that can be made shorter, and long ones in which everything happens.
PROGRAMS = st.binary(max_size=240) | st.integers(0, 1 << 32).map(
    lambda seed: random.Random(seed).randbytes(1000)
)
checked = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def stands_for_callee(frame: Frame) -> bool:
    """A call site that is told of as the call of the function entered there."""
    called = frame.children and frame.children[0].kind == simulated.FUNCTION
    return bool(frame.kind == simulated.CALL_NODE and called)


@checked
@given(PROGRAMS)
def test_the_call_graph_by_stack_has_all_calls_and_all_time(tmp_path: Path, program: bytes) -> None:
    path, (thread,) = simulated_trace(tmp_path / "t", program)
    own: Counter[str] = Counter()
    calls: Counter[tuple[str, str]] = Counter()

    def walk(frames: list[Frame], caller: str) -> None:
        for frame in frames:
            through = stands_for_callee(frame)
            inner = caller if through else simulated.name(frame)
            if inner:
                own[inner] += frame.self_time()
            if not through and caller:
                calls[caller, inner] += 1
            walk(frame.children, inner)

    walk(thread.roots, "")
    with TraceFile(path) as trace:
        functions = call_graph(trace, by_stack=True)
    assert {function.name: function.self_time for function in functions} == dict(own)
    found = {(each.name, other.name): other.calls for each in functions for other in each.others.values()}
    assert found == dict(calls)
    assert not any(other.tail for function in functions for other in function.others.values())


# ---- a trace whose numbers are known by hand ----


def known_trace(path: Path) -> Path:
    """main calls f twice, which jumps to g, and an import; another module's function is never called."""
    units = Units(8)

    def record(event: int, number: int, ticks: int) -> None:
        units.event(event, number)
        units.now += ticks

    record(tracewriter.ENTER, 0, 100)
    for _ in range(2):
        record(tracewriter.ENTER, 1, 10)
        record(tracewriter.TAIL, 1, 0)
        record(tracewriter.ENTER, 2, 5)
        record(tracewriter.LEAVE, 2, 1)
    record(tracewriter.CALL, 0, 40)
    record(tracewriter.RETURN, 0, 7)
    record(tracewriter.LEAVE, 0, 0)
    writer = TraceWriter(8)
    names = [[0x1000, 'main "odd" \\ <1>; (2)'], [0x2000, "f"]]
    told = {
        "path": "C:\\made\\Demo.exe", "names": names, "imports": ["K.dll!Sleep"],
        "timestamp": 0x1234ABCD, "checksum": 0x77,
    }  # fmt: skip
    functions = [(0x1000, 16, 1, 0, 0, NONE), (0x2000, 0x12345, 1, 0, 0, NONE), (0x20000, 0, 1, 0, 0, NONE)]
    writer.module(told, [*functions, (0x30000, 8, 1, 0, 0, NONE)], [(0x1004, 0, 0, 0)])
    writer.thread(units)
    return writer.write(path)


MAIN, G = 'Demo!main "odd" \\ <1>; (2)', "Demo+0x20000"


def annotated(trace: Path, folder: Path, *options: str) -> dict[str, int]:
    """The cost of each function and of all, as callgrind_annotate tells it."""
    annotate = shutil.which("callgrind_annotate")
    assert annotate, "callgrind_annotate is missing: run tests/rig/setup.sh"
    profile = folder / "trace.callgrind"
    profile.write_text(exported(trace, "callgrind"), encoding="utf-8")
    command = [annotate, "--threshold=100", "--show-percs=no", *options, str(profile)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "WARNING" not in done.stderr
    rows = re.findall(r"^\s*([\d,]+) +(?:\* +|[<>] +)?(?:\?\?\?:)?(.+?)(?: \[.*\])?$", done.stdout, re.M)
    return {name: int(cost.replace(",", "")) for cost, name in rows}


def test_callgrind_annotate_reads_own_and_inclusive_costs(tmp_path: Path) -> None:
    own = {MAIN: 109, "Demo!f": 20, G: 10, "K.dll!Sleep": 40, "PROGRAM TOTALS": 179}
    trace = known_trace(tmp_path / "t")
    assert annotated(trace, tmp_path) == own
    assert annotated(trace, tmp_path, "--inclusive=yes") == own | {MAIN: 179}


def test_callgrind_annotate_says_what_top_says(demo_trace: Path, tmp_path: Path) -> None:
    top = json.loads(run(f'top "{demo_trace}" --limit 0 --json'))["functions"]
    own = {one["name"]: one["self"] for one in top}
    expected = {"PROGRAM TOTALS": sum(own.values())} | {name: cost for name, cost in own.items() if cost}
    # The call of a traced function, through a pointer, is its caller's own to callgrind.
    for site in [name for name in expected if name.startswith("call at ")]:
        place = site.removeprefix("call at ")
        [caller] = json.loads(run(f'callers "{demo_trace}" {place} --json'))["functions"]
        expected[caller["name"]] = expected.get(caller["name"], 0) + expected.pop(site)
    assert len(expected) > 30
    assert annotated(demo_trace, tmp_path) == expected


@checked
@given(PROGRAMS)
def test_costs_in_callgrind_are_the_time_of_all_threads(tmp_path: Path, program: bytes) -> None:
    path, (thread,) = simulated_trace(tmp_path / "t", program)
    text = exported(path, "callgrind")
    lines = text.splitlines()
    header = lines.index("events: Ticks")
    (summary,) = (int(line.split()[1]) for line in lines if line.startswith("summary: "))
    own, after_call = 0, False
    for line in lines[header + 2 :]:
        if line.startswith("0 ") and not after_call:
            own += int(line.split()[1])
        after_call = line.startswith("calls=")
    rooted = [root for root in thread.roots if stands_for_callee(root)]
    assert own == summary
    assert own == sum(root.end - root.begin for root in thread.roots) - sum(map(Frame.self_time, rooted))


def test_dot_draws_the_graph(tmp_path: Path) -> None:
    dot = shutil.which("dot")
    assert dot, "dot is missing: run tests/rig/setup.sh"
    source = exported(known_trace(tmp_path / "t"), "dot")
    done = subprocess.run([dot, "-Tjson0"], input=source, capture_output=True, text=True, check=True)
    assert not done.stderr
    graph = json.loads(done.stdout)
    labels = {node["_gvid"]: node["label"].split("\\n")[0] for node in graph["objects"]}
    drawn = {
        (labels[edge["tail"]], labels[edge["head"]], edge["label"], edge.get("style"))
        for edge in graph["edges"]
    }
    odd = MAIN.replace("\\", "\\\\")  # DOT's escape in a label, which the JSON output keeps
    assert drawn == {
        (odd, "Demo!f", "2", None),
        ("Demo!f", G, "2", "dashed"),
        (odd, "K.dll!Sleep", "1", None),
    }


# ---- speedscope ----

FITS_SPEEDSCOPE = readers.speedscope_validator()


def test_the_schema_of_speedscope_refuses_what_is_none(tmp_path: Path) -> None:
    told = json.loads(exported(known_trace(tmp_path / "t"), "speedscope"))
    FITS_SPEEDSCOPE(told)
    told["profiles"][0]["events"][0]["type"] = "X"
    with pytest.raises(ValueError, match="profiles"):
        FITS_SPEEDSCOPE(told)


@checked
@given(PROGRAMS, PROGRAMS, st.sampled_from([4, 8]))
def test_speedscope_profiles_are_balanced(
    tmp_path: Path, program: bytes, other: bytes, unit_size: int
) -> None:
    path, threads = simulated_trace(tmp_path / "t", program, other, unit_size=unit_size)
    told = json.loads(exported(path, "speedscope"))
    FITS_SPEEDSCOPE(told)
    names = [frame["name"] for frame in told["shared"]["frames"]]
    profiles = {profile["name"]: profile for profile in told["profiles"]}
    for number, thread in enumerate(threads):
        if not thread.units:
            continue
        profile = profiles[f"thread {number} (id {1000 + 4 * number})"]
        assert profile["type"] == "evented"
        assert profile["unit"] == ("nanoseconds" if unit_size == 8 else "none")
        opened, stack, last = [], [], profile["startValue"]
        for event in profile["events"]:
            assert last <= event["at"] <= profile["endValue"]
            last = event["at"]
            if event["type"] == "O":
                opened.append((names[event["frame"]], event["at"]))
                stack.append(event["frame"])
            else:
                assert event["type"] == "C"
                assert stack.pop() == event["frame"]
        assert not stack
        if profile["events"]:
            assert (profile["startValue"], profile["endValue"]) == (profile["events"][0]["at"], last)
        begin = [frame.begin if unit_size == 8 else frame.opened for frame in thread.frames()]
        assert opened == [(simulated.name(frame), at) for frame, at in zip(thread.frames(), begin)]


# ---- folded stacks ----


def folded_stacks(text: str) -> Counter[tuple[str, ...]]:
    """As flamegraph.pl reads them: the number behind the last space, lines of the same stack added up."""
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        stack, _, weight = line.rpartition(" ")
        stacks[tuple(stack.split(";"))] += int(weight)
    return stacks


@checked
@given(PROGRAMS, st.integers(1, 30))
def test_folded_stacks_have_all_time_however_few_are_kept(tmp_path: Path, program: bytes, kept: int) -> None:
    path, (thread,) = simulated_trace(tmp_path / "t", program)
    expected: Counter[tuple[str, ...]] = Counter()

    def walk(frames: list[Frame], above: tuple[str, ...]) -> None:
        for frame in frames:
            stack = (*above, simulated.name(frame))
            expected[stack] += frame.self_time()
            walk(frame.children, stack)

    walk(thread.roots, ("thread 0 (id 1000)",))
    out = io.StringIO()
    with TraceFile(path) as trace:
        folded.write(trace, out, kept)
    assert folded_stacks(out.getvalue()) == +expected


def test_folded_stacks_of_a_deep_recursion_stay_short(tmp_path: Path) -> None:
    units = Units(8)
    for event, ticks in ((tracewriter.ENTER, 3), (tracewriter.LEAVE, 0)):
        for _ in range(5000):
            units.event(event, 0)
            units.now += ticks
    writer = TraceWriter(8)
    writer.module({"name": "d.exe", "names": [[0x1000, "a;b"]]}, [(0x1000, 1, 1, 0, 0, NONE)])
    writer.thread(units)
    text = exported(writer.write(tmp_path / "t"), "folded")
    stacks = folded_stacks(text)
    assert sum(stacks.values()) == 15000
    assert max(map(len, stacks)) == 1001
    assert {frame for stack in stacks for frame in stack[1:]} == {"d!a:b"}


# ---- coverage ----


def test_drcov_has_the_functions_that_were_called(tmp_path: Path) -> None:
    run(f'export drcov "{known_trace(tmp_path / "t")}" -o "{tmp_path / "out"}"')
    head, _, blocks = (tmp_path / "out").read_bytes().partition(b" bbs\n")
    lines = head.decode().splitlines()
    assert lines[:4] == [
        "DRCOV VERSION: 2",
        "DRCOV FLAVOR: calltrace",
        "Module Table: version 2, count 1",
        "Columns: id, base, end, entry, checksum, timestamp, path",
    ]
    number, base, _, entry, checksum, timestamp, path = lines[4].split(", ")
    numbers = [int(number), *(int(each, 16) for each in (base, entry, checksum, timestamp))]
    assert numbers == [0, 0x140000000, 0, 0x77, 0x1234ABCD]
    assert path == "C:\\made\\Demo.exe"
    assert lines[5:] == ["BB Table: 4"]
    assert list(struct.iter_unpack("<IHH", blocks)) == [
        (0x1000, 16, 0),
        (0x2000, 0xFFFF, 0),
        (0x2000 + 0xFFFF, 0x12345 - 0xFFFF, 0),
        (0x20000, 1, 0),  # its size is not known
    ]


def test_drcov_is_what_another_reader_reads(tmp_path: Path) -> None:
    run(f'export drcov "{known_trace(tmp_path / "t")}" -o "{tmp_path / "out"}"')
    coverage = readers.read_drcov(str(tmp_path / "out"))
    (module,) = coverage.modules
    assert (module.base, module.size, module.path) == (0x140000000, 0x100000, "C:\\made\\Demo.exe")
    assert (module.checksum, module.timestamp) == (0x77, 0x1234ABCD)
    assert [(block.start, block.size, block.module_id) for block in coverage.basic_blocks] == [
        (0x1000, 16, 0),
        (0x2000, 0xFFFF, 0),
        (0x2000 + 0xFFFF, 0x12345 - 0xFFFF, 0),
        (0x20000, 1, 0),
    ]


def test_drcov_without_a_name_goes_beside_the_trace(tmp_path: Path) -> None:
    path = known_trace(tmp_path / "t.calltrace")
    assert run(f'export drcov "{path}"') == ""
    assert path.with_suffix(".drcov").read_bytes().startswith(b"DRCOV VERSION: 2\n")


def test_offsets_name_module_and_rva(tmp_path: Path) -> None:
    text = exported(known_trace(tmp_path / "t"), "offsets")
    assert text.splitlines() == ["Demo.exe+1000", "Demo.exe+2000", "Demo.exe+20000"]


def test_functions_of_several_modules_are_told_apart(tmp_path: Path) -> None:
    units = Units()
    for function in (0, 7, 5):  # 7 is in the second module; 5 in none
        units.event(tracewriter.ENTER, function)
        units.event(tracewriter.LEAVE, function)
    writer = TraceWriter()
    writer.module({"path": "C:\\a.exe"}, [(0x1000, 16, 1, 0, 0, NONE)])
    library = [(0x1000, 8, 1, 0, 0, NONE), (0x2000, 8, 1, 0, 0, NONE)]
    writer.module({"path": "C:\\b.dll"}, library, base=0x180000000, index=1, first_function=6)
    writer.thread(units)
    path = writer.write(tmp_path / "t")
    assert exported(path, "offsets").splitlines() == ["a.exe+1000", "b.dll+2000"]
    out = io.BytesIO()
    with TraceFile(path) as trace:
        FORMATS["drcov"].write(trace, out)
    head, _, blocks = out.getvalue().partition(b"BB Table: 2 bbs\n")
    assert [line.rsplit("\\")[-1] for line in head.decode().splitlines()[4:]] == ["a.exe", "b.dll"]
    assert list(struct.iter_unpack("<IHH", blocks)) == [(0x1000, 16, 0), (0x2000, 8, 1)]
    for form in ("ida", "binja"):
        script, _, _ = exported(path, form).partition("import")
        names: dict[str, dict[str, list[list[int]]]] = {}
        exec(script, names)
        rvas = {module: [row[0] for row in rows] for module, rows in names["MODULES"].items()}
        assert rvas == {"a.exe": [0x1000], "b.dll": [0x2000]}
    rows = [line for line in exported(path, "ghidra").splitlines() if line.startswith(("#module", "#row"))]
    assert [row.partition(",")[0] for row in rows] == [
        '#module "a.exe"', "#row [4096", '#module "b.dll"', "#row [8192",
    ]  # fmt: skip
