"""The loop tracer in the real debugger, on its target."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rig import targets, tracing, windows, x64dbg

pytestmark = x64dbg.only_real

START = x64dbg.init(targets.build("loop_receive"), "300")
COMMAND = "calltrace loop loop_receive!api_receive"
ENDED = "Process stopped with exit code 0x0 (0)"


@pytest.mark.parametrize("method", ["unwind", "returns"])
def test_the_loop_of_the_target_is_found(method: str, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    command = f"{COMMAND} --method {method}"
    shown = x64dbg.run([START, command, f"{command} --json -o {windows.path(file)}", "run"], x64dbg.REAL)
    assert re.search(r"loop of loop_receive!serve \w{16}", shown.said(command))
    assert "leads to the API  <- frame function" in shown.said(command)
    [found] = json.loads(file.read_text())["methods"]
    [loop] = found["loops"]
    assert loop["owner"]["name"] == "loop_receive!serve"
    assert loop["frame_function"]["name"] == "loop_receive!handle_message"
    # With a sum over its code as exit code: nothing is left.
    plain = windows.run([targets.build("loop_receive"), "300"])
    assert f"exit code 0x{plain.returncode:X} " in shown.commands[-1][1]


def test_a_breakpoint_of_the_user_ends_it_and_goes_on_hitting() -> None:
    point = "bp loop_receive:handle_message"
    shown = x64dbg.run([START, point, COMMAND, "run", "bc loop_receive:handle_message", "run"], x64dbg.REAL)
    assert "calltrace: " in shown.said(COMMAND)
    assert "where you wanted a stop" in shown.said(COMMAND)
    hit = [text for command, text in shown.commands if command == "run"]
    assert "INT3 breakpoint at " in hit[0]
    assert ENDED in hit[1]


def test_it_can_begin_at_a_breakpoint_and_on_the_api_itself() -> None:
    script = [START, "bp loop_receive:api_receive", "run", COMMAND, "bc loop_receive:api_receive", "run"]
    shown = x64dbg.run(script, x64dbg.REAL)
    assert "Breakpoint " in shown.said(COMMAND)
    assert ENDED in shown.commands[-1][1]


def test_the_menu_climbs_from_where_it_is_clicked() -> None:
    click = "!click Loop from here"
    shown = x64dbg.run([START, "!select loop_receive:api_receive", click, "run"], x64dbg.REAL)
    assert "loop of loop_receive!serve" in shown.said(click)
    assert ENDED in shown.commands[-1][1]


def test_it_ends_in_time_and_leaves_the_target_stopped() -> None:
    begin = x64dbg.init(targets.build("loop_receive"), "200000000")
    command = "calltrace loop loop_receive!main --timeout 0.5"
    shown = x64dbg.run([begin, command, "!where"], x64dbg.REAL)
    said = r"loop_receive!main: 1 hit in [\d.]+ s; no loop has come round within"
    assert re.search(said, shown.said(command))
    assert shown.has_target


def test_the_exact_tracer_finds_what_it_finds_without_debugger(tmp_path: Path) -> None:
    beside, alone = tmp_path / "beside.calltrace", tmp_path / "alone.calltrace"
    program = targets.build("session_calls")
    done = tracing.calltrace("reference", "-o", alone, "--", program, "5")
    assert done.returncode == 11, done.stderr.decode()
    command = f"calltrace reference -o {windows.path(beside)}"
    shown = x64dbg.run([x64dbg.init(program, "5"), command], x64dbg.REAL)
    assert "Process stopped with exit code 0xB (11)" in shown.said(command)
    trees = [tracing.shell("tree", trace, "--limit", "0").splitlines()[1:] for trace in (beside, alone)]
    assert trees[0] == trees[1]
    assert len(trees[0]) > 20
