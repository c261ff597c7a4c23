"""Runs programs in Windows Python, traced or not, one after another: most end before it would have started.

A line of JSON on the standard input is a job: the program, its arguments, the environment's variables, the
file for its standard output, and the keywords of the trace's options (null: untraced). A line on the standard
output answers it: the exit code, and what the user was told.
"""

from __future__ import annotations

import ctypes
import json
import msvcrt
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from calltrace import session
from calltrace.errors import CalltraceError

_STD_OUTPUT_HANDLE = 0xFFFFFFF5


def main() -> None:
    kernel32 = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]
    kernel32.SetStdHandle.argtypes = [ctypes.c_uint32, ctypes.c_void_p]
    for line in sys.stdin:
        job = json.loads(line)
        os.environ.update(job["environment"])
        with open(job["stdout"], "wb") as output:
            kernel32.SetStdHandle(_STD_OUTPUT_HANDLE, msvcrt.get_osfhandle(output.fileno()))
            answer = traced(job) if job["trace"] else plain(job, output)
        print(json.dumps(answer), flush=True)


def plain(job: Any, output: Any) -> Any:
    done = subprocess.run(
        [job["program"], *job["arguments"]], stdout=output, stdin=subprocess.DEVNULL, check=False
    )
    return {"exit_code": done.returncode & 0xFF, "told": []}


def traced(job: Any) -> Any:
    told: list[str] = []
    options = session.TraceOptions(**{**job["trace"], "output": Path(job["trace"]["output"])})
    try:
        exit_code = session.run(
            session.RunOptions(job["program"], job["arguments"], trace=options), told.append
        )
    except CalltraceError as error:
        return {"exit_code": None, "told": [*told, f"{type(error).__name__}: {error}"]}
    return {"exit_code": exit_code & 0xFF, "told": told}


main()
