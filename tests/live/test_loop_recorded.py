"""What a trace tells of loops whose programs state them, and what a climb finds in the same programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rig import corpus, display, targets
from rig.running import Running
from rig.searched import assert_loop, name, search, tree
from rig.tracing import calltrace

PRESENT = "IDXGISwapChain::Present"


def recorded(
    tmp_path: Path,
    program: str,
    *arguments: str,
    options: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Path:
    """The trace of a run."""
    trace = tmp_path / f"{program}.calltrace"
    target = targets.build(program)
    done = calltrace("run", "--quiet", "-o", trace, *options, "--", target, *arguments, env=env)
    assert done.returncode == 0, done.stderr.decode()
    return trace


def told(api: str, trace: Path, *options: str, exit_code: int = 0) -> Any:
    done = calltrace("loop", api, "--json", "--from-trace", trace, *options)
    assert done.returncode == exit_code, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("events", ["functions", "all"])
def test_a_trace_tells_the_same_as_a_climb(events: str, tmp_path: Path) -> None:
    trace = recorded(tmp_path, "loop_receive", "300", options=("--events", events))
    found = told("loop_receive!api_receive", trace)
    [method] = found["methods"]
    assert method["hits"] == 300
    loop = assert_loop(method, "serve", "handle_message", "loop_receive")
    assert loop["turns"] == 299
    [climbed] = search("api_receive", "loop_receive", "300", options=["--method", "unwind"]).methods
    [other] = climbed["loops"]
    for what in ("owner", "frame_function", "site", "back_edges"):
        assert loop[what] == other[what]
    assert tree(loop["levels"]) == tree(other["levels"])
    assert places(loop["levels"]) == places(other["levels"])
    calls = {name(each["function"]): (each["calls"], each["why"]) for each in loop["candidates"]}
    assert calls == {name(each["function"]): (each["calls"], each["why"]) for each in other["candidates"]}
    assert [name(each["function"]) for each in loop["outer"]][:1] == ["main"]


def places(levels: list[dict[str, Any]]) -> list[Any]:
    return [(level["site"]["place"], places(level["below"])) for level in levels]


@pytest.mark.parametrize(
    ("shape", "api", "owner", "frame"),
    [
        ("tail", "api", "tail_owner", "tail_frame"),
        ("pointer", "api", "pointer_owner", "pointer_frame"),
        ("blind", "api", "blind_owner", "blind_frame"),
        ("recursive", "api", "recursive_owner", "dive"),
        ("reentrant", "calls_back", "reentrant_owner", "reenter"),
    ],
)
def test_hard_shapes_are_told(shape: str, api: str, owner: str, frame: str, tmp_path: Path) -> None:
    trace = recorded(tmp_path, "loop_shapes", shape, "40")
    found = told(f"loop_shapes!{api}", trace)
    loop = assert_loop(found["methods"][0], owner, frame, "loop_shapes")
    assert loop["turns"] == 39
    if shape == "tail":
        [level] = loop["levels"]
        assert (name(level["entered"]), name(level["function"])) == ("tail_frame", "api")
    if shape == "recursive":
        assert loop["hits"] == 160
        assert loop["levels"][0]["hits"] == 39 * 4


def test_each_thread_has_its_loop_and_one_can_be_chosen(tmp_path: Path) -> None:
    trace = recorded(tmp_path, "loop_shapes", "threads", "40")
    [method] = told("loop_shapes!api", trace)["methods"]
    assert {name(loop["owner"]) for loop in method["loops"]} == {"worker"}
    first, second = (loop["thread"] for loop in method["loops"])
    assert first != second
    [method] = told("loop_shapes!api", trace, "--thread", str(second))["methods"]
    assert [loop["thread"] for loop in method["loops"]] == [second]
    assert method["hits"] == 40


def test_few_samples_show_inner_loops_and_many_the_outer(tmp_path: Path) -> None:
    trace = recorded(tmp_path, "loop_shapes", "nested", "40")
    [few] = told("loop_shapes!api", trace)["methods"]
    assert [(name(loop["owner"]), loop["turns"]) for loop in few["loops"]] == [("five", 4), ("three", 2)]
    assert [name(loop["outer_loops"][0]) for loop in few["loops"]] == ["nested_owner"] * 2
    [many] = told("loop_shapes!api", trace, "--samples", "40")["methods"]
    loop = assert_loop(many, "nested_owner", "nested_frame", "loop_shapes")
    below = [("three", 1, 3, [("api", 3, 3, [])]), ("five", 1, 5, [("api", 5, 5, [])])]
    assert tree(loop["levels"]) == [("nested_frame", 1, 8, below)]


@pytest.mark.parametrize(
    ("variant", "owner", "frame"),
    [
        ("main", "render_loop", "frame"),
        ("thread", "render_loop", "frame"),
        ("jobs", "render_loop", "frame"),
        ("tail", "tail_loop", "tail_frame"),
        ("apart", "apart_loop", None),
    ],
)
def test_the_loop_of_a_renderer_is_told(variant: str, owner: str, frame: str | None, tmp_path: Path) -> None:
    env = display.environment()
    options = ("--clock", "tsc")
    trace = recorded(tmp_path, "loop_d3d11", variant, "8", options=options, env=env)
    [method] = told(PRESENT, trace)["methods"]
    loop = assert_loop(method, owner, frame, "loop_d3d11")
    assert (loop["turns"], loop["hits"]) == (7, 8)
    calls = {name(each["function"]): each for each in loop["candidates"]}
    drawn = "draws_elsewhere" if variant == "jobs" else "draws"
    if frame:
        assert calls["end_frame" if variant == "tail" else frame][drawn] == 3 + 5 + 2
    else:
        passes = {"shadow_pass": 3, "scene_pass": 5, "ui_pass": 2}
        assert {each: calls[each]["draws"] for each in passes} == passes


def test_the_loop_of_an_opengl_program_is_told(tmp_path: Path) -> None:
    trace = recorded(tmp_path, "loop_opengl", "8", env=display.environment())
    [method] = told("gdi32!SwapBuffers", trace)["methods"]
    loop = assert_loop(method, "draw_loop", "draw_frame", "loop_opengl")
    assert {name(each["function"]): each["draws"] for each in loop["candidates"]}["draw_frame"] == 3


def test_without_the_program_s_file_it_says_what_it_does_not_know(tmp_path: Path) -> None:
    program = tmp_path / "gone.exe"
    shutil.copyfile(targets.build("loop_receive"), program)
    trace = tmp_path / "gone.calltrace"
    assert calltrace("run", "-o", trace, "--", program, "40").returncode == 0
    program.unlink()
    [method] = told("gone!api_receive", trace)["methods"]
    [loop] = method["loops"]
    assert (name(loop["owner"]), name(loop["frame_function"])) == ("serve", "handle_message")
    assert (loop["site"]["address"], loop["back_edges"]) == (None, [])
    assert any("is not known: two calls pass for a loop" in note for note in method["notes"])


def test_a_loop_that_was_entered_before_the_recording_has_its_frame_function(tmp_path: Path) -> None:
    options = ("--include", "loop_receive!handle_message", "--include", "loop_receive!*receive")
    trace = recorded(tmp_path, "loop_receive", "40", options=options)
    [method] = told("loop_receive!api_receive", trace)["methods"]
    [loop] = method["loops"]
    assert_loop(method, "serve", "handle_message", "loop_receive")
    assert loop["turns"] == 39
    assert any("serve was entered before the recording: it is" in note for note in method["notes"])


def test_a_running_program_s_loop_is_told_though_it_was_entered_before(tmp_path: Path) -> None:
    trace, process = tmp_path / "t.calltrace", Running("loop_endless")
    try:
        done = calltrace("attach", process.process_id, "--seconds", "0.5", "-o", trace)
        assert done.returncode == 0, done.stderr.decode()
    finally:
        process.end()
    [method] = told("loop_endless!api", trace)["methods"]
    loop = assert_loop(method, "serve", "turn", "loop_endless")
    assert {name(each["function"]): each["why"] for each in loop["candidates"]} == {
        "turn": "once per turn, leads to the API",
        "idle": "does not lead to the API",
    }


def test_without_code_nothing_is_said_of_who_was_entered_before(tmp_path: Path) -> None:
    program, trace = tmp_path / "gone.exe", tmp_path / "gone.calltrace"
    shutil.copyfile(targets.build("loop_receive"), program)
    options = ("--include", "gone!handle_message", "--include", "gone!*receive")
    assert calltrace("run", "-o", trace, *options, "--", program, "40").returncode == 0
    program.unlink()
    [method] = told("gone!api_receive", trace)["methods"]
    [loop] = method["loops"]
    assert loop["owner"]["name"] == "code that was entered before the recording, or is not traced"
    assert name(loop["frame_function"]) == "handle_message"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nothing!of_that_name",), "no function or import of"),
        (("loop_receive!api_receive", "--method", "both"), "--method has no part in"),
        (("loop_receive!api_receive", "--group-by", "size"), "no arguments are recorded"),
        (("IDXGISwapChain::Present",), "no recorded call goes through entry 8"),
        (("loop_receive!api_receive", "--thread", "7777"), "has no thread 7777"),
    ],
)
def test_what_a_trace_cannot_tell_is_refused(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    trace = recorded(tmp_path, "loop_receive", "3")
    done = calltrace("loop", *options, "--from-trace", trace)
    assert done.returncode == 64
    assert said in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


def test_a_trace_without_every_call_is_refused(tmp_path: Path) -> None:
    trace = recorded(tmp_path, "loop_receive", "3", options=("--mode", "hits"))
    done = calltrace("loop", "loop_receive!api_receive", "--from-trace", trace)
    assert done.returncode == 64
    assert "--mode hits: it does not have every call" in done.stderr.decode()


@pytest.mark.parametrize(
    ("program", "api", "arguments"),
    [
        ("cmake", "kernel32!ReadFile", ("-E", "sha256sum", "lines")),
        ("ripgrep", "ntdll!NtReadFile", ("-c", "777", "--no-mmap", "-j1", "lines")),
    ],
)
def test_in_real_programs_a_trace_tells_what_a_climb_finds(
    program: str, api: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "lines").write_text("".join(f"a line like {number}\n" for number in range(60_000)))
    trace, found, path = tmp_path / "t.calltrace", tmp_path / "found.json", corpus.program(program)
    done = calltrace("run", "--events", "all", "-o", trace, "--", path, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    [recorded_loop] = told(api, trace)["methods"][0]["loops"]
    done = calltrace("loop", api, "--json", "-o", found, "--", path, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    [climbed] = json.loads(found.read_text())["methods"][0]["loops"]
    for what in ("owner", "frame_function", "site", "back_edges"):
        assert recorded_loop[what] == climbed[what]
    seen, ways = (list(ways_down(each["levels"])) for each in (climbed, recorded_loop))
    assert seen
    assert all(way in ways for way in seen)
    assert len(ways) <= len(seen)
    outer, known = ([level["site"]["place"] for level in each["outer"]] for each in (climbed, recorded_loop))
    assert outer[: len(known)] == known
    assert len(known) >= 3


def ways_down(levels: list[dict[str, Any]]) -> Iterator[list[str]]:
    """The call instructions on each way from a loop to the API."""
    for level in levels:
        here = [level["site"]["place"]]
        if not level["below"]:
            yield here
        for way in ways_down(level["below"]):
            yield here + way
