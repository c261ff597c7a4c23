"""The page that `report` writes: its numbers are those of other commands, and only our scripts can run."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from calltrace import dispatch, wine
from calltrace.commands import Console
from calltrace.errors import BadTrace, CalltraceError, UsageError
from calltrace.export import html
from calltrace.profile import Limits
from calltrace.tracefile import TraceFile
from rig import reports, tracewriter
from rig.commands import run
from rig.reports import Report
from rig.simulated import simulated_trace
from rig.tracewriter import TraceWriter, Units

WEB = Path(html.__file__).parent / "web"
NONE = tracewriter.NONE
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\"'><img src=x onerror=alert(2)>",
    "&lt;b&gt;&amp;",
    "line\u2028paragraph\u2029",
    "@data@ @page@ ${1}",
    "half \ud800 of one",
    "türkçe İ 漢字",
)


def random_trace(path: Path, threads: int = 2, unit_size: int = 8) -> Path:
    programs = [random.Random(number).randbytes(3000) for number in range(threads)]
    command_line = '"C:\\work\\simulated.exe" <b> &amp;'
    return simulated_trace(path, *programs, unit_size=unit_size, start=1000, command_line=command_line)[0]


def said(line: str) -> tuple[str, list[str]]:
    """What a command shows, and what it says beside that."""
    out, beside = io.StringIO(), []
    assert dispatch.run_line(line, Console(out, beside.append)) == 0
    return out.getvalue(), beside


def report_of(*traces: Path) -> Report:
    page = traces[0].with_suffix(".html")
    run("report " + " ".join(f'"{trace}"' for trace in traces))
    return reports.read(page)


def as_json(line: str) -> Any:
    out = io.StringIO()
    dispatch.run_line(line, Console(out, lambda line: None))  # `diff` tells by its exit code
    return json.loads(out.getvalue())


@pytest.mark.parametrize("unit_size", [4, 8])
def test_functions_are_those_of_top(tmp_path: Path, unit_size: int) -> None:
    trace = random_trace(tmp_path / "t.calltrace", unit_size=unit_size)
    expected = [
        (one["name"], one["calls"], one["self"] or 0, one["total"] or 0)
        for one in as_json(f'top "{trace}" --limit 0 --json')["functions"]
    ]
    assert sorted(report_of(trace).functions()) == sorted(expected)


@pytest.mark.parametrize("unit_size", [4, 8])
def test_callers_and_callees_are_those_of_the_commands(tmp_path: Path, unit_size: int) -> None:
    trace = random_trace(tmp_path / "t.calltrace", unit_size=unit_size)
    found = report_of(trace)
    assert found.trace["nobody"] == "code not traced"
    edges = found.edges()
    # A function of the C API may have the name of one that is traced: to the page they are one.
    kinds = Counter(name for name, *_ in found.functions())
    for verb in ("callers", "callees"):
        asked = 0
        for one in as_json(f'{verb} "{trace}" simulated!* --json')["functions"]:
            if kinds[one["name"]] > 1:
                continue
            expected = sorted(
                (other["name"], other["tail"], other["calls"], other["self"] or 0, other["total"] or 0)
                for other in one[verb]
            )
            at = 1 if verb == "callers" else 0
            mine = sorted(
                (edge[1 - at] or "code not traced", *edge[2:]) for edge in edges if edge[at] == one["name"]
            )
            assert mine == expected, (verb, one["name"])
            asked += bool(expected)
        assert asked > 5


def test_stacks_are_those_of_folded(tmp_path: Path) -> None:
    trace = random_trace(tmp_path / "t.calltrace")
    out = tmp_path / "folded"
    run(f'export folded "{trace}" -o "{out}"')
    expected = {}
    for line in out.read_text(encoding="utf-8").splitlines():
        stack, _, weight = line.rpartition(" ")
        key = tuple(stack.split(";"))
        expected[key] = expected.get(key, 0) + int(weight)
    found = report_of(trace).stacks()
    assert {stack: own for stack, (own, _, _) in found.items() if own} == expected
    assert all(hidden == 0 for _, hidden, _ in found.values())


def test_what_is_left_out_is_told_and_no_time_is_lost(tmp_path: Path) -> None:
    trace = random_trace(tmp_path / "t.calltrace", threads=5)
    bounds = html.Bounds(stacks=40, functions=10, edges=12, threads=2)
    limits = Limits(stacks=300, depth=3, columns=20, levels=2)
    page = tmp_path / "page.html"
    with TraceFile(trace) as opened:
        page.write_text(html.page([opened], bounds=bounds, limits=limits), encoding="utf-8")
    found, whole = reports.read(page), report_of(trace)
    assert (len(found.functions()), len(found.trace["threads"])) == (10, 2)
    assert 0 < len(found.edges()) <= 12  # those of functions that are there
    stacks = found.stacks()
    assert len(stacks) == 40
    assert max(map(len, stacks)) == 4
    assert sum(own + hidden for own, hidden, _ in stacks.values()) == sum(
        own for own, _, _ in whole.stacks().values()
    )
    told = found.trace["told"]
    assert "2 busiest of 5 threads" in told["threads"]
    assert "The 40 largest stacks of" in told["stacks"]
    assert "The first 10 of" in told["functions"]
    assert "smallest are left out" in told["functions"]
    assert not any("left out" in text or "largest" in text for text in whole.trace["told"].values())
    assert sum(row[2] for row in found.trace["functions"]) <= sum(row[2] for row in whole.trace["functions"])


def test_only_our_scripts_may_run_and_nothing_is_asked_for(tmp_path: Path) -> None:
    found = report_of(random_trace(tmp_path / "t.calltrace"))
    assert [len(script) > 1000 for script in found.scripts] == [True] * 3
    policy = dict(part.strip().split(" ", 1) for part in found.policy.split(";"))
    assert policy["default-src"] == "'none'"
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in found.scripts]
    assert policy["script-src"].split() == [f"'sha256-{each}'" for each in hashes]
    assert not found.addresses


def named_trace(path: Path, names: tuple[str, ...]) -> Path:
    units = Units(8)
    for number in range(len(names)):
        units.event(tracewriter.ENTER, number)
        units.now += 100
    for number in reversed(range(len(names))):
        units.event(tracewriter.LEAVE, number)
    writer = TraceWriter(8)
    functions = [(0x1000 + 16 * number, 16, 1, 0, 0, NONE) for number in range(len(names))]
    told = {"name": "<i>&.exe", "names": [[0x1000 + 16 * at, name] for at, name in enumerate(names)]}
    writer.module(told, functions)
    writer.info({"command_line": HOSTILE[0]})
    writer.thread(units)
    return writer.write(path)


def test_names_of_any_kind_stay_names(tmp_path: Path) -> None:
    trace = named_trace(tmp_path / "<i>&.calltrace", HOSTILE)
    found = report_of(trace)
    plain = report_of(named_trace(tmp_path / "plain.calltrace", ("a",)))
    assert found.scripts == plain.scripts
    assert found.text.count("<script") == plain.text.count("<script")
    assert found.text.count("<i>") == found.text.count("<img") == 0
    assert dict(found.trace["summary"])["program"] == HOSTILE[0]
    with TraceFile(trace) as opened:
        expected = {opened.node_name(0, number) for number in range(len(HOSTILE))}
    assert {name for name, *_ in found.functions()} == expected


def test_the_page_does_not_depend_on_where_the_trace_lies(tmp_path: Path) -> None:
    trace = random_trace(tmp_path / "t.calltrace")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(trace, tmp_path / "elsewhere")
    pages = [report_of(folder / "t.calltrace").text for folder in (tmp_path, tmp_path / "elsewhere")]
    assert pages[0] == pages[1]
    assert str(tmp_path) not in pages[0]


def test_the_libraries_are_those_of_their_packages() -> None:
    folder = wine.cache_folder() / "web"
    assert folder.is_dir(), f"{folder} is missing: run `make setup`"
    bundled = set()
    for told in json.loads((WEB / "packages.json").read_text(encoding="utf-8")):
        package = folder / told["package"].partition("@")[0]
        assert json.loads((package / "package.json").read_text())["license"] == told["licence"]
        for there, here in told["files"].items():
            assert (WEB / here).read_bytes() == (package / there).read_bytes(), here
            bundled.add(here)
    assert bundled == {path.name for path in WEB.iterdir() if path.name.startswith("d3")}


def test_two_traces_differ_as_diff_says(tmp_path: Path) -> None:
    first = random_trace(tmp_path / "a.calltrace", threads=1)
    second = random_trace(tmp_path / "b.calltrace", threads=3)
    found = report_of(first, second)
    assert [trace["file"] for trace in found.data["traces"]] == ["a.calltrace", "b.calltrace"]
    expected = {(one["name"], *one["calls"]) for one in as_json(f'diff "{first}" "{second}" --json')["found"]}
    rows = [tuple(row[:3]) for group in found.data["differences"]["groups"] for row in group["rows"]]
    assert len(rows) == len(expected) > 5
    assert set(rows) == expected
    kinds = {group["id"]: group["rows"] for group in found.data["differences"]["groups"]}
    assert all(row[2] == 0 < row[1] for row in kinds["only-a"])
    assert all(row[1] == 0 < row[2] for row in kinds["only-b"])
    assert all(row[1] and row[2] and row[1] != row[2] for row in kinds["other-count"])


def test_first_entries_are_said_to_be_no_more(tmp_path: Path) -> None:
    units = Units()
    for number in range(3):
        units.event(tracewriter.ENTER, number)
        units.event(tracewriter.LEAVE, number)
    writer = TraceWriter()
    writer.module({"name": "d.exe"}, [(0x1000 + 16 * at, 16, 1, 0, 0, NONE) for at in range(3)])
    writer.info({"options": {"mode": "hits"}})
    writer.thread(units)
    found = report_of(writer.write(tmp_path / "t.calltrace"))
    assert found.trace["stackless"]
    assert any("only the first entry of each function" in note for note in found.trace["notes"])
    assert found.edges() == []


def test_a_trace_that_is_cut_off_answers_for_what_is_there(tmp_path: Path) -> None:
    trace = random_trace(tmp_path / "t.calltrace")
    cut = tmp_path / "cut.calltrace"
    cut.write_bytes(trace.read_bytes()[: -tracewriter.BLOCK // 2])
    found = report_of(cut)
    assert found.functions()
    assert any("cut.calltrace is cut off" in note for note in found.trace["notes"])
    assert str(tmp_path) not in found.text
    assert report_of(trace).trace["notes"] == []


@pytest.mark.parametrize("content", [b"", b"PK\3\4" + bytes(70000), b"CALLTRC\0\x09\0\0\0" + bytes(70000)])
def test_what_is_no_trace_is_one_line_and_no_page(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "t.calltrace"
    file.write_bytes(content)
    good = random_trace(tmp_path / "good.calltrace")
    for line in (f'report "{file}"', f'report "{good}" "{file}"'):
        with pytest.raises(BadTrace) as caught:
            run(line)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.html"))


def test_damaged_traces_give_a_page_or_one_line(tmp_path: Path) -> None:
    whole = random_trace(tmp_path / "whole.calltrace").read_bytes()
    rng = random.Random(5)
    file = tmp_path / "t.calltrace"
    told: list[str] = []
    for _ in range(30):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 30)):
            at = rng.choice([rng.randrange(200), rng.randrange(len(data))])
            data[at] = rng.randrange(256)
        file.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            report_of(file)
        except CalltraceError as error:
            told.append(str(error))
    assert len(told) < 25
    assert not any("\n" in line for line in told)


def test_where_the_page_goes_and_what_is_said(tmp_path: Path) -> None:
    trace = random_trace(tmp_path / "t.calltrace")
    for option, page in (("", "t.html"), (f' -o "{tmp_path / "other.htm"}"', "other.htm")):
        out, beside = said(f'report "{trace}"{option}')
        assert out == ""
        assert beside[-1].startswith(f"wrote {tmp_path / page} (")
        assert (tmp_path / page).stat().st_size > 300_000
    for wrong in (f'report "{trace}" -o "{trace}"', f'report "{trace}" "{trace}" -o "{trace}"'):
        with pytest.raises(UsageError, match="is the trace itself"):
            run(wrong)
    with pytest.raises(CalltraceError, match="its folder does not exist"):
        run(f'report "{trace}" -o "{tmp_path / "no" / "page.html"}"')
