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
from calltrace_windbg.listener import Listener

if TYPE_CHECKING:  # commands that only read traces need none of it
    from calltrace.places import Copied
    from calltrace_windbg.breakpoints import UserBreakpoints
    from calltrace_windbg.copy_names import CopyNames
    from calltrace_windbg.dbgeng import Dbgeng

_THREAD_ID = re.compile(r"Id: [0-9a-f]+\.([0-9a-f]+)")  # in what ~ prints, hexadecimal


class EngineHost(Listener):
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

        assert known is None or isinstance(known, WindbgPort)
        self._engine.begin()
        try:
            port = open_port(self._engine, known)
        finally:
            self._engine.end()
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

    def follow_copies(self, port: LivePort | None, copied: Sequence[Copied]) -> None:
        """The user's breakpoints follow their instructions there, and the engine's stack walk knows them.

        Of a target that is gone the engine forgets them itself.
        """
        from calltrace_windbg import notifications

        if port is None:
            notifications.remove(self._library, self)
            self._breakpoints.release()
            return
        from calltrace_windbg.copy_names import CopyNames
        from calltrace_windbg.target import WindbgPort

        assert isinstance(port, WindbgPort)
        notifications.add(self._library, self)
        self._breakpoints.follow(port.process_id, port, copied)
        if self._names is None or not self._names.is_of(port):
            self._names = CopyNames(self._library, port)
        self._names.show(copied)

    def inactive(self) -> None:
        """The target has ended, or was let go."""
        self.at_end()
