"""Running commands as a host does, and catching what they show."""

from __future__ import annotations

import io

from calltrace import dispatch
from calltrace.commands import Console


def run(line: str) -> str:
    """What a command line shows, from the verb on."""
    out = io.StringIO()
    assert dispatch.run_line(line, Console(out, lambda line: None)) == 0
    return out.getvalue()
