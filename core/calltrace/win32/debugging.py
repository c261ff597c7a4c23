"""Breakpoints and single steps: what all ports have of them, and the standalone port with them."""

from __future__ import annotations

import abc
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from calltrace.errors import AccessRefused, EngineError, TargetLost
from calltrace.ports import Capability, DebugEvent, DebugEventKind, Registers
from calltrace.win32 import api
from calltrace.win32.memory import ProcessMemory
from calltrace.win32.port import STOP_SECONDS, Win32Port, registers_of

_INT3 = 0xCC
_PUSHF = b"\x9c"
_PREFIXES = {b"\x66"} | {bytes([rex]) for rex in range(0x40, 0x50)}
_SLICE_SECONDS = 0.1  # between two questions whether a run is over
_GAP = 0x1000  # untouched bytes between breakpoints that are still moved in one go


class Stepping(ProcessMemory, abc.ABC):
    """What is the same in all ports that debug: Debugging and Memory of a Port, on the few methods below.

    A thread that stands at a breakpoint and is let go executes the program's own instruction there by a
    single step, while all other threads are held.
    """

    def __init__(self, process: int, process_id: int) -> None:
        """As ProcessMemory."""
        super().__init__(process, process_id)
        self._own_bytes: dict[int, int] = {}  # VA of each breakpoint: the program's byte there
        self._sizes: dict[int, int] = {}  # of modules, by base: once unmapped, a module has no header to ask
        self._gathered: deque[DebugEvent] = deque()  # events to be told
        self._told = 0  # thread of the event told last, if it is to go on from where it stands
        self._due: dict[int, bool] = {}  # told threads not let go yet: are they to be stepped?
        self._stepping: set[int] = set()  # threads let go for one instruction
        self._saving_flags: set[int] = set()  # those among them whose instruction is a pushf
        self._is_pushf: dict[int, bool] = {}  # by VA
        self._passing = 0  # the thread that is executing the instruction under a breakpoint
        self._handled = True  # is the exception that the target stands at to go no further?
        self._ended = False
        # Of threads asked since the target stopped; asking and setting each cost as much as a step.
        self._contexts: dict[int, api.Context] = {}
        self._changed: set[int] = set()  # threads whose context is to be set before they go on

    # What a port adds

    @abc.abstractmethod
    def _require_stop(self) -> object:
        """EngineError if the target runs."""

    @abc.abstractmethod
    def _live_threads(self) -> Iterable[int]:
        """The threads of the stopped target."""

    @abc.abstractmethod
    def _load_context(self, thread: int) -> api.Context:
        """The context of a thread of the stopped target. AccessRefused if it cannot be asked."""

    @abc.abstractmethod
    def _store_context(self, thread: int, context: api.Context) -> None:
        """Let a thread of the stopped target go on with `context`."""

    @abc.abstractmethod
    def _frozen(self, threads: list[int]) -> contextlib.AbstractContextManager[object]:
        """Keep threads from running."""

    @abc.abstractmethod
    def _advance(self, rewind: bool = False, over: Callable[[], bool] | None = None) -> None:
        """Settle the contexts, let the target run to its next event, and `_take` that.

        Once `over`, asked while nothing happens, is true, the event is an INTERRUPT.
        """

    # Memory

    def read(self, address: int, size: int) -> bytes:
        """The program's own bytes at VA `address`."""
        data = self._read_plain(address, size)
        places = self._breakpoints_within(address, size)
        if not places:
            return data
        own = bytearray(data)
        for place in places:
            own[place - address] = self._own_bytes[place]
        return bytes(own)

    def write(self, address: int, data: bytes) -> None:
        """Write `data` at VA `address`; breakpoints there stay."""
        places = self._breakpoints_within(address, len(data))
        if not places:
            super().write(address, data)
            return
        self.clear_breakpoints(places)
        try:
            super().write(address, data)
        finally:
            self.set_breakpoints(places)

    # Debugging

    def set_breakpoints(self, addresses: Iterable[int]) -> None:
        """Put an int3 at each VA."""
        self._require_stop()

        def plant(address: int, memory: bytearray, offset: int) -> None:
            own[address] = memory[offset]
            memory[offset] = _INT3

        fresh = sorted(set(addresses).difference(self._own_bytes))
        own: dict[int, int] = {}
        self._change(fresh, plant)
        self._own_bytes.update(own)

    def clear_breakpoints(self, addresses: Iterable[int]) -> None:
        """Put the program's own byte back at each VA."""
        self._require_stop()

        def put_back(address: int, memory: bytearray, offset: int) -> None:
            memory[offset] = self._own_bytes[address]

        known = sorted(set(addresses).intersection(self._own_bytes))
        self._change(known, put_back)
        for address in known:
            del self._own_bytes[address]

    def vectors(self, thread: int) -> bytes:
        """XMM0 to XMM15."""
        self._require_stop()
        return bytes(self._standing(thread).XmmRegisters)

    def go(self, step: bool = False, over: Callable[[], bool] | None = None) -> DebugEvent:
        """Let the target run to its next event, or until it is to be over."""
        if self._ended:
            raise TargetLost(f"process {self.process_id} has ended (exit code {self.exit_code()})")
        self._require_stop()
        if self._told in self._live_threads():
            self._due[self._told] = step
        while not self._gathered:
            self._run(over)
        event = self._gathered.popleft()
        stands = event.kind in (DebugEventKind.BREAKPOINT, DebugEventKind.STEP)
        self._told = event.thread if stands else 0
        return event

    # Breakpoints, inside

    def _breakpoints_within(self, address: int, size: int) -> list[int]:
        if size < len(self._own_bytes):
            return [place for place in range(address, address + size) if place in self._own_bytes]
        return sorted(place for place in self._own_bytes if address <= place < address + size)

    def _change(self, addresses: list[int], change: Callable[[int, bytearray, int], None]) -> None:
        """Change single bytes of memory, runs of near ones in one go."""
        start = 0
        for at, address in enumerate(addresses):
            if at + 1 == len(addresses) or addresses[at + 1] - address > _GAP:
                run = addresses[start : at + 1]
                memory = bytearray(self._read_plain(run[0], run[-1] + 1 - run[0]))
                for place in run:
                    change(place, memory, place - run[0])
                self._write_plain(run[0], bytes(memory))
                if self._read_plain(run[0], len(memory)) != memory:
                    raise AccessRefused(f"cannot set breakpoints at {run[0]:#x} and behind")
                start = at + 1

    # Running, inside

    def _run(self, over: Callable[[], bool] | None) -> None:
        """Let a thread pass the breakpoint it stands at, or, if none has to, all threads run to an event."""
        with contextlib.suppress(TargetLost):  # of which an event will tell
            for thread in self._due:
                if self._standing(thread).Rip in self._own_bytes:
                    self._pass_breakpoint(thread, self._due.pop(thread))
                    return
            for thread, step in self._due.items():
                if step:
                    self._set_trap(thread)
        self._due.clear()
        self._advance(over=over)

    def _pass_breakpoint(self, thread: int, step: bool) -> None:
        """Let `thread` execute the instruction under a breakpoint; gathered are all events of that time."""
        address = self._standing(thread).Rip
        self._set_trap(thread)
        self._passing = thread
        with self._held(other for other in self._live_threads() if other != thread):
            there = self._read_plain(address, 1)[0]
            if there == _INT3:
                self._write_plain(address, bytes([self._own_bytes[address]]))
            else:
                self._own_bytes[address] = there  # the program has changed its code
            try:
                while thread in self._stepping:
                    self._advance(rewind=True)
            finally:
                self._passing = 0
            if address in self._own_bytes:  # its module is still there
                self._write_plain(address, bytes([_INT3]))
        if not step and self._gathered and self._gathered[-1].thread == thread:
            event = self._gathered[-1]
            if event.kind is DebugEventKind.STEP:
                self._gathered.pop()
                if event.address in self._own_bytes:
                    self._gathered.append(DebugEvent(DebugEventKind.BREAKPOINT, thread, event.address))

    @contextlib.contextmanager
    def _held(self, threads: Iterable[int]) -> Iterator[None]:
        held = list(threads)
        with self._frozen(held):
            for thread in held:
                with contextlib.suppress(AccessRefused):
                    self._standing(thread)  # not before it has really stopped is there an answer
            yield

    def _set_trap(self, thread: int) -> None:
        """The processor traps behind the next instruction; what a pushf saves must not tell of it."""
        context = self._standing(thread)
        if self._at_pushf(context.Rip):
            self._saving_flags.add(thread)
        context.EFlags |= api.TRAP_FLAG
        self._changed.add(thread)
        self._stepping.add(thread)

    def _at_pushf(self, address: int) -> bool:
        known = self._is_pushf.get(address)
        if known is None:
            known = False
            with contextlib.suppress(AccessRefused):  # then the instruction will not be executed either
                code = self.read(address, 1)
                if code in _PREFIXES:
                    code = self.read(address + 1, 1)
                known = code == _PUSHF
            self._is_pushf[address] = known
        return known

    def _end_step(self, thread: int) -> api.Context:
        """The context of a thread whose one instruction is done, or was given up."""
        context = self._standing(thread)
        self._stepping.discard(thread)
        if context.EFlags & api.TRAP_FLAG:
            context.EFlags &= ~api.TRAP_FLAG
            self._changed.add(thread)
        return context

    def _take(self, event: DebugEvent, rewind: bool) -> None:
        """Note what an event means that the target has stopped at; breakpoints and steps are exceptions yet.

        With `rewind` a thread that met a breakpoint is put back in front of it, to meet it again later.
        """
        self._handled = True
        if event.kind is DebugEventKind.EXCEPTION:
            self._take_exception(event, rewind)
            return
        if event.kind is DebugEventKind.THREAD_EXIT:
            self._stepping.discard(event.thread)
            self._due.pop(event.thread, None)
        elif event.kind is DebugEventKind.MODULE_LOAD:
            self._sizes[event.address] = self.image_size(event.address)
        elif event.kind is DebugEventKind.MODULE_UNLOAD:
            for place in self._breakpoints_within(event.address, self._sizes.pop(event.address, 0)):
                del self._own_bytes[place]
        self._gathered.append(event)

    def _take_exception(self, event: DebugEvent, rewind: bool) -> None:
        thread, code, address = event.thread, event.code, event.address
        if code == api.EXCEPTION_SINGLE_STEP and thread in self._stepping:
            context = self._end_step(thread)
            if thread in self._saving_flags:
                self._saving_flags.discard(thread)
                flags = int.from_bytes(self.read(context.Rsp, 2), "little") & ~api.TRAP_FLAG
                self._write_plain(context.Rsp, flags.to_bytes(2, "little"))
            self._gathered.append(DebugEvent(DebugEventKind.STEP, thread, context.Rip))
        elif code == api.EXCEPTION_BREAKPOINT and self._is_ours(thread, address):
            if thread in self._stepping:  # the breakpoint was set where it stood, told of already
                self._end_step(thread)
                self._due[thread] = True
            elif not rewind and address in self._own_bytes:
                self._gathered.append(DebugEvent(DebugEventKind.BREAKPOINT, thread, address))
            context = self._standing(thread)
            context.Rip = address
            self._changed.add(thread)
        else:
            if thread in self._stepping:
                self._end_step(thread)
                self._saving_flags.discard(thread)
            self._handled = False
            self._gathered.append(event)

    def _is_ours(self, thread: int, address: int) -> bool:
        """Is this int3 a breakpoint, or was it one when the thread met it?"""
        if address in self._own_bytes:
            return thread != self._passing  # else the program's own byte there is an int3
        return self.read(address, 1)[0] != _INT3

    # Contexts

    def _standing(self, thread: int) -> api.Context:
        """The context of a thread of the stopped target."""
        context = self._contexts.get(thread)
        if context is None:
            context = self._contexts[thread] = self._load_context(thread)
        return context

    def _settle_contexts(self) -> None:
        for thread in self._changed:
            with contextlib.suppress(TargetLost):
                self._store_context(thread, self._contexts[thread])
        self._changed.clear()
        self._contexts.clear()

    def _forget_all(self) -> None:
        """The target is debugged no more."""
        for noted in (self._own_bytes, self._contexts, self._changed, self._due, self._stepping):
            noted.clear()
        self._saving_flags.clear()
        self._told = 0


