"""A trace is exported to the same bytes on Windows as here."""

from __future__ import annotations

import random
from pathlib import Path

from calltrace.export import FORMATS
from rig import simulated, windows
from rig.commands import run
from rig.simulated import SimulatedThread
from rig.tracewriter import TraceWriter

EXPORT_ALL = """
import sys
from pathlib import Path
from calltrace.export import FORMATS
from rig.commands import run
for form in FORMATS:
    run(f'export {form} "{sys.argv[1]}" -o "{Path(sys.argv[2], form)}"')
"""


def test_every_format_is_the_same_on_windows(tmp_path: Path) -> None:
    writer = TraceWriter(8, tsc_start=1000, tsc_hz=3_141_592_653)
    simulated.describe(writer)
    writer.info({"command_line": '"C:\\wörk\\simulated.exe" 1+2'})
    for number in range(2):
        thread = SimulatedThread(8, now=1000)
        thread.run(random.Random(number).randbytes(2000))
        writer.thread(thread.units, number)
    trace = writer.write(tmp_path / "träce.calltrace")
    there = tmp_path / "there"
    there.mkdir()
    done = windows.python("-c", EXPORT_ALL, trace, there)
    assert done.returncode == 0, done.stderr.decode()
    for form in FORMATS:
        run(f'export {form} "{trace}" -o "{tmp_path / form}"')
        made = (tmp_path / form).read_bytes()
        assert len(made) > 100, form
        assert (there / form).read_bytes() == made, form
