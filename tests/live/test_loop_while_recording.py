"""The loop tracer on programs that are being recorded: the calls lead through copies, what is told is not."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from rig import display, targets
from rig.running import Running
from rig.searched import assert_loop, name, search, symbols, tree
from rig.tracing import calltrace

PRESENT = "IDXGISwapChain::Present"


@functools.cache
def traced(program: str, *arguments: str) -> bytes:
    """What a program says that is recorded without a climb: its code has the jumps to the copies, too."""
    trace = targets.build(program).parent / "only.calltrace"
    done = calltrace(
        "run", "--quiet", "--no-breakpoints", "-o", trace, "--", targets.build(program), *arguments
    )
    return done.stdout


def calls_of(trace: Path, function: str) -> int:
    done = calltrace("top", "--json", "--limit", "0", trace)
    return sum(each["calls"] for each in json.loads(done.stdout)["functions"] if each["name"] == function)


def test_a_loop_is_found_by_both_methods_as_without_a_recording(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    found = search("api_receive", "loop_receive", "300", options=["--record", str(trace)])
    assert found.exit_code == 0, found.told
    assert found.said == traced("loop_receive", "300")
    assert found.found["differences"] == []
    plain = search("api_receive", "loop_receive", "300")
    for method, other in zip(found.methods, plain.methods):
        assert method["hits"] == 3
        assert_loop(method, "serve", "handle_message", "loop_receive")
        assert told(method) == told(other)
    assert calls_of(trace, "loop_receive!api_receive") == 300


def told(method: dict[str, Any]) -> Any:
    """All that was found, but what the threads are called."""
    return [{key: value for key, value in loop.items() if key != "thread"} for loop in method["loops"]]


@pytest.mark.parametrize(
    ("shape", "api", "owner", "frame"),
    [
        ("tail", "api", "tail_owner", "tail_frame"),
        ("pointer", "api", "pointer_owner", "pointer_frame"),
        ("recursive", "api", "recursive_owner", "dive"),
        ("reentrant", "calls_back", "reentrant_owner", "reenter"),
    ],
)
def test_hard_shapes_are_found_by_both_methods(
    shape: str, api: str, owner: str, frame: str, tmp_path: Path
) -> None:
    trace = tmp_path / "t.calltrace"
    found = search(api, "loop_shapes", shape, "40", options=["--record", str(trace)])
    assert found.exit_code == 0, found.told
    assert found.said == traced("loop_shapes", shape, "40")
    assert found.found["differences"] == []
    loops = [assert_loop(method, owner, frame, "loop_shapes") for method in found.methods]
    assert tree(loops[0]["levels"]) == tree(loops[1]["levels"])


def test_threads_are_told_apart(tmp_path: Path) -> None:
    options = ["--samples", "30", "--record", str(tmp_path / "t.calltrace")]
    found = search("api", "loop_shapes", "threads", "400", options=options)
    assert found.said == traced("loop_shapes", "threads", "400")
    for method in found.methods:
        assert {name(loop["owner"]) for loop in method["loops"]} == {"worker"}
        assert len({loop["thread"] for loop in method["loops"]}) == len(method["loops"]) == 2


def test_a_renderer_draws_the_same_frames(tmp_path: Path) -> None:
    env = display.environment()
    options = ["--record", str(tmp_path / "t.calltrace")]
    found = search(PRESENT, "loop_d3d11", "main", "14", options=options, env=env)
    assert found.exit_code == 0, found.told
    for method in found.methods:
        assert_loop(method, "render_loop", "frame", "loop_d3d11")
    plain = search(PRESENT, "loop_d3d11", "main", "14", env=env)
    frames, same = (
        [line for line in said.splitlines() if not line.startswith(b"code of ")]
        for said in (found.said, plain.said)
    )
    assert len(frames) == 14
    assert frames == same
    assert calls_of(tmp_path / "t.calltrace", "loop_d3d11!frame") == 14


def test_a_running_program_is_recorded_while_it_is_climbed_and_goes_on_as_before(tmp_path: Path) -> None:
    output, trace, process = tmp_path / "found.json", tmp_path / "t.calltrace", Running("port_threads")
    try:
        words = ("--json", "-o", output, "--record", trace, "--timeout", "3", "--pid", process.process_id)
        done = calltrace("loop", "port_threads!fibonacci", *words)
        assert done.returncode == 0, done.stderr.decode()
        [method] = json.loads(output.read_text())["methods"]
        assert method["hits"] >= 3
        assert method["loops"]
        assert symbols("port_threads")["fibonacci"] == method_api(method, output)
        assert calls_of(trace, "port_threads!fibonacci") >= 3
    finally:
        said = process.end()
    assert said == ("rounds some, wrong 0, debugged 0", 5)


def method_api(method: dict[str, Any], output: Path) -> int:
    return int(json.loads(output.read_text())["address"]) - 0x140000000
