"""The loop tracer on renderers that state their loop: Direct3D 11 and OpenGL, on a display of our own."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from calltrace.loop.prototypes import KNOWN, Prototypes
from rig import display
from rig.searched import DRAW, FRAMES, PRESENT, RENDERERS, Searched, assert_loop, name, passes, search, tree


@pytest.mark.parametrize("variant", RENDERERS)
def test_the_loop_and_its_frame_function_are_found_and_no_pixel_changes(variant: str) -> None:
    renderer = RENDERERS[variant]
    program, *arguments = renderer.command
    options = ["--method", "both"]
    found = Searched(renderer.api, program, *arguments, options=options, env=display.environment())
    assert found.exit_code == 0, found.told
    assert len(renderer.plain().splitlines()) > int(FRAMES) + 5
    assert found.said == renderer.plain()  # frames, and at the end the code of all modules, which is whole
    assert found.found["differences"] == []
    for method in found.methods:
        assert method["hits"] == 3
        loop = assert_loop(method, renderer.owner, renderer.frame, renderer.module or renderer.program)
        assert loop["turns"] == 2
    frames = re.search(r"(\d+) frames, (\d+) of them watched", found.told)
    assert frames
    assert frames[1] == FRAMES
    assert 0 < int(frames[2]) <= 3
    if variant == "jobs":
        [chosen] = [each for each in loop["candidates"] if each["chosen"]]
        assert chosen["draws"] == 0
        assert chosen["draws_elsewhere"] >= 10  # of ours; Direct3D may draw by another API in turn
    if renderer.api == PRESENT:
        assert [(each["sync"], each["flags"]) for each in found.found["arguments"]] == [("0", "0")] * 3


def test_calls_of_a_turn_are_told_with_what_they_draw() -> None:
    found = search(PRESENT, "loop_d3d11", "apart", FRAMES, env=display.environment())
    calls = {name(each["function"]): each for each in found.methods[0]["loops"][0]["candidates"]}
    assert {function: each["draws"] for function, each in calls.items()} == {
        "update": 0,
        "shadow_pass": 3,
        "scene_pass": 5,
        "ui_pass": 2,
        "end_frame": 0,
    }
    assert "only 5 of 10 draw calls" in calls["scene_pass"]["why"]


def test_passes_are_told_apart_by_their_render_target() -> None:
    target = "ID3D11DeviceContext::OMSetRenderTargets.targets"
    options = ["--samples", "45", "--group-by", target]
    found = search(DRAW, "loop_d3d11", "main", FRAMES, env=display.environment(), options=options)
    assert found.exit_code == 0, found.told
    for method in found.methods:
        loop = assert_loop(method, "render_loop", "frame", "loop_d3d11")
        groups = [passes(group["levels"]) for group in loop["groups"]]
        assert groups == [{"shadow_pass": 3}, {"scene_pass": 5, "ui_pass": 2}]
        assert tree(loop["levels"])[0][:3] == ("frame", 1, 10)


def test_passes_of_workers_are_told_apart_too() -> None:
    target = "ID3D11DeviceContext::OMSetRenderTargets.targets"
    options = ["--samples", "25", "--group-by", target]
    found = search(DRAW, "loop_d3d11", "jobs", FRAMES, env=display.environment(), options=options)
    assert found.exit_code == 0, found.told
    for method in found.methods:
        by_worker = {}
        for loop in method["loops"]:
            assert name(loop["owner"]) == "serve_jobs"
            by_worker[loop["thread"]] = [passes(group["levels"]) for group in loop["groups"]]
        assert sorted(by_worker.values(), key=len) == [
            [{"scene_pass": 5}],
            [{"shadow_pass": 3}, {"ui_pass": 2}],
        ]


def test_an_opengl_program_s_frame_function_holds_what_it_draws() -> None:
    found = search("gdi32!SwapBuffers", "loop_opengl", FRAMES, env=display.environment())
    for method in found.methods:
        [loop] = method["loops"]
        assert {name(each["function"]): each["draws"] for each in loop["candidates"]}["draw_frame"] == 3


def test_slots_are_those_of_the_headers(tmp_path: Path) -> None:
    methods = [each for each in Prototypes(KNOWN.splitlines()).functions if each.slot is not None]
    assert len(methods) > 30
    lines = ["#define COBJMACROS", "#define CINTERFACE"]
    lines += [f"#include <{header}>" for header in ("d3d9.h", "d3d11.h", "d3d12.h", "dxgi1_2.h", "stddef.h")]
    for each in methods:
        slot = f"offsetof({each.owner}Vtbl, {each.name}) / sizeof(void *)"
        lines.append(f'_Static_assert({slot} == {each.slot}, "{each.owner}::{each.name}");')
    source = tmp_path / "slots.c"
    source.write_text("\n".join(lines))
    made = subprocess.run(
        ["x86_64-w64-mingw32-gcc", "-fsyntax-only", str(source)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, re.findall(r"static assertion failed.*|error:.*", made.stderr)


def test_an_argument_that_is_none_is_refused() -> None:
    found = search(PRESENT, "loop_d3d11", options=["--group-by", "color"])
    assert found.exit_code == 64
    assert "Present has this, sync, flags" in found.told


def test_a_prototype_of_one_s_own_tells_calls_apart() -> None:
    prototype = "api_receive(ptr buffer, int size, float scale)"
    options = ["--samples", "33", "--args", prototype, "--group-by", "size"]
    found = search("api_receive", "loop_receive", "200", options=options)
    assert found.exit_code == 0, found.told
    assert [each["size"] for each in found.found["arguments"]] == [str(1 + at % 16) for at in range(33)]
    for method in found.methods:
        groups = {group["value"]: group["levels"][0]["hits"] for group in method["loops"][0]["groups"]}
        assert json.dumps(groups, sort_keys=True) == json.dumps(
            {str(size): 2 for size in range(1, 17)}, sort_keys=True
        )
