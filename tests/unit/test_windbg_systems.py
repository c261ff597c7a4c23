"""What the port for WinDbg refuses, by what the debugger tells of its systems."""

from __future__ import annotations

import re
from typing import Any

import pytest

from calltrace.errors import EngineError, NotTraceable
from calltrace.win32.engine import Stop
from calltrace_windbg import target


class Session:
    """An engine that stands still, somewhere."""

    def __init__(self, systems: str, process: int = 4711) -> None:
        self._systems, self._process = systems, process

    def stop_event(self) -> Stop | None:
        return Stop(self._process, self._process, 0x80000003) if self._systems else None

    def execute(self, command: str) -> str:
        assert command == "||"
        return self._systems


def open_port(session: Session, known: Any = None) -> Any:
    engine: Any = session
    return target.open_port(engine, known)


# The kinds of systems; the debugger's own words are told as they are.
@pytest.mark.parametrize(
    ("systems", "told"),
    [
        (".  0 Remote KD: KdSrv:Server=@{<Local>},Trans=@{COM:Port=com1}\n", "Remote KD: KdSrv"),
        (".  0 64-bit Full kernel dump: c:\\memory.dmp\n", "64-bit Full kernel dump"),
        ("   0 Live user mode: <Local>\n.  1 user mini dump: c:\\a.dmp\n", "user mini dump: c:\\a.dmp"),
        (".  0 Live user mode: tcp:server=elsewhere,port=1000\n", "tcp:server=elsewhere"),
    ],
)
def test_what_is_no_live_program_of_this_machine_is_refused(systems: str, told: str) -> None:
    with pytest.raises(NotTraceable, match=re.escape(told)) as raised:
        open_port(Session(systems, 0 if "K" in told else 4711))
    assert "\n" not in str(raised.value)


def test_without_a_stopped_target_the_way_to_one_is_told() -> None:
    with pytest.raises(EngineError, match="open a program or attach to one, and break into it"):
        open_port(Session(""))


def test_the_port_of_the_same_process_is_used_again() -> None:
    class Known:
        process_id = 4711

    known = Known()
    assert open_port(Session("   1 user mini dump: x\n.  0 Live user mode: <Local>\n"), known) is known
