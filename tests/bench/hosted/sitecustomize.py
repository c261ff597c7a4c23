"""Times the parts of a command: a Python in a debugger imports this first, if PYTHONPATH names this folder.

After each command a line of JSON goes into the file that CALLTRACE_PARTS names: when all began, when the
command ended, and the seconds of each part; all of them pairs, by the clock and of the process's processor
time. A part within another counts for the outer one.
"""

from __future__ import annotations

import functools
import json
import os
import time
from typing import Any

Moment = tuple[float, float]


def now() -> Moment:
    return time.time(), time.process_time()


class Parts:
    """The parts of the command that runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, Moment] = {}
        self._inside = False

    def time(self, owner: object, name: str, part: str) -> None:
        """Let every call of owner.name count for `part`."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            if self._inside:
                return function(*arguments, **named)
            self._inside = True
            begin = now()
            try:
                return function(*arguments, **named)
            finally:
                self._inside = False
                self.add(part, begin)

        setattr(owner, name, timed)

    def add(self, part: str, begin: Moment) -> None:
        """Count what has passed since `begin` for `part`."""
        end, before = now(), self.seconds.get(part, (0.0, 0.0))
        self.seconds[part] = (before[0] + end[0] - begin[0], before[1] + end[1] - begin[1])


def time_commands(path: str) -> None:
    """Import what `start` needs, and tell of each command in the file `path`."""
    parts, begin = Parts(), now()
    from calltrace import copies, hosted, live, plan, recorder, session
    from calltrace.win32.memory import ProcessMemory
    from calltrace_windbg import breakpoints, copy_names, host, target  # noqa: F401

    parts.add("import the packages", begin)
    for owner, name, part in (
        (plan, "read_image", "read the module"),
        (plan.ModulePlan, "__init__", "find the functions"),
        (plan.ModulePlan, "lay_out", "lay the copies out"),
        (plan.ModulePlan, "compose", "compose the copies"),
        (ProcessMemory, "write", "write the copies"),
        (session, "write_patches", "write the jumps"),
        (session, "create_file", "create the trace file"),
        (recorder.TraceFile, "append", "fill the trace file"),
        (recorder.TraceFile, "finish", "complete the trace file"),
        (recorder.Recorder, "__init__", "load the recorder"),
        (recorder.Recorder, "start", "start the recorder"),
        (recorder.Recorder, "add_code", "register the copies"),
        (recorder.Recorder, "stop", "stop the recorder"),
        (copies, "withdraw", "take the jumps out"),
        (copies, "free_unused", "look for uses of the copies, free them"),
        (live.LiveSession, "_tell_copies", "show the debugger the copies"),
        (ProcessMemory, "mapped_modules", "list the modules"),
    ):
        parts.time(owner, name, part)
    run = hosted.run

    def reported(*arguments: Any) -> None:
        try:
            run(*arguments)
        finally:
            with open(path, "a", encoding="utf-8") as file:
                print(json.dumps({"started": begin, "ended": now(), "parts": parts.seconds}), file=file)
            parts.seconds.clear()

    hosted.run = reported


if os.environ.get("CALLTRACE_PARTS"):
    time_commands(os.environ["CALLTRACE_PARTS"])
