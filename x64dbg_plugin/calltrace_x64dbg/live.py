"""The debugger's target, as a live session gets at it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from calltrace import hosted
from calltrace.errors import UsageError
from calltrace.live import LivePort

if TYPE_CHECKING:  # commands that only read traces need none of it
    from calltrace.places import Copied
    from calltrace_x64dbg.breakpoints import UserBreakpoints
    from calltrace_x64dbg.copies import ShownCopies
    from calltrace_x64dbg.engine import X64dbgEngine


class X64dbgHost:
    """A calltrace.live.Host on the debugger."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """`library` is the plugin."""
        self._library = library

    @functools.cached_property
    def _engine(self) -> X64dbgEngine:
        from calltrace_x64dbg.engine import X64dbgEngine

        return X64dbgEngine(self._library)

    @functools.cached_property
    def _breakpoints(self) -> UserBreakpoints:
        from calltrace_x64dbg.breakpoints import UserBreakpoints

        return UserBreakpoints(self._library)

    @functools.cached_property
    def _shown(self) -> ShownCopies:
        from calltrace_x64dbg.copies import ShownCopies

        return ShownCopies(self._library)

    @contextlib.contextmanager
    def port(self, known: LivePort | None) -> Iterator[LivePort]:
        """The port of the process that is debugged: `known`, or a new one."""
        from calltrace_x64dbg.target import X64dbgPort, open_port

        port = known
        stop = self._engine.stop_event()
        if port is None or stop is None or stop.process != port.process_id:
            port = open_port(self._engine)
        assert isinstance(port, X64dbgPort)
        with port:
            yield port

    def thread_id(self, name: str) -> int:
        """~N has that number in the Threads view, ~. is the chosen one, ~# that of the last event."""
        stop = self._engine.stop_event()
        if stop and name == "~.":
            return self._engine.current_thread()
        if stop and name == "~#":
            return stop.thread
        for number, thread in self._engine.numbered_threads() if stop else []:
            if name == f"~{number}":
                return thread
        raise UsageError(f"the debugger has no thread {name}")

    def uninterrupted(self) -> contextlib.AbstractContextManager[None]:
        """The user's wish to cancel waits."""
        return hosted.interrupts_held()

    def follow_copies(self, port: LivePort | None, copied: Sequence[Copied]) -> None:
        """The user's breakpoints hit there, too, and the call stack passes through them."""
        from calltrace_x64dbg.target import X64dbgPort

        if port is None:
            self._breakpoints.release()
            self._shown.show(None, [])
            return
        assert isinstance(port, X64dbgPort)
        self._breakpoints.follow(port.handle, copied)
        self._shown.show(port.handle, copied)
