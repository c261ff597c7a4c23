"""Recordings from their start to their end: stop the target, instrument its modules, wait, finish the file.

`Tracing` needs no more than a port, so any host can use it, and record the same target time after time; `run`
and `attach` drive it without a debugger, once.
Nothing here writes to the standard output: that belongs to the target. What the user should know goes line by
line to the `progress` function he is given.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calltrace import copies, plan, preflight, tracefile
from calltrace.budget import Budget
from calltrace.counting import Counting
from calltrace.errors import CalltraceError, EngineError, NotTraceable, OutOfSpace, TargetLost
from calltrace.marking import mark_now
from calltrace.model import PAUSED, RESUMED, Clock, Pause, Policy, State
from calltrace.patches import Patch, around_threads, write_patches
from calltrace.patterns import module_matches
from calltrace.pe.image import Image
from calltrace.places import Copied
from calltrace.ports import Capability, Port, Protection, TargetModule
from calltrace.recorder import (
    DLL,
    NEVER_TRACED,
    Code,
    CodeState,
    LoadSignals,
    Recorder,
    StartRequest,
    TraceFile,
)
from calltrace.win32 import launch
from calltrace.win32.dbghelp import SymbolFiles
from calltrace.win32.debugging import DebuggingPort
from calltrace.win32.exports import export_address
from calltrace.win32.port import Win32Port

Progress = Callable[[str], None]  # takes one line for the user, without its line end

_PAGE = 0x1000
_ADDS_HANDLERS = ("AddVectoredExceptionHandler", "RtlAddVectoredExceptionHandler")  # one is the other
_SLICE_SECONDS = 0.1  # how soon an interrupt is noticed
_LAST_LOADS_SECONDS = 0.05  # for a thread that was just about to report a module


@dataclass(frozen=True)
class TraceOptions:
    """What is recorded, and where to."""

    output: Path | None = None  # None: PROGRAM.calltrace in the working folder
    events: str = "outward"  # "functions", "outward" or "all"
    clock: str = "none"  # "none", "tsc" or "coarse"
    # "trace"; "hits": only that a function was entered, and when first; "graph": in place of events counts
    # and times, by function and by caller and callee
    mode: str = "trace"
    include: Sequence[str] = ()  # patterns of functions; none = all
    exclude: Sequence[str] = ()  # patterns of functions
    modules: Sequence[str] = ()  # patterns of module file names traced beside the program itself
    program: bool = True  # the program itself is traced
    breakpoints: bool = True  # also functions whose start has no room for a jump
    policy: str = "block"  # "block" or "drop-oldest"
    max_size: int = 0  # bytes the trace may grow to; 0 = no limit
    # In mode "trace": of each function and call site, in each thread, so many calls are recorded, and the
    # others counted; 0: all are recorded
    budget: int = 0


@dataclass(frozen=True)
class RunOptions:
    """A program to start and trace."""

    program: str
    arguments: Sequence[str] = ()
    command_line: str | None = None  # the program's whole command line to the letter; None: made of the words
    trace: TraceOptions = field(default_factory=TraceOptions)
    symbols: str = ""  # where to look for symbols, as in _NT_SYMBOL_PATH; "": as that says


@dataclass(frozen=True)
class AttachOptions:
    """A running process to trace for a while."""

    process_id: int
    seconds: float | None = None  # None: until Ctrl+C or the end of the process
    trace: TraceOptions = field(default_factory=TraceOptions)
    symbols: str = ""  # as in RunOptions


def run(options: RunOptions, progress: Progress) -> int:
    """Start a program, record it to its end, and return its exit code, signed as `sys.exit` wants it.

    If it cannot be prepared it is ended before its first instruction, and the error says why.
    """
    with _started(options, progress) as (port, output, about):
        tracing = Tracing(port, progress)
        with recording(tracing, options.trace, output, about, progress, port.terminate):
            port.detach()
        with interrupts_held():  # the target gets its own, and we stay until it has ended
            tracing.wait_for_end()
            tell_recorded(tracing.finish(State.KILLED, port.exit_code()), progress, options.trace.mode)
        return ctypes.c_int32(port.exit_code()).value


def run_reference(options: RunOptions, single_step: bool, progress: Progress) -> int:
    """As `run`, but by the slow, exact tracer; of `options.trace` it heeds neither clock, policy nor size."""
    from calltrace.reference import ReferenceTracing  # with a disassembler, which others need not wait for

    trace = options.trace
    with _started(options, progress) as (port, output, about):
        file = create_file(TraceOptions(output, trace.events), output, about)
        try:
            tracing = ReferenceTracing(
                port,
                file,
                trace.events,
                trace.include,
                trace.exclude,
                trace.modules,
                trace.breakpoints,
                single_step,
                progress,
            )
            with interrupts_held():
                state = tracing.run()
        except BaseException:
            file.discard()
            raise
        file.finish(state, port.exit_code())
        tell_recorded(output, progress)
        return ctypes.c_int32(port.exit_code()).value


def compare_with_reference(
    options: RunOptions, single_step: bool, keep: Path | None, progress: Progress, tell: Progress
) -> int:
    """Run a program twice, by the fast and by the exact tracer, and `tell` where their call trees differ.

    The traces are kept in the folder `keep`, if one is named. Returns 0 if they are equal, else 1.
    """
    from calltrace import difference

    heard = progress if keep else lambda line: None
    with contextlib.ExitStack() as opened:
        folder = keep or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="calltrace-")))
        stem = Path(options.program).stem
        fast, exact = (folder / f"{stem}.{kind}.calltrace" for kind in ("fast", "reference"))
        rewind = opened.enter_context(_input_kept(progress))
        progress("first run: fast")
        rewind()
        run(_with_output(options, fast), heard)
        progress("second run: reference")
        rewind()
        run_reference(_with_output(options, exact), single_step, heard)
        with tracefile.TraceFile(fast) as first, tracefile.TraceFile(exact) as second:
            found = difference.compare(first, second, ("fast", "reference"))
    for text in found.differences:
        tell(text)
    tell(
        f"{'equal' if not found.differences else 'equal elsewhere'}: {found.threads:,} threads, "
        f"{found.frames:,} frames"
    )
    return 1 if found.differences else 0


def _with_output(options: RunOptions, output: Path) -> RunOptions:
    return dataclasses.replace(options, trace=dataclasses.replace(options.trace, output=output))


@contextlib.contextmanager
def _input_kept(progress: Progress) -> Iterator[Callable[[], object]]:
    """What is given begins the standard input anew for another program; a terminal is left alone."""
    if sys.stdin is None or sys.stdin.isatty():
        yield lambda: None
        return
    progress("reading the program's input to its end, for both runs")
    with tempfile.TemporaryFile() as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
        before = os.dup(0)
        os.dup2(kept.fileno(), 0)  # the system's standard handle with it
        try:
            yield lambda: kept.seek(0)
        finally:
            os.dup2(before, 0)
            os.close(before)


@contextlib.contextmanager
def _started(options: RunOptions, progress: Progress) -> Iterator[tuple[DebuggingPort, Path, dict[str, Any]]]:
    """A program at its initial breakpoint, the trace file's path, and what the trace says of the program.

    After an error the program is ended.
    """
    program = launch.find_program(options.program, progress)
    command_line = options.command_line or subprocess.list2cmdline([options.program, *options.arguments])
    output = options.trace.output or Path(program.stem + ".calltrace")
    port = launch.create(program, command_line)
    port.symbol_files = SymbolFiles(options.symbols, progress)
    try:
        yield port, output, {"program": str(program), "command_line": command_line}
    except BaseException:
        port.terminate()
        raise
    finally:
        port.close()


def attach(options: AttachOptions, progress: Progress) -> int:
    """Record a running process for a while and leave it as it was; 0.

    The recording ends after `options.seconds`, with Ctrl+C, or with the process.
    """
    # No exception may come between what is done to a running process and what undoes it.
    with interrupts_held() as interrupts:
        port = launch.attach(options.process_id, progress)
        port.symbol_files = SymbolFiles(options.symbols, progress)
        try:
            program = port.modules()[0]
            output = options.trace.output or Path(Path(program.name).stem + ".calltrace")
            about = {"program": program.path, "process_id": options.process_id}
            tracing = Tracing(port, progress)
            with recording(tracing, options.trace, output, about, progress, tracing.stop):
                port.detach()
            progress(f"recording {program.name}; Ctrl+C ends the recording, not the program")
            try:
                tracing.wait_for_end(options.seconds, interrupts)
            finally:
                leave(port, tracing, progress, options.trace.mode)
        finally:
            port.close()
    return 0


def leave(port: Win32Port, tracing: Tracing, progress: Progress, mode: str = "trace") -> None:
    """End the recording of a running target, which goes on as untraced, or has ended; tell of the trace."""
    state, exit_code = State.STOPPED, 0
    try:
        tracing.wind_down()
        port.stop()
        tracing.stop()
        port.detach()
        tracing.wait_for_release()
    except TargetLost:
        state, exit_code = State.KILLED, port.exit_code()
    finally:
        tell_recorded(tracing.finish(state, exit_code), progress, mode)


class Tracing:
    """One target, recorded from one `start` to the next `stop`, each time into another file.

    Between them the target is as if untraced, but for the recorder's DLL, which stays, and for copies that a
    thread has still to return to; those go at one of the next stops or starts, whoever calls it. The plans of
    the modules are kept, so that only the first recording takes the time to make them.
    """

    def __init__(self, port: Port, progress: Progress) -> None:
        """Record the target of `port`, which is not touched yet; with `progress` for the user."""
        self._port = port
        self.progress = progress
        self._plans: dict[tuple[object, ...], plan.ModulePlan] = {}
        self._recorder: Recorder | None = None
        self._copied: list[Copied] = []
        # Of the recording that is under way:
        self._options = TraceOptions()
        self._file: TraceFile | None = None
        self._loads: LoadSignals | None = None
        self._slots: StartRequest | None = None
        self._counting: Counting | None = None
        self._paused = False
        self._modules = self._functions = self._sites = 0  # ids given out

    @property
    def copied(self) -> Sequence[Copied]:
        """All copies of ours in the target: being recorded, or left until nobody can return to them.

        Others than before only after `start` and `stop`.
        """
        return tuple(self._copied)

    def start(self, options: TraceOptions, file: TraceFile) -> None:
        """Record into `file` what is loaded in the stopped target of the modules asked for.

        NotTraceable, OutOfSpace or EngineError if the program itself cannot be traced; of other modules that
        cannot, the user is told. After an error `stop` takes back what was done, and `discard` the rest.
        """
        self._options, self._file, self._paused = options, file, False
        self._modules = self._functions = self._sites = 0
        if options.modules and self._port.supports(Capability.WAIT):
            self._loads = LoadSignals.create()
        if self._recorder is None:
            self._recorder = Recorder(self._port)
            if self._recorder.is_orphaned():
                self.progress("the calltrace that records this process has died: its recording ends here")
                self._end_recording(None)
            else:
                copies.free_unused(self._port, self._recorder)  # what an earlier process of ours left
        if options.mode == "graph":
            self._counting = Counting(file)
        elif options.budget:
            self._counting = Counting(file, Budget(file, options.budget, options.max_size))
        signals = self._counting.signals if self._counting else None
        self._slots = self._recorder.start(file, self._loads, options.mode, signals)
        program, *others = self._port.modules()
        if options.program:
            self._instrument_stopped(program)
        for module in others:
            if self._is_wanted(module):
                try:
                    self._instrument_stopped(module)
                except (NotTraceable, OutOfSpace) as error:
                    self.progress(f"{module.name} is left out: {error}")

    def prepare(self, options: TraceOptions) -> int:
        """Plan what `start` would instrument, and touch nothing; how many functions the patterns mean.

        Raises what `start` does about the program itself.
        """
        self._options = options
        program, *others = self._port.modules()
        chosen = self._plan(program, True).chosen if options.program else 0
        for module in others:
            if any(module_matches(pattern, module.name) for pattern in options.modules):
                with contextlib.suppress(NotTraceable):  # `start` says so
                    chosen += self._plan(module, True).chosen
        return chosen

    def wait_for_end(self, seconds: float | None = None, interrupts: Sequence[int] = ()) -> None:
        """Attend to the running target until it ends, `seconds` are over, or `interrupts` has something.

        Standalone only.
        """
        port = self._port
        assert isinstance(port, Win32Port)
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        events = (self._loads.request,) if self._loads else ()
        while not interrupts:
            left = deadline - time.monotonic()
            which = port.wait(max(0.0, min(_SLICE_SECONDS, left)), *events)
            if which == 1:
                self._answer_load()
            elif which == 0 or left <= 0:
                return
            self._heed_pause()
            if which is None and self._file and not self._file.header.tsc_hz:
                self._file.tell_frequency()  # who reads meanwhile is given seconds, not ticks

    def _heed_pause(self) -> None:
        """Pause or go on recording the running target, if another process has asked for that."""
        assert self._file is not None
        header, port = self._file.header, self._port
        pauses = header.pause == Pause.WANTED
        if not pauses and header.pause != Pause.RESUME_WANTED:
            return
        before, done = (Pause.NONE, Pause.PAUSED) if pauses else (Pause.PAUSED, Pause.NONE)
        try:
            with self._loads_answered():
                port.stop()
        except (EngineError, TargetLost):
            return  # it is tried again until nobody asks any more
        try:
            if not pauses:
                self._mark(RESUMED)
                self.resume()
            else:
                self.pause()
                self._mark(PAUSED)
                self.write_counts()
            before = done
        except TargetLost:
            return
        except CalltraceError as error:
            self.progress(f"the recording could not be {'paused' if pauses else 'resumed'}: {error}")
        finally:
            port.detach()
            header.pause = before
        self.progress("recording is paused" if header.pause == Pause.PAUSED else "recording goes on")

    @contextlib.contextmanager
    def _loads_answered(self) -> Iterator[None]:
        """Meanwhile another thread of ours answers the target's module loads.

        A thread that waits for an answer holds the loader's lock, without which no target can be stopped.
        """
        if not self._loads:
            yield
            return
        port, request, over = self._port, self._loads.request, threading.Event()
        assert isinstance(port, Win32Port)

        def answer() -> None:
            while not over.is_set():
                which = port.wait(_LAST_LOADS_SECONDS, request)
                if which == 1:
                    self._answer_load()
                elif which == 0:
                    return

        answering = threading.Thread(target=answer, name="calltrace loads")
        answering.start()
        try:
            yield
        finally:
            over.set()
            answering.join()

    def _mark(self, name: str) -> None:
        assert self._file is not None
        if not self._counting:
            mark_now(self._file, name)

    def wind_down(self) -> None:
        """Let the running target's module loads alone from now on. Standalone only.

        A thread that waits for our answer holds the loader's lock, without which no target can be stopped.
        """
        port = self._port
        assert isinstance(port, Win32Port)
        if self._loads and self._file:
            self._file.header.stop = 1
            while port.wait(_LAST_LOADS_SECONDS, self._loads.request) == 1:
                self._file.answer_load(self._loads, None)

    def stop(self) -> None:
        """Put the original bytes back into the stopped target and record nothing more."""
        if self._slots is not None:
            self._slots = None
            self._end_recording(self._file)

    def pause(self) -> None:
        """Put the original bytes back into the stopped target; only who is inside a copy still records."""
        assert self._recorder is not None
        self._paused = True
        copies.take_out(self._port, self._led_to(self._file), self.progress)
        for each in self._copied:
            each.active = False

    def resume(self) -> None:
        """Let functions of the stopped target lead to their copies again."""
        assert self._recorder is not None
        modules = {module.base: module for module in self._port.modules()}
        copied = {each.region: each for each in self._copied}
        for code in self._led_to(self._file):
            module, each = modules[code.base], copied[code.region]
            patches = copies.patches_of(self._port, code)
            patches, moves = around_threads(patches, self._standing(module), _by_rva(each))
            self._redirect(module, each, patches, moves)
        self._paused = False

    def end_undebugged(self, process_id: int) -> None:
        """End the recording of a target that the host has let go: we become its debugger for a moment.

        TargetLost, AccessRefused or EngineError if it cannot be stopped.
        """
        from concurrent import futures

        # The system knows debuggers by their threads, and the host's own must not be mistaken for us.
        with futures.ThreadPoolExecutor(1) as thread:
            thread.submit(self._end_undebugged, process_id).result()

    def _end_undebugged(self, process_id: int) -> None:
        self._port = port = launch.reopen(process_id)
        try:
            self._recorder = Recorder(port)
            self.stop()
            port.detach()
            self.wait_for_release()
        finally:
            port.close()

    def wait_for_release(self) -> None:
        """Wait until the running target has closed the trace file, so that it can be moved or deleted."""
        if self._recorder is not None:
            self._recorder.wait_for_release()

    def write_counts(self) -> None:
        """Write down what is counted as it is now, if it is. EngineError or OutOfSpace if that fails."""
        if self._counting:
            self._counting.write()

    def counts(self) -> bytes | None:
        """In mode "graph": the counts as they are now, as in the file. EngineError if memory runs out."""
        return self._counting.counted() if self._counting else None

    def finish(self, state: State, exit_code: int = 0) -> Path:
        """Complete the trace file, and tell the user what it lacks; where it is."""
        assert self._file is not None
        path = self._file.path
        self._release_loads()
        counting, self._counting = self._counting, None
        if counting:
            known = State(self._file.header.state)
            counting.finish(state if known is State.RECORDING else known)
        lost = self._file.header.units_lost
        self._file.finish(state, exit_code)
        self._file = None
        if lost:
            self.progress(f"{lost:,} events lost: the trace reached its limit, or the disk was full")
        return path

    def discard(self) -> None:
        """Give up the trace file, of which nothing can be made."""
        assert self._file is not None
        self._release_loads()
        if self._counting:
            self._counting.give_up()
            self._counting = None
        self._file.discard()
        self._file = None

    def _end_recording(self, file: TraceFile | None) -> None:
        """End the recording that the stopped target is in, ours into `file` or a dead process's."""
        port, recorder = self._port, self._recorder
        assert recorder is not None
        codes = self._led_to(file)
        answered = file.unregistered_code() if file else None
        copies.withdraw(port, recorder, codes, self.progress)
        while not recorder.stop():
            copies.withdraw(port, recorder, codes, self.progress)
        if answered and answered.region not in {code.region for code in recorder.codes()}:
            port.free(answered.region)
        copies.free_unused(port, recorder)
        left = {code.region for code in recorder.codes()}
        self._copied = [each for each in self._copied if each.region in left]
        for each in self._copied:
            each.active = False

    def _led_to(self, file: TraceFile | None) -> list[Code]:
        """The copies that jumps lead to: those registered, and what was just answered for a module's load."""
        assert self._recorder is not None
        codes = [code for code in self._recorder.codes() if code.state == CodeState.ACTIVE]
        answered = file.unregistered_code() if file else None
        if answered and answered.region not in {code.region for code in codes}:
            codes.append(answered)
        return codes

    def _is_wanted(self, module: TargetModule) -> bool:
        if not any(module_matches(pattern, module.name) for pattern in self._options.modules):
            return False
        if module.name.lower() in NEVER_TRACED:
            self.progress(f"{module.name} is left out: recording itself runs through it")
            return False
        return True

    def _answer_load(self) -> None:
        """Instrument what a thread of the running target has just loaded, and let that thread go on."""
        assert self._file is not None
        assert self._loads is not None
        module, code = self._file.loaded_module(), None
        try:
            if self._is_wanted(module):
                # Nobody can be inside: its loader still waits for us.
                code = self._instrument(module, {}, None)
        except CalltraceError as error:
            self.progress(f"{module.name} is left out: {error}")
        finally:
            self._file.answer_load(self._loads, code)

    def _instrument_stopped(self, module: TargetModule) -> None:
        assert self._recorder is not None
        self._instrument(module, self._standing(module), self._recorder.add_code)

    def _standing(self, module: TargetModule) -> dict[int, int]:
        """Where each thread of the stopped target stands, as an RVA in the module if it is in there."""
        return {thread: self._port.registers(thread).rip - module.base for thread in self._port.threads()}

    def _redirect(
        self, module: TargetModule, copied: Copied, patches: Sequence[Patch], moves: Mapping[int, int]
    ) -> None:
        """Write the jumps to copies, and let threads that stood on them go on there."""
        write_patches(self._port, module, patches)
        copied.lead_in(patches)
        for thread, rip in moves.items():
            self._port.set_registers(thread, dataclasses.replace(self._port.registers(thread), rip=rip))

    def _instrument(
        self, module: TargetModule, standing: Mapping[int, int], register: Callable[[Code], None] | None
    ) -> Code:
        """Write a module's copies, then the jumps to them; what the recorder must know of the copies.

        `standing` has the RVA of each thread that may be inside. `register` is called before the first jump.
        """
        assert self._slots is not None
        assert self._file is not None
        options, port = self._options, self._port
        # Of the program itself it was said before it was started or stopped.
        planned = self._plan(module, tell_limits=self._modules > 0)
        copied = _whole_pages(
            planned.lay_out(
                self._slots,
                options.events,
                options.clock,
                self._functions,
                self._sites,
                options.breakpoints,
                options.mode,
            )
        )
        for_handlers = self._import_patches(planned.image) if options.breakpoints else []
        size = copied + _whole_pages((planned.most_patches + len(for_handlers)) * copies.PATCH.size)
        region = port.allocate(size, module)
        try:
            made = planned.compose(region, self._modules)
            executable = _whole_pages(made.executable_size)
            wanted = list(made.patches)
            if made.breakpoint_count or options.modules:
                wanted += for_handlers
            patches, moves = around_threads(wanted, standing, _by_rva(made.copies))
            port.write(region, made.code)
            port.write(region + copied, copies.pack_patches(patches))
            port.protect(region, executable, Protection.EXECUTE_READ)
            if executable < size:
                port.protect(region + executable, size - executable, Protection.READ)
            code = Code(
                base=module.base,
                region=region,
                region_size=size,
                code_size=executable,
                table=made.table_rva,
                table_count=made.table_count,
                patches=region + copied - module.base,
                patch_count=len(patches),
                breakpoints=made.breakpoints_rva,
                breakpoint_count=made.breakpoint_count,
            )
            self._file.append(made.module_chunk)
            if self._counting:
                self._counting.modules_changed()
            if register:
                register(code)
        except BaseException:
            port.free(region)
            raise
        self._modules += 1
        self._functions += made.function_count
        self._sites += made.site_count
        self._copied.append(made.copies)
        if not self._paused:
            self._redirect(module, made.copies, patches, moves)
        instrumented, refused = sum(not each.status for each in planned.functions), sum(made.refused.values())
        self.progress(
            f"{module.name}: {instrumented:,} of {planned.functions_found:,} functions instrumented"
            + (f", {refused:,} cannot be (`info` tells why)" if refused else "")
        )
        if made.breakpoint_count:
            self.progress(
                f"{module.name}: {made.breakpoint_count:,} of them start with a breakpoint, which costs "
                "microseconds each time (--no-breakpoints leaves them alone)"
            )
        busy = len(wanted) - len(patches)
        if busy:
            self.progress(f"{module.name}: {busy:,} functions were being entered, and are left out")
        return code

    def _import_patches(self, image: Image) -> list[Patch]:
        """What lets exception handlers that the module adds come behind the one for our breakpoints."""
        theirs = export_address(self._port, "ntdll.dll", _ADDS_HANDLERS[-1]).to_bytes(8, "little")
        ours = export_address(self._port, DLL, "ct_add_vectored_handler").to_bytes(8, "little")
        return [
            (slot, theirs, ours)
            for slot, name in image.imports.items()
            if name.rpartition("!")[2] in _ADDS_HANDLERS and image.data[slot : slot + 8] == theirs
        ]

    def _plan(self, module: TargetModule, tell_limits: bool) -> plan.ModulePlan:
        """The plan of a module: that of an earlier recording, if nothing has changed."""
        options = self._options
        symbols = self._port.symbols(module)
        source = symbols.source if symbols else None
        key = (module, source, options.breakpoints, *options.include, None, *options.exclude)
        planned = self._plans.get(key)
        if planned is None or not planned.is_of(self._port.read):
            self.progress(f"{module.name}: planning {module.size / 1e6:,.1f} MB")
            image = plan.read_image(self._port.read, module)
            if tell_limits:
                preflight.tell_limits(module.name, preflight.of_module(image), self.progress)
            planned = self._plans[key] = plan.ModulePlan(image, options.include, options.exclude, symbols)
        return planned

    def _release_loads(self) -> None:
        if self._loads:
            if self._file:
                self._file.answer_load(self._loads, None)  # to a thread that asked at the last moment
            self._loads.close()
            self._loads = None


