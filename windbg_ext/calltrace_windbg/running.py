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
_JUMP_ROOM, _JUMPS_SIZE = 16, 0x10000  # bytes: of a jump with its target, of memory for them
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
        self._taken: dict[int, str] = {}  # those of them that are disabled, since ours stand for them
        self._handles: dict[int, int] = {}  # of the threads while debugging
        self._break_in_entry = 0  # VA of the first function of the system's threads that stop a process
        self._break_ins: set[int] = set()  # such threads
        self._breaking_in = False  # a thread of the system's is on its way to stop the process for `over`
        self._jumps: dict[int, int] = {}  # VAs of int3s: a jump to each
        self._jump_block = 0  # VA where the newest of them lie
        self._exit_code: int | None = None  # that we were told

    def exit_code(self) -> int:
        """The exit code of a target that has ended, 0 to 2**32 - 1."""
        return super().exit_code() if self._exit_code is None else self._exit_code

    def __exit__(self, *_: object) -> None:
        with hosted.interrupts_held():
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
        wanted = set(addresses)
        for address in wanted.intersection(self._users):
            self._take_over(address)
        Stepping.set_breakpoints(self, wanted)

    def clear_breakpoints(self, addresses: Iterable[int]) -> None:
        """Take those away."""
        Stepping.clear_breakpoints(self, set(addresses).difference(self._taken))

    def vectors(self, thread: int) -> bytes:
        """XMM0 to XMM15 of a thread."""
        self._begin_debugging()
        return Stepping.vectors(self, thread)

    def go(self, step: bool = False, over: Callable[[], bool] | None = None) -> DebugEvent:
        """Let the target run to its next event, or until it is to be over.

        EngineError if a breakpoint of the user's ends that, KeyboardInterrupt if he breaks in: the session
        then stands there.
        """
        with hosted.interrupts_held():
            if not self._ended:
                self._begin_debugging()
            if step and self._told in self._handles and self._standing(self._told).Rip in self._users:
                self._take_over(self._standing(self._told).Rip)
            event = Stepping.go(self, step, over)
            number = self._users.get(event.address)
            if number and event.kind in (DebugEventKind.BREAKPOINT, DebugEventKind.STEP):
                raise _ended_by(f"Breakpoint {number} is here")
            return event

    def _take_over(self, address: int) -> None:
        """Let a breakpoint of ours do what the user's at VA `address` does, for the rest of the command.

        The engine, which passes one by a step of its own, would take our int3 or our step for that.
        """
        assert self._runner
        if address not in self._taken:
            self._taken[address] = self._users[address]
            self._runner.execute(f"bd {self._taken[address]}")
            Stepping.set_breakpoints(self, [address])

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
                Stepping.clear_breakpoints(self, list(self._own_bytes))
                for thread in list(self._stepping):
                    self._end_step(thread)
                self._settle_contexts()
                if self._taken:
                    self._runner.execute(f"be {' '.join(self._taken.values())}")
            others_ran = len(self._handles) > 1
            for handle in self._handles.values():
                api.kernel32().CloseHandle(handle)
            for noted in (self._handles, self._taken, self._gathered):
                noted.clear()
            self._forget_all()
            self._runner.end_runs()
            self._runner, self._engine = None, self._dbgeng
            self._dbgeng.begin()
            if others_ran and not self._ended:
                self._call_nothing()

    def _call_nothing(self) -> None:
        """Let the events come that were waiting: other threads may have met our breakpoints meanwhile.

        The engine lets them go on at the program's own instruction. At some stops nothing can be called; its
        user then sees such a thread stop.
        """
        with contextlib.suppress(CalltraceError):
            super().call(export_address(self, "ntdll.dll", "NtYieldExecution"))

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
        thread = self._require_stop().thread
        int3 = self._send_to_int3(thread)
        self._settle_contexts()
        event = self._run_to_event(over)
        if event and event.kind is DebugEventKind.PROCESS_EXIT:
            self._ended, self._exit_code = True, event.code
            self._gathered.append(event)
            self._forget_all()
            return
        for gone in self._update_threads(event):
            self._take(gone, rewind)
        if int3 and thread in self._handles and self._standing(thread).Rip == self._jumps[int3]:
            self._standing(thread).Rip = int3
            self._changed.add(thread)
        if event:
            self._take(event, rewind)

    def _send_to_int3(self, thread: int) -> int:
        """If the thread of the last event stands at an int3, let it come there by a jump; its VA, else 0.

        The engine would go on behind it, even with a thread that is held.
        """
        with contextlib.suppress(AccessRefused, TargetLost):
            context = self._standing(thread)
            int3 = int(context.Rip)
            if thread in self._break_ins or not self._handled or self._read_plain(int3, 1) != _INT3:
                return 0
            if int3 not in self._jumps:
                self._jumps[int3] = self._make_jump(int3)
            context.Rip = self._jumps[int3]
            context.EFlags &= ~api.TRAP_FLAG  # the int3 raises an exception itself
            self._changed.add(thread)
            return int3
        return 0

    def _make_jump(self, target: int) -> int:
        """The VA of a jump to `target`; it stays, since a thread may be stopped on it."""
        used = len(self._jumps) * _JUMP_ROOM % _JUMPS_SIZE
        if used == 0:
            self._jump_block = self.allocate(_JUMPS_SIZE)
            self.protect(self._jump_block, _JUMPS_SIZE, Protection.EXECUTE_READ)
        jump = self._jump_block + used
        self.write(jump, _JUMP + target.to_bytes(8, "little"))
        return jump

    def _run_to_event(self, over: Callable[[], bool] | None) -> DebugEvent | None:
        """Let the target run to its next event but the exit of a thread; None if only that stopped it."""
        assert self._runner
        asked = False  # for a break-in
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
                if not asked and (hosted.interrupt_waits() or self._has_ended(self._passing)):
                    self._runner.interrupt()
                    asked = True
                elif not self._breaking_in and over is not None and over():
                    # Not by the engine, to whom that would be a wish of the user's.
                    self._breaking_in = bool(api.kernel32().DebugBreakProcess(self._process))
            elif event is None:
                told = _LAST_EVENT.match(self._runner.execute(".lastevent"))
                raise _ended_by(told[1] if told else "the session was stopped")
            elif not self._is_of_break_in(event):
                return event
            elif event.kind is DebugEventKind.EXCEPTION:
                if self._has_ended(self._passing):
                    return None
                if self._breaking_in:
                    self._breaking_in = False
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
