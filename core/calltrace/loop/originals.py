"""The target as if nothing in it were instrumented, while some of it is: for whoever debugs it meanwhile.

Copies of functions are shown as what they are copies of: threads in them stand at the original instruction,
breakpoints on that stop them, and the jumps to copies are not seen in the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from calltrace.places import Copied, places
from calltrace.ports import DebugEvent, DebugEventKind, Port, Registers

_MOST_STEPS = 1000  # through the code of one instruction's copy


@dataclass
class _Step:
    """One instruction that a thread is let go for, which may be many in a copy."""

    start: int  # VA, of the original
    left: int = _MOST_STEPS
    returns_to: set[tuple[int, int]] = field(default_factory=set)  # RIP, RSP behind a call of the recorder's


class Originals:
    """A port on a target of which some functions are copied; all but code is passed on to the real one."""

    def __init__(self, port: Port, copied: Sequence[Copied]) -> None:
        """`copied` are all copies in the target, which get neither more nor fewer meanwhile."""
        self._port, self._copied = port, copied
        self._places: dict[int, list[int]] = {}  # of breakpoints: VAs at which they really stand
        self._told = 0  # thread of the event told last
        self._steps: dict[int, _Step] = {}  # by thread
        self._arrived: dict[int, int] = {}  # where threads came by a step, in front of the breakpoint there

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def original(self, address: int) -> int:
        """The original of an address in a copy; other addresses as they are."""
        for each in self._copied:
            if address in each:
                found = each.original(address)
                return address if found is None else found
        return address

    def read(self, address: int, size: int) -> bytes:
        """As of the port, without the jumps to copies."""
        data = self._port.read(address, size)
        for each in self._copied:
            data = each.without_jumps(address, data)
        return data

    def registers(self, thread: int) -> Registers:
        """As of the port, with RIP in the original."""
        found = self._port.registers(thread)
        return replace(found, rip=self.original(found.rip))

    def set_breakpoints(self, addresses: Iterable[int]) -> None:
        """As of the port, on the instructions at these VAs wherever they run."""
        fresh = {
            address: places(self._copied, address) for address in addresses if address not in self._places
        }
        self._port.set_breakpoints({place for each in fresh.values() for place in each})
        self._places.update(fresh)

    def clear_breakpoints(self, addresses: Iterable[int]) -> None:
        """As of the port."""
        gone = {place for address in addresses for place in self._places.pop(address, ())}
        self._port.clear_breakpoints(gone.difference(*self._places.values()))

    def go(self, step: bool = False, over: Callable[[], bool] | None = None) -> DebugEvent:
        """As of the port; a step is one through the original instruction."""
        if step:
            self._steps[self._told] = _Step(self.registers(self._told).rip)
        while True:
            event = self._port.go(step, over)
            step = False
            self._told = event.thread
            if event.kind not in (DebugEventKind.BREAKPOINT, DebugEventKind.STEP):
                self._steps.pop(event.thread, None)
                return event
            begun = self._steps.get(event.thread)
            if begun:
                step = self._is_within(event.thread, begun)
                if step or begun.returns_to:
                    continue
                del self._steps[event.thread]
            place = self.original(event.address)
            if event.kind is DebugEventKind.STEP:
                if event.address not in self._places.get(place, (place,)):
                    self._arrived[event.thread] = place
            elif self._arrived.pop(event.thread, None) == place:
                continue  # it was told of when it came
            return replace(event, address=place)

    def _is_within(self, thread: int, step: _Step) -> bool:
        """Is a thread to make one more step? If not, and it is to return first, the step says where to."""
        registers = self._port.registers(thread)
        if step.returns_to:
            if (registers.rip, registers.rsp) not in step.returns_to:
                return False
            self._forget_return(step)
        if not any(registers.rip in each for each in self._copied):
            return False
        if self.original(registers.rip) == registers.rip:  # what the recorder is called through
            back = int.from_bytes(self._port.read(registers.rsp, 8), "little")
            step.returns_to.add((back, registers.rsp + 8))
            self._port.set_breakpoints([back])
            return False
        step.left -= 1
        return self.original(registers.rip) == step.start and step.left > 0

    def _forget_return(self, step: _Step) -> None:
        [(back, _)] = step.returns_to
        step.returns_to.clear()
        others = (each.returns_to for each in self._steps.values())
        if not any(back == place for each in others for place, _ in each) and not any(
            back in stand for stand in self._places.values()
        ):
            self._port.clear_breakpoints([back])
