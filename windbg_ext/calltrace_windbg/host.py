"""WinDbg as the command line sees it, through the functions that the extension DLL exports."""

from __future__ import annotations

import ctypes
import re

from calltrace import hosted

_NORMAL, _ERROR = 1, 2  # DEBUG_OUTPUT_...
_LINK = re.compile("\x1b]8;;([^\x1b]+)\x1b\\\\([^\x1b]*)\x1b]8;;\x1b\\\\")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})


def run(library: int, line: str) -> None:
    """Run what the user typed after `!calltrace`. `library` is the extension, as a module of this process."""
    hosted.run(line, WinDbg(library))


class WinDbg:
    """The debugger while a command runs."""

    name = "!calltrace"

    def __init__(self, library: int) -> None:
        self.library = ctypes.CDLL("calltrace_windbg", handle=library)
        self.library.ct_print.argtypes = (ctypes.c_uint32, ctypes.c_wchar_p, ctypes.c_int)
        self._dml = bool(self.library.ct_prefers_dml())

    def show(self, text: str) -> None:
        """Print text, with its links where the user prefers DML."""
        self._print(_NORMAL, dml(text) if self._dml else text)

    def show_error(self, line: str) -> None:
        """Print one line as an error."""
        self._print(_ERROR, (line.translate(_ESCAPES) if self._dml else line) + "\n")

    def has_links(self) -> bool:
        """Whether DML is preferred."""
        return self._dml

    def interrupted(self) -> bool:
        """Whether Ctrl+Break was pressed since this was last asked."""
        return bool(self.library.ct_interrupted())

    def _print(self, mask: int, text: str) -> None:
        self.library.ct_print(mask, text.replace("\0", "\N{SYMBOL FOR NULL}"), self._dml)


def dml(text: str) -> str:
    """Text with links as the debugger markup language has it."""
    parts = _LINK.split(text)
    parts[::3] = [part.translate(_ESCAPES) for part in parts[::3]]
    for at in range(1, len(parts), 3):
        command, shown = (part.translate(_ESCAPES) for part in parts[at : at + 2])
        parts[at], parts[at + 1] = f'<exec cmd="!calltrace {command}">', f"{shown}</exec>"
    return "".join(parts)
