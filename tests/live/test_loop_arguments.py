"""Arguments of an API, of every kind, and what it returns: as the program's source states them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rig.searched import search

FIRST = "float half, int count, double whole, color shade, const char *name"
OTHERS = "const wchar_t *wide, place[12] place, float eighth, double ninth"
LINES = f"""
enum color {{ RED, GREEN = 4, BLUE }}
[loop_arguments.exe]
double api({FIRST}, {OTHERS})
"""


def stated(n: int) -> dict[str, str]:
    odd = n % 2
    return {
        "half": f"{n / 2:g}",
        "count": str(n),
        "whole": repr(n * 1.25),
        "shade": "BLUE" if odd else "GREEN",
        "name": "'odd'" if odd else "'even'",
        "wide": "'odd'" if odd else "'even'",
        "place": b"".join(each.to_bytes(4, "little", signed=True) for each in (n, -n, 7)).hex(" "),
        "eighth": f"{float(-n):g}",
        "ninth": repr(n * 1e100),
        "returns": repr(n * 0.75 - 1),
    }


@pytest.mark.parametrize("record", [False, True])
def test_arguments_and_results_are_those_of_the_source(record: bool, tmp_path: Path) -> None:
    prototypes = tmp_path / "prototypes.txt"
    prototypes.write_text(LINES)
    options = ["--prototypes", str(prototypes), "--samples", "8"]
    if record:  # then calls lead through copies, and return there
        options += ["--record", str(tmp_path / "t.calltrace")]
    found = search("api", "loop_arguments", "20", options=options)
    assert found.exit_code == 0, found.told
    arguments: list[dict[str, Any]] = found.found["arguments"]
    assert len(arguments) == 8
    for n, told in enumerate(arguments[:7]):  # the last may not have returned when the climb was over
        assert told == stated(n)


def test_calls_are_told_apart_by_a_floating_argument(tmp_path: Path) -> None:
    prototype = "double api(float half, int count)"
    options = ["--args", prototype, "--group-by", "half", "--samples", "6"]
    found = search("api", "loop_arguments", "20", options=options)
    assert found.exit_code == 0, found.told
    for method in found.methods:
        assert [group["value"] for group in method["loops"][0]["groups"]] == [
            "0",
            "0.5",
            "1",
            "1.5",
            "2",
            "2.5",
        ]


def test_integers_of_every_width() -> None:
    options = ["--args", "int integer_api(long long wide, BYTE byte)", "--samples", "4"]
    found = search("integer_api", "loop_arguments", "20", options=options)
    told = [(each["wide"], each["byte"], each["returns"]) for each in found.found["arguments"][:3]]
    assert told == [(str(-5000000000 - n), str(n), str(-n)) for n in range(3)]
