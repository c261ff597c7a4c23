"""Exports and queries of files that are damaged, cut off, of something else, or of a later version."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import pytest

from calltrace import dispatch
from calltrace.commands import Console
from calltrace.errors import BadTrace, CalltraceError, FileMissing
from calltrace.export import FORMATS
from rig import simulated, tracewriter
from rig.simulated import SimulatedThread
from rig.tracewriter import BLOCK, TraceWriter

QUERY = 'query "{}" "SELECT count(*) FROM events"'
COMMANDS = [*(f'export {form} "{{}}" -o "{{}}"' for form in FORMATS), QUERY]
each_command = pytest.mark.parametrize("command", COMMANDS, ids=[*FORMATS, "query"])
THREADS = 3


def trace_bytes() -> bytes:
    writer = TraceWriter(8, tsc_hz=10**9)
    simulated.describe(writer)
    for number in range(THREADS):
        thread = SimulatedThread(8)
        thread.run(random.Random(number).randbytes(6000))
        writer.thread(thread.units, number, block_units=500)
    return writer.bytes()


WHOLE = trace_bytes()


def shown(command: str, path: Path, out: Path) -> tuple[str, list[str]]:
    """What a command line shows, and what it tells beside."""
    text, told = io.StringIO(), list[str]()
    assert dispatch.run_line(command.format(path, out), Console(text, told.append)) == 0
    return text.getvalue(), [line for line in told if not line.startswith("writing")]


@each_command
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a calltrace trace"),
        (b"MZ" + bytes(5000), "is not a calltrace trace"),
        (WHOLE[:100], "is cut off within its header: nothing of the trace is left"),
        (WHOLE[:8] + b"\x02" + WHOLE[9:], "is of trace version 2, this calltrace reads version 1: .*"),
        (WHOLE[:16] + bytes(8) + WHOLE[24:], "is damaged: the sizes in its header make no sense"),
    ],
    ids=["empty", "foreign", "header", "future", "sizes"],
)
def test_what_is_no_trace_is_told_in_a_line(command: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.calltrace"
    path.write_bytes(data)
    with pytest.raises(BadTrace, match=rf"^.*bad\.calltrace {message}\Z"):
        shown(command, path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


@each_command
def test_what_does_not_exist_is_told_in_one_line(command: str, tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match=r"^no such file: .*none\.calltrace\Z"):
        shown(command, tmp_path / "none.calltrace", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@each_command
def test_of_a_trace_that_is_cut_off_what_is_left_is_told(command: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.calltrace"
    path.write_bytes(WHOLE[: len(WHOLE) * 2 // 3 - BLOCK // 2])
    text, told = shown(command, path, tmp_path / "out")
    assert told == [f"{path} is cut off: what comes later is missing"]
    if (tmp_path / "out").is_dir():
        assert (tmp_path / "out" / "events.parquet").stat().st_size > 10_000
    elif (tmp_path / "out").exists():
        assert (tmp_path / "out").stat().st_size > 100
    else:
        assert int(text.split()[-1]) > 1000


def test_the_events_left_of_a_cut_trace_are_those_of_the_whole_one(tmp_path: Path) -> None:
    """All up to the cut, but for the ends of frames that are not known any more."""
    rows = {}
    for name, data in (("whole", WHOLE), ("cut", WHOLE[: len(WHOLE) // 2])):
        (tmp_path / name).write_bytes(data)
        shown('export csv "{}" -o "{}"', tmp_path / name, tmp_path / f"{name}.csv")
        lines = (tmp_path / f"{name}.csv").read_text(encoding="utf-8").splitlines()[1:]
        rows[name] = [line for line in lines if ",cut," not in line]
    kept = set(rows["cut"])
    assert 1000 < len(kept) < len(rows["whole"])
    assert kept <= set(rows["whole"])


@each_command
def test_damaged_parts_are_counted_and_left_out(command: str, tmp_path: Path) -> None:
    at = WHOLE.index(b"\x02\0\0\0\0\0\0\0" + BLOCK.to_bytes(8, "little"), 3 * BLOCK)
    damaged = bytearray(WHOLE)
    damaged[at + 8 : at + 16] = (3 * BLOCK + 1).to_bytes(8, "little")  # a length that no chunk has
    (tmp_path / "t.calltrace").write_bytes(damaged)
    _, told = shown(command, tmp_path / "t.calltrace", tmp_path / "out")
    damage, loss = told
    assert damage.endswith("t.calltrace is damaged: 1 block of it left out")
    assert re.search(r"t\.calltrace: [\d,]+ events lost", loss)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_damaged_there_is_an_answer_or_one_line(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    data = bytearray(WHOLE)
    for _ in range(rng.choice((1, 5, 200))):
        in_header = rng.randrange(len(data) // BLOCK) * BLOCK + rng.randrange(96)
        data[rng.choice((rng.randrange(len(data)), in_header))] = rng.randrange(256)
    path = tmp_path / "t.calltrace"
    path.write_bytes(data)
    for number, command in enumerate(COMMANDS):
        problem = ""
        try:
            shown(command, path, tmp_path / f"out{number}")
        except CalltraceError as error:
            problem = str(error)
        assert not problem or ("t.calltrace" in problem and "\n" not in problem)


def test_a_state_of_recording_does_not_hide_a_cut(tmp_path: Path) -> None:
    writer = TraceWriter(8, state=tracewriter.RECORDING)
    simulated.describe(writer)
    thread = SimulatedThread(8)
    thread.run(random.Random(1).randbytes(3000))
    writer.thread(thread.units, block_units=500)
    data = writer.bytes()
    (tmp_path / "t.calltrace").write_bytes(data[: len(data) - 2 * BLOCK])
    _, told = shown(QUERY, tmp_path / "t.calltrace", tmp_path)
    assert told == [f"{tmp_path / 't.calltrace'} is cut off: what comes later is missing"]
