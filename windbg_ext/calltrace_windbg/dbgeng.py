"""What the port for WinDbg needs of dbgeng, whoever gives access to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from calltrace.ports import ModuleSymbols, TargetModule
from calltrace.win32.engine import Engine

if TYPE_CHECKING:
    from calltrace_windbg.export_engine import ExportEngine


class Dbgeng(Engine, Protocol):
    """An engine that has the debugger's commands."""

    def execute(self, command: str) -> str:
        """What a command of the debugger prints; the user does not see it."""
        ...

    def mute(self, muted: bool) -> None:
        """From now on show the user nothing but what the target itself says; or everything again."""
        ...

    def symbols(self, module: TargetModule) -> ModuleSymbols | None:
        """The engine's symbols of a module, loaded now from where its user told it to look for them.

        None if that has none but the exports.
        """
        ...

    def runner(self) -> ExportEngine | None:
        """What can let the target run from event to event, to be used between `end` and `begin`."""
        ...
