"""A recording driven by commands: inside a debugger, whose user starts, looks at and stops it at will.

The debugger stops the target and lets it go; a command comes when it stands still. What lives from command
to command is kept here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from calltrace import tracefile
from calltrace.errors import AccessRefused, CalltraceError, EngineError, TargetLost, UsageError
from calltrace.export.status import Recording, Status
from calltrace.marking import NO_ORDER, mark_now
from calltrace.model import PAUSED, RESUMED, State
from calltrace.patterns import Pattern, module_matches
from calltrace.ports import Capability, Port, TargetModule

if TYPE_CHECKING:  # whoever only reads traces in a debugger needs no more than in a shell
    from calltrace.loop.objects import Vtables
    from calltrace.loop.tracing import Climb, LoopOptions
    from calltrace.places import Copied
    from calltrace.recorder import TraceFile
    from calltrace.session import Progress, TraceOptions, Tracing


class LivePort(Port, Protocol):
    """A port that lives from command to command; with the one of a host, for the length of each."""

    def ended(self) -> int | None:
        """The exit code of the process, if it has ended."""
        ...

    def exit_code(self) -> int:
        """The exit code of a process that has ended, or is about to."""
        ...

    def debugged(self) -> bool:
        """Whether the process has a debugger still."""
        ...

    def close(self) -> None:
        """Give up what the port holds."""
        ...


class Host(Protocol):
    """What a live session needs of the debugger it runs in."""

    def port(self, known: LivePort | None) -> AbstractContextManager[LivePort]:
        """The port of the process that the debugger stands at, for one command: `known` if that is its.

        EngineError if the debugger stands at none, NotTraceable or AccessRefused if it cannot be traced.
        """
        ...

    def thread_id(self, name: str) -> int:
        """The system's id of the thread that the debugger calls so: ~1. UsageError if there is none."""
        ...

    def uninterrupted(self) -> AbstractContextManager[None]:
        """An interrupt by the user waits for the end of the block."""
        ...

    def follow_copies(self, port: LivePort | None, copied: Sequence[Copied]) -> None:
        """From now on these, and no others, are the copies in the stopped target of `port`.

        The debugger is to take their code for what it is the copy of, also while the target's calls do not
        lead there. None: nothing more is done to that target. EngineError if the debugger refuses.
        """
        ...


