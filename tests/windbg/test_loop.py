"""The loop tracer in the real debugger engine, on the session's target."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rig import corpus, display, targets, windbg, windows
from rig.searched import DRAW, RENDERERS, SHAPES, assert_loop, passes, plain, tree

COPY = "SET threads = 1; COPY (SELECT i, i * 2 FROM range(300000) t(i)) TO 'numbers.csv'"
FRAME = re.compile(r"^[0-9a-f`]{17} ([0-9a-f`]{17}) ", re.MULTILINE)  # of `k`: where it returns to
CALL = re.compile(r"^([0-9a-f`]{17}) ([0-9a-f]+) +call ", re.MULTILINE)  # of `u`


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
    renderer, count = RENDERERS[variant], f"dd {RENDERERS[variant].counter()} L1"
    files = {method: tmp_path / f"{method}.json" for method in ("unwind", "returns")}
    script, drawn = [windbg.LOAD], [0]
    for method, file in files.items():
        script += [f"!calltrace loop {renderer.api} --method {method} --json -o {windows.path(file)}", count]
    shown = windbg.run([*script, "bl", "g"], renderer.command, env=display.environment())
    for given, said in shown.commands:
        if given == count:
            drawn += [int(number, 16) for number in re.findall(r"`[0-9a-f]{8}  ([0-9a-f]{8})", said)]
    unwound, returned = (json.loads(file.read_text())["methods"][0] for file in files.values())
    loops = [
        assert_loop(method, renderer.owner, renderer.frame, renderer.module or renderer.program)
        for method in (unwound, returned)
    ]
    assert tree(loops[0]["levels"]) == tree(loops[1]["levels"])
    assert unwound["hits"] == 3
    assert 0 < drawn[1] - drawn[0] <= 3
    levels = max(len(path) for path in paths_down(loops[1]["levels"]))
    assert 0 < drawn[2] - drawn[1] <= 3 * levels
    assert shown.said("bl").strip() == ""
    assert shown.stdout == renderer.plain()


@pytest.mark.parametrize(
    ("program", "api", "arguments"),
    [
        ("cmake", "kernelbase!ReadFile", ("-E", "sha256sum", "lines")),
        ("ripgrep", "ntdll!NtReadFile", ("-c", "777", "--no-mmap", "lines")),
        ("duckdb", "kernelbase!WriteFile", ("-c", COPY)),
    ],
)
def test_the_levels_in_a_real_program_are_those_of_the_debugger_s_stack_walk(
    program: str, api: str, arguments: Sequence[str], tmp_path: Path
) -> None:
    searched, walked = (tmp_path / name for name in ("searched", "walked"))
    for folder in (searched, walked):
        folder.mkdir()
        (folder / "lines").write_text("".join(f"a line like {number}\n" for number in range(60_000)))
    file, command = tmp_path / "found.json", [corpus.program(program), *arguments]
    search = f"!calltrace loop {api} --method both --json -o {windows.path(file)}"
    windbg.run([windbg.LOAD, search], command, cwd=searched)
    [[unwound], [returned]] = [method["loops"] for method in json.loads(file.read_text())["methods"]]
    outer = [level["site"]["address"] for level in unwound["outer"]]
    inner = [list(paths_down(loop["levels"])) for loop in (unwound, returned)]
    sites = {site for paths in inner for path in paths for site in path}.union(outer)
    # The first two hits: whichever is the third, it is in a turn that is not whole.
    shown = windbg.run(
        [f"bp {api}", *["g", "k 60"] * 2, *(f"u {site:x} L1" for site in sites)], command, cwd=walked
    )
    stacks = [FRAME.findall(said)[:-1] for given, said in shown.commands if given == "k 60"]
    back = {
        int(given.split()[1], 16): number(address) + len(code) // 2
        for given, said in shown.commands
        for address, code in CALL.findall(said)
    }
    for paths, further in zip(inner, (outer, [])):
        found = {tuple(back[site] for site in path[::-1] + further) for path in paths}
        assert found == {
            tuple(number(frame) for frame in stack[: len(stack) - len(outer) + len(further)])
            for stack in stacks
        }


def number(address: str) -> int:
    return int(address.replace("`", ""), 16)


def paths_down(levels: list[dict[str, Any]]) -> Iterator[list[int]]:
    """The call instructions on each way from a loop to the API, the outermost first."""
    for level in levels:
        here = [level["site"]["address"]] if level["site"]["address"] else []
        if not level["below"]:
            yield here
        for path in paths_down(level["below"]):
            yield here + path


def test_passes_are_told_apart_by_their_render_target(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    by_target = "--samples 45 --group-by ID3D11DeviceContext::OMSetRenderTargets.targets"
    command = f"!calltrace loop {DRAW} --method both {by_target} --json -o {windows.path(file)}"
    windbg.run([windbg.LOAD, command], RENDERERS["main"].command, env=display.environment())
    for method in json.loads(file.read_text())["methods"]:
        loop = assert_loop(method, "render_loop", "frame", "loop_d3d11")
        groups = [passes(group["levels"]) for group in loop["groups"]]
        assert groups == [{"shadow_pass": 3}, {"scene_pass": 5, "ui_pass": 2}]


@pytest.mark.parametrize("shape", SHAPES)
def test_hard_shapes_are_found_by_both_methods(shape: str, tmp_path: Path) -> None:
    api, owner, frame = SHAPES[shape]
    file, program = tmp_path / "found.json", [targets.build("loop_shapes"), shape, "40"]
    command = f"!calltrace loop loop_shapes!{api} --method both --json -o {windows.path(file)}"
    shown = windbg.run([windbg.LOAD, command, "g"], program)
    found = json.loads(file.read_text())
    assert found["differences"] == []
    loops = [assert_loop(method, owner, frame, "loop_shapes") for method in found["methods"]]
    assert tree(loops[0]["levels"]) == tree(loops[1]["levels"])
    assert shown.stdout == plain("loop_shapes", shape, "40")


def test_without_unwind_data_returns_still_lead_to_the_loop() -> None:
    command = "!calltrace loop loop_shapes!api --method both"
    program = [targets.build("loop_shapes"), "blind", "60"]
    shown = windbg.run([windbg.LOAD, command, "g"], program)
    said = shown.said(command)
    assert re.search(r"by unwinding: the stack is known up to .* only: there is no unwind data for", said)
    assert re.search(
        r"by returns, thread \d+: \d+ whole turns that led to it\n  loop of loop_shapes!blind_owner,", said
    )
    assert "the methods differ: by unwind the loop belongs to nobody" in said
    assert shown.stdout == plain("loop_shapes", "blind", "60")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("never", "not called within"),
        ("once", "1 hit in .*; no loop has come round within"),
        ("left", "2 hits in .*"),
    ],
)
def test_a_loop_that_does_not_come_round_is_told_in_time_and_leaves_the_session_stopped(
    shape: str, said: str
) -> None:
    seconds = 0.5 if shape == "never" else 2  # enough for the program to come to its calls
    command = f"!calltrace loop loop_shapes!api --samples 9 --timeout {seconds} --method both"
    shown = windbg.run([windbg.LOAD, command, "bl", "r rip"], [targets.build("loop_shapes"), shape, "600000"])
    assert re.match(f"loop_shapes!api: {said}", shown.said(command))
    assert ("loop of loop_shapes!two_turns" in shown.said(command)) == (shape == "left")
    assert shown.said("bl").strip() == ""
    assert "rip=" in shown.said("r rip")
    assert shown.has_target


def test_what_is_no_api_is_refused() -> None:
    refused = {
        "loop_shapes!nothing_of_that_name": "has no function nothing_of_that_name",
        "loop_shapes+0x3": "is not code",
        "0x10": "no module lies at 0x10",
        "loop_shapes!": "write module!function",
    }
    commands = {f"!calltrace loop {api}": said for api, said in refused.items()}
    shown = windbg.run([windbg.LOAD, *commands], [targets.build("loop_shapes"), "tail"])
    for command, said in commands.items():
        assert said in shown.said(command)
        assert len(shown.said(command).splitlines()) == 1


def test_a_program_is_not_named_beside_a_target() -> None:
    command = "!calltrace loop loop_receive!api_receive --pid 8"
    shown = windbg.run([windbg.LOAD, command], [targets.build("loop_receive")])
    assert "name no program" in shown.said(command)
