"""What the core needs of a host: small protocols that every port fulfils and one contract suite holds to.

A port stands for one target process. Addresses are VAs in the target, sizes are bytes, threads are named by
the system's thread ids. "Stopped" means that no thread of the target runs. Nothing but the classes of
`calltrace.errors` is raised across a port: `TargetLost` by any method once the process is gone, and what each
method names besides.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


class Capability(enum.Enum):
    """What a host may or may not be able to do; the core asks, and never looks at who the host is."""

    STOP = "stop"  # stop a running target and let it run again, without the user
    WAIT = "wait"  # wait beside the running target, and so answer its module loads


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


class Port(Memory, Modules, Threads, Control, Protocol):
    """One target process, as the core sees it."""
