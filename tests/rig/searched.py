"""Runs of `calltrace loop`, and what the linker says of their programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rig import targets, windows
from rig.tracing import calltrace


class Searched:
    """A run of `calltrace loop`: what it found, and what the program said."""

    def __init__(
        self, api: str, program: Path, *arguments: str, options: Sequence[str], env: Mapping[str, str] | None
    ) -> None:
        output = program.parent / f"{program.stem}.{'.'.join(arguments)}.json"
        output.unlink(missing_ok=True)
        done = calltrace("loop", api, "--json", "-o", output, *options, "--", program, *arguments, env=env)
        self.exit_code, self.said, self.told = done.returncode, done.stdout, done.stderr.decode()
        self.found: Any = json.loads(output.read_text()) if output.exists() else None

    @property
    def methods(self) -> list[dict[str, Any]]:
        return list(self.found["methods"])


def search(
    api: str, program: str, *arguments: str, options: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Searched:
    both = () if "--method" in options else ("--method", "both")
    return Searched(
        api if "!" in api else f"{program}!{api}",
        targets.build(program),
        *arguments,
        options=(*both, *options),
        env=env,
    )


def plain(program: str, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    return windows.run([targets.build(program), *arguments], env=env).stdout


def symbols(program: str) -> dict[str, int]:
    """The functions of a program by name, RVAs, as the linker's own tool reads them."""
    names = subprocess.run(
        ["x86_64-w64-mingw32-nm", str(targets.build(program))], capture_output=True, text=True, check=True
    )
    found = {}
    for line in names.stdout.splitlines():
        address, kind, name = line.rsplit(maxsplit=2) if line[:1] == "0" else ("", "", "")
        if kind in ("t", "T"):
            found[name] = int(address, 16) - 0x140000000
    return found


def name(place: dict[str, Any] | None) -> str | None:
    return place["name"].partition("!")[2] if place else None


def tree(levels: list[dict[str, Any]]) -> list[Any]:
    """Names, calls per turn, hits per turn and what is below, of each level; loops that ran n turns."""
    return [
        (
            name(level["function"]),
            level["calls"] / level["turns"],
            level["hits"] / level["turns"],
            tree(level["below"]),
        )
        for level in levels
    ]


def assert_loop(method: dict[str, Any], owner: str, frame: str | None, program: str) -> Any:
    [loop] = method["loops"]
    assert name(loop["owner"]) == owner, method
    assert name(loop["frame_function"]) == frame, method
    known = symbols(program)
    assert loop["owner"]["address"] - 0x140000000 == known[owner]
    [[back, header], *_] = loop["back_edges"]
    assert known[owner] <= header["address"] - 0x140000000 < back["address"] - 0x140000000
    assert loop["site"]["address"] < back["address"]
    return loop
