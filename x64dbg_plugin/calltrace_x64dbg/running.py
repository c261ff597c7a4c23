"""How x64dbg lets its target run from event to event within a command: x64dbg_plugin/engine.h."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable, Sequence
from ctypes import POINTER, c_bool, c_uint32, c_uint64

from calltrace import running
from calltrace.errors import AccessRefused, EngineError
from calltrace.ports import Capability, DebugEvent, DebugEventKind
from calltrace.win32 import api
from calltrace.win32.engine import Stop
from calltrace_x64dbg.engine import X64dbgEngine, context_of, opened

_RUNS, _STOPPED, _GONE = range(3)  # CT_RUNS and those behind it
_KINDS = {
    api.EXCEPTION_DEBUG_EVENT: DebugEventKind.EXCEPTION,
    api.CREATE_THREAD_DEBUG_EVENT: DebugEventKind.THREAD_START,
    api.LOAD_DLL_DEBUG_EVENT: DebugEventKind.MODULE_LOAD,
    api.UNLOAD_DLL_DEBUG_EVENT: DebugEventKind.MODULE_UNLOAD,
}
_MOST = 4096


class _Event(ctypes.Structure):
    """struct ct_engine_event."""

    _fields_ = [
        ("kind", c_uint32),
        ("thread", c_uint32),
        ("code", c_uint32),
        ("first_chance", c_uint32),
        ("address", c_uint64),
    ]


class X64dbgRunner:
    """A Runner on the plugin's functions."""

    def __init__(self, engine: X64dbgEngine) -> None:
        self._engine = engine
        self._run = engine.library.ct_engine_run
        self._run.argtypes, self._run.restype = (c_bool, c_uint32, POINTER(_Event)), c_uint32
        self._points = engine.library.ct_engine_points
        self._points.argtypes, self._points.restype = (POINTER(c_uint64), c_uint32), c_uint32
        self._point = engine.library.ct_engine_point
        self._point.argtypes, self._point.restype = (c_uint64, c_bool), c_bool

    def watch(self, on: bool) -> None:
        """Whether events end runs."""
        self._engine.library.ct_engine_watch(c_bool(on))

    def run(self, process_id: int, handled: bool, milliseconds: int) -> tuple[bool, DebugEvent | None]:
        """Let the target run on, and look for that long whether it stops."""
        event = _Event()
        how = self._run(handled, milliseconds, ctypes.byref(event))
        if how == _GONE:
            raise EngineError(f"process {process_id} is gone")
        if how == _RUNS:
            return False, None
        if event.kind == api.EXIT_THREAD_DEBUG_EVENT:  # seen by the threads there are
            return self.run(process_id, True, milliseconds)
        if event.kind not in _KINDS:
            return True, None
        kind, first = _KINDS[event.kind], bool(event.first_chance)
        return True, DebugEvent(kind, event.thread, event.address, event.code, first)

    def threads(self) -> Iterable[int]:
        """The threads of the stopped process."""
        return self._engine.threads()

    def context(self, thread: int) -> api.Context:
        """The context of a thread."""
        with opened(thread) as handle:
            return context_of(thread, handle)

    def set_context(self, thread: int, context: api.Context) -> None:
        """Let a thread go on with this."""
        with opened(thread) as handle:
            if not api.kernel32().SetThreadContext(handle, ctypes.byref(context)):
                raise AccessRefused(f"the registers of thread {thread} cannot be set")

    def interrupt(self) -> None:
        """Stop the running target."""
        self._engine.break_in()

    def points(self) -> dict[int, str]:
        """The VAs of the user's enabled breakpoints, and as he sees them."""
        found = (c_uint64 * _MOST)()
        return {address: f"{address:X}" for address in found[: min(_MOST, self._points(found, _MOST))]}

    def put_point(self, address: int, in_code: bool) -> None:
        """Take a breakpoint of the user's out of the code, or put it in again."""
        self._point(address, in_code)


class RunningPort(running.RunningPort):
    """The process that is debugged, and what runs it for the length of a command."""

    def __init__(self, engine: X64dbgEngine, handle: int, process_id: int) -> None:
        """Use `engine`, and `handle` with PROCESS_RIGHTS, which `close` closes."""
        super().__init__(engine, handle, process_id)
        self._x64dbg = engine
        self._plugin = X64dbgRunner(engine)

    def supports(self, capability: Capability) -> bool:
        """Whether it can debug; no command runs beside a running target."""
        return capability is Capability.DEBUG

    def _begin_runs(self) -> X64dbgRunner:
        self._pass_users_breakpoint()
        self._plugin.watch(True)
        return self._plugin

    def _end_runs(self) -> None:
        self._plugin.watch(False)

    def _pass_users_breakpoint(self) -> None:
        """The debugger lets a thread that stands at one go by a step of its own, which is to be over."""
        with contextlib.suppress(AccessRefused):  # of a thread that has ended
            if self._plugin.context(self._require_stop().thread).Rip in self._plugin.points():
                self._x64dbg.step()

    def _first_stop(self, stop: Stop) -> None:
        self._told = self._require_stop().thread

    def _users_breakpoints(self) -> dict[int, str]:
        return self._plugin.points()

    def _disable_users(self, name: str) -> None:
        self._plugin.put_point(int(name, 16), False)

    def _enable_users(self, names: Sequence[str]) -> None:
        for name in names:
            self._plugin.put_point(int(name, 16), True)

    def _why_stopped(self) -> str:
        return "the target was stopped"
