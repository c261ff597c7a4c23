"""Windows Python as a debugger on the real dbgeng.dll, for the port of WinDbg and its engines.

Runs in Windows Python. Three KINDS: "exports" and "hosted pykd" are a debugger as WinDbg is (session.c), in
which `!calltrace` of our extension runs; "pykd" is a debugger made of pykd alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from calltrace import commands, hosted
from calltrace.errors import EngineError
from calltrace.recorder import dll_path
from calltrace.win32.engine import Engine
from calltrace_windbg import host
from calltrace_windbg.export_engine import ExportEngine
from calltrace_windbg.pykd_engine import PykdEngine
from calltrace_windbg.target import WindbgPort, make_engine, open_port

KINDS = ("exports", "hosted pykd", "pykd")

T = TypeVar("T")

# What the engine says at the end of a process under Wine, which tells no registers of an ending thread.
_NO_REGISTERS = re.compile("GetContextState failed, 0x8007001F\n|Unable to get program counter\n")


class Session(Protocol):
    """A debugger whose target stands still."""

    child: subprocess.Popen[bytes] | None  # the target, if it was attached to

    def command(self, work: Callable[[WindbgPort], T]) -> T:
        """What `work` returns when it runs as a command of the debugger, with the port of the target."""
        ...

    def type(self, command: str) -> str:
        """What the user sees when he types a command, up to the next stop or the target's end."""
        ...

    def shown(self) -> str:
        """What he has seen since this was last asked, or he typed something."""
        ...

    def interrupt(self) -> None:
        """Press Ctrl+Break, on any thread."""
        ...

    def end(self) -> None:
        """End the target."""
        ...


class PykdSession:
    """A debugger made of pykd, which has no window: nothing is shown."""

    child: subprocess.Popen[bytes] | None = None

    def __init__(self, command: str | None, process_id: int) -> None:
        self._pykd: Any = importlib.import_module("pykd")
        self._engine = PykdEngine(self._pykd)
        self._port: WindbgPort | None = None
        with self._ready():
            if command is not None:
                self._pykd.startProcess(command)
            else:
                self._pykd.attachProcess(process_id)

    def command(self, work: Callable[[WindbgPort], T]) -> T:
        if self._port is None:
            with self._ready():
                self._port = open_port(self._engine)
        with self._port:
            return work(self._port)

    def type(self, command: str) -> str:
        with self._ready():
            try:
                return self._engine.execute(command)
            except EngineError:
                if self._pykd.getExecutionStatus() != self._pykd.executionStatus.NoDebuggee:
                    raise
                return ""  # the target has ended

    def shown(self) -> str:
        return ""

    def interrupt(self) -> None:
        self._pykd.breakin()

    def end(self) -> None:
        with self._ready(), contextlib.suppress(self._pykd.DbgException):  # it has ended
            self._pykd.killAllProcesses()

    @contextlib.contextmanager
    def _ready(self) -> Iterator[None]:
        self._engine.begin()
        try:
            yield
        finally:
            self._engine.end()


class ExtensionSession:
    """A debugger as WinDbg is, with our extension loaded."""

    child: subprocess.Popen[bytes] | None = None

    def __init__(self, folder: Path, kind: str, command: str | None, process_id: int) -> None:
        self._library = ctypes.CDLL(str(folder / "session.dll"))
        self._library.session_shown.restype = ctypes.c_char_p
        self._kind = kind
        self._port: WindbgPort | None = None
        self._extension = 0
        self._do(self._library.session_open, command.encode() if command else None, process_id)
        self.type(f".load {dll_path().with_name('calltrace_windbg.dll')}")

    def command(self, work: Callable[[WindbgPort], T]) -> T:
        results: list[T] = []
        errors: list[BaseException] = []

        def do(request: commands.Request, console: commands.Console) -> int:
            try:
                with self._port_of_target() as port:
                    results.append(work(port))
            except BaseException as error:
                errors.append(error)
            return 0

        def run(library: int, line: str) -> None:
            self._extension = library
            hosted.run(line, host.WinDbg(library))

        original = host.run, commands.COMMANDS
        host.run = run
        commands.COMMANDS = (commands.Command("do", "", "", (), do),)
        try:
            said = self.type("!calltrace do")
        finally:
            host.run, commands.COMMANDS = original
        if errors:
            raise errors[0]
        assert results, said
        assert _NO_REGISTERS.sub("", said).strip() == "", said
        return results[0]

    def interrupt(self) -> None:
        self._do(self._library.session_interrupt)

    def _port_of_target(self) -> WindbgPort:
        engine = self._engine(self._extension)
        engine.begin()
        try:
            self._port = open_port(engine, self._port)
        finally:
            engine.end()
        return self._port

    def type(self, command: str) -> str:
        self.shown()
        self._do(self._library.session_type, command.encode())
        return self.shown()

    def start(self, command: str) -> None:
        """Type a command that lets the target run, and do not wait for its next stop."""
        self._do(self._library.session_execute, command.encode())

    def shown(self) -> str:
        text: bytes = self._library.session_shown()
        return text.decode()

    def end(self) -> None:
        self._library.session_close()

    def _engine(self, library: int) -> Engine:
        engine = make_engine(ctypes.CDLL("calltrace_windbg", handle=library))
        assert isinstance(engine, {"exports": ExportEngine, "hosted pykd": PykdEngine}[self._kind])
        return engine

    def _do(self, function: Any, *arguments: Any) -> None:
        result = function(*arguments)
        assert result >= 0, f"{arguments}: {result & 0xFFFFFFFF:#x}"


@contextlib.contextmanager
def open_session(folder: Path, kind: str, program: str, mode: str = "create") -> Iterator[Session]:
    """A session on a program with its arguments, by `mode`: create it, or attach to it running.

    `folder` has the engine, pykd and session.dll. A running program is one that has written a line, and that
    ends with its input.
    """
    child, process_id = None, 0
    if mode == "attach":
        child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        process_id = child.pid
    if kind != "exports" and str(folder.parent) not in sys.path:
        sys.path.insert(0, str(folder.parent))  # pykd is a package there
    session: Session
    command = None if child else program
    if kind == "pykd":
        session = PykdSession(command, process_id)
    else:
        session = ExtensionSession(folder, kind, command, process_id)
    session.child = child
    try:
        yield session
    finally:
        session.end()
        if child:
            child.communicate()
