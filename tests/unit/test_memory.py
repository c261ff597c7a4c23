"""Memory does not grow with the trace: what each command takes of a small one and of one of two gigabytes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from calltrace.export import FORMATS
from calltrace.loop import recorded
from rig import tracewriter
from rig.commands import run
from rig.tracewriter import TraceWriter, Units

_BLOCKS = 32768  # of which each takes a page of memory at least, if it stays there
_GROWTH = 48 << 10  # KiB; the blocks' index and a batch of rows are within, a page of each block is not
_COMMANDS = (
    ("info",),
    ("tree",),
    ("tree", "--limit", "0"),
    ("top",),
    ("stacks",),
    ("callers", "f"),
    ("callees", "f"),
    ("new", "click"),
    ("diff",),
    ("diff", "--edges"),
    ("report",),
    ("loop", "f", "--from-trace"),
    ("query", "SELECT count(*) FROM events"),
    *(("export", name) for name in FORMATS),
)


def trace(path: Path, blocks: int, state: int = tracewriter.EXITED) -> Path:
    """A trace of so many blocks on two threads; each block has a page of its own, and is a hole otherwise."""
    writer = TraceWriter(unit_size=8, state=state, threads=2, append_end=(3 + blocks) * tracewriter.BLOCK)
    names = [[0x1000, "main"], [0x2000, "f"]]
    functions = [(rva, 16, 1, 0, 0, tracewriter.NONE) for rva, _ in names]
    writer.module({"name": "demo.exe", "names": names}, functions, [(0x1004, 0, 0x2000, tracewriter.NONE)])
    writer.info({"marks": [{"name": "click", "tsc": 1, "positions": [[0, 1], [1, 1]]}]})
    units = Units(8)
    for event, number in ((tracewriter.ENTER, 0), (tracewriter.ENTER, 1)):
        units.event(event, number)
    for event, number in ((tracewriter.LEAVE, 1), (tracewriter.LEAVE, 0)):
        units.event(event, number)
    with path.open("wb") as file:
        file.write(writer.bytes())
        for at in range(blocks):
            block = writer.events_block(bytes(units.data), at % 2, at // 2 * len(units))
            os.pwrite(file.fileno(), block[:128], file.tell() + at * tracewriter.BLOCK)
        file.truncate(file.tell() + blocks * tracewriter.BLOCK)
    return path


def sizes(path: Path, commands: Sequence[tuple[str, ...]] = _COMMANDS) -> list[int]:
    """The largest resident size of each command, in KiB."""
    folder = path.with_suffix("")
    folder.mkdir()
    lines = []
    for words in commands:
        line = [*words, str(path)]
        if words[0] == "diff":
            line += [f"{path}@click"]
        elif words[0] in ("callers", "callees", "new", "query"):
            line = [words[0], str(path), *words[1:]]
        elif words[0] in ("export", "report"):
            line += ["-o", str(folder / "-".join(words))]
        lines.append(json.dumps(line))
    command = [sys.executable, "-m", "rig.largest"]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(
        command, input="\n".join(lines), capture_output=True, text=True, check=True, env=environment
    )
    told = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    codes = [code for code, _ in told]
    # two differ
    assert codes == [int(words[0] == "diff") for words in commands], done.stderr
    return [size for _, size in told]


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_no_command_takes_more_memory_of_a_larger_trace(tmp_path: Path) -> None:
    small = sizes(trace(tmp_path / "small.calltrace", 64))
    large = sizes(trace(tmp_path / "large.calltrace", _BLOCKS))
    grown = {words: after - before for words, before, after in zip(_COMMANDS, small, large)}
    assert max(grown.values()) < _GROWTH, grown


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_nor_does_it_of_one_that_is_being_recorded(tmp_path: Path) -> None:
    commands = [("info",)]
    [small] = sizes(trace(tmp_path / "small.calltrace", 64, tracewriter.RECORDING), commands)
    [large] = sizes(trace(tmp_path / "large.calltrace", _BLOCKS, tracewriter.RECORDING), commands)
    assert large - small < _GROWTH


def test_a_loop_in_a_trace_is_told_by_as_many_calls_as_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trace(tmp_path / "t.calltrace", 200)
    monkeypatch.setattr(recorded, "_ACTIVATIONS", 0)
    monkeypatch.setattr(recorded, "_ACTIVATIONS_OF_A_THREAD", 60)
    told = run(f'loop f --from-trace "{path}"')
    # of the 100 of each thread; those of `main` are counted, too
    assert re.findall(r"its first (\d+) calls", told) == ["31", "31"], told
