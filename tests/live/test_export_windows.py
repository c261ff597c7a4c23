"""A trace is exported to the same bytes on Windows as here, and answers the same."""

from __future__ import annotations

from pathlib import Path

from calltrace.export import FORMATS
from rig import tracing, windows
from rig.commands import run
from rig.oddnames import oddly_named_trace
from rig.simulated import golden_trace
from rig.tracewriter import ENTER, NONE, TraceWriter, Units

SQL = (
    "SELECT name, count(*), sum(duration)::BIGINT FROM events JOIN functions USING (trace, function) "
    "GROUP BY name ORDER BY ALL"
)
EXPORT_ALL = """
import sys
from pathlib import Path
from calltrace.export import FORMATS
from rig.commands import run
sql, *places = sys.argv[1:]
for trace, folder in zip(places[::2], places[1::2]):
    for form in FORMATS:
        run(f'export {form} "{trace}" -o "{Path(folder, form)}"')
    Path(folder, "answer").write_bytes(run(f'query --json "{trace}" "{sql}"').encode())
"""


def test_what_is_written_into_a_pipe_is_the_same_on_windows(tmp_path: Path) -> None:
    """Names in any alphabet, and arrows, which code pages lack."""
    writer, units = TraceWriter(8), Units(8)
    names = ["träge", "名前", "\U0001f600"]
    functions = [(0x1000 * number, 16, 1, 0, 0, NONE) for number in (1, 2, 3)]
    writer.module(
        {"name": "m.exe", "names": [[0x1000 * at, name] for at, name in enumerate(names, 1)]}, functions
    )
    for number in (0, 1, 2):
        units.event(ENTER, number)
    writer.thread(units)
    trace = writer.write(tmp_path / "träce.calltrace").name
    for words in (["callers", trace, "名前", "--json"], ["callers", trace, "名前"], ["info", trace]):
        there = windows.python("-m", "calltrace", *words, cwd=tmp_path)
        here = tracing.calltrace(*words, cwd=tmp_path)
        assert (there.returncode, there.stdout.replace(b"\r\n", b"\n")) == (0, here.stdout)
        assert b"?" not in here.stdout


def test_every_format_and_answer_is_the_same_on_windows(tmp_path: Path) -> None:
    places = []
    for name in ("träce", "odd"):
        (tmp_path / "there" / name).mkdir(parents=True)
        (tmp_path / "here" / name).mkdir(parents=True)
        places += [tmp_path / f"{name}.calltrace", tmp_path / "there" / name]
    golden_trace(places[0], threads=2)
    oddly_named_trace(places[2], unit_size=4)
    done = windows.python("-c", EXPORT_ALL, SQL, *places)
    assert done.returncode == 0, done.stderr.decode()
    for trace, there in zip(places[::2], places[1::2]):
        here = tmp_path / "here" / there.name
        for form in FORMATS:
            run(f'export {form} "{trace}" -o "{here / form}"')
        (here / "answer").write_bytes(run(f'query --json "{trace}" "{SQL}"').encode())
        files = [file.relative_to(here) for file in sorted(here.rglob("*")) if file.is_file()]
        assert len(files) == len(FORMATS) + 1 + 4  # a folder of five files is one of the formats
        assert files == [file.relative_to(there) for file in sorted(there.rglob("*")) if file.is_file()]
        for file in files:
            assert len((here / file).read_bytes()) > 100 or file.name.startswith("_"), file
            assert (there / file).read_bytes() == (here / file).read_bytes(), file
        assert (here / "answer").read_bytes().count(b"\n") > 10
