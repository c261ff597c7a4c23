"""A trace is exported to the same bytes on Windows as here, and answers the same."""

from __future__ import annotations

from pathlib import Path

from calltrace.export import FORMATS
from rig import windows
from rig.commands import run
from rig.simulated import golden_trace

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