class LiveSession:
    """The recordings of a debugger's targets, one at a time."""

    def __init__(self, host: Host) -> None:
        """Nothing is done before a command asks for it."""
        self.paused = False
        self.depth = 0  # levels of the call tree that its user wants to see; 0: all
        self._host = host
        self._port: LivePort | None = None  # of the process that is recorded, or was recorded last
        self._tracing: Tracing | None = None  # of the same
        self._vtables: dict[int, Vtables] = {}  # by process id
        self._file: TraceFile | None = None  # of the recording under way
        self._counts_only = False  # it has no events
        self._trace: Path | None = None  # of that, or of the last one

    @property
    def recording(self) -> bool:
        """Whether a recording is under way, paused or not."""
        return self._file is not None

    @property
    def last_trace(self) -> Path | None:
        """Where the trace of the recording under way is, or the last one's; None if there is none."""
        return self._trace

    def remember(self, trace: Path | None) -> None:
        """Until something is recorded, commands without a file name read this: a trace of another session."""
        if self._tracing is None:
            self._trace = trace

    def target(self) -> AbstractContextManager[LivePort]:
        """The port of the process that the debugger stands at. Errors as of `Host.port`."""
        return self._host.port(self._port)

    def thread_id(self, name: str) -> int:
        """The system's id of a thread of the debugger. Errors as of `Host.thread_id`."""
        return self._host.thread_id(name)

    def uninterrupted(self) -> AbstractContextManager[None]:
        """As `Host.uninterrupted`: for what is to be told as well once it is done."""
        return self._host.uninterrupted()

    def start(
        self, options: TraceOptions, patterns: Sequence[str], ignored: Sequence[str], tell: Progress
    ) -> None:
        """Record the target from here on: what `patterns` mean in whichever modules, or the program.

        `ignored` are modules left out. UsageError if a recording is under way or the patterns mean nothing.
        """
        self._refuse_second(options, patterns, tell)
        with self._at_target() as port:
            tracing = self._tracing_of(port, tell)
            program, *others = port.modules()
            chosen = _with_modules(options, patterns, ignored, program, others)
            if not tracing.prepare(chosen):
                wanted = ", ".join(chosen.include) or program.name
                raise UsageError(f"no function matches {wanted}: name module!function, with *")
            output = self._output(options, program, tell)
            with self._host.uninterrupted():
                self._record(port, tracing, replace(chosen, output=output), program)
                tell(f"recording into {self._trace}")

    def stop(self, tell: Progress) -> Path:
        """End the recording, and leave the target as it was; where the trace is."""
        with self._while_recording(tell) as tracing, self._host.uninterrupted():
            tracing.stop()
            self._tell_copies(tracing)
            return self._finish(State.STOPPED)

    def reference(self, options: TraceOptions, single_step: bool, tell: Progress) -> Path:
        """Let the target run, recorded exactly, to its end or to where its user stops it; where the trace is.

        Of `options` neither clock, policy nor size count. EngineError if the debugger cannot do it.
        """
        from calltrace import session
        from calltrace.reference import ReferenceTracing

        self._refuse_second(options, (), tell)
        with self._at_target() as port:
            if not port.supports(Capability.DEBUG):
                raise EngineError("this debugger lets no command run the target")
            program = port.modules()[0]
            output = self._output(options, program, tell)
            about = {"program": program.path, "process_id": port.process_id}
            file = session.create_file(session.TraceOptions(output, options.events), output, about)
            state = State.STOPPED
            tracing = ReferenceTracing(
                port,
                file,
                options.events,
                options.include,
                options.exclude,
                options.modules,
                options.breakpoints,
                single_step,
                tell,
            )
            try:
                state = tracing.run()
            except KeyboardInterrupt:
                tell("the recording ends, since you broke in")
            except EngineError as error:
                tell(str(error))
            except BaseException:
                file.discard()
                raise
            self._trace = output
            file.finish(state, port.exit_code() if state is not State.STOPPED else 0)
        return output

    def pause(self, tell: Progress) -> None:
        """Let the target run as if untraced, for a while; frames that are open now still end in the trace."""
        with self._while_recording(tell) as tracing:
            if self.paused:
                raise UsageError("the recording is paused already: resume it, or stop it")
            with self._host.uninterrupted():
                tracing.pause()
                self.paused = True
                self._mark(PAUSED)

    def resume(self, tell: Progress) -> None:
        """Go on recording."""
        with self._while_recording(tell) as tracing:
            if not self.paused:
                raise UsageError("the recording is not paused")
            with self._host.uninterrupted():
                self._mark(RESUMED)
                tracing.resume()
                self.paused = False

    def mark(self, name: str, tell: Progress) -> None:
        """Give this moment a name, which the call tree shows in every thread."""
        with self._while_recording(tell):
            if self._counts_only:
                raise UsageError(
                    f"{NO_ORDER}: `save` the counts of now into a file, and `diff` it with later ones"
                )
            self._mark(name)

    def save(self, path: Path, tell: Progress) -> None:
        """Write the trace as it is now into another file, which is complete. UsageError if that exists."""
        trace = self.trace(tell)
        if path.exists():
            raise UsageError(f"{path} exists already: name another file")
        try:
            shutil.copyfile(trace, path)
        except OSError as error:
            raise AccessRefused(f"cannot write {path}: {error.strerror}") from None
        if self._file:
            self._file.finish_copy(path)

    def climb(self, options: LoopOptions, tell: Progress) -> Climb:
        """Let the target run until the loop is found that calls an API; where it then stands is by chance.

        A recording that is under way goes on.
        """
        from calltrace.loop.tracing import LoopTracing

        self.look(tell)
        with self._at_target() as port:
            copied = self._tracing.copied if self._tracing and port is self._port else ()
            return LoopTracing(port, options, copied, self._vtables_of(port.process_id)).run()

    def _vtables_of(self, process_id: int) -> Vtables:
        """What has been learned of the objects of this target."""
        if process_id not in self._vtables:
            self._vtables = {process_id: set()}
        return self._vtables[process_id]

    def look(self, tell: Progress) -> None:
        """Complete the trace of a target that has ended, or that the debugger has let go.

        Every command does so; a host may whenever a target is gone.
        """
        if self._port is None or self._tracing is None:
            return
        code, why = self._port.ended(), "has ended"
        if self._file and self._file.header.state == State.EXITED:  # but for its last debug event
            code = self._port.exit_code()
        if code is None and self._port.debugged():
            return
        if self.recording:
            self._tracing.progress = tell
            if code is None:
                with self._host.uninterrupted():
                    code, why = self._end_undebugged(self._tracing, self._port), "was let go by the debugger"
            trace = self._finish(State.KILLED, code or 0)
            tell(f"the recorded program {why}; its trace is {trace}")
        self._forget()

    def _end_undebugged(self, tracing: Tracing, port: LivePort) -> int | None:
        try:
            tracing.end_undebugged(port.process_id)
        except TargetLost:
            return port.ended()
        except CalltraceError as error:
            tracing.progress(f"the program could not be left as it was: {error}")
        return None

    def trace(self, tell: Progress) -> Path:
        """Where the trace of the recording under way is, or the last one's. UsageError if there is none."""
        self.look(tell)
        if self._file:
            self._file.tell_frequency()
            assert self._tracing is not None
            self._tracing.write_counts()
        if self._trace is None:
            raise UsageError(
                "nothing has been recorded in this session: start a recording, or name a trace file"
            )
        return self._trace

    def open(self) -> tracefile.TraceFile | None:
        """The trace that is there now, or None, for a glance that writes nothing. Errors as of TraceFile."""
        if self._trace is None:
            return None
        counts = self._tracing.counts() if self._tracing and self.recording else None
        trace = tracefile.TraceFile(self._trace, under_way=self.recording, counted=counts is None)
        if counts is not None:
            trace.count_as(tracefile.Graph(counts))
        return trace

    def status(self, tell: Progress) -> Status:
        """What there is to say about the recordings of this session."""
        self.look(tell)
        if self._file is None or self._port is None:
            return Status(self._trace, None)
        with tracefile.TraceFile(self.trace(tell)) as trace:
            recording = Recording(
                process_id=self._port.process_id,
                paused=self.paused,
                mode=trace.mode,
                budget=trace.budget,
                since=trace.header.created_ns / 1e9,
                size=trace.index.file_size,
                units=trace.index.units,
                lost=trace.index.lost,
                threads=len(trace.threads),
                modules=[module.name for module in trace.modules],
                marks=[mark.name for mark in trace.marks],
            )
        return Status(self._trace, recording)

    # Inside

    def _refuse_second(self, options: TraceOptions, patterns: Sequence[str], tell: Progress) -> None:
        """UsageError if a recording is under way, or a pattern is none."""
        self.look(tell)
        if self.recording:
            raise UsageError(f"a recording is under way, into {self._trace}: stop it first")
        for text in (*patterns, *options.include, *options.exclude):
            Pattern.parse(text)

    def _output(self, options: TraceOptions, program: TargetModule, tell: Progress) -> Path:
        """The trace file to write."""
        output = (options.output or _fresh(Path(program.name).stem)).absolute()
        if output.exists():
            tell(f"replacing {output}")
        return output

    def _tracing_of(self, port: LivePort, tell: Progress) -> Tracing:
        from calltrace import session

        if self._tracing is None or self._port is not port:
            self._forget()
            self._port, self._tracing = port, session.Tracing(port, tell)
        self._tracing.progress = tell
        return self._tracing

    def _record(self, port: LivePort, tracing: Tracing, options: TraceOptions, program: TargetModule) -> None:
        from calltrace import session

        assert options.output is not None
        about = {"program": program.path, "process_id": port.process_id}
        file = session.create_file(options, options.output, about)
        try:
            tracing.start(options, file)
        except BaseException:
            try:
                tracing.stop()
                self._tell_copies(tracing)
            except TargetLost:
                pass
            except CalltraceError as error:
                tracing.progress(f"the program could not be left as it was: {error}")
            tracing.discard()
            raise
        self._file, self._trace, self.paused = file, options.output, False
        self._counts_only = options.mode == "graph"
        self._tell_copies(tracing)

    def _tell_copies(self, tracing: Tracing) -> None:
        assert self._port is not None
        try:
            self._host.follow_copies(self._port, tracing.copied)
        except EngineError as error:
            tracing.progress(f"the debugger does not take what is recorded for what it is: {error}")

    def _finish(self, state: State, exit_code: int = 0) -> Path:
        assert self._tracing is not None
        self._file, self.paused = None, False
        return self._tracing.finish(state, exit_code)

    def _mark(self, name: str) -> None:
        assert self._file is not None
        assert self._tracing is not None
        if self._counts_only:
            return
        self._tracing.write_counts()
        mark_now(self._file, name)

    def _forget(self) -> None:
        if self._port is not None:
            self._host.follow_copies(None, ())
            self._port.close()
        self._port = self._tracing = None

    @contextmanager
    def _at_target(self) -> Iterator[LivePort]:
        with self._host.port(self._port) as port:
            if self.recording and port is not self._port:
                assert self._port is not None
                raise EngineError(
                    f"process {self._port.process_id} is being recorded, but the debugger stands at process "
                    f"{port.process_id}"
                )
            yield port

    @contextmanager
    def _while_recording(self, tell: Progress) -> Iterator[Tracing]:
        self.look(tell)
        if not self.recording:
            raise UsageError("no recording is under way: start one first")
        assert self._tracing is not None
        with self._at_target():
            self._tracing.progress = tell
            yield self._tracing


