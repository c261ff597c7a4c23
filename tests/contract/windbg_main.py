"""Puts the port for WinDbg through the contract: windbg_main.py FOLDER KIND create|attach PROGRAM OUTPUT.

Runs in Windows Python; FOLDER and KIND are rig.dbgeng's. OUTPUT gets a JSON object: check -> null if it
holds, else what went wrong.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from contract.process import subject
from contract.suite import CHECKS
from rig.dbgeng import open_session


def main() -> None:
    folder, kind, mode, program, output = sys.argv[1:]
    # The programs end with their input, so they get one that stays open.
    reading_end, _ = os.pipe()
    os.dup2(reading_end, 0)
    results: dict[str, str | None] = {}
    for name, check in CHECKS.items():
        try:
            with open_session(Path(folder), kind, program, mode) as session:
                session.command(lambda port, check=check: check(subject(port)))
            results[name] = None
        except BaseException:
            results[name] = traceback.format_exc()
    Path(output).write_text(json.dumps(results))


main()
