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

from calltrace.win32 import api
from calltrace.win32.exports import export_address
from calltrace_windbg.target import WindbgPort
from contract.suite import CHECKS, Check, Subject
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
                session.command(lambda port, check=check: put_through(check, port))
            results[name] = None
        except BaseException:
            results[name] = traceback.format_exc()
    Path(output).write_text(json.dumps(results))


def put_through(check: Check, port: WindbgPort) -> None:
    check(
        Subject(
            port,
            export_address(port, "kernel32.dll", "GetCurrentProcessId"),
            export_address(port, "kernel32.dll", "GetCurrentThreadId"),
            export_address(port, "kernel32.dll", "MulDiv"),
            lambda: end_behind_its_back(port.process_id),
        )
    )


def end_behind_its_back(process_id: int) -> None:
    handle = api.kernel32().OpenProcess(api.PROCESS_RIGHTS, 0, process_id)
    assert handle
    api.kernel32().TerminateProcess(handle, 3)
    api.kernel32().CloseHandle(handle)


main()
