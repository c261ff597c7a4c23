"""`calltrace plan PID` with a note of every system call: plan_main.py PID, in Windows Python."""

from __future__ import annotations

import json
import sys
from typing import Any

from calltrace import survey
from calltrace.export.plan import plan_info
from calltrace.win32 import api


class Noting:
    """A library whose functions note that they were called, and OpenProcess with what rights."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.called: set[str] = set()
        self.rights: list[int] = []

    def __getattr__(self, name: str) -> Any:
        self.called.add(name)
        function = getattr(self._library, name)
        if name != "OpenProcess":
            return function

        def open_process(rights: int, inherit: int, process_id: int) -> Any:
            self.rights.append(rights)
            return function(rights, inherit, process_id)

        return open_process


def main() -> None:
    kernel32, ntdll = Noting(api.kernel32()), Noting(api.ntdll())
    api.kernel32 = lambda: kernel32  # type: ignore[assignment]
    api.ntdll = lambda: ntdll  # type: ignore[assignment]
    found = survey.of_process(int(sys.argv[1]), survey.SurveyOptions())
    told = {"rights": kernel32.rights, "called": sorted(kernel32.called | ntdll.called)}
    print(json.dumps({**told, "plan": plan_info(found)}))


main()
