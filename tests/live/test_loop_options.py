"""Several callers on a level, and what narrows a climb: --thread, --module, --samples, --timeout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rig import targets
from rig.running import Running
from rig.searched import assert_loop, name, search
from rig.tracing import calltrace


def by_function(levels: list[dict[str, Any]]) -> dict[str | None, list[dict[str, Any]]]:
    found: dict[str | None, list[dict[str, Any]]] = {}
    for level in levels:
        found.setdefault(name(level["function"]), []).append(level)
    return found


def assert_ways(loop: dict[str, Any], turns: list[int]) -> None:
    """The levels of these turns of ways_owner are those that the source states."""
    even = [turn for turn in turns if turn % 2 == 0]
    [frame] = loop["levels"]
    assert (name(frame["function"]), frame["calls"]) == ("ways_frame", len(turns))
    below = by_function(frame["below"])
    assert set(below) == {"first_way", "second_way"}
    for way, made_in in (("first_way", turns), ("second_way", even)):
        [level] = below[way]
        thirds = sum(turn % 3 == 0 for turn in made_in)
        assert (level["calls"], level["turns"], level["hits"]) == (len(made_in),) * 2 + (
            len(made_in) + thirds,
        )
        [common] = level["below"]
        assert name(common["function"]) == "common"
        sites = {each["site"]["place"]: each["hits"] for each in common["below"]}
        assert sorted(sites.values()) == sorted(each for each in (thirds, len(made_in)) if each)


def test_several_callers_of_a_level_are_kept_apart() -> None:
    # A turn begins with ways_frame: 60 hits are those of many whole turns.
    found = search("api", "loop_callers", "ways", "60", options=["--samples", "60"])
    assert found.exit_code == 0, found.told
    assert found.found["differences"] == []
    for method in found.methods:
        [loop] = [each for each in method["loops"] if each["turns"] >= 12]
        assert_ways(loop, list(range(loop["turns"])))


def test_a_trace_tells_several_callers_apart(tmp_path: Path) -> None:
    trace = tmp_path / "t.calltrace"
    program = targets.build("loop_callers")
    assert calltrace("run", "--events", "all", "-o", trace, "--", program, "ways", "60").returncode == 0
    done = calltrace("loop", "loop_callers!api", "--samples", "20", "--json", "--from-trace", trace)
    loops = json.loads(done.stdout)["methods"][0]["loops"]
    assert [loop["turns"] for loop in loops] == [59, 29]
    for loop in loops:
        assert_ways(loop, list(range(loop["turns"])))


def test_the_module_of_the_owner_can_be_chosen() -> None:
    free = search("api", "loop_callers", "sort", "60", options=["--method", "unwind", "--samples", "4"])
    [loop] = free.methods[0]["loops"]
    assert loop["owner"]["name"].startswith("msvcrt")
    options = ["--samples", "12", "--module", "loop_callers"]
    found = search("api", "loop_callers", "sort", "60", options=options)
    assert found.exit_code == 0, found.told
    for method in found.methods:
        assert_loop(method, "sort_owner", "sort_frame", "loop_callers")
    nowhere = search(
        "api", "loop_callers", "sort", "9", options=["--module", "kernel32", "--method", "unwind"]
    )
    assert nowhere.exit_code == 1
    assert nowhere.methods[0]["loops"] == []
    [chain] = nowhere.methods[0]["chains"]
    assert name(chain["callers"][0]["function"]) == "compare"


def test_one_thread_of_a_running_program_can_be_chosen(tmp_path: Path) -> None:
    output, process = tmp_path / "found.json", Running("port_threads")

    def climbed(*options: str) -> Any:
        words = ("--json", "-o", output, "--samples", "12", *options, "--pid", process.process_id)
        done = calltrace("loop", "kernel32!Sleep", *words)
        assert done.returncode in (0, 1), done.stderr.decode()
        return json.loads(output.read_text())

    try:
        [method] = climbed()["methods"]
        threads = {loop["thread"] for loop in method["loops"]} | {each["thread"] for each in method["chains"]}
        assert len(threads) > 1
        chosen = max(loop["thread"] for loop in method["loops"])
        [method] = climbed("--thread", str(chosen))["methods"]
        assert [loop["thread"] for loop in method["loops"]] == [chosen]
        assert [name(loop["owner"]) for loop in method["loops"]] == ["work"]
        assert method["chains"] == []
        nobody = climbed("--thread", "99999", "--timeout", "0.3")
        assert nobody["methods"][0]["hits"] == 0
        assert "not called within" in nobody["summary"]
    finally:
        said = process.end()
    assert said == ("rounds some, wrong 0, debugged 0", 5)


@pytest.mark.parametrize("options", [("--samples", "0"), ("--timeout", "0"), ("--thread", "~0")])
def test_what_is_no_number_there_is_refused(options: tuple[str, str]) -> None:
    done = calltrace("loop", "loop_callers!api", *options, "--", targets.build("loop_callers"))
    assert (done.returncode, done.stdout) == (64, b"")
    assert len(done.stderr.splitlines()) == 1
