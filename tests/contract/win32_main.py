"""Puts the standalone port through the contract: win32_main.py create|attach PROGRAM OUTPUT.

Runs in Windows Python. OUTPUT gets a JSON object: check -> null if it holds, else what went wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

from calltrace.win32 import api, launch
from calltrace.win32.exports import export_address
from contract.suite import CHECKS, Subject


def main() -> None:
    mode, program, output = sys.argv[1:]
    # The programs end with their input, so they get one that stays open.
    reading_end, _ = os.pipe()
    os.dup2(reading_end, 0)
    results = {}
    for name, check in CHECKS.items():
        child = None
        if mode == "attach":
            child = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()  # it is running now
            port = launch.attach(child.pid)
        else:
            port = launch.create(launch.find_program(program), "program")
        subject = Subject(
            port,
            export_address(port, "kernel32.dll", "GetCurrentProcessId"),
            export_address(port, "kernel32.dll", "GetCurrentThreadId"),
            export_address(port, "kernel32.dll", "MulDiv"),
            lambda port=port: end_behind_its_back(port.process_id),
        )
        try:
            check(subject)
            results[name] = None
        except BaseException:
            results[name] = traceback.format_exc()
        finally:
            port.terminate()
            port.close()
            if child:
                child.communicate()
    Path(output).write_text(json.dumps(results))


def end_behind_its_back(process_id: int) -> None:
    handle = api.kernel32().OpenProcess(api.PROCESS_RIGHTS, 0, process_id)
    assert handle
    api.kernel32().TerminateProcess(handle, 3)
    api.kernel32().CloseHandle(handle)


main()
