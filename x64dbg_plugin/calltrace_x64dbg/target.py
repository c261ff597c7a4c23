"""The port of x64dbg.

The debugger leaves its int3s in the code while the target stands still: memory is moved past them.
"""

from __future__ import annotations

import contextlib

from calltrace.errors import EngineError
from calltrace.ports import ModuleSymbols, TargetModule
from calltrace.win32 import process
from calltrace.win32.call_page import CallPage
from calltrace_x64dbg import labels
from calltrace_x64dbg.engine import X64dbgEngine
from calltrace_x64dbg.running import RunningPort


class X64dbgPort(RunningPort):
    """The process that is debugged; a Port."""

    @property
    def handle(self) -> int:
        """The process's, as long as the port is open."""
        return self._process

    def symbols(self, module: TargetModule) -> ModuleSymbols | None:
        """The user's labels, if there are any."""
        return labels.of_module(self._x64dbg.library, module)

    def _read_plain(self, address: int, size: int) -> bytes:
        super()._read_plain(address, size)  # what cannot be read is refused by the system, and in its words
        return self._x64dbg.read(self._process, address, size)

    def _write_plain(self, address: int, data: bytes) -> None:
        self._x64dbg.write(self._process, address, data)

    def _unnoticed(self, page: CallPage) -> contextlib.AbstractContextManager[None]:
        return self._x64dbg.call_on(page.address, self._require_stop().thread)


def open_port(engine: X64dbgEngine) -> X64dbgPort:
    """The port of the process that is debugged.

    NotTraceable if it cannot be traced, AccessRefused if it may not be opened, EngineError if there is
    none or if it runs.
    """
    stop = engine.stop_event()
    if stop is None:
        raise EngineError("there is no stopped target: open a program or attach to one, and pause it")
    return X64dbgPort(engine, process.open_stopped(stop.process), stop.process)
