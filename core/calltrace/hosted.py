"""A command line inside a debugger, whichever it is: output, links, errors and interrupts.

Nothing that a command does may end the debugger or reach it as an exception.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Protocol

from calltrace import dispatch
from calltrace.calltree import CallStat
from calltrace.commands import CallersOf, Console
from calltrace.errors import CalltraceError

if TYPE_CHECKING:
    from calltrace.live import LiveSession

_BUFFERED = 8192  # characters
_POLL_SECONDS = 0.05
# Links travel in the text as in a terminal (OSC 8), with the command in place of the address.
_LINK = "\x1b]8;;{}\x1b\\"


class Debugger(Protocol):
    """The debugger this Python runs in. Everything but `interrupted` is called on the command's thread."""

    name: str  # what the user calls us by: "!calltrace"

    def show(self, text: str) -> None:
        """Print text, in which links may be if `has_links`: ESC ]8;;LINE ESC \\ TEXT ESC ]8;; ESC \\.

        LINE is a command line of ours, from the verb on, or ! and one of the debugger's own.
        """
        ...

    def show_note(self, line: str) -> None:
        """Print one line, without its end, that is not of what the command was asked for."""
        ...

    def show_error(self, line: str) -> None:
        """Print one line, without its end, as an error."""
        ...

    def has_links(self) -> bool:
        """Whether the user can click on links now."""
        ...

    def disassembly(self, address: int) -> str:
        """The debugger's own command that shows the code at a VA."""
        ...

    def set_breakpoint(self, address: int) -> None:
        """Set a breakpoint of the user's at a VA. EngineError if the debugger refuses."""
        ...

    def set_label(self, address: int, name: str) -> None:
        """Let the debugger call a VA so, from now on. EngineError if it refuses."""
        ...

    def show_functions(self, stats: Sequence[CallStat], callers: CallersOf, first_only: bool) -> None:
        """Show how often functions were called, and by whom, if there is a place for that beside text.

        `first_only`: no more than their first calls are known.
        """
        ...

    def interrupted(self) -> bool:
        """Whether the user asked for an end since this was last called; on any thread."""
        ...


def run(line: str, debugger: Debugger, live: LiveSession | None = None) -> None:
    """Run a command line as the user typed it, from the verb on; with `live` on the debugger's target."""
    out = _Output(debugger.show)

    def tell(told: str) -> None:
        out.end_line()
        out.flush()
        with interrupts_held():
            debugger.show_note(f"calltrace: {told}")

    console = Console(
        out,
        tell,
        debugger.name,
        shell=False,
        live=live,
        show_functions=debugger.show_functions,
        set_breakpoint=debugger.set_breakpoint,
        set_label=debugger.set_label,
    )
    if debugger.has_links():
        console = replace(
            console,
            link=_link,
            code_link=lambda text, address: _link(text, f"!{debugger.disassembly(address)}"),
        )
    failure, outer = "", _Interrupts.current
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            with _Interrupts(debugger.interrupted):
                dispatch.run_line(line, console)
        except BaseException as error:
            failure = describe(error)
    _Interrupts.current = outer  # here, where no interrupt can come any more
    if failure:
        out.end_line()
    out.flush()
    if failure:
        debugger.show_error(f"calltrace: {failure}")


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """An interrupt that comes within the block is raised at its end. Nothing to do outside a debugger."""
    current = _Interrupts.current
    if current is None:
        yield
    else:
        with current.held():
            yield


def interrupt_waits() -> bool:
    """Whether an interrupt waits for the end of `interrupts_held`; for a block that can take long."""
    current = _Interrupts.current
    return current is not None and current.came


def interrupt() -> NoReturn:
    """End the command as by an interrupt, of which the debugger has told in another way; raised once only."""
    current = _Interrupts.current
    if current is not None:
        current.stop_watching()
    raise KeyboardInterrupt


def _link(text: str, line: str) -> str:
    return _LINK.format(line) + text + _LINK.format("")


def describe(error: BaseException) -> str:
    """One line for the user on an exception that ended what we did."""
    if isinstance(error, CalltraceError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    place = f" ({where.tb_frame.f_code.co_filename}:{where.tb_lineno})" if where else ""
    return f"internal error: {type(error).__name__}: {' '.join(str(error).split())}{place}"


class _Output(io.StringIO):
    """Gathers text: each print costs the debugger some hundred microseconds."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show
        self._last = "\n"  # what was shown last

    def write(self, text: str) -> int:
        super().write(text)
        if self.tell() >= _BUFFERED:
            self.flush()
        return len(text)

    def end_line(self) -> None:
        """Begin a new line, unless one begins already: an interrupt may have come in the middle."""
        text = self.getvalue() or self._last
        if not text.endswith("\n"):
            self.write("\n")

    def flush(self) -> None:
        with interrupts_held():  # what was begun is shown whole
            text = self.getvalue()
            self.seek(0)
            self.truncate()
            if text:
                self._last = text[-1]
                self._show(text)


class _Interrupts:
    """Raises KeyboardInterrupt in the thread of a command, once, when the debugger's user asks for an end."""

    current: _Interrupts | None = None

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked
        self._command = ctypes.c_ulong(threading.get_ident())
        self._lock = threading.RLock()
        self._holders = 0
        self.came = False  # while held
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="calltrace interrupts", daemon=True)

    def __enter__(self) -> None:
        _Interrupts.current = self
        self._asked()  # an old one is not for this command
        self._watcher.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_watching()
        self._watcher.join()

    def stop_watching(self) -> None:
        """Raise nothing any more."""
        with self._lock:
            self._over.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(self._command, None)  # if it was not raised yet

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """As `interrupts_held`."""
        with self._lock:
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                over = self.came and not self._holders
        if over:
            raise KeyboardInterrupt

    def _watch(self) -> None:
        # The debugger does not tell of an interrupt: it has to be asked.
        while not self._over.wait(_POLL_SECONDS):
            if self._asked():
                break
        with self._lock:
            if self._over.is_set():
                return
            if self._holders:
                self.came = True
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self._command, ctypes.py_object(KeyboardInterrupt))
