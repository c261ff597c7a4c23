"""Marks that a program sets itself while it is recorded, through the C API."""

from __future__ import annotations

import json
from pathlib import Path

from rig import targets, tracing


def recorded(trace: Path, clock: str) -> Path:
    program = targets.build("program_marks")
    tracing.shell("run", "--quiet", "--clock", clock, "-o", trace, "--", program)
    return trace


def test_they_part_every_thread(tmp_path: Path) -> None:
    trace = recorded(tmp_path / "t.calltrace", "tsc")
    for part, when in ((f"{trace}@..7", "before"), (f"{trace}@7", "between"), (f"{trace}@7#2", "behind")):
        found = json.loads(tracing.shell("diff", part, "--json"))["found"]
        calls = {each["name"].partition("!")[2]: each["calls"] for each in found}
        own = {name: count for name, [count] in calls.items() if name.startswith(("first_", "second_"))}
        assert own == {f"first_{when}": 1, f"second_{when}": 100}


def test_without_times_other_threads_cannot_be_parted(tmp_path: Path) -> None:
    trace = recorded(tmp_path / "t.calltrace", "none")
    done = tracing.calltrace("diff", f"{trace}@7")
    assert done.returncode == 64
    assert done.stderr.decode().count("\n") == 1
    assert "where its other threads were when the program set mark 7 is not known" in done.stderr.decode()
