"""A trace is exported to the same bytes on Windows as here, and answers the same."""

from __future__ import annotations

from pathlib import Path

from calltrace.export import FORMATS
from rig import tracing, windows
from rig.commands import run
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
for form in FORMATS:
    run(f'export {form} "{sys.argv[1]}" -o "{Path(sys.argv[2], form)}"')
answer = run(f'query --json "{sys.argv[1]}" "{sys.argv[3]}"')
Path(sys.argv[2], "answer").write_bytes(answer.encode())
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
    trace = golden_trace(tmp_path / "träce.calltrace", 2)
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    done = windows.python("-c", EXPORT_ALL, trace, there, SQL)
    assert done.returncode == 0, done.stderr.decode()
    for form in FORMATS:
        run(f'export {form} "{trace}" -o "{here / form}"')
        files = sorted((here / form).iterdir()) if (here / form).is_dir() else [here / form]
        for file in files:
            made = file.read_bytes()
            assert len(made) > 100 or file.name.startswith("_"), file
            assert (there / file.relative_to(here)).read_bytes() == made, file
    answer = run(f'query --json "{trace}" "{SQL}"')
    assert answer.count("\n") > 20
    assert (there / "answer").read_text(encoding="utf-8") == answer
