"""What the core needs of a host: small protocols that every port fulfils and one contract suite holds to.

A port stands for one target process. Addresses are VAs in the target, sizes are bytes, threads are named by
the system's thread ids. "Stopped" means that no thread of the target runs. Nothing but the classes of
`calltrace.errors` is raised across a port: `TargetLost` by any method once the process is gone, and what each
method names besides.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Capability(enum.Enum):
    """What a host may or may not be able to do; the core asks, and never looks at who the host is."""

    STOP = "stop"  # stop a running target and let it run again, without the user
    WAIT = "wait"  # wait beside the running target, and so answer its module loads
    DEBUG = "debug"  # breakpoints and single steps


class Protection(enum.Enum):
    """Access to the pages of a range that was allocated through the port."""

    READ = "read"
    READ_WRITE = "read-write"
    EXECUTE_READ = "execute-read"


@dataclass(frozen=True)
class TargetModule:
    """A module mapped in the target."""

    base: int  # VA
    size: int  # SizeOfImage, bytes
    path: str  # as the target's system writes it

    @property
    def name(self) -> str:
        """The file name without its folder."""
        return self.path.replace("/", "\\").rsplit("\\", 1)[-1]

    @property
    def end(self) -> int:
        """The VA behind the last byte."""
        return self.base + self.size


@dataclass(frozen=True)
class ModuleSymbols:
    """What a host knows of the names of a module's functions, besides what the module itself tells."""

    source: str  # what they are read from, for the user: a PDB's path; another if the names may be others
    # Of the functions at these RVAs: the names of those that have one, as people read them (demangled).
    names: Callable[[Sequence[int]], Mapping[int, str]]


@dataclass(frozen=True)
class Registers:
    """A stopped thread's instruction pointer and integer registers."""

    rip: int
    rsp: int
    rax: int = 0
    rcx: int = 0
    rdx: int = 0
    rbx: int = 0
    rbp: int = 0
    rsi: int = 0
    rdi: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0


class DebugEventKind(enum.Enum):
    """What can end a run of a debugged target."""

    BREAKPOINT = "breakpoint"  # a thread came to a breakpoint: `address`; nothing there has been executed
    STEP = "step"  # a thread has executed the one instruction it was let go for, and stands at `address`
    EXCEPTION = "exception"  # a thread raised `code` at `address`; it goes to the program's own handlers
    THREAD_START = "thread start"  # before the thread's first instruction
    THREAD_EXIT = "thread exit"  # with exit code `code`; the thread is none of the target's any more
    MODULE_LOAD = "module load"  # a module was mapped at `address`; it need not be relocated yet
    MODULE_UNLOAD = "module unload"  # the module at `address` was unmapped, and the breakpoints in it with it
    PROCESS_EXIT = "process exit"  # with exit code `code`; the target is lost
    INTERRUPT = "interrupt"  # the run was over by the caller's wish, or the user's; of no thread


@dataclass(frozen=True)
class DebugEvent:
    """Why a debugged target stopped."""

    kind: DebugEventKind
    thread: int
    address: int = 0  # VA
    code: int = 0
    first_chance: bool = True  # of an exception: before the program's handlers were asked


class Memory(Protocol):
    """The target's address space; usable while the target runs, too."""

    def read(self, address: int, size: int) -> bytes:
        """The program's own bytes: a host hides its breakpoints. AccessRefused if any is unreadable."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Write `data` whatever the protection of its pages, restore that, and read the bytes back.

        AccessRefused if the bytes cannot be written or do not stand there afterwards.
        """
        ...

    def allocate(self, size: int, above: TargetModule | None = None) -> int:
        """The VA of `size` fresh zero bytes, READ_WRITE and 64 KB-aligned.

        With `above` the range lies behind that module and ends within 2 GB of its base, so that module and
        range reach each other by 32-bit displacements. OutOfSpace if there is none.
        """
        ...

    def protect(self, address: int, size: int, protection: Protection) -> None:
        """Set the access to whole pages of an allocated range. AccessRefused if the system does not."""
        ...

    def free(self, address: int) -> None:
        """Give back a whole range that `allocate` returned, to whichever port of this target."""
        ...

    def writable(self) -> Iterator[tuple[int, int]]:
        """Start and end of each range that is committed, writable, and not shared: heaps, stacks, modules'.

        In ascending order; ranges may touch.
        """
        ...


