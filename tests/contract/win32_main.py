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

from calltrace.win32 import launch
from contract.process import subject
from contract.suite import CHECKS


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
        try:
            check(subject(port))
            results[name] = None
        except BaseException:
            results[name] = traceback.format_exc()
        finally:
            port.terminate()
            port.close()
            if child:
                child.communicate()
    Path(output).write_text(json.dumps(results))


main()
