"""Names that only a program database tells, as the debugger's engine knows them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from calltrace.tracefile import TraceFile
from rig import codeview, targets, tracing, windbg, windows

# From `hidden` out to `main`, as tests/targets/names.cpp calls them.
CHAIN = [
    "names!hidden",
    "names!`anonymous namespace'::bottom",
    "names!zoo::operator!=",
    "names!zoo::Lion::eat",
    "names!zoo::Cage<zoo::Lion>::feed",
    "names!apply",
    "names!main",
]
FRAME = re.compile(r"^[0-9a-f`]{17} [0-9a-f`]{17} (names!.*?)(?:\+0x[0-9a-f]+)?$", re.MULTILINE)
RECORDED = re.compile(r"^ +\d\d  (?:call )?(\S.*?)(?:  called at .*)?$", re.MULTILINE)


def test_stacks_and_trees_show_the_names_that_the_debugger_shows(tmp_path: Path) -> None:
    trace = tmp_path / "names.calltrace"
    script = [f"!calltrace start -o {windows.path(trace)}", "bp names!hidden", "g", "k", "!calltrace stacks"]
    shown = windbg.run([windbg.LOAD, *script, "bc *", "g"], [codeview.build("names"), "7"])
    walked = FRAME.findall(shown.said("k"))
    assert walked[: len(CHAIN)] == CHAIN
    recorded = RECORDED.findall(shown.said("!calltrace stacks"))
    # The breakpoint stands before the code that records the entry.
    assert recorded[: len(CHAIN) - 1] == CHAIN[1:]
    done = tracing.calltrace("tree", trace)  # the trace has them all, wherever it is read
    lines = [line.strip() for line in done.stdout.decode().splitlines()]
    positions = [lines.index(name) for name in reversed(CHAIN)]
    assert positions == sorted(positions)
    assert "names!zoo::Lion::operator bool" in lines


@pytest.mark.parametrize(
    ("patterns", "meant"),
    [
        ("zoo::Lion::eat", {"zoo::Lion::eat"}),
        ("names!zoo::Cage<zoo::Lion>::feed apply", {"zoo::Cage<zoo::Lion>::feed", "apply"}),
        ("zoo::operator!=", {"zoo::operator!="}),
        ('"zoo::Lion::operator bool"', {"zoo::Lion::operator bool"}),
        ('"`anonymous namespace\'::*"', {"`anonymous namespace'::bottom"}),
    ],
)
def test_patterns_mean_names_of_the_debugger(tmp_path: Path, patterns: str, meant: set[str]) -> None:
    trace = tmp_path / "chosen.calltrace"
    start = f"!calltrace start -o {windows.path(trace)} {patterns}"
    shown = windbg.run([windbg.LOAD, start, "g"], [codeview.build("names"), "7"])
    assert f"{len(meant)} of" in shown.said(start)
    with TraceFile(trace) as opened:
        [module] = opened.modules
        recorded = [record for record in opened.functions(module) if not record.filtered]
        assert {module.names[record.rva] for record in recorded if not record.status} == meant


def test_a_plan_of_the_target_has_the_names_of_the_debugger() -> None:
    command = "!calltrace plan --include zoo::* --json"
    shown = windbg.run([windbg.LOAD, command], [codeview.build("names"), "7"])
    [module] = json.loads(shown.said(command))["modules"]
    planned = {record["name"] for record in module["records"] if not record["status"]}
    assert planned == {*CHAIN[2:5], "names!zoo::Lion::operator bool"}
    assert module["named_by"].endswith("names.pdb")


def test_symbols_found_after_a_first_try_are_used(tmp_path: Path) -> None:
    database = codeview.build("names").with_suffix(".pdb")
    elsewhere = tmp_path / "program"
    elsewhere.mkdir()
    program = elsewhere / "names.exe"
    # Its debug directory says where the database is: there is no such folder.
    program.write_bytes(
        codeview.build("names")
        .read_bytes()
        .replace(b"codeview/names/names.pdb", b"codeview/nowhere/x.pdb\0\0")
    )
    symbols = tmp_path / "symbols"
    symbols.mkdir()
    start = "!calltrace start zoo::Lion::eat"
    folder = windows.path(symbols)
    (symbols / "x.pdb").write_bytes(database.read_bytes())
    trace = tmp_path / "found.calltrace"
    again = f"!calltrace start -o {windows.path(trace)} zoo::Lion::eat"
    script = [".sympath .", start, f".sympath {folder}", ".reload", again, "g"]
    shown = windbg.run([windbg.LOAD, *script], [program, "7"])
    assert "no function matches zoo::Lion::eat" in shown.said(start)
    assert "1 of" in shown.said(again)
    assert "names!zoo::Lion::eat" in tracing.calltrace("tree", trace).stdout.decode()


def test_exports_take_no_name_from_the_modules_own_table(tmp_path: Path) -> None:
    """The engine calls what is no export by the export before it; gcc's table has its name."""
    trace = tmp_path / "own.calltrace"
    start = f"!calltrace start -o {windows.path(trace)} session_calls!main session_calls!work"
    shown = windbg.run([windbg.LOAD, start, "g"], [targets.build("session_calls"), "3"])
    assert "2 of" in shown.said(start)
    lines = [line.strip() for line in tracing.calltrace("tree", trace).stdout.decode().splitlines()]
    assert "session_calls!main" in lines
    assert "session_calls!work" in lines
