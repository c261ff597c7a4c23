"""The slow, exact tracer that the fast one is held against.

The program's own code runs, in place, under a debugger. Breakpoints lie at each function's entry and, as
far as a function has been followed, at its calls, behind those that leave the traced code, at its rets and
at jumps that may leave it. What is an entry, a return or the end of a frame is decided by where each thread
comes from and where its stack pointer stands. Shared with the fast tracer are functions and call sites
(`ModulePlan`) and the trace file.
"""

from __future__ import annotations

import dataclasses
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from calltrace import plan
from calltrace.errors import NotTraceable, OutOfSpace
from calltrace.flow import CodeFlow, Flow, Place
from calltrace.model import NONE_ID, Event, Ext, FunctionFlag, State
from calltrace.patterns import module_matches
from calltrace.ports import DebugEvent, DebugEventKind, Port, Protection, Registers, TargetModule
from calltrace.recorder import StartRequest, TraceFile
from calltrace.tracefile import BLOCK, Chunk, ChunkKind
from calltrace.win32.exports import export_address

_EVENTS = struct.Struct("<IIQQQ")  # struct ct_events behind its chunk header
_UNITS_IN_BLOCK = (BLOCK - 64) // 4
_UNITS_AT_ONCE = 2  # an event and its FRAME
_TAIL_SITE = 0x80000000  # CT_SITE_TAIL
_PAGE = 0x1000
_RET = b"\xc3"

# CONTEXT, EXCEPTION_RECORD and the jump buffer of setjmp, all of x64; LDR_DLL_NOTIFICATION_DATA
_CONTEXT_RIP, _RECORD_INFORMATION, _JUMP_BUFFER_RIP = 0xF8, 0x20, 0x50
_STATUS_LONGJUMP, _STATUS_UNWIND_CONSOLIDATE = 0x80000026, 0x80000029
_ASKS_FOR_DEBUGGER = bytes.fromhex("80 78 02 00 75")  # cmp byte [rax+2], 0 (PEB.BeingDebugged); jne rel8
_LOADED = 1
_LOAD_DATA = struct.Struct("<QQQQI")


class _Log:
    """The events of one thread, written as EVENTS chunks of 4-byte units."""

    def __init__(self, file: TraceFile, thread_id: int) -> None:
        self._file = file
        self._thread_id = thread_id
        self._index = -1
        self._first_unit = 0
        self._units = array("I")

    def put(self, event: Event, number: int, sp: int | None = None) -> None:
        """One event; `sp`: with a FRAME before it."""
        if self._index < 0:
            self._index = self._file.header.threads
            self._file.header.threads += 1
            self._units.append(Event.EXT | Ext.THREAD_START << 3)
        if len(self._units) + _UNITS_AT_ONCE > _UNITS_IN_BLOCK:
            self.flush()
        if sp is not None:
            self._units.append(sp & 0xFFFFFFF8)
        self._units.append(event | number << 3)

    def add_frame(self, sp: int) -> None:
        """Put a FRAME before the event put last."""
        self._units.insert(len(self._units) - 1, sp & 0xFFFFFFF8)

    @property
    def begun(self) -> bool:
        """Has it any event?"""
        return self._index >= 0

    def flush(self) -> None:
        """Write what was put since the last time."""
        if not self._units:
            return
        size = self._units.itemsize * len(self._units)
        header = Chunk(ChunkKind.EVENTS, 0, BLOCK, size)
        events = _EVENTS.pack(self._index, self._thread_id, self._first_unit, 0, 0)
        self._file.append(bytes(header) + events + self._units.tobytes())
        self._first_unit += len(self._units)
        self._file.header.units_total += len(self._units)
        self._units = array("I")


@dataclass
class _Frame:
    """A function that has been entered and not left, or a call that has not returned."""

    function: int  # id of the function; of a call: of the one that makes it
    sp: int  # VA of the stack slot with the return address: above it, the frame is gone
    back: int = 0  # of a call: the VA it returns to
    site: int = NONE_ID  # of a call: its id, if it is recorded
    switches: bool = False  # a call of SwitchToFiber
    tail: bool = False  # made by a jump: its return is the function's, too


@dataclass(frozen=True)
class _Step:
    """An instruction that a thread was let go for."""

    place: Place
    function: int  # id of its function if that was the innermost open frame, else NONE_ID
    site: int  # id of the call site it is; also a jump to SwitchToFiber is one


