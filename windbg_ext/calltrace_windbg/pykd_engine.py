"""The engine through pykd, the Python extension for WinDbg."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from calltrace.errors import AccessRefused, EngineError
from calltrace.ports import ModuleSymbols, TargetModule
from calltrace.win32 import api
from calltrace.win32.engine import REGISTERS, Stop
from calltrace_windbg.export_engine import ExportEngine

_THREAD_GONE = "WaitForEvent failed HRESULT 0x8007001f"  # ERROR_GEN_FAILURE
_EVENT_THREAD = re.compile(r"Id: ([0-9a-f]+)\.([0-9a-f]+)")  # in what `~#` prints, hexadecimal


class PykdEngine:
    """An Engine on the module pykd."""

    def __init__(self, pykd: Any, library: ctypes.CDLL | None = None) -> None:
        """`pykd` is the module; `library` the extension DLL, if a command of that runs.

        Without it the session is pykd's own, which shows nothing of the engine's output.
        """
        self._pykd = pykd
        self._library = library
        self._muted = False

    def begin(self) -> None:
        """Let pykd find the engine."""
        self._do(self._pykd.initialize)

    def end(self) -> None:
        """Take pykd's callbacks out of the engine: a wait of the debugger's own may fail on them."""
        self._do(self._pykd.deinitialize)

    def stop_event(self) -> Stop | None:
        """Why the target stands still."""
        pykd = self._pykd
        if self._do(pykd.getExecutionStatus) != pykd.executionStatus.Break:
            return None
        found = _EVENT_THREAD.search(self.execute("~#"))
        if not found:
            return Stop(0, 0, 0)  # the kernel has no such thread
        process, thread = (int(number, 16) for number in found.groups())
        kind = self._do(pykd.getLastEvent).type
        if kind == pykd.eventType.Breakpoint:
            return Stop(process, thread, api.EXCEPTION_BREAKPOINT)
        if kind == pykd.eventType.Exception:
            exception = self._do(pykd.getLastException)
            return Stop(process, thread, exception.exceptionCode, exception.firstChance)
        # Behind the engine's own steps there is no event.
        return Stop(process, thread, 0 if kind else api.EXCEPTION_SINGLE_STEP)

    def threads(self) -> list[int]:
        """The threads of the stopped process."""
        return [thread for thread, _ in self._threads()]

    def registers(self, thread: int) -> dict[str, int]:
        """The registers of a thread."""
        with self._chosen(thread):
            values: dict[str, int] = self._do(lambda: {name: self._pykd.reg(name) for name in REGISTERS})
        return values

    def set_registers(self, thread: int, values: Mapping[str, int]) -> None:
        """Set some of a thread's registers."""

        def set_all() -> None:
            for name, value in values.items():
                self._pykd.setReg(name, value)

        with self._chosen(thread):
            self._do(set_all)

    def current_thread(self) -> int:
        """The thread that the user has chosen."""
        return int(self._do(self._pykd.getThreadSystemID))

    def select_thread(self, thread: int) -> None:
        """Let the user find `thread` chosen."""
        if thread == self.current_thread():
            return  # choosing it anew would reset its user's frame
        for each, choose in self._threads():
            if each == thread:
                self._do(choose)
                return
        raise AccessRefused(f"there is no thread {thread}")

    def execute(self, command: str) -> str:
        """What a command prints."""
        return self._do(self._pykd.dbgCommand, command) or ""

    def mute(self, muted: bool) -> None:
        """Show only what the target says, or everything again."""
        if self._library is not None and muted != self._muted:
            self._library.ct_engine_mute(muted)
        self._muted = muted

    def go(self, handled: bool) -> None:
        """Let the target run to its next event.

        pykd asks for the context of a thread that ends, which Wine may refuse: that has stopped the target.
        """
        try:
            self.execute("gh" if handled else "gn")
        except EngineError as error:
            if _THREAD_GONE not in str(error) or self.stop_event() is None:
                raise

    def symbols(self, module: TargetModule) -> ModuleSymbols | None:
        """The engine's, by the extension DLL."""
        return ExportEngine(self._library).symbols(module) if self._library is not None else None

    def runner(self) -> ExportEngine | None:
        """The extension DLL: pykd shows no event that the engine's user is not to be told of."""
        return ExportEngine(self._library) if self._library is not None else None

    def break_in(self) -> None:
        """Stop the running target."""
        self._pykd.breakin()

    def _threads(self) -> list[tuple[int, Callable[[], Any]]]:
        """The threads of the stopped process, each with what chooses it."""

        def all_threads() -> list[tuple[int, Callable[[], Any]]]:
            threads = self._pykd.targetProcess.getCurrent().threads()
            return [(thread.systemID, thread.setCurrent) for thread in threads]

        found: list[tuple[int, Callable[[], Any]]] = self._do(all_threads)
        return found

    @contextlib.contextmanager
    def _chosen(self, thread: int) -> Iterator[None]:
        before = self.current_thread()
        self.select_thread(thread)
        try:
            yield
        finally:
            self.select_thread(before)

    def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        muted = self._muted
        self.mute(True)  # whatever pykd does may look for symbols, and tell the user that there are none
        try:
            return function(*arguments)
        except self._pykd.DbgException as error:
            raise EngineError(f"the debugger's engine refuses: {' '.join(str(error).split())}") from None
        finally:
            self.mute(muted)
