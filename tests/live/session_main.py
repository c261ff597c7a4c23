"""Runs the session in Windows Python: session_main.py run|attach JSON, the keywords of the options."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from calltrace import session
from calltrace.errors import CalltraceError


def main() -> int:
    verb, words = sys.argv[1], json.loads(sys.argv[2])
    if "output" in words["trace"]:
        words["trace"]["output"] = Path(words["trace"]["output"])
    words["trace"] = session.TraceOptions(**words["trace"])
    try:
        if verb == "run":
            return session.run(session.RunOptions(**words), tell)
        return session.attach(session.AttachOptions(**words), tell)
    except CalltraceError as error:
        tell(f"{type(error).__name__}: {error}")
        return error.exit_code


def tell(line: str) -> None:
    print(f"calltrace: {line}", file=sys.stderr, flush=True)


sys.exit(main())
