"""The loop tracer on programs whose source states which function owns the loop and which makes a frame."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rig import corpus, targets, windows
from rig.running import Running
from rig.searched import SHAPES, assert_loop, name, plain, search, symbols, tree
from rig.tracing import CALLTRACE, calltrace

STEPS = Path(__file__).parent / "loop_main.py"


def test_a_loop_is_found_by_both_methods() -> None:
    found = search("api_receive", "loop_receive", "300")
    assert found.exit_code == 0, found.told
    assert found.said == plain("loop_receive", "300")
    assert found.found["differences"] == []
    for method in found.methods:
        assert method["hits"] == 3
        loop = assert_loop(method, "serve", "handle_message", "loop_receive")
        assert loop["turns"] == 2
        assert tree(loop["levels"]) == [
            ("handle_message", 1, 1, [("receive", 1, 1, [("api_receive", 1, 1, [])])])
        ]
        calls = {name(each["function"]): (each["calls"], each["why"]) for each in loop["candidates"]}
        assert calls == {
            "idle": (1, "does not lead to the API"),
            "handle_message": (1, "once per turn, leads to the API"),
        }
    [unwound] = found.methods[0]["loops"]
    assert name(unwound["outer"][0]["function"]) == "main"


@pytest.mark.parametrize("shape", SHAPES)
def test_hard_shapes_are_found_by_both_methods(shape: str) -> None:
    api, owner, frame = SHAPES[shape]
    found = search(api, "loop_shapes", shape, "40")
    assert found.exit_code == 0, found.told
    assert found.said == plain("loop_shapes", shape, "40")
    assert found.found["differences"] == []
    loops = [assert_loop(method, owner, frame, "loop_shapes") for method in found.methods]
    assert tree(loops[0]["levels"]) == tree(loops[1]["levels"])


def test_a_jump_to_the_api_is_told_as_one() -> None:
    for method in search("api", "loop_shapes", "tail", "40").methods:
        [level] = method["loops"][0]["levels"]
        assert (name(level["entered"]), name(level["function"])) == ("tail_frame", "api")


def test_recursion_shows_level_by_level() -> None:
    for method in search("api", "loop_shapes", "recursive", "40").methods:
        levels, depth = method["loops"][0]["levels"], 0
        while levels:
            called = {name(level["function"]): level["hits"] / level["turns"] for level in levels}
            assert called == (
                {"dive": 4} if not depth else {"api": 1, "dive": 4 - depth} if depth < 4 else {"api": 1}
            )
            levels = [
                below for level in levels if name(level["function"]) == "dive" for below in level["below"]
            ]
            depth += 1
        assert depth == 5


def test_a_thread_each_has_its_loop() -> None:
    found = search("api", "loop_shapes", "threads", "400", options=["--samples", "30"])
    assert found.said == plain("loop_shapes", "threads", "400")
    for method in found.methods:
        assert {name(loop["owner"]) for loop in method["loops"]} == {"worker"}
        assert len({loop["thread"] for loop in method["loops"]}) == len(method["loops"]) == 2


@pytest.mark.parametrize("method", ["unwind", "returns"])
def test_few_samples_show_the_inner_loop_and_many_the_outer(method: str) -> None:
    [few] = search("api", "loop_shapes", "nested", "40", options=["--method", method]).methods
    assert_loop(few, "three", None, "loop_shapes")
    options = ["--samples", "40", "--method", method]
    [many] = search("api", "loop_shapes", "nested", "40", options=options).methods
    loop = assert_loop(many, "nested_owner", "nested_frame", "loop_shapes")
    below = [("three", 1, 3, [("api", 3, 3, [])]), ("five", 1, 5, [("api", 5, 5, [])])]
    assert tree(loop["levels"]) == [("nested_frame", 1, 8, below)]
    assert {name(each["function"]) for each in loop["inner_loops"]} == {"three", "five"}


def test_without_unwind_data_returns_still_lead_to_the_loop() -> None:
    found = search("api", "loop_shapes", "blind", "60")
    assert found.said == plain("loop_shapes", "blind", "60")
    unwound, returned = found.methods
    assert unwound["loops"] == []
    assert ["there is no unwind data" in note for note in unwound["notes"]] == [True]
    assert_loop(returned, "blind_owner", "blind_frame", "loop_shapes")
    assert len(found.found["differences"]) == 1


@pytest.mark.parametrize(
    ("shape", "hits", "said"),
    [("never", 0, "not called within"), ("once", 1, "no loop has come round within")],
)
def test_an_api_that_is_not_called_again_is_told_in_time(
    shape: str, hits: int, said: str, tmp_path: Path
) -> None:
    output = tmp_path / "found.json"
    options = ["--json", "-o", output, "--quiet", "--method", "both", "--timeout", "0.5"]
    command = [
        str(CALLTRACE),
        "loop",
        "loop_shapes!api",
        *options,
        "--",
        str(targets.build("loop_shapes")),
        shape,
    ]
    windows.keep_wine_running()
    with subprocess.Popen(
        command,
        env=windows.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        while not output.exists() and process.poll() is None:
            time.sleep(0.05)
        text, _ = process.communicate(timeout=60)  # whose first step is to end the input, and so the program
    found = json.loads(output.read_text())
    assert process.returncode == 1
    assert said in found["summary"]
    assert [method["hits"] for method in found["methods"]] == [hits, hits]
    assert text == plain("loop_shapes", shape)
    if hits:
        for method in found["methods"]:
            [chain] = method["chains"]
            assert [name(each["function"]) for each in chain["callers"]][:2] == ["step", "main"]


def test_a_program_that_ends_while_it_is_climbed_is_told_of() -> None:
    found = search("api", "loop_shapes", "left", options=["--samples", "9", "--timeout", "60"])
    assert found.found["outcome"] == "ended"
    for method in found.methods:
        [loop] = method["loops"]
        assert (name(loop["owner"]), loop["turns"], loop["hits"]) == ("two_turns", 1, 2)


@pytest.mark.parametrize(
    ("api", "exit_code", "said"),
    [
        ("loop_shapes!nothing_of_that_name", 64, "loop_shapes.exe has no function nothing_of_that_name"),
        ("loop_shapes+0x3", 64, "is not code"),
        ("0x10", 64, "no module lies at 0x10"),
        ("loop_shapes!", 64, "write module!function"),
    ],
)
def test_what_is_no_api_is_refused_before_the_program_runs(api: str, exit_code: int, said: str) -> None:
    done = calltrace("loop", api, "--", targets.build("loop_shapes"), "nested")
    assert (done.returncode, done.stdout) == (exit_code, b"")
    assert said in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


def test_a_running_program_is_climbed_and_goes_on_as_before(tmp_path: Path) -> None:
    output, process = tmp_path / "found.json", Running("port_threads")
    try:
        done = calltrace(
            "loop", "port_threads!fibonacci", "--json", "-o", output, "--pid", process.process_id
        )
        assert done.returncode == 0, done.stderr.decode()
        found = json.loads(output.read_text())
        assert found["outcome"] == "done"
        [method] = found["methods"]
        assert method["hits"] >= 3
        assert method["loops"]
    finally:
        said = process.end()
    assert said == ("rounds some, wrong 0, debugged 0", 5)


def test_the_middle_of_an_instruction_is_refused() -> None:
    place = symbols("loop_receive")["handle_message"]
    code = targets.build("loop_receive")
    dump = ["x86_64-w64-mingw32-objdump", "-d", "--no-show-raw-insn"]
    dump += [f"--start-address={0x140000000 + place:#x}", str(code)]
    listing = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    begins = [
        int(line.split(":")[0], 16) - 0x140000000 for line in listing.splitlines() if line.startswith("   14")
    ]
    between = next(begin + 1 for begin, following in zip(begins, begins[1:]) if following > begin + 1)
    done = calltrace("loop", f"loop_receive+{between:#x}", "--", code)
    assert done.returncode == 64
    assert "no instruction begins" in done.stderr.decode()


@pytest.mark.parametrize(
    ("api", "said"),
    [
        ("no_such_module!f", "its module was not loaded before the program ended"),
        (
            "IDXGISwapChain::Present",
            "no IDXGISwapChain was made before the program ended; for one made earlier",
        ),
    ],
)
def test_an_api_that_is_never_there_is_told_of(api: str, said: str) -> None:
    done = calltrace("loop", api, "--", targets.build("loop_receive"), "3")
    assert done.returncode == 1
    assert said in done.stderr.decode()


@pytest.mark.parametrize(
    ("steps", "program", "arguments"), [("20000", "loop_frames", ()), ("1500", "ninja", ("--version",))]
)
def test_from_every_instruction_the_unwinder_leads_back_to_the_calls(
    steps: str, program: str, arguments: Sequence[str]
) -> None:
    path = corpus.program(program) if program == "ninja" else targets.build(program)
    done = windows.python(STEPS, steps, path, *arguments)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stderr)
    assert found["wrong"] == []
    assert found["instructions"] >= 1500
    assert found["deepest"] >= 5
    # gcc's stack probe pushes without saying so in unwind data
    assert found["undescribed"] <= (0 if program == "ninja" else 20)
