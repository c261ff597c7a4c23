"""Which call a return address belongs to, and where that call leads."""

from __future__ import annotations

from calltrace.loop.code import Code, Followed, Instruction
from calltrace.loop.places import Places
from calltrace.loop.watch import Step, Watch
from calltrace.ports import Registers


class CallSites:
    """The call instructions of one climb. Addresses are VAs."""

    def __init__(self, code: Code, places: Places, watch: Watch) -> None:
        self._code = code
        self._places = places
        self._watch = watch
        self._functions: dict[int, Followed] = {}  # by start
        self._entries: dict[int, set[int]] = {}  # by site: where calls through pointers were seen to lead

    def before(self, back: int, callee: int) -> int | None:
        """The call that returns to `back` and can have reached the function at `callee`; None: there is none.

        A call through a pointer is watched from now on, to see where it leads.
        """
        start = self._places.function_at(back - 1)
        candidates = self._code.call_before(back)
        if start is not None:
            known = self._function(start).instructions
            # A byte of an operand may look like the beginning of a shorter call.
            candidates = [each for each in candidates if each.address in known] or candidates
        wanted = self._places.function_at(callee)
        ranked = sorted(candidates, key=lambda each: self._unlikeliness(each, callee, wanted))
        if not ranked or self._unlikeliness(ranked[0], callee, wanted) == _NEVER:
            return None
        site = ranked[0]
        if site.target is None and site.address not in self._entries:
            self._entries[site.address] = set()
            self._watch.at([site.address], self._step_in)
        return site.address

    def entry(self, site: int) -> list[int]:
        """Where the call at `site` leads, as far as that is known: its target, and on along jumps."""
        instruction = self._code.at(site)
        seen = self._entries.get(site)
        if seen:
            return sorted(seen) if len(seen) > 1 else self._jumped([*seen])
        return self._code.reached(instruction) if instruction else []

    def _jumped(self, entries: list[int]) -> list[int]:
        first = self._code.at(entries[0])
        return entries + (self._code.reached(first) if first and first.size and _jumps(first) else [])

    def watch_entry(self, site: int) -> None:
        """See where the call at `site` leads, whatever it is."""
        self._entries.setdefault(site, set())
        self._watch.at([site], self._step_in)

    def _unlikeliness(self, call: Instruction, callee: int, function: int | None) -> int:
        reached = self._code.reached(call)
        if callee in reached or (function is not None and function in reached):
            return 0
        if reached and callee in self._function(reached[-1]).instructions:
            return 0
        if not reached:
            return 1  # through a register, or a pointer in one
        if call.target is None:
            return 2  # through a pointer that has changed since, or to a function that jumps on
        return 3 if self._function(reached[-1]).pointer_jumps else _NEVER

    def _function(self, start: int) -> Followed:
        known = self._functions.get(start)
        if known is None:
            known = self._functions[start] = self._code.follow(start, self._places.function_at)
        return known

    def _step_in(self, thread: int, registers: Registers) -> Step:
        site = registers.rip

        def arrived(thread: int, registers: Registers) -> None:
            self._entries[site].add(registers.rip)

        return arrived


_NEVER = 4


def _jumps(instruction: Instruction) -> bool:
    return instruction.target is not None or instruction.pointer is not None
