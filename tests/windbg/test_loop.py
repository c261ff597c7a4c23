"""The loop tracer in the real debugger engine, on the session's target."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rig import display, targets, windbg, windows
from rig.searched import RENDERERS, assert_loop


@pytest.mark.parametrize("method", ["unwind", "returns"])
def test_the_loop_of_the_session_s_target_is_found(method: str, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    command = "!calltrace loop loop_receive!api_receive --method " + method
    as_json = f"{command} --json -o {windows.path(file)}"
    program = targets.build("loop_receive")
    shown = windbg.run([windbg.LOAD, command, as_json, "g"], [program, "300"])
    said = shown.said(command)
    assert "loop of loop_receive!serve" in said
    assert "loop_receive!handle_message: once per turn, leads to the API  <- frame function" in said
    [found] = json.loads(file.read_text())["methods"]
    [loop] = found["loops"]
    assert (loop["owner"]["name"], loop["frame_function"]["name"]) == (
        "loop_receive!serve",
        "loop_receive!handle_message",
    )
    assert shown.stdout == windows.run([program, "300"]).stdout  # with a sum over its code: nothing is left


@pytest.mark.parametrize("variant", RENDERERS)
def test_a_renderer_s_loop_and_frame_function_are_found_and_no_pixel_changes(
    variant: str, tmp_path: Path
) -> None:
    renderer, file = RENDERERS[variant], tmp_path / "found.json"
    command = f"!calltrace loop {renderer.api} --method both --json -o {windows.path(file)}"
    count = f"dd {renderer.counter()} L1"
    shown = windbg.run([windbg.LOAD, command, count, "bl", "g"], renderer.command, env=display.environment())
    found = json.loads(file.read_text())
    assert found["differences"] == []
    for method in found["methods"]:
        assert method["hits"] == 3
        assert_loop(method, renderer.owner, renderer.frame, renderer.module or renderer.program)
    frames = re.search(r"`[0-9a-f]{8}  ([0-9a-f]{8})", shown.said(count))
    assert frames
    assert 0 < int(frames[1], 16) <= 3
    assert shown.said("bl").strip() == ""
    assert shown.stdout == renderer.plain()


def test_it_ends_in_time_and_leaves_the_session_stopped() -> None:
    command = "!calltrace loop loop_receive!main --timeout 0.5"
    program = targets.build("loop_receive")
    shown = windbg.run([windbg.LOAD, command, "r rip"], [program, "200000000"])
    said = r"loop_receive!main: 1 hit in [\d.]+ s; no loop has come round within"
    assert re.search(said, shown.said(command))
    assert "rip=" in shown.said("r rip")
    assert shown.has_target


def test_a_program_is_not_named_beside_a_target() -> None:
    command = "!calltrace loop loop_receive!api_receive --pid 8"
    shown = windbg.run([windbg.LOAD, command], [targets.build("loop_receive")])
    assert "name no program" in shown.said(command)