def tell_recorded(path: Path, progress: Progress, mode: str = "trace") -> None:
    """Tell where a finished trace is."""
    name = path.as_posix()  # fits a Unix shell, too, if the target runs under Wine
    verb = "top" if mode == "graph" else "tree"
    progress(f"recorded {name} ({path.stat().st_size / 1e6:,.1f} MB): calltrace {verb} {name}")


@contextlib.contextmanager
def recording(
    tracing: Tracing,
    options: TraceOptions,
    output: Path,
    about: dict[str, Any],
    progress: Progress,
    end: Callable[[], None],
) -> Iterator[None]:
    """Start a recording. If that fails, or what is done then, the target is left as `end` leaves it."""
    file = create_file(options, output, about)
    try:
        tracing.start(options, file)
        yield
    except BaseException:
        try:
            end()
        except TargetLost:
            pass
        except CalltraceError as error:
            progress(f"the program could not be left as it was: {error}")
        tracing.discard()
        raise


def create_file(options: TraceOptions, output: Path, about: dict[str, Any]) -> TraceFile:
    """A fresh trace file for `Tracing.start`; `about` goes into it.

    FileMissing, AccessRefused or OutOfSpace if it cannot be written.
    """
    info = {
        **about,
        "options": {**dataclasses.asdict(options), "output": str(output)},
        "versions": {"system": platform.platform(), "python": platform.python_version()},
    }
    clock, policy = Clock[options.clock.upper()], Policy[options.policy.replace("-", "_").upper()]
    max_size = options.max_size
    if options.mode == "graph" or options.budget:
        policy, max_size = Policy.COUNT, 0  # the target's part of the file is not what grows
    return TraceFile(output, clock, policy, max_size, info)


@contextlib.contextmanager
def interrupts_held() -> Iterator[Sequence[int]]:
    """Ctrl+C raises nothing meanwhile; the numbers of the signals that came are gathered in what is given."""
    came: list[int] = []
    numbers = [signal.SIGINT]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)
    before = [(number, signal.signal(number, lambda number, _: came.append(number))) for number in numbers]
    try:
        yield came
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _by_rva(copied: Copied) -> Callable[[int], int | None]:
    """Where the copy of the instruction at an RVA begins, as a VA."""
    return lambda rva: copied.copy(copied.base + rva)


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