def _with_modules(
    options: TraceOptions,
    patterns: Sequence[str],
    ignored: Sequence[str],
    program: TargetModule,
    others: Sequence[TargetModule],
) -> TraceOptions:
    """The options that trace what `patterns` mean wherever it is loaded, but for `ignored` modules."""
    meant = [Pattern.parse(text) for text in patterns]
    modules = [
        module.name
        for module in others
        if any(_means_module(pattern, module) for pattern in meant)
        or any(module_matches(text, module.name) for text in options.modules)
    ]
    in_program = not meant or any(
        _means_module(pattern, program) or (pattern.module is None and pattern.va is None)
        for pattern in meant
    )
    return replace(
        options,
        include=[*options.include, *patterns],
        modules=[name for name in modules if not any(module_matches(text, name) for text in ignored)],
        program=in_program and not any(module_matches(text, program.name) for text in ignored),
    )


def _means_module(pattern: Pattern, module: TargetModule) -> bool:
    """Whether the pattern names this module, or an address in it."""
    if pattern.va is not None:
        return module.base <= pattern.va < module.end
    return pattern.module is not None and pattern.matches_module(module.name)


def _fresh(stem: str) -> Path:
    """Where the trace of a program goes if its user names no file: none is ever written over."""
    folder = Path(os.environ.get("LOCALAPPDATA") or tempfile.gettempdir()) / "calltrace"
    folder.mkdir(parents=True, exist_ok=True)
    path, number = folder / f"{stem}.calltrace", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.calltrace"
    return path