class DebuggingPort(Win32Port, Stepping):
    """The standalone port, that can also run its process from one breakpoint or instruction to the next."""

    def __init__(self, process: int, process_id: int) -> None:
        """As Win32Port."""
        super().__init__(process, process_id)
        self._had_breakpoints = False  # a thread may have met one that is gone, and not been heard of yet
        self._paused: list[int] = []  # threads suspended since a run was ended without an event

    def supports(self, capability: Capability) -> bool:
        """True: the standalone port can do everything."""
        return capability is Capability.DEBUG or super().supports(capability)

    def wait_for_break(self) -> None:
        """As Win32Port's; the stopped thread is the one that `go` steps."""
        super().wait_for_break()
        self._told = self._require_stop()

    def registers(self, thread: int) -> Registers:
        """Where `thread` stands."""
        return registers_of(self._standing(thread))

    def call(self, function: int, *arguments: int) -> int:
        """As Win32Port's, but EngineError while breakpoints are set."""
        if self._own_bytes:
            raise EngineError("nothing can be called in the target while breakpoints are set")
        if self._paused:
            raise EngineError("nothing can be called in the target where it was interrupted")
        return super().call(function, *arguments)

    def set_breakpoints(self, addresses: Iterable[int]) -> None:
        """Put an int3 at each VA."""
        self._require_stop()
        if not self._own_bytes:
            self._remove_stub()  # no call until they are gone, and none on the way out
        self._had_breakpoints = True
        super().set_breakpoints(addresses)

    def go(self, step: bool = False, over: Callable[[], bool] | None = None) -> DebugEvent:
        """Let the target run to its next event, or until it is to be over."""
        if not self._own_bytes:
            self._remove_stub()  # a module being loaded stops the target where no call could do it
        return super().go(step, over)

    def detach(self) -> None:
        """Take every breakpoint away, and let the target run on."""
        if self._debugging and (self._paused or (self._event is not None and self._had_breakpoints)):
            with contextlib.suppress(TargetLost):
                self.clear_breakpoints(list(self._own_bytes))
                # Nobody but us may see an int3 that a thread has already met; it tells of it before it stops.
                with self._held(list(self._thread_handles)):
                    self._continue()
                    while self._gather(time.monotonic(), rewind=True):
                        self._continue()
        super().detach()
        self._gathered.clear()

    def _live_threads(self) -> Iterable[int]:
        return self._thread_handles

    def _advance(self, rewind: bool = False, over: Callable[[], bool] | None = None) -> None:
        self._continue()
        if over is None:
            self._gather(math.inf, rewind)
            return
        while not self._gather(time.monotonic() + _SLICE_SECONDS, rewind) and not self._ended:
            if over():
                self._pause()
                return

    def _pause(self) -> None:
        """Stop the running target without an event: a thread that were to make one might wait for a lock."""
        self._paused = [thread for thread in self._thread_handles if self._freeze(thread)]
        self._gathered.append(DebugEvent(DebugEventKind.INTERRUPT, 0))

    def _require_stop(self) -> int:
        return 0 if self._paused else super()._require_stop()

    def _gather(self, deadline: float, rewind: bool = False) -> bool:
        """Wait for a debug event, `_take` it, and leave it unanswered. False: none until `deadline`."""
        try:
            event = self._next_event(deadline)
        except TargetLost:
            if self._ended:
                raise
            self._ended = True
            self._end_debugging()
            api.kernel32().WaitForSingleObject(self._process, int(STOP_SECONDS * 1000))
            self._gathered.append(DebugEvent(DebugEventKind.PROCESS_EXIT, 0, code=self.exit_code()))
            return False
        if event is None:
            return False
        self._event = (event.dwThreadId, api.DBG_CONTINUE)
        meaning = _meaning(event)
        if meaning:
            self._take(meaning, rewind)
            if not self._handled:
                self._event = (event.dwThreadId, api.DBG_EXCEPTION_NOT_HANDLED)
        return True

    def _load_context(self, thread: int) -> api.Context:
        return Win32Port._context(self, thread)

    def _store_context(self, thread: int, context: api.Context) -> None:
        Win32Port._set_context(self, thread, context)

    def _context(self, thread: int) -> api.Context:
        self._settle_contexts()
        return super()._context(thread)

    def _set_context(self, thread: int, context: api.Context) -> None:
        self._settle_contexts()
        super()._set_context(thread, context)

    def _continue(self) -> None:
        self._settle_contexts()
        if not self._paused:
            super()._continue()
        for thread in self._paused:
            if thread in self._thread_handles:
                api.kernel32().ResumeThread(self._thread_handles[thread])
        self._paused = []

    def _end_debugging(self) -> None:
        super()._end_debugging()
        self._forget_all()


def _meaning(event: api.DebugEvent) -> DebugEvent | None:
    """A debug event in our words; None if it is of no interest."""
    thread, code, data = event.dwThreadId, event.dwDebugEventCode, event.u
    if code == api.EXCEPTION_DEBUG_EVENT:
        record, first = data.Exception.ExceptionRecord, bool(data.Exception.dwFirstChance)
        address, what = record.ExceptionAddress or 0, record.ExceptionCode
        return DebugEvent(DebugEventKind.EXCEPTION, thread, address, what, first)
    if code == api.CREATE_THREAD_DEBUG_EVENT:
        return DebugEvent(DebugEventKind.THREAD_START, thread)
    if code == api.EXIT_THREAD_DEBUG_EVENT:
        return DebugEvent(DebugEventKind.THREAD_EXIT, thread, code=data.ExitCode)
    if code == api.LOAD_DLL_DEBUG_EVENT:
        return DebugEvent(DebugEventKind.MODULE_LOAD, thread, data.LoadDll.lpBaseOfDll)
    if code == api.UNLOAD_DLL_DEBUG_EVENT:
        return DebugEvent(DebugEventKind.MODULE_UNLOAD, thread, data.UnloadedDll)
    return None
