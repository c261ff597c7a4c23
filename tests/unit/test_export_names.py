"""Names of every kind, and threads that are called alike, in each format, as others' readers read them."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import subprocess
from pathlib import Path

import pyarrow.parquet
import pytest

from calltrace.errors import AccessRefused
from calltrace.export import FORMATS
from calltrace.tracefile import TraceFile
from rig import readers
from rig.commands import run
from rig.oddnames import LONG, MODULE, NAMES, THREADS, TOLD, oddly_named_trace


@pytest.fixture(params=[4, 8])
def trace(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return oddly_named_trace(tmp_path / "tr&lt; <ä>;.calltrace", request.param)


def exported(trace: Path, form: str) -> Path:
    out = trace.with_name(form)
    run(f'export {form} "{trace}" -o "{out}"')
    return out


def test_csv(trace: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(trace, "csv").read_text(encoding="utf-8"), newline="")))
    assert {row["name"] for row in rows} == TOLD
    assert {row["module"] for row in rows} == {f"{MODULE}.exe"}
    assert not any(None in row for row in rows)


def test_callgrind(trace: Path) -> None:
    annotate = ["callgrind_annotate", "--threshold=100", "--show-percs=no", exported(trace, "callgrind")]
    done = subprocess.run(annotate, capture_output=True, encoding="utf-8", check=True)
    assert not done.stderr
    names = set(re.findall(r"^\s*[\d,]+ +(?:\?\?\?:)?(.+?)(?: \[.*\])?$", done.stdout, re.M))
    assert names >= TOLD


def test_dot(trace: Path) -> None:
    command = ["dot", "-Tsvg", exported(trace, "dot")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert not done.stderr
    texts = {html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", done.stdout)}
    long = f"{MODULE}!{LONG}"
    assert texts >= TOLD - {long}
    assert any(text.startswith(f"{MODULE}!begin<LL") and text.endswith("LL>end") for text in texts)


def test_coverage(trace: Path) -> None:
    coverage = readers.read_drcov(str(exported(trace, "drcov")))
    assert [module.path for module in coverage.modules] == [f"C:\\My Programs\\{MODULE}.exe"]
    starts = [0x1000 + 16 * at for at in range(len(NAMES) + 1)]
    assert [block.start for block in coverage.basic_blocks] == starts
    offsets = exported(trace, "offsets").read_text(encoding="utf-8").splitlines()
    assert offsets == [f"{MODULE}.exe+{start:x}" for start in starts]


def test_chrome_keeps_threads_of_the_same_id_apart(trace: Path) -> None:
    threads = readers.chrome_threads(exported(trace, "chrome"))
    assert [name for _, _, name, _ in threads] == ["thread 0", "thread 1 (id 1000)", "thread 2 (id 1000)"]
    assert len({number for _, number, _, _ in threads}) == THREADS
    for *_, slices in threads:
        assert len(slices) == 2 * (len(NAMES) + 1)
        assert {name for name, _, _ in slices} == TOLD


def test_perfetto(trace: Path) -> None:
    packets = readers.perfetto_trace(exported(trace, "perfetto").read_bytes()).packet
    assert {each.name for packet in packets for each in packet.interned_data.event_names} == TOLD
    tracks = [packet.track_descriptor for packet in packets if packet.track_descriptor.HasField("thread")]
    assert len({track.uuid for track in tracks}) == THREADS


def test_speedscope_has_one_frame_for_each_name(trace: Path) -> None:
    told = json.loads(exported(trace, "speedscope").read_text(encoding="utf-8"))
    readers.speedscope_validator()(told)
    assert sorted(frame["name"] for frame in told["shared"]["frames"]) == sorted(TOLD)
    assert len(told["profiles"]) == THREADS


def test_folded(trace: Path) -> None:
    frames = set()
    for line in exported(trace, "folded").read_text(encoding="utf-8").split("\n")[:-1]:
        found = re.match(r"^(.*)\s+?(\d+(?:\.\d*)?)$", line)  # flamegraph.pl's
        assert found, line
        frames.update(found[1].split(";")[1:])
    assert frames == {name.replace(";", ":") for name in TOLD}


def test_parquet(trace: Path) -> None:
    functions = pyarrow.parquet.read_table(exported(trace, "parquet") / "functions.parquet").to_pylist()
    assert {row["name"] for row in functions} == TOLD
    assert {row["module"] for row in functions} == {f"{MODULE}.exe"}
    assert len({row["function"] for row in functions}) == len(functions) == 2 * (len(NAMES) + 1)


def test_text_and_every_other_format_is_written(trace: Path) -> None:
    out = io.StringIO()
    with TraceFile(trace) as opened:
        FORMATS["text"].write(opened, out)
    assert {
        re.split(" {2}| \N{MULTIPLICATION SIGN}", line.strip())[0] for line in out.getvalue().splitlines()
    } >= TOLD
    for form in ("ida", "ghidra", "binja"):
        compile(exported(trace, form).read_text(encoding="utf-8"), form, "exec")


def test_a_file_whose_name_is_no_text_is_read_as_any_other(tmp_path: Path) -> None:
    trace = oddly_named_trace(tmp_path / os.fsdecode(b"not \xff UTF-8.calltrace"), unit_size=8)
    for form in FORMATS:
        run(f'export {form} "{trace}" -o "{tmp_path / form}"')
        assert (tmp_path / form).stat().st_size > 100
    run(f'report "{trace}" -o "{tmp_path / "page.html"}"')
    assert "<title>not \ufffd UTF-8.calltrace</title>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    # Beside it there can be no tables: Arrow refuses such names.
    told = run(f'query --json "{trace}" "SELECT DISTINCT trace FROM events"')
    assert json.loads(told) == {"trace": "not \ufffd UTF-8.calltrace"}
    with pytest.raises(AccessRefused, match=r"cannot create .*: Arrow opens UTF-8 names only"):
        run(f'export parquet "{trace}"')
