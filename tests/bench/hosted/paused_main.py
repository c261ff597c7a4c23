"""Runs a program in Windows Python whose recording is paused before its first instruction.

paused_main.py TRACE PROGRAM [ARGUMENT ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from calltrace import session
from calltrace.recorder import TraceFile


class Paused(session.Tracing):
    """Puts everything in place, and lets the program not get there."""

    def start(self, options: session.TraceOptions, file: TraceFile) -> None:
        """And pause."""
        super().start(options, file)
        self.pause()


session.Tracing = Paused
trace, program, *arguments = sys.argv[1:]
options = session.TraceOptions(Path(trace), events="functions")
sys.exit(session.run(session.RunOptions(program, arguments, trace=options), lambda line: None))
