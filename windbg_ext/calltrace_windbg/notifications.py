"""What the engine tells of the target while somebody here listens: it has stopped, it is gone.

The extension calls Python only as long as there is a listener, and never while a command of ours runs.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from calltrace import hosted
from calltrace_windbg.listener import Listener

_INACTIVE, _ACCESSIBLE = 1, 2  # DEBUG_NOTIFY_SESSION_...
_SCOPE_CHANGED, _SYMBOLS_LOADED = 8, 9  # windbg_ext/notifications.c
_HEAR = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint64)

_listeners: list[Listener] = []


def add(library: ctypes.CDLL, listener: Listener) -> None:
    """Tell `listener` from now on; while a command runs. `library` is the extension."""
    if listener not in _listeners:
        _listeners.append(listener)
    listen(library)


def remove(library: ctypes.CDLL, listener: Listener) -> None:
    """Tell `listener` nothing more."""
    if listener in _listeners:
        _listeners.remove(listener)
    listen(library)


def listen(library: ctypes.CDLL) -> None:
    """Let the extension tell us what there is a listener for; it forgets that when it is unloaded."""
    library.ct_listen(_hear(library._handle) if _listeners else None)


@functools.cache
def _hear(library: int) -> Any:
    """What the extension calls, from now on as long as this process lives."""

    def hear(number: int, address: int) -> None:
        for listener in list(_listeners):
            try:
                _tell(listener, number, address)
            except BaseException as error:  # nothing may reach the engine
                from calltrace_windbg import host  # which imports us

                debugger = host.WinDbg(library)
                remove(debugger.library, listener)
                debugger.show_error(f"calltrace: {hosted.describe(error)}")

    return _HEAR(hear)


def _tell(listener: Listener, number: int, address: int) -> None:
    if number == _ACCESSIBLE:
        listener.accessible()
    elif number == _INACTIVE:
        listener.inactive()
    elif number == _SCOPE_CHANGED:
        listener.scope_changed()
    elif number == _SYMBOLS_LOADED:
        listener.symbols_loaded(address)
