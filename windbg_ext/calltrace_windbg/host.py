"""WinDbg as the command line sees it, through the functions that the extension DLL exports."""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Iterator, Sequence

from calltrace import hosted
from calltrace.calltree import CallStat
from calltrace.commands import CallersOf
from calltrace.errors import EngineError
from calltrace.live import LiveSession
from calltrace_windbg import notifications
from calltrace_windbg.export_engine import ExportEngine
from calltrace_windbg.live import EngineHost

_NORMAL, _ERROR = 1, 2  # DEBUG_OUTPUT_...
_MOST_PRINTED = 8000  # characters at once: the engine cuts off what is beyond 16,384 units of UTF-16
_MOST_CUT = 1000  # in each of which an escape may take the room of six
_LINK = re.compile("\x1b]8;;([^\x1b]+)\x1b\\\\([^\x1b]*)\x1b]8;;\x1b\\\\")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})


def run(library: int, line: str) -> None:
    """Run what the user typed after `!calltrace`. `library` is the extension, as a module of this process."""
    debugger = WinDbg(library)
    hosted.run(line, debugger, _live(library))
    notifications.listen(debugger.library)  # the extension may have been unloaded and loaded again


@functools.cache
def _live(library: int) -> LiveSession:
    """What lives from command to command, as this Python and the extension do, unloaded or not."""
    host = EngineHost(ctypes.CDLL("calltrace_windbg", handle=library))
    session = LiveSession(host)
    host.at_end = lambda: session.look(lambda line: WinDbg(library).show(f"calltrace: {line}\n"))
    return session


class WinDbg:
    """The debugger while a command runs."""

    name = "!calltrace"

    def __init__(self, library: int) -> None:
        self.library = ctypes.CDLL("calltrace_windbg", handle=library)
        self.library.ct_print.argtypes = (ctypes.c_uint32, ctypes.c_wchar_p, ctypes.c_int)
        self._dml = bool(self.library.ct_prefers_dml())

    def show(self, text: str) -> None:
        """Print text, with its links where the user prefers DML."""
        self._print(_NORMAL, text)

    def show_note(self, line: str) -> None:
        """Print one line."""
        self._print(_NORMAL, line + "\n")

    def show_error(self, line: str) -> None:
        """Print one line as an error."""
        self._print(_ERROR, line + "\n")

    def has_links(self) -> bool:
        """Whether DML is preferred."""
        return self._dml

    def disassembly(self, address: int) -> str:
        """`u`"""
        return f"u {address:#x}"

    def set_breakpoint(self, address: int) -> None:
        """`bp`"""
        engine = ExportEngine(self.library)
        told = engine.execute(f"bp {address:#x}").strip()
        if f"{address >> 32:08x}`{address & 0xFFFFFFFF:08x}" not in engine.execute("bl"):
            raise EngineError(f"bp {address:#x}: {told}")

    def set_label(self, address: int, name: str) -> None:
        """A symbol of the module there, until its symbols are loaded anew."""
        ExportEngine(self.library).execute(f"ln {address:#x}")  # what is loaded later would take ours away
        self.library.ct_add_symbol.argtypes = (ctypes.c_uint64, ctypes.c_wchar_p)
        result = self.library.ct_add_symbol(address, name)
        if result < 0:
            raise EngineError(f"the debugger's engine cannot name {address:#x}: {result & 0xFFFFFFFF:#010x}")

    def show_functions(self, stats: Sequence[CallStat], callers: CallersOf, first_only: bool) -> None:
        """Nothing: text is all there is."""

    def interrupted(self) -> bool:
        """Whether Ctrl+Break was pressed since this was last asked."""
        return bool(self.library.ct_interrupted())

    def _print(self, mask: int, text: str) -> None:
        for piece in printable(text.replace("\0", "\N{SYMBOL FOR NULL}"), self._dml):
            self.library.ct_print(mask, piece, self._dml)


def printable(text: str, dml: bool) -> Iterator[str]:
    """The text in pieces that the engine prints whole, its links as the debugger markup language has them.

    Without `dml` there are no links in it.
    """
    gathered = ""
    for token in _tokens(text) if dml else _cut(text):
        if len(gathered) + len(token) > _MOST_PRINTED:
            yield gathered
            gathered = ""
        gathered += token
    yield gathered


def _tokens(text: str) -> Iterator[str]:
    parts = _LINK.split(text)
    for at in range(0, len(parts), 3):
        yield from (piece.translate(_ESCAPES) for piece in _cut(parts[at]))
        if at + 1 < len(parts):
            command, shown = (part.translate(_ESCAPES) for part in parts[at + 1 : at + 3])
            command = command[1:] if command.startswith("!") else f"!calltrace {command}"
            yield f'<exec cmd="{command}">{shown}</exec>'


def _cut(text: str) -> list[str]:
    return [text[at : at + _MOST_CUT] for at in range(0, len(text), _MOST_CUT)]
