"""The standalone port: one target process, stopped and read through the Win32 debug API.

A target is stopped while one of its debug events is unanswered; the thread that raised it is the stopped
thread, on which `call` works by context hijack. All debugging of one target must happen on one thread of this
process, as the system demands.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence

from calltrace.errors import AccessRefused, CalltraceError, EngineError, TargetLost
from calltrace.ports import Capability, ModuleSymbols, Protection, Registers, TargetModule
from calltrace.win32 import api
from calltrace.win32.dbghelp import SymbolFiles
from calltrace.win32.exports import export_address
from calltrace.win32.memory import ProcessMemory

STOP_SECONDS = 20.0  # from asking for a stop to its breakpoint
FROZEN_SECONDS = 0.5  # how long a call may take while the other threads are frozen
CALL_SECONDS = 15.0  # how long a call may take in all
_STOP_ATTEMPTS = 5
_ANSWER_SECONDS = 1.0  # for the registers of all threads
_BREAK_IN_MS = 1000  # for a break-in thread to end after the target was let go
_SLICE_MS = 100  # waits are cut into slices, so that Ctrl+C is noticed between them

_PAGE = 0x1000

# The page on which calls begin and end. It has unwind data of its own with a handler, so that an exception
# let out by the called function ends the call, short of the handlers of what the thread did before.
#
#   00  sub rsp, 28h                 rax = function; rcx, rdx, r8, r9 = arguments, set in the context
#   04  call rax
#   06  int3                         it returned
#   07  mov ecx, 0
#   0c  mov rax, RtlExitUserThread   (patched in)
#   16  call rax
#   18  int3                         the handler: it raised
#   20  UNWIND_INFO: version 1 with handler 18h; prolog of 4 bytes: at 4, 28h bytes allocated
#   30  RUNTIME_FUNCTION: 00 to 18h, UNWIND_INFO at 20h
_STUB = bytearray.fromhex(
    "48 83 ec 28  ff d0  cc  b9 00 00 00 00  48 b8 00 00 00 00 00 00 00 00  ff d0  cc cc cc cc cc cc cc cc"
    "09 04 01 00  04 42 00 00  18 00 00 00  00 00 00 00"
    "00 00 00 00  18 00 00 00  20 00 00 00"
)
_STUB_RETURNED, _STUB_EXIT_THREAD, _STUB_RAISED, _STUB_TABLE = 0x06, 0x0E, 0x18, 0x30
_NOP = b"\x90"
_REGISTERS = [field.name for field in dataclasses.fields(Registers)]  # api.Context has them capitalized
_RETURNED = 0  # how a call ended, else the code of its exception


class Win32Port(ProcessMemory):
    """A process of this machine, as `calltrace.win32.launch` makes them; a Port and more."""

    def __init__(self, process: int, process_id: int) -> None:
        """Take over `process`, a handle with PROCESS_RIGHTS to a running process nobody debugs."""
        super().__init__(process, process_id)
        self.symbol_files: SymbolFiles | None = None
        self._debugging = False
        self._thread_handles: dict[int, int] = {}
        self._module_paths: dict[int, str] = {}  # base -> path, in order of loading
        self._event: tuple[int, int] | None = None  # unanswered: thread id, how to answer it
        self._event_threads: list[tuple[int, int]] = []  # handles that came with events, and thread ids
        self._event_processes: list[int] = []  # the same of the process
        self._stub = 0  # VA of the call stub, 0 = none
        self._ntdll_functions: dict[str, int] = {}  # name -> VA
        self._break_in = 0  # the thread that the system made to stop the target last time: a handle, 0 = none

    # Control

    def supports(self, capability: Capability) -> bool:
        """True: the standalone port can do everything."""
        return capability in (Capability.STOP, Capability.WAIT)

    def stop(self) -> None:
        """Become the target's debugger again and wait for the break-in."""
        for _ in range(_STOP_ATTEMPTS):
            self._stop()
            if self._threads_answer():
                return
            self.detach()
        raise EngineError(f"process {self.process_id} has a thread that does not stop: try again")

    def _stop(self) -> None:
        self._await_break_in()
        if not api.kernel32().DebugActiveProcess(self.process_id):
            why = api.error_text(api.last_error())
            raise self._unless_ended(AccessRefused(f"cannot stop process {self.process_id}: {why}"))
        api.kernel32().DebugSetProcessKillOnExit(0)
        self.wait_for_break()
        assert self._event is not None
        self._break_in = api.kernel32().OpenThread(api.SYNCHRONIZE, 0, self._event[0]) or 0

    def wait_for_break(self) -> None:
        """Wait for the first breakpoint of a process this thread has just begun to debug.

        EngineError, and no debugging any more, if it does not come within STOP_SECONDS.
        """
        self._debugging = True
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            event = self._next_event(deadline)
            if event is None:
                self.detach()
                raise EngineError(
                    f"process {self.process_id} did not stop within {STOP_SECONDS:.0f} s "
                    "(it may be starting, ending or frozen): try again"
                )
            if self._is_system_break(event):
                self._event = (event.dwThreadId, api.DBG_CONTINUE)
                return
            self._answer(event)

    def detach(self) -> None:
        """Stop debugging: the target runs on, and no longer sees a debugger."""
        if not self._debugging:
            return
        kernel32 = api.kernel32()
        self._remove_stub()
        with self._frozen(
            list(self._thread_handles)
        ) as frozen:  # so that nothing happens before the farewell
            if self._event is not None:
                kernel32.ContinueDebugEvent(self.process_id, *self._event)
                self._event = None
            with contextlib.suppress(CalltraceError):  # a lost target
                self._answer_waiting(frozen)
            kernel32.DebugActiveProcessStop(self.process_id)
            self._clear_being_debugged()
        self._end_debugging()

    def close(self) -> None:
        """Detach, and give up the process handle; the port is of no further use."""
        self.detach()
        if self._break_in:
            api.kernel32().CloseHandle(self._break_in)
        api.kernel32().CloseHandle(self._process)

    def terminate(self) -> None:
        """End the target at once and wait until it has; harmless if it has ended."""
        api.kernel32().TerminateProcess(self._process, 1)
        self.detach()
        api.kernel32().WaitForSingleObject(self._process, int(STOP_SECONDS * 1000))

    def wait(self, seconds: float, *events: int) -> int | None:
        """Wait for the target's end or one of `events` (event handles of this process).

        Returns 0 for the target's end, n for the nth event, None when `seconds` are over.
        """
        handles = (ctypes.c_void_p * (1 + len(events)))(self._process, *events)
        which = api.kernel32().WaitForMultipleObjects(len(handles), handles, 0, int(seconds * 1000))
        if which < len(handles):
            return int(which)
        if which != api.WAIT_TIMEOUT:
            raise EngineError(f"cannot wait: {api.error_text(api.last_error())}")
        return None

    # Modules

    def modules(self) -> list[TargetModule]:
        """The modules mapped when the target was last stopped, the program first."""
        return [TargetModule(base, self.image_size(base), path) for base, path in self._module_paths.items()]

    def symbols(self, module: TargetModule) -> ModuleSymbols | None:
        """What dbghelp.dll finds where `symbol_files` says; None without that."""
        return self.symbol_files.of_module(module) if self.symbol_files else None

    # Threads

    def threads(self) -> list[int]:
        """The ids of the target's threads; of one that has ended we may still have to hear."""
        self._require_stop()
        wait = api.kernel32().WaitForSingleObject
        return [
            thread for thread, handle in self._thread_handles.items() if wait(handle, 0) != api.WAIT_OBJECT_0
        ]

    def registers(self, thread: int) -> Registers:
        """Where `thread` stands."""
        return registers_of(self._context(thread))

    def set_registers(self, thread: int, registers: Registers) -> None:
        """Let `thread` go on with these."""
        context = self._context(thread)
        for name in _REGISTERS:
            setattr(context, name.capitalize(), getattr(registers, name))
        self._set_context(thread, context)

    def teb(self, thread: int) -> int:
        """The VA of the thread environment block of `thread`."""
        self._require_stop()
        return self._environment_block(thread, self._thread_handle(thread))

    def call(self, function: int, *arguments: int) -> int:
        """Call `function` on the stopped thread, the others frozen for at most FROZEN_SECONDS."""
        thread = self._require_stop()
        if len(arguments) > 4:
            raise ValueError("a call takes at most four arguments")
        stub = self._call_stub()
        saved, context = self._context(thread), self._context(thread)
        context.Rip, context.Rax = stub, function
        context.Rcx, context.Rdx, context.R8, context.R9 = (*arguments, 0, 0, 0, 0)[:4]
        # Clear of anything kept below the stack pointer, and aligned so that `call rax` finds the stack as
        # the calling convention wants it.
        context.Rsp = ((saved.Rsp - 0x200) & ~0xF) - 8
        self._set_context(thread, context)
        others = [other for other in self._thread_handles if other != thread]
        started = time.monotonic()
        with self._frozen(others):
            self._continue()
            ended = self._run_until_return(thread, stub, started + FROZEN_SECONDS)
        if ended is None:  # a frozen thread may hold a lock that the function waits for
            ended = self._run_until_return(thread, stub, started + CALL_SECONDS)
        if ended is None:
            ended = self._abandon_call(thread, stub)
        if ended is None:
            self.detach()
            raise EngineError(
                f"a call of {function:#x} in process {self.process_id} did not come back within "
                f"{CALL_SECONDS:.0f} s: try again, or start the program under calltrace"
            )
        result = int(self._context(thread).Rax)
        self._set_context(thread, saved)
        if ended != _RETURNED:
            raise EngineError(
                f"{function:#x}, called in process {self.process_id}, raised exception {ended:#x}"
            )
        return result

    # Debug events

    def _threads_answer(self) -> bool:
        """Whether the registers of all threads can be read.

        Under Wine a thread that was stopped while it was being made never answers, and whoever asks waits for
        ever: so it is somebody else who asks, who goes when the target goes on.
        """
        handles = list(self._thread_handles.values())

        def ask() -> None:
            for handle in handles:
                api.kernel32().GetThreadContext(handle, ctypes.byref(api.new_context()))

        asker = threading.Thread(target=ask, daemon=True)
        asker.start()
        asker.join(_ANSWER_SECONDS)
        return not asker.is_alive()

    def _await_break_in(self) -> None:
        """Wait for the last break-in thread's end: Wine cannot read the registers of one that is leaving."""
        if self._break_in:
            api.kernel32().WaitForSingleObject(self._break_in, _BREAK_IN_MS)
            api.kernel32().CloseHandle(self._break_in)
            self._break_in = 0

    def _next_event(self, deadline: float) -> api.DebugEvent | None:
        """The next debug event, already noted in our tables; None at the deadline. TargetLost at its end."""
        event = api.DebugEvent()
        while True:
            left = _milliseconds_until(deadline)
            if api.kernel32().WaitForDebugEvent(ctypes.byref(event), left):
                break
            error = api.last_error()
            if error not in (api.ERROR_SEM_TIMEOUT, api.WAIT_TIMEOUT):
                raise self._failure("wait for its events", error)
            if left == 0:
                return None
        if event.dwProcessId != self.process_id:
            raise EngineError(f"process {event.dwProcessId} is debugged beside {self.process_id}")
        self._note(event)
        return event

    def _answer_waiting(self, frozen: list[int]) -> None:
        """Answer the events that threads, all of them frozen now, raised while the target was stopped.

        An exception among them would be taken for handled, and lost, if we left it unanswered. Threads that
        we hear of only now are frozen, too.
        """
        while (event := self._next_event(time.monotonic())) is not None:
            thread = event.dwThreadId
            if event.dwDebugEventCode == api.CREATE_THREAD_DEBUG_EVENT and self._freeze(thread):
                frozen.append(thread)
            self._answer(event)

    def _note(self, event: api.DebugEvent) -> None:
        """Keep the tables of threads and modules, and close what the event hands over."""
        kernel32, code = api.kernel32(), event.dwDebugEventCode
        if code == api.CREATE_PROCESS_DEBUG_EVENT:
            info = event.u.CreateProcessInfo
            self._module_paths = {info.lpBaseOfImage: self.module_path(info.lpBaseOfImage, info.hFile)}
            self._event_processes.append(info.hProcess)
            self._event_threads.append((info.hThread, event.dwThreadId))
            self._open_thread(event.dwThreadId)
        elif code == api.LOAD_DLL_DEBUG_EVENT:
            dll = event.u.LoadDll
            self._module_paths[dll.lpBaseOfDll] = self.module_path(dll.lpBaseOfDll, dll.hFile)
        elif code == api.UNLOAD_DLL_DEBUG_EVENT:
            self._module_paths.pop(event.u.UnloadedDll, None)
        elif code == api.CREATE_THREAD_DEBUG_EVENT:
            self._event_threads.append((event.u.CreateThread.hThread, event.dwThreadId))
            self._open_thread(event.dwThreadId)
        elif code == api.EXIT_THREAD_DEBUG_EVENT:
            handle = self._thread_handles.pop(event.dwThreadId, 0)
            if handle:
                kernel32.CloseHandle(handle)
        elif code == api.EXIT_PROCESS_DEBUG_EVENT:
            exit_code = event.u.ExitCode
            kernel32.ContinueDebugEvent(event.dwProcessId, event.dwThreadId, api.DBG_CONTINUE)
            self._event = None
            self._end_debugging()
            raise TargetLost(f"process {self.process_id} has ended (exit code {exit_code})")

    def _answer(self, event: api.DebugEvent) -> None:
        """Continue after an event that is the target's own affair."""
        how = api.DBG_CONTINUE
        if event.dwDebugEventCode == api.EXCEPTION_DEBUG_EVENT:
            how = api.DBG_EXCEPTION_NOT_HANDLED
        self._event = (event.dwThreadId, how)
        self._continue()

    def _continue(self) -> None:
        assert self._event is not None
        event, self._event = self._event, None
        if not api.kernel32().ContinueDebugEvent(self.process_id, *event):
            raise self._failure("continue")

    def _is_system_break(self, event: api.DebugEvent) -> bool:
        """Whether this is ntdll's own breakpoint: at a process's start, or of the break-in thread."""
        if event.dwDebugEventCode != api.EXCEPTION_DEBUG_EVENT:
            return False
        record = event.u.Exception.ExceptionRecord
        if record.ExceptionCode != api.EXCEPTION_BREAKPOINT:
            return False
        ntdll = next((m for m in self.modules() if m.name.lower() == "ntdll.dll"), None)
        return ntdll is None or ntdll.base <= record.ExceptionAddress < ntdll.end

    def _run_until_return(self, thread: int, stub: int, deadline: float) -> int | None:
        """Answer events until the call on `thread` is over, and leave that event unanswered.

        Returns _RETURNED, or the code of an exception that it let out, or None at the deadline.
        """
        raised = 0
        while True:
            event = self._next_event(deadline)
            if event is None:
                return None
            if event.dwDebugEventCode == api.EXCEPTION_DEBUG_EVENT and event.dwThreadId == thread:
                record = event.u.Exception.ExceptionRecord
                code, address = record.ExceptionCode, record.ExceptionAddress
                if code == api.EXCEPTION_BREAKPOINT and address == stub + _STUB_RETURNED:
                    self._event = (thread, api.DBG_CONTINUE)
                    return _RETURNED
                if code == api.EXCEPTION_BREAKPOINT and address == stub + _STUB_RAISED:
                    self._event = (thread, api.DBG_CONTINUE)
                    return raised
                raised = int(code)
                if not event.u.Exception.dwFirstChance:
                    self._event = (thread, api.DBG_CONTINUE)
                    return raised
            self._answer(event)

    def _abandon_call(self, thread: int, stub: int) -> int | None:
        """Let the thread end itself when its call returns after all, instead of meeting our int3 undebugged.

        It is the break-in thread, or one of a process about to be terminated: nobody misses it. The result is
        that of `_run_until_return` if the call returned at the last moment.
        """
        self.write(stub + _STUB_RETURNED, _NOP)
        self._stub = 0  # that page stays with the thread
        return self._run_until_return(thread, stub, time.monotonic() + 0.2)

    def _end_debugging(self) -> None:
        self._debugging = False
        self._stub = 0
        kernel32 = api.kernel32()
        for handle in self._thread_handles.values():
            kernel32.CloseHandle(handle)
        self._thread_handles = {}
        # The system closes what came with events; Wine leaves that to us.
        for handle, thread in self._event_threads:
            if kernel32.GetThreadId(handle) == thread:
                kernel32.CloseHandle(handle)
        for handle in self._event_processes:
            if kernel32.GetProcessId(handle) == self.process_id:
                kernel32.CloseHandle(handle)
        self._event_threads, self._event_processes = [], []

    def _clear_being_debugged(self) -> None:
        """PEB.BeingDebugged is the system's to clear; where it forgets to, we do."""
        with contextlib.suppress(CalltraceError):
            flag = process_environment_block(self._process) + 2
            if self.read(flag, 1) != b"\0":
                self._write_plain(flag, b"\0")

    # Threads, inside

    def _open_thread(self, thread: int) -> None:
        # The event's own handle is closed by the system on detaching, before we let the threads go on.
        if thread in self._thread_handles:  # told of twice, as it began just when we came
            return
        handle = api.kernel32().OpenThread(api.THREAD_RIGHTS, 0, thread)
        if handle:
            self._thread_handles[thread] = handle

    @contextlib.contextmanager
    def _frozen(self, threads: Sequence[int]) -> Iterator[list[int]]:
        """Suspend threads for a while; those in the list, which may be added to, go on afterwards."""
        frozen = [thread for thread in threads if self._freeze(thread)]
        try:
            yield frozen
        finally:
            for thread in frozen:
                if thread in self._thread_handles:
                    api.kernel32().ResumeThread(self._thread_handles[thread])

    def _freeze(self, thread: int) -> bool:
        handle = self._thread_handles.get(thread)
        return handle is not None and api.kernel32().SuspendThread(handle) != 0xFFFFFFFF

    def _require_stop(self) -> int:
        if self._event is None:
            raise EngineError(f"process {self.process_id} is not stopped")
        return self._event[0]

    def _context(self, thread: int) -> api.Context:
        self._require_stop()
        context = api.new_context()
        if not api.kernel32().GetThreadContext(self._thread_handle(thread), ctypes.byref(context)):
            raise self._failure(f"read the registers of thread {thread}")
        return context

    def _set_context(self, thread: int, context: api.Context) -> None:
        self._require_stop()
        if not api.kernel32().SetThreadContext(self._thread_handle(thread), ctypes.byref(context)):
            raise self._failure(f"set the registers of thread {thread}")

    def _thread_handle(self, thread: int) -> int:
        handle = self._thread_handles.get(thread)
        if handle is None:
            raise AccessRefused(f"process {self.process_id} has no thread {thread} that can be opened")
        return handle

    def _call_stub(self) -> int:
        if not self._stub:
            code, exit_thread = bytearray(_STUB), self._ntdll("RtlExitUserThread")
            code[_STUB_EXIT_THREAD : _STUB_EXIT_THREAD + 8] = exit_thread.to_bytes(8, "little")
            stub = self.allocate(_PAGE)
            self.write(stub, bytes(code))
            self.protect(stub, _PAGE, Protection.EXECUTE_READ)
            self._stub = stub
            self.call(self._ntdll("RtlAddFunctionTable"), stub + _STUB_TABLE, 1, stub)
        return self._stub

    def _ntdll(self, function: str) -> int:
        """The VA of a function of ntdll, which stays where it is."""
        if function not in self._ntdll_functions:
            self._ntdll_functions[function] = export_address(self, "ntdll.dll", function)
        return self._ntdll_functions[function]

    def _remove_stub(self) -> None:
        if self._stub and self._event is not None:
            with contextlib.suppress(CalltraceError):  # what cannot be removed does no harm
                forget = self._ntdll("RtlDeleteFunctionTable")
                self.call(forget, self._stub + _STUB_TABLE)
                self.free(self._stub)
            self._stub = 0


def registers_of(context: api.Context) -> Registers:
    """The registers of a thread's context."""
    return Registers(**{name: getattr(context, name.capitalize()) for name in _REGISTERS})


def process_environment_block(process: int) -> int:
    """The VA of the PEB of a process, by handle. AccessRefused if the system does not tell."""
    info = api.ProcessBasicInformation()
    status = api.ntdll().NtQueryInformationProcess(
        process, api.PROCESS_BASIC_INFORMATION, ctypes.byref(info), ctypes.sizeof(info), None
    )
    if status:
        raise AccessRefused(f"cannot find the process environment block: status {status:#x}")
    return int(info.PebBaseAddress)


def _milliseconds_until(deadline: float) -> int:
    """What is left of it, but no more than a slice; 0 when it is over."""
    return max(0, int(min(_SLICE_MS, (deadline - time.monotonic()) * 1000)))
