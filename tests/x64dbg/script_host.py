"""Answers `calltrace script FILE` in x64dbg: runs a script in this Python, as other plugins do in theirs.

What else is asked is answered by our own host.
"""

from __future__ import annotations

import runpy
import traceback

from calltrace.dispatch import split
from calltrace_x64dbg import genuine


def run(library: int, line: str) -> None:
    verb, *words = split(line) or [""]
    if verb != "script":
        genuine.run(library, line)
        return
    try:
        runpy.run_path(words[0])
    except BaseException:
        genuine.X64dbg(library).show(traceback.format_exc())
