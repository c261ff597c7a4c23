"""The loop tracer in the real debugger engine while its target is being recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rig import display, targets, windbg, windows
from rig.searched import RENDERERS, assert_loop, symbols

API = "loop_receive!api_receive"


def named(loop: dict[str, Any]) -> tuple[str, str]:
    return loop["owner"]["name"], loop["frame_function"]["name"]


def own(said: bytes) -> bytes:
    """What a program says, but for the recorder's DLL, which stays in it."""
    return b"".join(line for line in said.splitlines(keepends=True) if b"code of calltrace.dll" not in line)


@pytest.mark.parametrize("method", ["unwind", "returns"])
def test_the_loop_is_found_through_copies_and_in_what_was_recorded(method: str, tmp_path: Path) -> None:
    climbed, recorded = tmp_path / "climbed.json", tmp_path / "recorded.json"
    climb = f"!calltrace loop {API} --method {method} --json -o {windows.path(climbed)}"
    so_far = f"!calltrace loop {API} --from-trace --json -o {windows.path(recorded)}"
    program = targets.build("loop_receive")
    lines = [windbg.LOAD, "!calltrace start", climb, so_far, "!calltrace stop", "!calltrace top", "g"]
    shown = windbg.run(lines, [program, "300"])
    for file in (climbed, recorded):
        [found] = json.loads(file.read_text())["methods"]
        [loop] = found["loops"]
        assert named(loop) == ("loop_receive!serve", "loop_receive!handle_message")
        serve = symbols("loop_receive")["serve"]
        [[back, header]] = loop["back_edges"]
        assert serve < header["address"] - 0x140000000 < back["address"] - 0x140000000
    assert own(shown.stdout) == windows.run([program, "300"]).stdout  # and its code: nothing is left


def test_a_renderer_draws_the_same_frames_while_it_is_recorded_and_climbed(tmp_path: Path) -> None:
    renderer, climbed, recorded = RENDERERS["main"], tmp_path / "climbed.json", tmp_path / "recorded.json"
    climb = f"!calltrace loop {renderer.api} --method both --json -o {windows.path(climbed)}"
    so_far = f"!calltrace loop {renderer.api} --from-trace --json -o {windows.path(recorded)}"
    lines = [windbg.LOAD, "!calltrace start", climb, so_far, "bl", "!calltrace stop", "g"]
    shown = windbg.run(lines, renderer.command, env=display.environment())
    assert json.loads(climbed.read_text())["differences"] == []
    for file in (climbed, recorded):
        for method in json.loads(file.read_text())["methods"]:
            assert_loop(method, renderer.owner, renderer.frame, renderer.program)
    assert shown.said("bl").strip() == ""
    assert own(shown.stdout) == renderer.plain()


def test_one_thread_can_be_chosen_as_the_debugger_calls_it() -> None:
    chosen = f"!calltrace loop {API} --thread ~0"
    none = f"!calltrace loop {API} --thread ~7"
    shown = windbg.run([windbg.LOAD, none, chosen], [targets.build("loop_receive"), "300"])
    assert "the debugger has no thread ~7" in shown.said(none)
    assert "loop of loop_receive!serve" in shown.said(chosen)


def test_after_a_recording_it_climbs_as_before_it(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    climb = f"!calltrace loop {API} --json -o {windows.path(file)}"
    program = targets.build("loop_receive")
    stop = f"bp {0x140000000 + symbols('loop_receive')['api_receive']:#x}"
    lines = [windbg.LOAD, "!calltrace start", stop, "g", "bc *", "!calltrace stop", climb, "g"]
    shown = windbg.run(lines, [program, "300"])  # the thread is still to return into copies
    [loop] = json.loads(file.read_text())["methods"][0]["loops"]
    assert named(loop) == ("loop_receive!serve", "loop_receive!handle_message")
    assert own(shown.stdout) == windows.run([program, "300"]).stdout
