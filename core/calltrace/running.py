"""Letting a debugger's target run from event to event within a command: Debugging of the contract.

Breakpoints are int3s of ours: to the engine each is an exception, which its user does not see. His own
breakpoints work as ever, and end the command.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from calltrace import hosted
from calltrace.errors import AccessRefused, CalltraceError, EngineError, TargetLost
from calltrace.ports import DebugEvent, DebugEventKind, Registers
from calltrace.win32 import api
from calltrace.win32.debugging import Stepping
from calltrace.win32.engine import Engine, Stop
from calltrace.win32.engine_port import CALLABLE, EnginePort
from calltrace.win32.exports import export_address
from calltrace.win32.port import registers_of

_SLICE_MS = 100  # between two looks at whether the user wants an end


class Runner(Protocol):
    """What runs of a debugger's target need of its engine. EngineError if it refuses something."""

    def run(self, process_id: int, handled: bool, milliseconds: int) -> tuple[bool, DebugEvent | None]:
        """Let the target run on, and look for that long whether it stops; is its exception handled?

        The event is None if its user is to see the stop. Breakpoints and steps are exceptions.
        """
        ...

    def threads(self) -> Iterable[int]:
        """The threads of the stopped process."""
        ...

    def context(self, thread: int) -> api.Context:
        """The context of a thread. AccessRefused if there is no such thread."""
        ...

    def set_context(self, thread: int, context: api.Context) -> None:
        """Let a thread go on with this."""
        ...

    def interrupt(self) -> None:
        """Stop the running target."""
        ...


class RunningPort(EnginePort, Stepping):
    """The process that a session stands at, and what debugs it for the length of a command."""

    def __init__(self, engine: Engine, handle: int, process_id: int) -> None:
        """Use `engine`, which is ready, and `handle` with PROCESS_RIGHTS, which `close` closes."""
        super().__init__(engine, handle, process_id)
        self._runner: Runner | None = None  # while debugging
        self._users: dict[int, str] = {}  # VAs of the user's breakpoints: their numbers
        self._taken: dict[int, str] = {}  # those of them that are disabled, since ours stand for them
        self._handles: dict[int, int] = {}  # of the threads while debugging
        self._break_in_entry = 0  # VA of the first function of the system's threads that stop a process
        self._break_ins: set[int] = set()  # such threads
        self._breaking_in = False  # a thread of the system's is on its way to stop the process for `over`
        self._exit_code: int | None = None  # that we were told

    def exit_code(self) -> int:
        """The exit code of a target that has ended, 0 to 2**32 - 1."""
        return super().exit_code() if self._exit_code is None else self._exit_code

    def __exit__(self, *_: object) -> None:
        with hosted.interrupts_held():
            self._end_debugging()
            super().__exit__()

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
        if address not in self._taken:
            self._taken[address] = self._users[address]
            self._disable_users(self._taken[address])
            Stepping.set_breakpoints(self, [address])

    def _begin_debugging(self) -> None:
        stop = self._require_stop()
        if self._runner:
            return
        self._runner = self._begin_runs()
        self._told, self._handled = stop.thread, stop.code in (0, *CALLABLE)
        self._users = self._users_breakpoints()
        self._update_threads(None)
        with contextlib.suppress(TargetLost):  # of which an event will tell
            self._break_in_entry = export_address(self, "ntdll.dll", "DbgUiRemoteBreakin")
            self._first_stop(stop)

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
                    self._enable_users(list(self._taken.values()))
            others_ran = len(self._handles) > 1
            for handle in self._handles.values():
                api.kernel32().CloseHandle(handle)
            for noted in (self._handles, self._taken, self._gathered):
                noted.clear()
            self._forget_all()
            self._runner = None
            self._end_runs()
            if others_ran and not self._ended:
                self._call_nothing()

    def _call_nothing(self) -> None:
        """Let the events come that were waiting: other threads may have met our breakpoints meanwhile.

        The engine lets them go on at the program's own instruction. At some stops nothing can be called; its
        user then sees such a thread stop.
        """
        with contextlib.suppress(CalltraceError):
            super().call(export_address(self, "ntdll.dll", "NtYieldExecution"))

    # What a debugger adds

    def _begin_runs(self) -> Runner:
        """What lets the target run. EngineError if nothing does."""
        raise NotImplementedError

    def _end_runs(self) -> None:
        """The runs are over, or the target is."""
        raise NotImplementedError

    def _first_stop(self, stop: Stop) -> None:
        """See to it that the thread stands where it is to go on from."""

    def _before_run(self, thread: int) -> int:
        """Before the thread that the target was stopped by runs on; what `_after_run` is to know."""
        return 0

    def _after_run(self, thread: int, known: int) -> None:
        """After that, if the thread is still there."""

    def _users_breakpoints(self) -> dict[int, str]:
        """The VAs of the user's enabled breakpoints: what he calls each."""
        raise NotImplementedError

    def _disable_users(self, name: str) -> None:
        raise NotImplementedError

    def _enable_users(self, names: Sequence[str]) -> None:
        raise NotImplementedError

    def _why_stopped(self) -> str:
        """What the user was told about the last stop."""
        raise NotImplementedError

    # What Stepping asks for

    def _live_threads(self) -> Iterable[int]:
        return self._handles

    def _load_context(self, thread: int) -> api.Context:
        assert self._runner
        try:
            return self._runner.context(thread)
        except AccessRefused as error:
            raise self._unless_ended(error) from None

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
        known = self._before_run(thread)
        self._settle_contexts()
        event = self._run_to_event(over)
        if event and event.kind is DebugEventKind.PROCESS_EXIT:
            self._ended, self._exit_code = True, event.code
            self._gathered.append(event)
            self._forget_all()
            return
        for gone in self._update_threads(event):
            self._take(gone, rewind)
        if thread in self._handles:
            self._after_run(thread, known)
        if event:
            self._take(event, rewind)

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
                raise _ended_by(self._why_stopped())
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
