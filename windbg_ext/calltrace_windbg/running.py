"""Letting the target run from event to event within a command, as the contract's Debugging asks for it.

Breakpoints are int3s of ours: the engine's would be taken out of the code and put back at every event, all of
them. To the engine each is an exception, which its user does not see. His own breakpoints work as ever, and
end the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Callable, Iterable, Iterator

from calltrace import hosted
from calltrace.errors import AccessRefused, CalltraceError, EngineError, TargetLost
from calltrace.ports import Capability, DebugEvent, DebugEventKind, Protection, Registers
from calltrace.win32 import api
from calltrace.win32.debugging import Stepping
from calltrace.win32.engine_port import CALLABLE, EnginePort
from calltrace.win32.exports import export_address
from calltrace.win32.port import registers_of
from calltrace_windbg.dbgeng import Dbgeng
from calltrace_windbg.export_engine import ExportEngine

_INT3 = b"\xcc"
_JUMP = bytes.fromhex("ff 25 00 00 00 00")  # jmp [rip], whose target follows
_PAGE = 0x1000
_SLICE_MS = 100  # between two looks at whether the user wants an end

# In what `bl` prints: the number and the VA of a breakpoint that is enabled and known to lie somewhere.
_ENABLED = re.compile(r"^ *(\d+) +e .*?([0-9a-f]{8})`([0-9a-f]{8})", re.MULTILINE)
_LAST_EVENT = re.compile(r"^Last event: \S+ (.*)")  # in what `.lastevent` prints


class RunningPort(EnginePort, Stepping):
    """The process that a session stands at, and what debugs it for the length of a command."""

    def __init__(self, engine: Dbgeng, handle: int, process_id: int) -> None:
        """Use `engine`, which is ready, and `handle` with PROCESS_RIGHTS, which `close` closes."""
        super().__init__(engine, handle, process_id)
        self._dbgeng = engine
        self._runner: ExportEngine | None = None  # while debugging
        self._users: dict[int, str] = {}  # VAs of the user's breakpoints: their numbers
        self._handles: dict[int, int] = {}  # of the threads while debugging
        self._break_in_entry = 0  # VA of the first function of the system's threads that stop a process
        self._break_ins: set[int] = set()  # such threads
        self._jumps: dict[int, int] = {}  # VAs of the program's own int3s: a jump to each
        self._exit_code: int | None = None  # that we were told

    def exit_code(self) -> int:
        """The exit code of a target that has ended, 0 to 2**32 - 1."""
        return super().exit_code() if self._exit_code is None else self._exit_code

    def __exit__(self, *_: object) -> None:
        self._end_debugging()
        super().__exit__()

    def supports(self, capability: Capability) -> bool:
        """Whether it can debug; no command runs beside a running target."""
        return capability is Capability.DEBUG and self._dbgeng.runner() is not None

    def registers(self, thread: int) -> Registers:
        """Where `thread` stands."""
        self._require_stop()
        return registers_of(self._standing(thread)) if self._runner else super().registers(thread)

    def set_registers(self, thread: int, registers: Registers) -> None:
        """Let `thread` go on with these."""
        self._require_stop()
        self._settle_contexts()
        super().set_registers(thread, registers)

    def call(self, function: int, *arguments: int) -> int:
        """As EnginePort's, but EngineError while breakpoints are set."""
        if self._own_bytes:
            raise EngineError("nothing can be called in the target while breakpoints are set")
        self._end_debugging()  # a call is seen by nobody
        return super().call(function, *arguments)

    # Debugging

    def set_breakpoints(self, addresses: Iterable[int]) -> None:
        """Put an int3 at each VA, until it is cleared or the command ends."""
        self._begin_debugging()
        Stepping.set_breakpoints(self, addresses)

    def clear_breakpoints(self, addresses: Iterable[int]) -> None:
        """Take those away."""
        Stepping.clear_breakpoints(self, addresses)

    def go(self, step: bool = False, over: Callable[[], bool] | None = None) -> DebugEvent:
        """Let the target run to its next event, or until it is to be over.

        EngineError if a breakpoint of the user's ends that, KeyboardInterrupt if he breaks in: the session
        then stands there.
        """
        with hosted.interrupts_held():
            if not self._ended:
                self._begin_debugging()
            event = Stepping.go(self, step, over)
            if event.kind is DebugEventKind.STEP and event.address in self._users:
                raise _ended_by(f"breakpoint {self._users[event.address]} is here")
            return event

    def _begin_debugging(self) -> None:
        stop = self._require_stop()
        if self._runner:
            return
        self._runner = self._dbgeng.runner()
        if self._runner is None:
            raise EngineError("breakpoints and steps are the debugger's own here: use bp, g and t")
        self._dbgeng.end()
        self._engine = self._runner
        self._told, self._handled = stop.thread, stop.code in (0, *CALLABLE)
        self._users = {
            int(high + low, 16): number for number, high, low in _ENABLED.findall(self._runner.execute("bl"))
        }
        self._update_threads(None)
        with contextlib.suppress(TargetLost):  # of which an event will tell
            self._break_in_entry = export_address(self, "ntdll.dll", "DbgUiRemoteBreakin")
            context = self._standing(stop.thread)
            if stop.code == api.EXCEPTION_BREAKPOINT and self._read_plain(context.Rip, 1) == _INT3:
                context.Rip += 1  # where the session was stopped by an int3 the engine shows it before that
                self._changed.add(stop.thread)

    def _end_debugging(self) -> None:
        """Leave the target to the user, wherever it stands."""
        if self._runner is None:
            return
        with hosted.interrupts_held():
            with contextlib.suppress(CalltraceError):  # of a target that is lost, or runs
                self.clear_breakpoints(list(self._own_bytes))
                for thread in list(self._stepping):
                    self._end_step(thread)
                self._settle_contexts()
            self._forget_all()
            self._gathered.clear()
            for handle in self._handles.values():
                api.kernel32().CloseHandle(handle)
            self._handles.clear()
            self._runner, self._engine = None, self._dbgeng
            self._dbgeng.begin()

    # What Stepping asks for

    def _live_threads(self) -> Iterable[int]:
        return self._handles

    def _load_context(self, thread: int) -> api.Context:
        assert self._runner
        return self._runner.context(thread)

    def _store_context(self, thread: int, context: api.Context) -> None:
        assert self._runner
        self._runner.set_context(thread, context)

    @contextlib.contextmanager
    def _frozen(self, threads: Iterable[int]) -> Iterator[None]:
        held = [self._handles[thread] for thread in threads if thread in self._handles]
        for handle in held:
            api.kernel32().SuspendThread(handle)
        try:
            yield
        finally:
            for handle in held:
                api.kernel32().ResumeThread(handle)

    def _advance(self, rewind: bool = False, over: Callable[[], bool] | None = None) -> None:
        self._modules = []
        self._go_by_way_of_jump(self._require_stop().thread)
        self._settle_contexts()
        event = self._run_to_event(over)
        if event and event.kind is DebugEventKind.PROCESS_EXIT:
            self._ended, self._exit_code = True, event.code
            self._gathered.append(event)
            self._forget_all()
            return
        for gone in self._update_threads(event):
            self._take(gone, rewind)
        if event:
            self._take(event, rewind)

    def _go_by_way_of_jump(self, thread: int) -> None:
        """Let `thread` execute the program's own int3 if it stands at one: the engine would leave it out."""
        with contextlib.suppress(AccessRefused, TargetLost):
            context = self._standing(thread)
            target = context.Rip
            if not self._handled or self._read_plain(target, 1) != _INT3:
                return
            if target not in self._jumps:
                self._jumps[target] = self.allocate(_PAGE)  # stays: the thread may be stopped on it
                self.write(self._jumps[target], _JUMP + target.to_bytes(8, "little"))
                self.protect(self._jumps[target], _PAGE, Protection.EXECUTE_READ)
            context.Rip = self._jumps[target]
            context.EFlags &= ~api.TRAP_FLAG
            self._changed.add(thread)

    def _run_to_event(self, over: Callable[[], bool] | None) -> DebugEvent | None:
        """Let the target run to its next event but the exit of a thread; None if only that stopped it."""
        assert self._runner
        asked = is_over = False  # for a break-in, and by `over`
        while True:
            try:
                stopped, event = self._runner.run(self.process_id, self._handled, _SLICE_MS)
            except EngineError as error:
                if isinstance(self._unless_ended(error), TargetLost):
                    return DebugEvent(DebugEventKind.PROCESS_EXIT, 0, code=self.exit_code())
                raise
            self._handled = True
            if not stopped:
                # Nothing more happens if a thread has ended for which all others are held.
                if not asked and over is not None and over() and not hosted.interrupt_waits():
                    hosted.no_more_interrupts()
                    is_over = True
                if not asked and (is_over or hosted.interrupt_waits() or self._has_ended(self._passing)):
                    self._runner.interrupt()
                    asked = True
            elif event is None:
                told = _LAST_EVENT.match(self._runner.execute(".lastevent"))
                raise _ended_by(told[1] if told else "the session was stopped")
            elif not self._is_of_break_in(event):
                return event
            elif event.kind is DebugEventKind.EXCEPTION:
                if self._has_ended(self._passing):
                    return None
                if is_over:
                    return DebugEvent(DebugEventKind.INTERRUPT, 0)
                hosted.interrupt()

    def _update_threads(self, event: DebugEvent | None) -> list[DebugEvent]:
        """Note which threads there are; the exits of those that are gone."""
        assert self._runner
        now = self._runner.threads()
        started = event.thread if event and event.kind is DebugEventKind.THREAD_START else None
        # The system may give an id to a new thread again.
        gone = [thread for thread in self._handles if thread == started or thread not in now]
        exits = []
        for thread in gone:
            handle, code = self._handles.pop(thread), ctypes.c_uint32()
            api.kernel32().GetExitCodeThread(handle, ctypes.byref(code))
            api.kernel32().CloseHandle(handle)
            if thread not in self._break_ins:
                exits.append(DebugEvent(DebugEventKind.THREAD_EXIT, thread, code=code.value))
        for thread in now:
            if thread not in self._handles:
                handle = api.kernel32().OpenThread(api.THREAD_RIGHTS, 0, thread)
                if handle:
                    self._handles[thread] = handle
        return exits

    def _has_ended(self, thread: int) -> bool:
        handle = self._handles.get(thread)
        return bool(handle) and api.kernel32().WaitForSingleObject(handle, 0) == api.WAIT_OBJECT_0

    def _is_of_break_in(self, event: DebugEvent) -> bool:
        """Whether it is of a thread that the system makes to stop the process."""
        if event.kind is DebugEventKind.THREAD_START and event.address == self._break_in_entry:
            self._break_ins.add(event.thread)
        return event.thread in self._break_ins


def _ended_by(what: str) -> EngineError:
    return EngineError(f"{what}: the command ends where you wanted a stop")
