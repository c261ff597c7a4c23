"""What the engine tells of the target while somebody here listens: it has stopped, it runs, it is gone.

The extension calls Python only as long as there is a listener, and never while a command of ours runs.
"""

from __future__ import annotations

import ctypes
from typing import Protocol

from calltrace import hosted
from calltrace_windbg import host

_INACTIVE, _ACCESSIBLE, _INACCESSIBLE = 1, 2, 3  # DEBUG_NOTIFY_SESSION_...
_SYMBOLS_LOADED = 9  # windbg_ext/notifications.c


class Listener(Protocol):
    """Is told on the engine's thread, with the engine's functions at hand as in a command.

    Whoever raises an exception is told nothing more, and the user that.
    """

    def accessible(self) -> None:
        """The target has stopped, and its user is about to be asked for a command."""
        ...

    def inaccessible(self) -> None:
        """The target is about to run."""
        ...

    def inactive(self) -> None:
        """The session has no target any more, or will have none in a moment."""
        ...

    def symbols_loaded(self, base: int) -> None:
        """The engine has loaded a module's symbols anew; 0: modules and their symbols, by `.reload`."""
        ...


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
            elif number == _SYMBOLS_LOADED:
                listener.symbols_loaded(address)
        except BaseException as error:  # nothing may reach the engine
            remove(debugger.library, listener)
            debugger.show_error(f"calltrace: {hosted.describe(error)}")
