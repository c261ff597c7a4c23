"""What a terminal can show beside plain text: colours, and how far something is.

Nothing of it comes into a file or a pipe. Colours: ECMA-48; NO_COLOR (no-color.org) and TERM=dumb are obeyed.
"""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

_DIM, _BRIGHT, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_CLEAR = "\r\x1b[K"
_MODULE = re.compile(r"((?:call at |call )?[^!+]+[!+])(.+)", re.DOTALL)  # of a name
_FIRST_SECONDS, _SECONDS = 1.0, 0.2  # before progress is shown, and then between two times


def takes_codes(stream: TextIO) -> bool:
    """Whether control sequences can be written to the stream, which is a terminal then."""
    return (
        stream.isatty()
        and os.environ.get("TERM") != "dumb"
        and (os.name != "nt" or _console_takes_codes(stream))
    )


def wants_colour(environment: Mapping[str, str]) -> bool:
    """Whether the user has not asked for no colours."""
    return not environment.get("NO_COLOR")


def paint(name: str, address: int | None) -> str:
    """A name with its function bright and its module dim."""
    parts = _MODULE.match(name)
    module, function = parts.groups() if parts else ("", name)
    return f"{_DIM}{module}{_PLAIN}{_BRIGHT}{function}{_PLAIN}" if module else f"{_BRIGHT}{function}{_PLAIN}"


class Meter:
    """Shows how far a long work is, on one line that vanishes at its end, or that of a ``with`` block."""

    def __init__(self, stream: TextIO) -> None:
        """`stream` takes codes."""
        self._stream = stream
        self._next = time.monotonic() + _FIRST_SECONDS
        self._shown = False

    def tell(self, what: str, done: int, whole: int) -> None:
        """So much of it is done."""
        now = time.monotonic()
        if done >= whole:
            self.hide()
        elif now >= self._next:
            self._stream.write(f"{_CLEAR}{what}: {100 * done // whole} %")
            self._stream.flush()
            self._next, self._shown = now + _SECONDS, True

    def hide(self) -> None:
        """Make room for something else on the terminal, and wait for a while again."""
        self._next = time.monotonic() + _FIRST_SECONDS
        if self._shown:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._shown = False

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hide()


class Output(io.TextIOBase):
    """What is written to a terminal on which a meter shows, too."""

    def __init__(self, stream: TextIO, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    def write(self, text: str) -> int:
        """Write the text where the meter was."""
        self._meter.hide()
        return self._stream.write(text)

    def flush(self) -> None:
        """As of any stream."""
        self._stream.flush()


def _console_takes_codes(stream: TextIO) -> bool:
    """Have the console of Windows understand control sequences, which it does since 2016."""
    if sys.platform != "win32":
        return False
    import ctypes
    import msvcrt
    from ctypes import wintypes

    enable = 4  # ENABLE_VIRTUAL_TERMINAL_PROCESSING
    kernel = ctypes.WinDLL("kernel32")
    kernel.GetConsoleMode.argtypes = [wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD)]
    kernel.SetConsoleMode.argtypes = [wintypes.HANDLE, wintypes.DWORD]
    handle, mode = msvcrt.get_osfhandle(stream.fileno()), wintypes.DWORD()
    return bool(
        kernel.GetConsoleMode(handle, ctypes.byref(mode))
        and kernel.SetConsoleMode(handle, mode.value | enable)
    )