@dataclass
class _Thread:
    id: int
    log: _Log
    frames: list[_Frame] = field(default_factory=list)
    before: _Step | None = None  # the instruction it was let go for
    stacks: list[list[_Frame]] = field(default_factory=list)  # of fibers that it has left
    switched: bool = False  # it goes on with another stack than that of `frames`
    landing: int = 0  # VA where an unwinding lets it go on
    consolidating: bool = False  # an unwinding lets it go on where its last funclet says

    def goes_on_with(self, function: int, sp: int) -> bool:
        """Is the innermost frame this function's, with nothing on the stack yet but its return address?"""
        frame = self.frames[-1] if self.frames else None
        return frame is not None and (frame.function, frame.sp, frame.back) == (function, sp, 0)


class _Module:
    """A module whose functions are followed."""

    def __init__(self, planned: plan.ModulePlan, first_function: int, first_site: int) -> None:
        functions = planned.functions
        self.base, self.end = planned.image.base, planned.image.base + planned.image.size
        self.first_function = first_function
        self.flow = CodeFlow(planned.image, planned.extents, [function.rva for function in functions])
        self.followed = [function.status == 0 for function in functions]
        self.entries = {
            function.rva: number for number, function in enumerate(functions) if function.status == 0
        }
        # The functions that a funclet's entry unwinds to.
        self.parents = {
            number: function.parent + first_function
            for number, function in enumerate(functions)
            if function.flags & FunctionFlag.FUNCLET and function.parent != NONE_ID
        }
        self.sites = {
            site.rva: number
            for number, site in enumerate(planned.sites, first_site)
            if not site.function & _TAIL_SITE
        }

    def calls_unseen(self, rva: int) -> bool:
        """Is this a call that nobody records, of a function whose entry and rets are seen anyway?"""
        place = self.flow.places[rva]
        return place.flow is Flow.CALL and place.target in self.entries and rva not in self.sites


