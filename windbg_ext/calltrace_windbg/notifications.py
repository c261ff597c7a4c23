"""What the engine tells of the target while somebody here listens: it has stopped, it runs, it is gone.

The extension calls Python only as long as there is a listener, and never while a command of ours runs.
"""

from __future__ import annotations

import ctypes

from calltrace import hosted
from calltrace_windbg.listener import Listener

_INACTIVE, _ACCESSIBLE, _INACCESSIBLE = 1, 2, 3  # DEBUG_NOTIFY_SESSION_...
_SCOPE_CHANGED, _SYMBOLS_LOADED = 8, 9  # windbg_ext/notifications.c


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
    library.ct_listen(bool(_listeners))


def run(library: int, line: str) -> None:
    """Tell the listeners: what the extension calls. `line` is the notification's number, and an address."""
    from calltrace_windbg import host  # which imports us

    debugger = host.WinDbg(library)
    number, address = (int(word) for word in line.split())
    for listener in list(_listeners):
        try:
            if number == _ACCESSIBLE:
                listener.accessible()
            elif number == _INACCESSIBLE:
                listener.inaccessible()
            elif number == _INACTIVE:
                listener.inactive()
            elif number == _SCOPE_CHANGED:
                listener.scope_changed()
            elif number == _SYMBOLS_LOADED:
                listener.symbols_loaded(address)
        except BaseException as error:  # nothing may reach the engine
            remove(debugger.library, listener)
            debugger.show_error(f"calltrace: {hosted.describe(error)}")
