"""The debugger's engine through functions that the plugin exports: x64dbg_plugin/engine.h."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping
from ctypes import POINTER, c_bool, c_char, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

from calltrace.errors import AccessRefused, EngineError
from calltrace.win32 import api
from calltrace.win32.engine import INTEGER_REGISTERS, Stop

_THREADS = 64  # room for the first answer


class _State(ctypes.Structure):
    """struct ct_engine_state."""

    _fields_ = [
        ("stopped", c_uint32),
        ("process", c_uint32),
        ("thread", c_uint32),
        ("code", c_uint32),
        ("first_chance", c_uint32),
    ]


class _Thread(ctypes.Structure):
    """struct ct_engine_thread."""

    _fields_ = [("id", c_uint32), ("number", c_uint32)]


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ct_engine_state": (None, [POINTER(_State)]),
    "ct_engine_threads": (c_uint32, [POINTER(_Thread), c_uint32]),
    "ct_engine_current": (c_uint32, []),
    "ct_engine_select": (c_bool, [c_uint32]),
    "ct_engine_read": (c_bool, [c_void_p, c_uint64, c_void_p, c_size_t]),
    "ct_engine_write": (c_bool, [c_void_p, c_uint64, c_void_p, c_size_t]),
    "ct_engine_begin_call": (None, [c_uint64]),
    "ct_engine_end_call": (None, []),
    "ct_engine_go": (c_bool, [c_bool]),
    "ct_engine_break_in": (None, []),
    "ct_engine_step": (c_bool, []),
}


class X64dbgEngine:
    """An Engine on the plugin's functions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """`library` is the plugin."""
        self.library = library
        self._functions: dict[str, Any] = {}
        for name, (result, arguments) in _FUNCTIONS.items():
            function = library[name]
            function.restype, function.argtypes = result, arguments
            self._functions[name] = function

    def begin(self) -> None:
        """Nothing: the functions can be called at any time."""

    def end(self) -> None:
        """Nothing: they leave nothing behind."""

    def stop_event(self) -> Stop | None:
        """Why the target stands still."""
        state = _State()
        self._call("state", ctypes.byref(state))
        if not state.stopped:
            return None
        return Stop(state.process, state.thread, state.code, bool(state.first_chance))

    def threads(self) -> list[int]:
        """The threads of the stopped process."""
        return [thread for _, thread in self.numbered_threads()]

    def registers(self, thread: int) -> dict[str, int]:
        """The registers of a thread."""
        with opened(thread) as handle:
            context = context_of(thread, handle)
        return {
            **{name: getattr(context, name.capitalize()) for name in INTEGER_REGISTERS},
            "efl": context.EFlags,
        }

    def set_registers(self, thread: int, values: Mapping[str, int]) -> None:
        """Set some of a thread's registers."""
        with opened(thread) as handle:
            context = context_of(thread, handle)
            for name, value in values.items():
                setattr(context, "EFlags" if name == "efl" else name.capitalize(), value)
            if not api.kernel32().SetThreadContext(handle, ctypes.byref(context)):
                raise AccessRefused(f"the registers of thread {thread} cannot be set")

    def current_thread(self) -> int:
        """The thread that the user has chosen."""
        return int(self._call("current"))

    def select_thread(self, thread: int) -> None:
        """Let the user find `thread` chosen."""
        if not self._call("select", thread):
            raise AccessRefused(f"there is no thread {thread}")

    def go(self, handled: bool) -> None:
        """Let the target run to its next event."""
        if not self._call("go", handled):
            raise EngineError("the debugger does not let the target run")

    def break_in(self) -> None:
        """Stop the running target."""
        self._call("break_in")

    # Beyond an Engine

    def numbered_threads(self) -> list[tuple[int, int]]:
        """The threads in the order of the numbers that the debugger shows for them, which are not unique."""
        room = _THREADS
        while True:
            found = (_Thread * room)()
            count = self._call("threads", found, room)
            if count <= room:
                return sorted((each.number, each.id) for each in found[:count])
            room = count

    def step(self) -> None:
        """Let the chosen thread execute one instruction, by a step of the debugger's own."""
        if not self._call("step"):
            raise EngineError("the debugger makes no step")

    def read(self, process: int, address: int, size: int) -> bytes:
        """Readable memory of the process (a handle), without breakpoints of the debugger."""
        data = (c_char * size)()
        if size and not self._call("read", process, address, data, size):
            raise AccessRefused(f"the debugger cannot read {size} bytes at {address:#x}")
        return bytes(data)

    def write(self, process: int, address: int, data: bytes) -> None:
        """Write memory of the process (a handle); breakpoints of the debugger stay set."""
        if data and not self._call("write", process, address, data, len(data)):
            raise AccessRefused(f"the debugger cannot write {len(data)} bytes at {address:#x}")

    @contextlib.contextmanager
    def call_on(self, page: int, thread: int) -> Iterator[None]:
        """For a call by `thread` on the page at VA `page`: breakpoints rest, exceptions stop the target."""
        with opened(thread) as handle:
            before = _breakpoint_control(handle)
            _breakpoint_control(handle, 0)
            self._call("begin_call", page)
            try:
                yield
            finally:
                self._call("end_call")
                _breakpoint_control(handle, before)

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._functions[f"ct_engine_{name}"](*arguments)


@contextlib.contextmanager
def opened(thread: int) -> Iterator[int]:
    """A handle of a thread. AccessRefused if there is no such thread."""
    handle = api.kernel32().OpenThread(api.THREAD_RIGHTS, 0, thread)
    if not handle:
        raise AccessRefused(f"the debugged program has no thread {thread} that can be opened")
    try:
        yield handle
    finally:
        api.kernel32().CloseHandle(handle)


def context_of(thread: int, handle: int) -> api.Context:
    """The context of a thread, of which there is a handle. AccessRefused if it cannot be asked."""
    context = api.new_context()
    if not api.kernel32().GetThreadContext(handle, ctypes.byref(context)):
        raise AccessRefused(f"the registers of thread {thread} cannot be read")
    return context


def _breakpoint_control(handle: int, value: int | None = None) -> int:
    """The register that turns a thread's hardware breakpoints on and off; with `value` it is set to that.

    It stays what it is if the system refuses, as that of a thread that has ended.
    """
    context = api.new_context()
    context.ContextFlags = api.CONTEXT_DEBUG_REGISTERS
    if api.kernel32().GetThreadContext(handle, ctypes.byref(context)) and value is not None:
        context.Dr7 = value
        api.kernel32().SetThreadContext(handle, ctypes.byref(context))
    return int(context.Dr7)
