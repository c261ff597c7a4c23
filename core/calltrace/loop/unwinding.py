"""Climbing by stack walks: what still runs at the next hit was not called anew.

That a frame lies where one lay before does not tell whether it is the same: a loop that calls a function
leaves the same stack each time. So the return addresses of a walk are watched until the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from calltrace.errors import AccessRefused
from calltrace.loop.activations import Activation
from calltrace.loop.callsites import CallSites
from calltrace.loop.places import Places
from calltrace.loop.unwind import Frame, Unwinder
from calltrace.loop.watch import Watch
from calltrace.ports import Port, Registers

_STACK_BASE = 8  # NT_TIB.StackBase


@dataclass
class _Live:
    slot: int  # VA of its return address on the stack
    back: int  # that return address
    activation: Activation


class ByUnwinding:
    """Makes activations of the stacks at successive hits."""

    def __init__(
        self, port: Port, places: Places, sites: CallSites, watch: Watch, tell: Callable[[str], None]
    ) -> None:
        self._port, self._places, self._sites, self._watch, self._tell = port, places, sites, watch, tell
        self._unwinder = Unwinder(port.read, places.table_at, places.original)
        self._stacks: dict[int, list[_Live]] = {}  # of each thread, the outermost first
        self._watched: dict[int, int] = {}  # return addresses: how many live frames have them

    def hit(self, thread: int, registers: Registers) -> Activation:
        """The thread is about to call the API; the activation of that, under all that led to it."""
        walk = self._unwinder.walk(registers, self._top(thread))
        frames = walk.frames[::-1]
        if not frames:
            return Activation(thread, registers.rip)
        if walk.incomplete:
            self._tell(
                f"the stack is known up to {self._places.place(frames[0].back)} only: {walk.incomplete}"
            )
        live = self._stacks.setdefault(thread, [])
        start = 0
        if walk.incomplete:  # its outermost frame may be one further in than that of the walk before
            start = next((at for at, each in enumerate(live) if _is_same(each, frames[0])), 0)
        kept = start
        while kept < len(live) and kept - start < len(frames) and _is_same(live[kept], frames[kept - start]):
            frame = frames[kept - start]  # in which another function may run now, by a jump
            live[kept].activation.place = frame.registers.rip - (frame is not frames[-1])
            kept += 1
        self._forget(thread, kept)
        above = live[-1].activation if live else self._root(thread, frames)
        fresh = frames[kept - start :]
        if not fresh:  # the API was jumped to by what was called before it
            jumped = Activation(thread, registers.rip)
            above.called(jumped, 0)
            return jumped
        for frame in fresh:
            activation = Activation(thread, frame.registers.rip - (frame is not frames[-1]))
            site = self._sites.before(frame.back, activation.place)
            above.sp = frame.slot + 8
            above.called(activation, frame.back if site is None else site)
            live.append(_Live(frame.slot, frame.back, activation))
            self._watched[frame.back] = self._watched.get(frame.back, 0) + 1
            above = activation
        self._watch.at([frame.back for frame in fresh if self._places.is_code(frame.back)], self._returned)
        return above

    def ended(self, thread: int) -> None:
        """The thread has ended."""
        self._forget(thread, 0)

    def _top(self, thread: int) -> int:
        try:
            base = self._port.read(self._port.teb(thread) + _STACK_BASE, 8)
        except AccessRefused:
            return 1 << 64
        return int.from_bytes(base, "little")

    def _root(self, thread: int, frames: list[Frame]) -> Activation:
        """The function that called the outermost frame known."""
        return Activation(thread, frames[0].back - 1)

    def _returned(self, thread: int, registers: Registers) -> None:
        for at, each in enumerate(self._stacks.get(thread, ())):
            if each.back == registers.rip and each.slot + 8 == registers.rsp:
                self._forget(thread, at)
                return

    def _forget(self, thread: int, kept: int) -> None:
        """All frames of the thread but the `kept` outermost are gone."""
        live = self._stacks.get(thread, [])
        bare = []
        for each in live[kept:]:
            self._watched[each.back] -= 1
            if not self._watched[each.back]:
                del self._watched[each.back]
                bare.append(each.back)
        del live[kept:]
        self._watch.no_more_at(bare, self._returned)


def _is_same(live: _Live, frame: Frame) -> bool:
    return (live.slot, live.back) == (frame.slot, frame.back)
