"""The port of a debugger on dbgeng: WinDbg, cdb and whatever else is built on it.

What EnginePort does is right here: while its target is stopped the engine has none of its breakpoints in the
code, and it fetches what stands under one each time it puts it in.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator

from calltrace.errors import EngineError, NotTraceable
from calltrace.ports import ModuleSymbols, TargetModule
from calltrace.win32 import process
from calltrace.win32.call_page import CallPage
from calltrace_windbg.dbgeng import Dbgeng
from calltrace_windbg.export_engine import ExportEngine
from calltrace_windbg.pykd_engine import PykdEngine
from calltrace_windbg.running import RunningPort

_ENABLED_BREAKPOINT = re.compile(r"^ *(\d+) +eu? ", re.MULTILINE)  # in what `bl` prints
_SYSTEM = re.compile(r"^\. +\d+ +(.*)", re.MULTILINE)  # the current one, in what `||` prints
_LOCAL_USER_MODE = "Live user mode: <Local>"


class WindbgPort(RunningPort):
    """The process that a session stands at; a Port."""

    def symbols(self, module: TargetModule) -> ModuleSymbols | None:
        """The engine's symbols of a module: what `x` and `k` know of it."""
        return self._dbgeng.symbols(module)

    @contextlib.contextmanager
    def _unnoticed(self, page: CallPage) -> Iterator[None]:
        """The user's breakpoints neither stop the target nor count it, and nothing is shown."""
        engine = self._dbgeng
        enabled = " ".join(_ENABLED_BREAKPOINT.findall(engine.execute("bl")))
        if enabled:
            engine.execute(f"bd {enabled}")
        engine.mute(True)
        try:
            yield
        finally:
            engine.mute(False)
            if enabled:
                engine.execute(f"be {enabled}")


def open_port(engine: Dbgeng, known: WindbgPort | None = None) -> WindbgPort:
    """The port of the process that the session stands at: `known` if it is its; the engine is ready.

    NotTraceable if it is not a live 64-bit process of this machine, AccessRefused if it may not be opened,
    EngineError if there is none or if it runs.
    """
    stop = engine.stop_event()
    if stop is None:
        raise EngineError("there is no stopped target: open a program or attach to one, and break into it")
    found = _SYSTEM.search(engine.execute("||"))
    if not found or found[1].strip() != _LOCAL_USER_MODE:
        what = found[1].strip() if found else "nothing that the debugger tells of"
        raise NotTraceable(f"only a live program of this machine can be traced, but this is: {what}")
    if known is not None and known.process_id == stop.process:
        return known
    return WindbgPort(engine, process.open_stopped(stop.process), stop.process)


def make_engine(library: ctypes.CDLL) -> Dbgeng:
    """The engine of the debugger whose command runs in this process: by pykd if it can be imported.

    `library` is the extension DLL.
    """
    try:
        import pykd
    except ImportError:
        return ExportEngine(library)
    return PykdEngine(pykd, library)
