"""The loop tracer in the real debugger on what it is held to elsewhere: renderers, and hard shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rig import display, targets, windows, x64dbg
from rig.searched import RENDERERS, SHAPES, assert_loop, plain, symbols, tree

pytestmark = x64dbg.only_real


@pytest.mark.parametrize("variant", RENDERERS)
def test_a_renderer_s_loop_and_frame_function_are_found_and_no_pixel_changes(
    variant: str, tmp_path: Path
) -> None:
    renderer, printed = RENDERERS[variant], tmp_path / "printed"
    program, *arguments = renderer.command
    module = renderer.module or renderer.program
    count = f"!value 4:[{module}:${symbols(module)['frames']:X}]"
    files = {method: tmp_path / f"{method}.json" for method in ("unwind", "returns")}
    script = [x64dbg.init(Path(program), " ".join(map(str, arguments)))]
    for method, file in files.items():
        script += [f"calltrace loop {renderer.api} --method {method} --json -o {windows.path(file)}", count]
    environment = {**display.environment(), "SAID_INTO": windows.path(printed)}
    shown = x64dbg.run([*script, "run"], x64dbg.REAL, env=environment)
    drawn = [0, *(int(said) for given, said in shown.commands if given == count)]
    unwound, returned = (json.loads(file.read_text())["methods"][0] for file in files.values())
    loops = [assert_loop(method, renderer.owner, renderer.frame, module) for method in (unwound, returned)]
    assert tree(loops[0]["levels"]) == tree(loops[1]["levels"])
    assert unwound["hits"] == 3
    assert 0 < drawn[1] - drawn[0] <= 3
    assert drawn[1] < drawn[2]
    assert printed.read_bytes() == renderer.plain()


@pytest.mark.parametrize("shape", SHAPES)
def test_hard_shapes_are_found_by_both_methods(shape: str, tmp_path: Path) -> None:
    api, owner, frame = SHAPES[shape]
    file, printed = tmp_path / "found.json", tmp_path / "printed"
    start = x64dbg.init(targets.build("loop_shapes"), f"{shape} 40")
    command = f"calltrace loop loop_shapes!{api} --method both --json -o {windows.path(file)}"
    x64dbg.run([start, command, "run"], x64dbg.REAL, env={"SAID_INTO": windows.path(printed)})
    found = json.loads(file.read_text())
    assert found["differences"] == []
    loops = [assert_loop(method, owner, frame, "loop_shapes") for method in found["methods"]]
    assert tree(loops[0]["levels"]) == tree(loops[1]["levels"])
    assert printed.read_bytes() == plain("loop_shapes", shape, "40")