class Modules(Protocol):
    """What is mapped in the target."""

    def modules(self) -> list[TargetModule]:
        """All modules as of the last stop, the program itself first."""
        ...


class Symbols(Protocol):
    """What its host calls the target's functions."""

    def symbols(self, module: TargetModule) -> ModuleSymbols | None:
        """The host's symbols of a module, loaded if need be; None if it has none but the module's own.

        The module's exports, and symbol tables that are part of its file, are read by us.
        """
        ...


class Threads(Protocol):
    """The threads of a stopped target. Each method raises EngineError while it runs."""

    def threads(self) -> list[int]:
        """The ids of all threads that have not ended."""
        ...

    def registers(self, thread: int) -> Registers:
        """Where `thread` stands. AccessRefused if it cannot be asked."""
        ...

    def set_registers(self, thread: int, registers: Registers) -> None:
        """Let `thread` go on with these. AccessRefused if they cannot be set."""
        ...

    def teb(self, thread: int) -> int:
        """The VA of the thread environment block of `thread`. AccessRefused if it cannot be asked."""
        ...

    def call(self, function: int, *arguments: int) -> int:
        """Call the function at VA `function` on the thread the target was stopped on; its 64-bit result.

        At most four integer arguments. All registers are as before afterwards, and the target is stopped.
        EngineError if the function ends in an exception or does not come back in time; after the latter the
        target runs.
        """
        ...


class Debugging(Protocol):
    """What a debugger does with its user's bp, bc, g and t (Capability.DEBUG), on a target that is stopped.

    Each method raises EngineError while the target runs. So does `Threads.call` while breakpoints are set.
    """

    def set_breakpoints(self, addresses: Iterable[int]) -> None:
        """Stop every thread that comes to one of these VAs; those that have a breakpoint keep it.

        AccessRefused if one cannot be set.
        """
        ...

    def clear_breakpoints(self, addresses: Iterable[int]) -> None:
        """Take away the breakpoints at these VAs; harmless where there is none."""
        ...

    def vectors(self, thread: int) -> bytes:
        """The registers XMM0 to XMM15 of `thread`, 16 bytes each. AccessRefused if it cannot be asked."""
        ...

    def go(self, step: bool = False, over: Callable[[], bool] | None = None) -> DebugEvent:
        """Let all threads run on to the next event, and stop again.

        While nothing happens `over` is asked some times a second; once it is true, the target is stopped by
        an INTERRUPT. Events may still come before that, so that it is told of in a later run.

        With `step` the thread of the event returned last executes one instruction, and a STEP tells of it,
        unless the instruction raises an exception; other threads run meanwhile, and their events may come
        first. A thread executes the instruction it stands at even if a breakpoint is there, and no other
        thread slips past that breakpoint meanwhile. Every arrival at a breakpoint is told of once: by a STEP
        if one was asked for. TargetLost after PROCESS_EXIT.
        """
        ...


class Control(Protocol):
    """Stopping and letting go."""

    process_id: int

    def supports(self, capability: Capability) -> bool:
        """Whether this host can do it; the methods of a capability it lacks raise EngineError."""
        ...

    def stop(self) -> None:
        """Stop the running target (Capability.STOP). EngineError if it does not stop in time."""
        ...

    def detach(self) -> None:
        """Let a stopped target run as if it had never been stopped. Harmless on a running or lost target."""
        ...

    def share_handle(self, handle: int) -> int:
        """Duplicate a handle of this process into the target, with the same access; its value there."""
        ...


class Port(Memory, Modules, Symbols, Threads, Debugging, Control, Protocol):
    """One target process, as the core sees it."""
