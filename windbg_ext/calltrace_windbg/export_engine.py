"""The engine through functions that the extension DLL exports: windbg_ext/engine.h."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import c_int, c_int32, c_uint32, c_uint64, c_void_p
from typing import Any

from calltrace.errors import AccessRefused, EngineError
from calltrace.ports import DebugEvent, DebugEventKind, ModuleSymbols, TargetModule
from calltrace.win32 import api
from calltrace.win32.engine import INTEGER_REGISTERS, Stop
from calltrace_windbg import symbols

_STATUS_BREAK = 6
_EVENT_NONE, _EVENT_BREAKPOINT, _EVENT_EXCEPTION = 0, 1, 2
_THREADS = 64  # room for the first answer


class _State(ctypes.Structure):
    """struct ct_engine_state."""

    _fields_ = [
        ("status", c_uint32),
        ("process", c_uint32),
        ("thread", c_uint32),
        ("event", c_uint32),
        ("code", c_uint32),
        ("first_chance", c_uint32),
    ]


class _Event(ctypes.Structure):
    """struct ct_event."""

    _fields_ = [
        ("kind", c_uint32),
        ("thread", c_uint32),
        ("code", c_uint32),
        ("first_chance", c_uint32),
        ("address", c_uint64),
    ]


_KINDS = {
    _EVENT_EXCEPTION: DebugEventKind.EXCEPTION,
    0x04: DebugEventKind.THREAD_START,
    0x20: DebugEventKind.PROCESS_EXIT,
    0x40: DebugEventKind.MODULE_LOAD,
    0x80: DebugEventKind.MODULE_UNLOAD,
}
_RUNS = 1  # S_FALSE

_TAKE = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_FUNCTIONS: dict[str, list[Any]] = {
    "ct_engine_state": [ctypes.POINTER(_State)],
    "ct_engine_threads": [ctypes.POINTER(c_uint32), c_uint32, ctypes.POINTER(c_uint32)],
    "ct_engine_context": [c_uint32, c_void_p],
    "ct_engine_set_context": [c_uint32, c_void_p],
    "ct_engine_current": [ctypes.POINTER(c_uint32)],
    "ct_engine_select": [c_uint32],
    "ct_engine_execute": [ctypes.c_char_p, _TAKE],
    "ct_engine_mute": [c_int],
    "ct_engine_go": [c_int],
    "ct_engine_break_in": [],
    "ct_run_target": [c_uint32, c_int, c_uint32, ctypes.POINTER(_Event)],
    "ct_interrupt": [],
    "ct_end_runs": [],
}


class ExportEngine:
    """An Engine on the DLL's functions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """`library` is the extension DLL."""
        self._library = library
        self._functions: dict[str, Any] = {}
        for name, arguments in _FUNCTIONS.items():
            function = library[name]
            function.argtypes, function.restype = arguments, c_int32
            self._functions[name] = function

    def begin(self) -> None:
        """Nothing: the functions find the command's client themselves."""

    def end(self) -> None:
        """Nothing: they leave nothing behind."""

    def stop_event(self) -> Stop | None:
        """Why the target stands still."""
        state = _State()
        self._do("tell where it stands", "ct_engine_state", ctypes.byref(state))
        if state.status != _STATUS_BREAK:
            return None
        codes = {
            _EVENT_NONE: api.EXCEPTION_SINGLE_STEP,  # what the engine says behind its own steps
            _EVENT_BREAKPOINT: api.EXCEPTION_BREAKPOINT,
            _EVENT_EXCEPTION: state.code,
        }
        code = codes.get(state.event, 0)
        return Stop(state.process, state.thread, code, bool(state.first_chance))

    def threads(self) -> list[int]:
        """The threads of the stopped process."""
        room, count = _THREADS, c_uint32()
        while True:
            ids = (c_uint32 * room)()
            self._do("list the threads", "ct_engine_threads", ids, room, ctypes.byref(count))
            if count.value <= room:
                return list(ids[: count.value])
            room = count.value

    def registers(self, thread: int) -> dict[str, int]:
        """The registers of a thread."""
        context = self.context(thread)
        return {
            **{name: getattr(context, name.capitalize()) for name in INTEGER_REGISTERS},
            "efl": context.EFlags,
        }

    def set_registers(self, thread: int, values: Mapping[str, int]) -> None:
        """Set some of a thread's registers."""
        context = self.context(thread)
        for name, value in values.items():
            setattr(context, "EFlags" if name == "efl" else name.capitalize(), value)
        self.set_context(thread, context)

    def current_thread(self) -> int:
        """The thread that the user has chosen."""
        thread = c_uint32()
        self._do("name its thread", "ct_engine_current", ctypes.byref(thread))
        return thread.value

    def select_thread(self, thread: int) -> None:
        """Let the user find `thread` chosen."""
        self._do(f"go to thread {thread}", "ct_engine_select", thread)

    def execute(self, command: str) -> str:
        """What a command prints."""
        pieces: list[bytes] = []
        take = _TAKE(pieces.append)
        self._do(f"run {command!r}", "ct_engine_execute", command.encode(), take)
        return b"".join(pieces).decode(errors="replace")

    def mute(self, muted: bool) -> None:
        """Show only what the target says, or everything again."""
        self._do("be silent", "ct_engine_mute", muted)

    def go(self, handled: bool) -> None:
        """Let the target run to its next event."""
        self._do("let the target run", "ct_engine_go", handled)

    def break_in(self) -> None:
        """Stop the running target."""
        self._call("ct_engine_break_in")

    def symbols(self, module: TargetModule) -> ModuleSymbols | None:
        """The engine's symbols of a module."""
        self.execute(f"ln {module.base:#x}")  # it loads them now, and what it says of that is not shown
        return symbols.of_module(self._library, module)

    # For those that let the target run from event to event

    def runner(self) -> ExportEngine:
        """This engine itself."""
        return self

    def run(self, process: int, handled: bool, milliseconds: int) -> tuple[bool, DebugEvent | None]:
        """Let the target run on, and wait for the next event but the exit of a thread.

        Returns whether it stopped, and the event: breakpoints and steps are exceptions, a thread's start has
        the VA of its first function. None if a breakpoint of the user's stopped it.
        """
        event = _Event()
        arguments = (process, handled, milliseconds, ctypes.byref(event))
        result = self._do("let the target run", "ct_run_target", *arguments)
        if not event.kind:
            return result != _RUNS, None
        kind, first_chance = _KINDS[event.kind], bool(event.first_chance)
        return True, DebugEvent(kind, event.thread, event.address, event.code, first_chance)

    def interrupt(self) -> None:
        """Stop the target that runs on after `run`."""
        self._do("break in", "ct_interrupt")

    def end_runs(self) -> None:
        """Leave nothing in the engine that works on the target's events."""
        self._call("ct_end_runs")

    def context(self, thread: int) -> api.Context:
        """The registers of a thread. AccessRefused if there is no such thread."""
        context = api.new_context()
        if self._call("ct_engine_context", thread, ctypes.byref(context)) < 0:
            raise AccessRefused(f"the registers of thread {thread} cannot be read")
        return context

    def set_context(self, thread: int, context: api.Context) -> None:
        """Set them. AccessRefused if there is no such thread."""
        if self._call("ct_engine_set_context", thread, ctypes.byref(context)) < 0:
            raise AccessRefused(f"the registers of thread {thread} cannot be set")

    def _call(self, name: str, *arguments: Any) -> int:
        return int(self._functions[name](*arguments))

    def _do(self, action: str, name: str, *arguments: Any) -> int:
        result = self._call(name, *arguments)
        if result < 0:
            raise EngineError(f"the debugger's engine cannot {action}: {result & 0xFFFFFFFF:#010x}")
        return result
