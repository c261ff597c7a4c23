"""A port on the engine of a debugger that a user drives: he stops the target and lets it go.

Memory is moved through the process's handle. Threads and execution are the engine's, which has its own idea
of both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable

from calltrace.errors import AccessRefused, CalltraceError, EngineError
from calltrace.ports import Capability, DebugEvent, ModuleSymbols, Registers, TargetModule
from calltrace.win32 import api
from calltrace.win32.call_page import CallPage
from calltrace.win32.engine import Engine, Stop
from calltrace.win32.exports import export_address
from calltrace.win32.memory import ProcessMemory
from calltrace.win32.port import CALL_SECONDS, FROZEN_SECONDS

_NO_DEBUGGING = "breakpoints and steps are the debugger's own here: use its commands"
CALLABLE = (
    api.EXCEPTION_BREAKPOINT,
    api.EXCEPTION_SINGLE_STEP,
)  # stops from which a thread can be sent elsewhere


class EnginePort(ProcessMemory):
    """The process that a session stands at; a Port. It is stopped and let go by the user.

    Used as a context manager for the length of one command: `with port: ...`.
    """

    def __init__(self, engine: Engine, handle: int, process_id: int) -> None:
        """Use `engine`, which is ready, and `handle` with PROCESS_RIGHTS, which `close` closes."""
        super().__init__(handle, process_id)
        self._engine = engine
        self._modules: list[TargetModule] = []  # as of this stop, none = not asked yet
        self._page: CallPage | None = None

    def __enter__(self) -> EnginePort:
        self._engine.begin()
        self._modules = []
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.end()

    def close(self) -> None:
        """Give up what belongs to the port, here and, if it can be reached, in the target."""
        with contextlib.suppress(CalltraceError):
            if self._page:
                forget = export_address(self, "ntdll.dll", "RtlDeleteFunctionTable")
                self.call(forget, self._page.table)
                self.free(self._page.address)
        self._page = None
        api.kernel32().CloseHandle(self._process)

    # Control

    def supports(self, capability: Capability) -> bool:
        """False: stopping and letting go are the user's, and no command runs beside a running target."""
        return False

    def stop(self) -> None:
        """EngineError: the user does that."""
        raise self._unless_ended(EngineError("stop the target in the debugger first"))

    def detach(self) -> None:
        """Nothing: the user lets the target go."""

    # Debugging is the user's, too

    def set_breakpoints(self, addresses: Iterable[int]) -> None:
        """EngineError."""
        raise EngineError(_NO_DEBUGGING)

    def clear_breakpoints(self, addresses: Iterable[int]) -> None:
        """EngineError."""
        raise EngineError(_NO_DEBUGGING)

    def vectors(self, thread: int) -> bytes:
        """EngineError."""
        raise EngineError(_NO_DEBUGGING)

    def go(self, step: bool = False, over: Callable[[], bool] | None = None) -> DebugEvent:
        """EngineError."""
        raise EngineError(_NO_DEBUGGING)

    # Modules

    def modules(self) -> list[TargetModule]:
        """The modules mapped when the target was last stopped, the program first."""
        if not self._modules:
            self._modules = self.mapped_modules()
        return self._modules

    def symbols(self, module: TargetModule) -> ModuleSymbols | None:
        """None: a debugger whose names we know how to ask for has a port of its own."""
        return None

    # Threads

    def threads(self) -> list[int]:
        """The ids of the target's threads, but for those that have ended: an engine learns of that later."""
        self._require_stop()
        return [thread for thread in self._engine.threads() if not _has_ended(thread)]

    def registers(self, thread: int) -> Registers:
        """Where `thread` stands."""
        self._require_stop()
        found = self._engine.registers(thread)
        return Registers(**{each.name: found[each.name] for each in dataclasses.fields(Registers)})

    def set_registers(self, thread: int, registers: Registers) -> None:
        """Let `thread` go on with these."""
        self._require_stop()
        self._engine.set_registers(thread, dataclasses.asdict(registers))

    def teb(self, thread: int) -> int:
        """The VA of the thread environment block of `thread`."""
        self._require_stop()
        handle = api.kernel32().OpenThread(api.THREAD_RIGHTS, 0, thread)
        if not handle:
            raise self._unless_ended(AccessRefused(f"process {self.process_id} has no thread {thread}"))
        try:
            return self._environment_block(thread, handle)
        finally:
            api.kernel32().CloseHandle(handle)

    def call(self, function: int, *arguments: int) -> int:
        """Call `function` on the thread of the last event, the others frozen for at most FROZEN_SECONDS.

        EngineError, besides what Port.call says, if that thread stands at an event that cannot be left and
        come back to. If the call does not come back the session is stopped, and the thread goes on
        afterwards as if nothing had been called.
        """
        stop = self._require_stop()
        if len(arguments) > 4:
            raise ValueError("a call takes at most four arguments")
        if stop.code not in CALLABLE:
            what = f"an exception ({stop.code:#x})" if stop.code else "an event of the loader or of a thread"
            raise EngineError(f"the target stands at {what}: go on to a breakpoint first")
        if self._page is None:
            self._page = CallPage(self, export_address(self, "ntdll.dll", "NtContinue"))
            register = export_address(self, "ntdll.dll", "RtlAddFunctionTable")
            self._call(stop.thread, register, self._page.table, 1, self._page.address)
        return self._call(stop.thread, function, *arguments)

    # Calls, inside

    def _require_stop(self) -> Stop:
        stop = self._engine.stop_event()
        if stop is None:
            raise self._unless_ended(EngineError(f"process {self.process_id} is not stopped"))
        if stop.process != self.process_id:
            raise EngineError(f"the session is stopped in process {stop.process}, not in {self.process_id}")
        return stop

    def _unnoticed(self, page: CallPage) -> contextlib.AbstractContextManager[None]:
        """For a call on `page` the user's breakpoints neither stop it nor count, and all is silent."""
        raise NotImplementedError

    def _call(self, thread: int, function: int, *arguments: int) -> int:
        assert self._page
        rcx, rdx, r8, r9 = (*arguments, 0, 0, 0, 0)[:4]
        engine, page = self._engine, self._page
        chosen = engine.current_thread()
        saved = engine.registers(thread)
        others = [other for other in self.threads() if other != thread]
        with self._unnoticed(page), _Deadlines(engine, others) as deadlines:
            engine.set_registers(thread, page.begin(saved, function, (rcx, rdx, r8, r9)))
            raised = self._run_until_ended(thread, saved, page, deadlines)
        self._modules = []
        if raised is None:
            raise EngineError(
                f"a call of {function:#x} in process {self.process_id} did not come back within "
                f"{CALL_SECONDS:.0f} s: let the target go on, break into it elsewhere, and try again"
            )
        result = engine.registers(thread)["rsi"]
        engine.set_registers(thread, saved)
        engine.select_thread(chosen)
        if raised:
            raise EngineError(
                f"{function:#x}, called in process {self.process_id}, raised exception {raised:#x}"
            )
        return result

    def _run_until_ended(
        self, thread: int, saved: dict[str, int], page: CallPage, deadlines: _Deadlines
    ) -> int | None:
        """0 if the function returned, or the code of its exception, or None if it did neither in time."""
        engine, handled, raised = self._engine, True, 0
        while True:
            try:
                engine.go(handled)
                stop = self._require_stop()
            except EngineError as error:
                raise self._unless_ended(error) from None
            handled = stop.code in (0, *CALLABLE)
            if stop.thread == thread:
                registers = engine.registers(thread)
                if page.has_ended(registers["rip"]):
                    return raised
                # The engine need not tell of an exception before the handlers were asked.
                if page.has_raised(registers["rip"]):
                    raised = int.from_bytes(self.read(registers["rcx"], 4), "little")
                elif stop.code and not stop.first_chance:
                    raised = stop.code
                if raised:
                    engine.set_registers(thread, page.restore(saved))
                    handled = True
            if deadlines.over:
                page.abandon(saved)
                self._page = None
                return None


