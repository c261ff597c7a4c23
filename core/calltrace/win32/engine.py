"""What a port needs of the engine of a debugger that has the target, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

# The names of a thread's registers here, as the debugger's `r` has them.
INTEGER_REGISTERS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
REGISTERS = [*INTEGER_REGISTERS, "efl"]


@dataclass(frozen=True)
class Stop:
    """Why a target stands still: its last debug event."""

    process: int  # system's id
    thread: int  # system's id
    code: int  # of an exception, a breakpoint's and a step's too; 0 for all other events
    first_chance: bool = True  # before the program's handlers were asked


class Engine(Protocol):
    """A debugger's engine. Threads are named by the system's ids; EngineError if it refuses something."""

    def begin(self) -> None:
        """Be ready for the other methods; a command of the debugger has begun."""
        ...

    def end(self) -> None:
        """The command ends: leave nothing in the engine that works on the target's events."""
        ...

    def stop_event(self) -> Stop | None:
        """Why the target stands still; None while it runs, or if there is none."""
        ...

    def threads(self) -> list[int]:
        """The threads of the stopped process."""
        ...

    def registers(self, thread: int) -> dict[str, int]:
        """The REGISTERS of a thread. AccessRefused if there is no such thread."""
        ...

    def set_registers(self, thread: int, values: Mapping[str, int]) -> None:
        """Set some of a thread's REGISTERS. AccessRefused if there is no such thread."""
        ...

    def current_thread(self) -> int:
        """The thread that the user has chosen."""
        ...

    def select_thread(self, thread: int) -> None:
        """Let the user find `thread` chosen."""
        ...

    def go(self, handled: bool) -> None:
        """Let the target run to its next event; is the exception it stands at handled?"""
        ...

    def break_in(self) -> None:
        """Stop the running target; from any thread of this process."""
        ...
