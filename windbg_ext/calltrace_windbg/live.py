"""The debugger's target, as a live session gets at it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from calltrace import hosted
from calltrace.errors import EngineError, UsageError
from calltrace.live import LivePort

if TYPE_CHECKING:  # commands that only read traces need none of it
    from calltrace.plan import CopyMap
    from calltrace.session import Tracing
    from calltrace_windbg.breakpoints import UserBreakpoints
    from calltrace_windbg.copy_names import CopyNames
    from calltrace_windbg.dbgeng import Dbgeng

_THREAD_ID = re.compile(r"Id: [0-9a-f]+\.([0-9a-f]+)")  # in what ~ prints, hexadecimal


class EngineHost:
    """A calltrace.live.Host on the engine; while something is recorded, a notifications.Listener."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """`library` is the extension DLL."""
        self.at_end: Callable[[], None] = lambda: None  # what is done when the debugger's target is gone
        self._library = library
        self._names: CopyNames | None = None

    @functools.cached_property
    def _engine(self) -> Dbgeng:
        from calltrace_windbg.target import make_engine

        return make_engine(self._library)

    @functools.cached_property
    def _breakpoints(self) -> UserBreakpoints:
        from calltrace_windbg.breakpoints import UserBreakpoints

        return UserBreakpoints(self._library)

    @contextlib.contextmanager
    def port(self, known: LivePort | None) -> Iterator[LivePort]:
        """The port of the process that the debugger stands at: `known`, or a new one."""
        from calltrace_windbg.target import WindbgPort, open_port

        port = known
        self._engine.begin()
        try:
            stop = self._engine.stop_event()
            if port is None or stop is None or stop.process != port.process_id:
                port = open_port(self._engine)
        finally:
            self._engine.end()
        assert isinstance(port, WindbgPort)
        with port:
            yield port

    def thread_id(self, name: str) -> int:
        """What `~1`, `~.` or `~#` tells."""
        self._engine.begin()
        try:
            found = _THREAD_ID.search(self._engine.execute(name))
        except EngineError:
            found = None
        finally:
            self._engine.end()
        if not found:
            raise UsageError(f"the debugger has no thread {name}")
        return int(found[1], 16)

    def uninterrupted(self) -> contextlib.AbstractContextManager[None]:
        """Ctrl+Break waits."""
        return hosted.interrupts_held()

    def recorded(self, process_id: int, tracing: Tracing) -> None:
        """The user's breakpoints follow their instructions into the copies."""
        from calltrace_windbg import notifications

        notifications.add(self._library, self)
        self._breakpoints.follow(process_id, lambda: tracing.copied)

    def forgotten(self) -> None:
        """They stay where they are."""
        from calltrace_windbg import notifications

        notifications.remove(self._library, self)
        self._breakpoints.release()

    def accessible(self) -> None:
        """Nothing."""

    def inaccessible(self) -> None:
        """Nothing."""

    def inactive(self) -> None:
        """The target has ended, or was let go."""
        self.at_end()

    def symbols_loaded(self, base: int) -> None:
        """Nothing."""

    def show_copies(self, port: LivePort, maps: Sequence[CopyMap]) -> None:
        """Let the engine's stack walk know them; it is told at each stop as long as there are any."""
        from calltrace_windbg import notifications
        from calltrace_windbg.copy_names import CopyNames
        from calltrace_windbg.target import WindbgPort

        assert isinstance(port, WindbgPort)
        if self._names is None or not self._names.is_of(port):
            if self._names is not None:
                notifications.remove(self._library, self._names)
            self._names = CopyNames(self._library, port)
        self._names.show(maps)
        if maps:
            notifications.add(self._library, self._names)
        else:
            notifications.remove(self._library, self._names)