def _has_ended(thread: int) -> bool:
    handle = api.kernel32().OpenThread(api.SYNCHRONIZE, 0, thread)
    if not handle:
        return api.last_error() == api.ERROR_INVALID_PARAMETER
    try:
        return bool(api.kernel32().WaitForSingleObject(handle, 0) == api.WAIT_OBJECT_0)
    finally:
        api.kernel32().CloseHandle(handle)


class _Deadlines:
    """Freezes threads, thaws them when it takes too long, and breaks in when it takes longer still."""

    def __init__(self, engine: Engine, threads: Iterable[int]) -> None:
        self._engine = engine
        self._handles = [
            handle
            for thread in threads
            if (handle := api.kernel32().OpenThread(api.THREAD_RIGHTS, 0, thread))
        ]
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._wait, daemon=True)
        self.over = False

    def __enter__(self) -> _Deadlines:
        for handle in self._handles:
            api.kernel32().SuspendThread(handle)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()
        for handle in self._handles:
            api.kernel32().CloseHandle(handle)

    def _wait(self) -> None:
        in_time = self._ended.wait(FROZEN_SECONDS)
        for handle in self._handles:
            api.kernel32().ResumeThread(handle)
        if not in_time and not self._ended.wait(CALL_SECONDS - FROZEN_SECONDS):
            self.over = True
            self._engine.break_in()
