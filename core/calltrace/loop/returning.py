"""Climbing by returns: from a return address the code is followed to what returns, and so on, level by level.

No unwind data are needed. One turn of the loop leads from the API to the loop's function; that a function is
the loop's shows when it makes the same call again before it has returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from calltrace.errors import AccessRefused
from calltrace.loop.activations import Activation
from calltrace.loop.callsites import CallSites
from calltrace.loop.code import Code
from calltrace.loop.places import Places
from calltrace.loop.watch import Step, Watch
from calltrace.ports import Port, Registers


@dataclass
class _Awaited:
    """A function that has been returned into, and is to return itself."""

    activation: Activation
    sp: int  # the stack pointer at its calls
    exits: set[int] = field(default_factory=set)  # VAs of its instructions that return
    pointer_jumps: set[int] = field(default_factory=set)
    back: int = 0  # VA that the hit of the API returns to which it called, until it does


class ByReturns:
    """Makes activations of what is returned to."""

    def __init__(
        self,
        port: Port,
        places: Places,
        code: Code,
        sites: CallSites,
        watch: Watch,
        tell: Callable[[str], None],
    ) -> None:
        self._port, self._places, self._code, self._sites = port, places, code, sites
        self._watch, self._tell = watch, tell
        self._awaited: dict[int, list[_Awaited]] = {}  # of each thread, the innermost last

    def hit(self, thread: int, registers: Registers) -> Activation:
        """The thread is about to call the API; the activation of that, which has its parent."""
        activation = Activation(thread, registers.rip)
        self._goes_on(thread, registers.rsp, activation)
        return activation

    def ended(self, thread: int) -> None:
        """The thread has ended."""
        self._awaited.pop(thread, None)

    def _goes_on(self, thread: int, slot: int, hit: Activation | None) -> None:
        """What returns by the address at VA `slot` has been called by the function it returns to."""
        awaited = self._awaited.setdefault(thread, [])
        gone = [each.activation for each in awaited if each.sp < slot + 8]
        for inner, outer in zip(gone[1:], gone):
            if inner.parent is None:  # it was left without our seeing it, as by a jump
                outer.called(inner, 0)
        if hit and gone:
            gone[0].called(hit, 0)
        child = gone[0] if gone else hit
        awaited[:] = [each for each in awaited if each.sp >= slot + 8]
        parent = awaited[-1] if awaited and awaited[-1].sp == slot + 8 else None
        if child is None or child.parent:
            return
        if parent and parent.back:  # the API itself, which has called what led to another hit of it
            for inner in child.children:
                parent.activation.children[-1].called(inner, inner.site)
            parent.back = 0
            return
        try:
            back = self._places.original(int.from_bytes(self._port.read(slot, 8), "little"))
        except AccessRefused:
            return
        site = self._sites.before(back, child.place)
        if site is None:
            self._tell(
                f"{self._places.place(child.place)} was not called from {self._places.place(back)}, which "
                "is on top of the stack: nothing is known beyond it"
            )
            return
        if parent is None:
            parent = _Awaited(Activation(thread, site, sp=slot + 8), slot + 8)
            awaited.append(parent)
        parent.activation.place = site
        parent.activation.called(child, site)
        if child is hit:
            parent.back = back
            self._watch.at([back], self._api_returned)
        self._follow(parent, back)

    def _api_returned(self, thread: int, registers: Registers) -> None:
        for awaited in self._awaited.get(thread, ()):
            if (awaited.sp, awaited.back) == (registers.rsp, registers.rip):
                awaited.back = 0

    def _follow(self, awaited: _Awaited, start: int) -> None:
        followed = self._code.follow(start, self._places.function_at)
        awaited.exits |= followed.exits
        awaited.pointer_jumps |= followed.pointer_jumps
        self._watch.at(followed.exits, self._returns)
        self._watch.at(followed.pointer_jumps, self._jumps)

    def _returns(self, thread: int, registers: Registers) -> None:
        ending = self._ending(thread, registers.rsp)
        if ending and registers.rip in ending.exits:
            self._goes_on(thread, registers.rsp, None)

    def _ending(self, thread: int, sp: int) -> _Awaited | None:
        """The outermost of the functions awaited that lie below the stack slot at `sp`."""
        return next((each for each in self._awaited.get(thread, ()) if each.sp < sp + 8), None)

    def _jumps(self, thread: int, registers: Registers) -> Step | None:
        ending = self._ending(thread, registers.rsp)
        if ending is None or registers.rip not in ending.pointer_jumps:
            return None

        def landed(thread: int, registers: Registers) -> None:
            self._follow(ending, registers.rip)

        return landed
