"""What a debugger's user is told of his recordings."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

from calltrace.export.status import Recording, Status, write_status, write_status_json

RECORDING = Recording(
    4711, True, "hits", 0, 1_700_000_000.5, 65536, 12, 3, 2, ["demo.exe", "shapes.dll"], ["now"]
)


def text(status: Status) -> list[str]:
    out = io.StringIO()
    write_status(status, out)
    return out.getvalue().splitlines()


def json_of(status: Status) -> object:
    out = io.StringIO()
    write_status_json(status, out)
    return json.loads(out.getvalue())


def test_nothing_is_recorded() -> None:
    assert text(Status(None, None)) == ["recording        nothing"]
    assert json_of(Status(None, None)) == {"trace": None, "recording": None}
    assert text(Status(Path("a.calltrace"), None))[1:] == ["last trace       a.calltrace"]
    assert json_of(Status(Path("a.calltrace"), None)) == {"trace": "a.calltrace", "recording": None}


def test_a_recording_is_under_way() -> None:
    first, since, *rest = text(Status(Path("a.calltrace"), RECORDING))
    assert first == "recording        process 4711, paused"
    assert since.startswith("since ")
    assert since.endswith(" s ago")
    assert rest == [
        "mode             hits",
        "trace            a.calltrace, 64.0 KiB",
        "recorded         12 units in 2 threads",
        "lost             3 units",
        "module           demo.exe",
        "module           shapes.dll",
        "mark             now",
    ]
    assert json_of(Status(Path("a.calltrace"), RECORDING)) == {
        "trace": "a.calltrace",
        "recording": {
            "process_id": 4711,
            "paused": True,
            "mode": "hits",
            "budget": 0,
            "since": "2023-11-14T22:13:20.500000+00:00",
            "size": 65536,
            "units": 12,
            "lost": 3,
            "threads": 2,
            "modules": ["demo.exe", "shapes.dll"],
            "marks": ["now"],
        },
    }


def test_a_recording_with_a_budget_says_so() -> None:
    lines = text(Status(Path("a.calltrace"), replace(RECORDING, mode="trace", budget=5)))
    assert "budget           5 calls of each function or import, in each thread" in lines
