"""x64dbg as the command line sees it, through the functions that the plugin exports."""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Iterator, Sequence

from calltrace import hosted
from calltrace.calltree import CallStat
from calltrace.commands import CallersOf
from calltrace.errors import CalltraceError, EngineError
from calltrace.live import LiveSession
from calltrace_x64dbg import state, views
from calltrace_x64dbg.expressions import Expressions
from calltrace_x64dbg.live import X64dbgHost

_COMMAS = re.compile(r"(^\s*[^\s,]+),|,(?=\s|$)")
_LINK = re.compile("\x1b]8;;([^\x1b]+)\x1b\\\\([^\x1b]*)\x1b]8;;\x1b\\\\")
_MOST_PRINTED = 4000  # characters at once: the debugger cuts off what is beyond 16,383 bytes

_TOLD = ctypes.CFUNCTYPE(None)
_answering: list[object] = []  # as long as the plugin may ask


def run(library: int, line: str) -> None:
    """Run what the user typed after `calltrace`. `library` is the plugin, as a module of this process."""
    debugger, live, given = X64dbg(library), _live(library), words(line)
    if live.last_trace is None:
        live.remember(state.last_trace(debugger.library))
    recorded = live.last_trace if live.recording else None
    hosted.run(given, debugger, live)
    verb, _, rest = given.strip().partition(" ")
    if verb == "start" and live.recording and live.last_trace and live.last_trace != recorded:
        state.remember(debugger.library, rest.strip(), live.last_trace)


@functools.cache
def _live(library: int) -> LiveSession:
    """What lives from command to command, as this Python and the plugin do, unloaded or not."""
    plugin = ctypes.CDLL("calltrace.dp64", handle=library)
    live = LiveSession(X64dbgHost(plugin))
    _answering.append(Expressions(plugin, live))
    debugger = X64dbg(library)

    def target_gone() -> None:
        try:
            live.look(lambda text: debugger.show_note(f"calltrace: {text}"))
        except CalltraceError as error:
            debugger.show_error(f"calltrace: {error}")

    told = _TOLD(target_gone)
    plugin.ct_tell_target_gone(told)
    _answering.append(told)
    return live


class X64dbg:
    """The debugger while a command runs."""

    name = "calltrace"

    def __init__(self, library: int) -> None:
        self.library = ctypes.CDLL("calltrace.dp64", handle=library)
        for function in (self.library.ct_print, self.library.ct_print_note, self.library.ct_print_error):
            function.argtypes = (ctypes.c_char_p,)
        self.library.ct_interrupted.restype = ctypes.c_bool
        self.library.ct_is_debugging.restype = ctypes.c_bool

    def show(self, text: str) -> None:
        """Print text in the log, where an address of 16 digits is a link to its disassembly."""
        self._print(self.library.ct_print, with_addresses(text))

    def show_note(self, line: str) -> None:
        """Print one line."""
        self._print(self.library.ct_print_note, line + "\n")

    def show_error(self, line: str) -> None:
        """Print one line."""
        self._print(self.library.ct_print_error, line + "\n")

    def has_links(self) -> bool:
        """Whether there is a target, to whose addresses links can lead."""
        return bool(self.library.ct_is_debugging())

    def disassembly(self, address: int) -> str:
        """`disasm`"""
        return f"disasm {address:016X}"

    def set_breakpoint(self, address: int) -> None:
        """`bp`"""
        self._command(f"bp {address:#x}")

    def set_label(self, address: int, name: str) -> None:
        """`labelset`"""
        self._command(f"labelset {address:#x}, {name}")

    def _command(self, line: str) -> None:
        self.library.ct_views_command.argtypes = (ctypes.c_char_p,)
        self.library.ct_views_command.restype = ctypes.c_bool
        if not self.library.ct_views_command(line.encode()):
            raise EngineError(f"the debugger does not take `{line}`")

    def show_functions(self, stats: Sequence[CallStat], callers: CallersOf, first_only: bool) -> None:
        """In the references view, in comments and in labels."""
        views.show_functions(self.library, stats, callers(), first_only)

    def interrupted(self) -> bool:
        """Whether the menu's entry for that was chosen since this was last asked."""
        return bool(self.library.ct_interrupted())

    def _print(self, function: Callable[[bytes], None], text: str) -> None:
        for piece in printable(text):
            function(piece.encode())


def words(line: str) -> str:
    """The line with blanks for the commas that x64dbg's users put between arguments.

    Those are a comma behind the verb and one before a blank; others, and those in quotes, are the
    argument's own.
    """
    parts = line.split('"')
    for at in range(0, len(parts), 2):
        parts[at] = _COMMAS.sub(r"\1 ", parts[at])
    return '"'.join(parts)


def with_addresses(text: str) -> str:
    """The text with the address behind each link to code; links that run commands are not for the log."""
    return _LINK.sub(_shown, text)


def _shown(link: re.Match[str]) -> str:
    line, text = link.groups()
    return f"{text} {line.split()[1]}" if line.startswith("!") else text


def printable(text: str) -> Iterator[str]:
    """The text in pieces that the log shows whole."""
    text = text.replace("\0", "\N{SYMBOL FOR NULL}")
    for at in range(0, len(text), _MOST_PRINTED):
        yield text[at : at + _MOST_PRINTED]