class ReferenceTracing:
    """One recording of a program that was just started, from its initial breakpoint to its end."""

    def __init__(
        self,
        port: Port,
        file: TraceFile,
        events: str,
        include: Sequence[str],
        exclude: Sequence[str],
        modules: Sequence[str],
        breakpoints: bool,
        single_step: bool,
        progress: Callable[[str], None],
    ) -> None:
        """`modules` are patterns of those traced beside the program; the other options are a ModulePlan's."""
        self._port = port
        self._file = file
        self._events, self._include, self._exclude, self._patterns = events, include, exclude, modules
        self._breakpoints = breakpoints  # may the fast tracer have some of its own?
        self._single_step = single_step
        self._progress = progress
        self._modules: list[_Module] = []
        self._threads: dict[int, _Thread] = {}
        self._hooks: dict[int, Callable[[_Thread, Registers], None]] = {}
        self._backs: set[int] = set()  # VAs that calls return to
        self._functions = self._sites = self._planned = 0  # ids given out, modules
        self._outside = 0  # instructions stepped that belong to no function known
        self._state = State.KILLED

    def run(self) -> State:
        """Let the program run to its end, and write down what it does; how it ended.

        NotTraceable if the program itself cannot be traced; of other modules that cannot, the user is told.
        """
        notification = self._watch_loads() if self._patterns else 0
        for name, hook in (
            ("RtlRestoreContext", self._restores_context),
            ("NtContinue", self._continues),
            ("LdrShutdownThread", self._thread_ends),
            ("LdrShutdownProcess", self._process_ends),
        ):
            self._hooks[export_address(self._port, "ntdll.dll", name)] = hook
        self._hooks[export_address(self._port, "kernelbase.dll", "SwitchToFiber")] = self._switches
        raising = self._find_question()
        if raising:
            self._hooks[raising] = self._raises
        if notification:
            self._hooks[notification] = self._module_loaded
        self._port.set_breakpoints(self._hooks)
        program, *others = self._port.modules()
        self._add(program)
        for module in others:
            self._add_if_wanted(module)
        self._file.header.process_id = self._port.process_id
        try:
            step = False
            while True:
                event = self._port.go(step)
                step = self._take(event)
                if event.kind is DebugEventKind.PROCESS_EXIT:
                    break
        finally:  # a debugger's user may stop the program
            for thread in self._threads.values():
                thread.log.flush()
        if self._single_step and self._outside:
            self._progress(f"{self._outside:,} instructions outside all functions that are known")
        return self._state

    # Modules

    def _watch_loads(self) -> int:
        """The VA of a function in the target that the loader calls about each module it loads."""
        stub = self._port.allocate(_PAGE)
        self._port.write(stub, _RET)
        self._port.protect(stub, _PAGE, Protection.EXECUTE_READ)
        cookie = self._port.allocate(_PAGE)
        register = export_address(self._port, "ntdll.dll", "LdrRegisterDllNotification")
        self._port.call(register, 0, stub, 0, cookie)
        return stub

    def _module_loaded(self, thread: _Thread, registers: Registers) -> None:
        if registers.rcx & 0xFFFFFFFF == _LOADED:
            data = self._port.read(registers.rdx, _LOAD_DATA.size)
            base = _LOAD_DATA.unpack(data)[3]
            self._add_if_wanted(next(module for module in self._port.modules() if module.base == base))

    def _add_if_wanted(self, module: TargetModule) -> None:
        if not any(module_matches(pattern, module.name) for pattern in self._patterns):
            return
        if module.name.lower() == "ntdll.dll":
            self._progress(f"{module.name} is left out: exceptions are followed in it")
            return
        try:
            self._add(module)
        except (NotTraceable, OutOfSpace) as error:
            self._progress(f"{module.name} is left out: {error}")

    def _add(self, module: TargetModule) -> None:
        self._progress(f"{module.name}: planning {module.size / 1e6:,.1f} MB")
        image, symbols = plan.read_image(self._port.read, module), self._port.symbols(module)
        planned = plan.ModulePlan(image, self._include, self._exclude, symbols)
        # Ids do not depend on what the copies, which nobody makes, would look like.
        planned.lay_out(StartRequest(), self._events, "none", self._functions, self._sites, self._breakpoints)
        self._file.append(planned.module_chunk(self._planned))
        added = _Module(planned, self._functions, self._sites)
        self._modules.append(added)
        self._planned += 1
        self._functions += planned.functions_found
        self._sites += len(planned.sites)
        self._port.set_breakpoints(added.base + entry for entry in added.entries)
        self._progress(
            f"{module.name}: {len(added.entries):,} of {planned.functions_found:,} functions followed"
        )

    # Debug events

    def _take(self, event: DebugEvent) -> bool:
        """Write down what an event means; is its thread to execute one instruction only?"""
        thread = self._threads.get(event.thread)
        if event.kind in (DebugEventKind.BREAKPOINT, DebugEventKind.STEP):
            if thread is None:
                log = _Log(self._file, event.thread)
                thread = self._threads[event.thread] = _Thread(event.thread, log)
            return self._arrive(thread, event.address)
        if event.kind is DebugEventKind.EXCEPTION and thread:
            thread.before = None
        elif event.kind is DebugEventKind.THREAD_EXIT and thread:
            thread.log.flush()
            del self._threads[event.thread]
        elif event.kind is DebugEventKind.MODULE_UNLOAD:
            self._modules = [module for module in self._modules if module.base != event.address]
        return False

    def _arrive(self, thread: _Thread, va: int) -> bool:
        """`thread` is about to execute the instruction at `va`: what that means, and whether to step it."""
        registers = self._port.registers(thread.id)
        before, thread.before = thread.before, None
        module = next((module for module in self._modules if module.base <= va < module.end), None)
        number = module.flow.function_at(va - module.base) if module else None
        followed = module is not None and number is not None and module.followed[number]
        function = module.first_function + number if module and number is not None else NONE_ID
        jumped = before and before.place.flow in (Flow.JUMP, Flow.POINTER_JUMP)
        round_again = False
        if before and jumped and before.function != NONE_ID:
            round_again = before.function == function
            if round_again and module and before.place.flow is Flow.POINTER_JUMP:
                # A pointer to its own start is one to a function: no case of a switch stands there.
                round_again = va - module.base not in module.entries
            if not round_again:
                self._jumps_out(thread, before, registers.rsp)
        if before and not followed:
            self._leaves(thread, before, registers)
        if module is None:
            hook = self._hooks.get(va)
            if hook:
                hook(thread, registers)
            return False
        rva = va - module.base
        if thread.switched:
            thread.switched = False
            self._resume_stack(thread, registers.rsp)
        landed, thread.landing = thread.landing == va, 0
        if not followed or number is None:
            self._outside += number is None
            return self._single_step
        if landed:
            self._go_on(thread, function, registers.rsp, True)
        elif not (jumped and round_again):
            self._returned(thread, va, function, registers.rsp)
        # An exception of a function's first instruction may have been dealt with: that is no new entry.
        again = landed and thread.goes_on_with(function, registers.rsp)
        if rva in module.entries and not round_again and not again:
            self._enter(thread, module, number, registers)
        return self._execute(thread, module, rva, function, registers)

    def _jumps_out(self, thread: _Thread, jump: _Step, sp: int) -> None:
        """The thread has left its innermost function by a jump."""
        if jump.site == NONE_ID:
            thread.frames.pop()
            thread.log.put(Event.TAIL, jump.function)
        else:
            # To SwitchToFiber: as a call, so that it can be seen which stack is gone on with when.
            back = self._u64(sp)
            thread.frames.append(_Frame(jump.function, sp, back, jump.site, tail=True))
            thread.log.put(Event.CALL, jump.site, sp)

    def _leaves(self, thread: _Thread, before: _Step, registers: Registers) -> None:
        """The thread has gone to code that is not followed: it must be met again where it comes back to."""
        if before.place.flow is Flow.RETURN:
            if thread.consolidating:
                self._lands(thread, registers.rax)
        elif before.place.flow is Flow.CALL and before.function != NONE_ID:
            self._port.set_breakpoints([thread.frames[-1].back])
        else:
            back = self._u64(registers.rsp)
            if self._is_followed(back):
                self._port.set_breakpoints([back])

    def _execute(
        self, thread: _Thread, module: _Module, rva: int, function: int, registers: Registers
    ) -> bool:
        """The instruction that a thread is about to execute, in a function that is followed."""
        frames = thread.frames
        if not frames or frames[-1].function != function or frames[-1].back:
            self._go_on(thread, function, registers.rsp, module.base + rva in self._backs)
        # Whoever got here past the entry is followed, too, but nothing is recorded of that.
        inside = bool(frames) and frames[-1].function == function and not frames[-1].back
        self._follow(module, rva)
        place = module.flow.places.get(rva)
        if place is None:
            return self._single_step
        site = module.sites.get(rva, NONE_ID)
        thread.before = _Step(place, function if inside else NONE_ID, site)
        if inside and place.flow is Flow.CALL:
            back = module.base + rva + place.size
            self._backs.add(back)
            frames.append(_Frame(function, registers.rsp - 8, back, site))
            if site != NONE_ID:
                thread.log.put(Event.CALL, site)
        elif inside and place.flow is Flow.RETURN:
            frames.pop()
            thread.log.put(Event.LEAVE, function)
        return True

    def _enter(self, thread: _Thread, module: _Module, number: int, registers: Registers) -> None:
        frames, sp = thread.frames, registers.rsp
        parent = module.parents.get(number)
        if parent is None:
            # A frame whose return address lay in this slot is no more.
            while frames and frames[-1].sp <= sp and not self._calls_from(frames[-1], sp):
                frames.pop()
        else:
            # Called with the frame of the function whose part it is; what is above that has been unwound.
            sp = registers.rdx
            for at in range(len(frames) - 1, -1, -1):
                if frames[at].function == parent and not frames[at].back and frames[at].sp > sp:
                    del frames[at + 1 :]
                    break
        function = module.first_function + number
        thread.log.put(Event.ENTER, function, sp)
        frames.append(_Frame(function, registers.rsp))

    @staticmethod
    def _calls_from(frame: _Frame, sp: int) -> bool:
        """Is this the call whose return address lies at `sp`?"""
        return bool(frame.back) and frame.sp == sp

    def _returned(self, thread: _Thread, va: int, function: int, rsp: int) -> None:
        """To the instruction at `va`, behind a call, a thread may come by the return of that."""
        frames = thread.frames
        at, call = len(frames) - 1, None
        while at >= 0 and frames[at].sp < rsp:
            if frames[at].back == va:
                call = at
            at -= 1
        if call is None:
            return
        for frame in reversed(frames[call + 1 :]):
            if frame.tail:
                thread.log.put(Event.RETURN, frame.site, frame.sp)
                thread.log.put(Event.LEAVE, frame.function)
        returned = frames[call]
        del frames[call:]
        if returned.site != NONE_ID:
            thread.log.put(Event.RETURN, returned.site, returned.sp if returned.switches else None)

    def _go_on(self, thread: _Thread, function: int, rsp: int, unwound: bool) -> None:
        """`function` goes on with the stack at `rsp`: what lay below it is gone.

        It was unwound if that is known, or if there were functions; the return address of a call alone may
        just have been taken off the stack.
        """
        frames, gone = thread.frames, []
        while frames and frames[-1].sp < rsp:
            gone.append(frames.pop())
        unwound = unwound or not all(frame.back for frame in gone)
        if gone and unwound and frames and frames[-1].function == function and not frames[-1].back:
            thread.log.put(Event.LAND, function, min(rsp, frames[-1].sp - 8))

    def _follow(self, module: _Module, rva: int) -> None:
        """Set breakpoints at what is found from an instruction that is about to be executed."""
        found = [module.base + place for place in module.flow.follow(rva) if not module.calls_unseen(place)]
        if found:
            self._port.set_breakpoints(found)

    def _is_followed(self, va: int) -> bool:
        for module in self._modules:
            if module.base <= va < module.end:
                number = module.flow.function_at(va - module.base)
                return number is not None and module.followed[number]
        return False

    # What ntdll is about to do

    def _continues(self, thread: _Thread, registers: Registers) -> None:
        """NtContinue(context): after an unwinding, and after an exception that was dealt with."""
        self._lands(thread, self._u64(registers.rcx + _CONTEXT_RIP))

    def _restores_context(self, thread: _Thread, registers: Registers) -> None:
        """RtlRestoreContext(context, exception record): the end of every unwinding."""
        record = registers.rdx
        code = int.from_bytes(self._port.read(record, 4), "little") if record else 0
        if code == _STATUS_LONGJUMP:
            buffer = self._u64(record + _RECORD_INFORMATION)
            self._lands(thread, self._u64(buffer + _JUMP_BUFFER_RIP))
        elif code == _STATUS_UNWIND_CONSOLIDATE:
            thread.consolidating = True  # by a catch funclet, which returns the address to go on at
        else:
            self._continues(thread, registers)

    def _find_question(self) -> int:
        """The VA where RtlRaiseException asks whether the process is debugged; 0 if it cannot be found."""
        function = export_address(self._port, "ntdll.dll", "RtlRaiseException")
        at = self._port.read(function, _PAGE // 16).find(_ASKS_FOR_DEBUGGER)
        return function + at if at >= 0 else 0

    def _raises(self, thread: _Thread, registers: Registers) -> None:
        """Raise a software exception in the process itself, as without a debugger.

        The way by the debugger is another one, which in Wine 8 loses registers when exceptions are nested.
        """
        behind = registers.rip + len(_ASKS_FOR_DEBUGGER) + 1
        self._port.set_registers(thread.id, dataclasses.replace(registers, rip=behind))

    def _lands(self, thread: _Thread, rip: int) -> None:
        thread.consolidating = False
        if self._is_followed(rip):
            thread.landing = rip
            self._port.set_breakpoints([rip])

    def _u64(self, address: int) -> int:
        return int.from_bytes(self._port.read(address, 8), "little")

    def _switches(self, thread: _Thread, registers: Registers) -> None:
        """SwitchToFiber(fiber): the stack now in use is left until another fiber switches back to it."""
        frames = thread.frames
        if frames:
            call = frames[-1]
            if call.site != NONE_ID and call.sp == registers.rsp and not call.tail:
                call.switches = True
                thread.log.add_frame(call.sp)
            thread.stacks.append(frames)
        thread.frames = []
        thread.switched = True

    @staticmethod
    def _resume_stack(thread: _Thread, rsp: int) -> None:
        """Go on with the frames of the stack that `rsp` lies in, if it is one that was left."""
        for frames in thread.stacks:
            if frames[-1].sp < rsp <= frames[0].sp + 8:
                thread.stacks.remove(frames)
                thread.frames = frames
                return

    def _thread_ends(self, thread: _Thread, registers: Registers) -> None:
        if thread.log.begun:
            thread.log.put(Event.EXT, Ext.THREAD_EXIT)
            thread.frames.clear()

    def _process_ends(self, thread: _Thread, registers: Registers) -> None:
        self._state = State.EXITED
