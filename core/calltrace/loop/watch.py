"""Runs a target from breakpoint to breakpoint, and does at each what was asked for."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from calltrace.ports import DebugEventKind, Port, Registers

# Called with the thread and its registers; what it gives back is called where the thread stands after the
# one instruction.
Step = Callable[[int, Registers], None]
Action = Callable[[int, Registers], "Step | None"]


class Outcome(enum.Enum):
    """Why a watch is over."""

    DONE = enum.auto()
    OVER = enum.auto()  # the time, or by the user
    ENDED = enum.auto()  # the target has


class Watch:
    """What is to be done at which address; a breakpoint at each."""

    def __init__(self, port: Port, over: Callable[[], bool]) -> None:
        """`over` says whether the time is up; it is asked some times a second."""
        self._port = port
        self._over = over
        self._actions: dict[int, list[Action]] = {}
        self._stepping: dict[int, list[Step]] = {}
        self.loads: list[Callable[[], None]] = []  # called when modules have come or gone
        self.exits: list[Callable[[int], None]] = []  # called with a thread that has ended

    def at(self, addresses: Iterable[int], action: Action) -> None:
        """Do `action` whenever a thread comes to one of these VAs. AccessRefused if it cannot be watched."""
        wanted = set(addresses)
        self._port.set_breakpoints(wanted.difference(self._actions))
        for address in wanted:
            actions = self._actions.setdefault(address, [])
            if action not in actions:
                actions.append(action)

    def no_more_at(self, addresses: Iterable[int], action: Action) -> None:
        """Do `action` there no more."""
        bare = []
        for address in addresses:
            actions = self._actions.get(address, [])
            if action in actions:
                actions.remove(action)
                if not actions:
                    del self._actions[address]
                    bare.append(address)
        if bare:
            self._port.clear_breakpoints(bare)

    def forget(self, is_lost: Callable[[int], bool]) -> None:
        """Breakpoints at these VAs have gone with their modules."""
        for address in [address for address in self._actions if is_lost(address)]:
            del self._actions[address]

    def clear(self) -> None:
        """Leave no breakpoint behind."""
        if self._actions:
            self._port.clear_breakpoints(self._actions)
            self._actions.clear()

    def run(self, done: Callable[[], bool]) -> Outcome:
        """Let the target run until `done` says true, which is asked after whatever was done."""
        step = False
        while not done():
            if self._over():
                return Outcome.OVER
            event = self._port.go(step, self._over)
            step = False
            if event.kind is DebugEventKind.PROCESS_EXIT:
                self._actions.clear()
                return Outcome.ENDED
            if event.kind is DebugEventKind.INTERRUPT:
                return Outcome.OVER
            if event.kind in (DebugEventKind.MODULE_LOAD, DebugEventKind.MODULE_UNLOAD):
                for tell in self.loads:
                    tell()
            elif event.kind is DebugEventKind.THREAD_EXIT:
                self._stepping.pop(event.thread, None)
                for told in self.exits:
                    told(event.thread)
            elif event.kind is DebugEventKind.EXCEPTION:
                self._stepping.pop(event.thread, None)
            elif event.kind in (DebugEventKind.BREAKPOINT, DebugEventKind.STEP):
                step = self._arrive(event.thread)
        return Outcome.DONE

    def _arrive(self, thread: int) -> bool:
        """Do what there is to do where `thread` stands; is it to execute one instruction only?"""
        registers = self._port.registers(thread)
        for after in self._stepping.pop(thread, ()):
            after(thread, registers)
        steps = [action(thread, registers) for action in list(self._actions.get(registers.rip, ()))]
        wanted = [step for step in steps if step]
        if wanted:
            self._stepping[thread] = wanted
        return bool(wanted)
