"""A whole turn of a loop that has been found, to see all that its function calls in a turn.

Of these calls one may be the frame function: made once per turn, with all that is drawn beneath it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from calltrace.loop.activations import Activation
from calltrace.loop.callsites import CallSites
from calltrace.loop.code import Followed, Kind, cycle
from calltrace.loop.result import Candidate
from calltrace.loop.watch import Watch
from calltrace.ports import Registers


class Survey:
    """Watches the calls of one activation, from one pass of the call that tells turns to the next."""

    def __init__(
        self,
        owner: Activation,
        code: Followed,
        watch: Watch,
        sites: CallSites,
        api: int,
        draws: Collection[int],
    ) -> None:
        """`code` is that of the loop's function; `api` and `draws` are VAs of functions to count."""
        self.owner, self.head = owner, owner.rounds()[0]
        self._watch, self._sites = watch, sites
        self._api, self._draws = api, draws
        head = code.instructions[self.head]
        self._calls = sorted(
            address
            for address in cycle(code, head.behind, self.head)
            if code.instructions[address].kind is Kind.CALL
        )
        self._exits = code.exits
        self._passes = 0
        self._is_left = False
        self._open: Candidate | None = None
        self._seen: dict[int, Candidate] = {}  # by site, in the order of the turn

    @property
    def is_over(self) -> bool:
        """Has it seen a whole turn, or that there will be none?"""
        return self._passes > 1 or self._is_left

    def begin(self) -> None:
        """Watch, when the target runs on."""
        for site in self._calls:
            self._sites.watch_entry(site)
        self._watch.at(self._calls, self._called)
        self._watch.at(self._exits, self._returned)
        self._watch.at([self._api], self._hit)
        self._watch.at(self._draws, self._drawn)

    def end(self) -> None:
        """Watch no more."""
        self._watch.no_more_at(self._calls, self._called)
        self._watch.no_more_at(self._exits, self._returned)
        self._watch.no_more_at([self._api], self._hit)
        self._watch.no_more_at(self._draws, self._drawn)

    def candidates(self) -> list[Candidate]:
        """The calls of the turn, with the frame function chosen, if there is one; none of half a turn."""
        if self._passes < 2:
            return []
        found = list(self._seen.values())
        for each in found:
            reached = self._sites.entry(each.site)
            each.function = reached[-1] if reached else 0
            each.entered = reached[0] if reached and reached[0] != each.function else 0
        choose(found, self._api, {child.site for child in self.owner.children})
        return found

    def _called(self, thread: int, registers: Registers) -> None:
        if self.is_over or thread != self.owner.thread or registers.rsp != self.owner.sp:
            return
        if registers.rip == self.head:
            self._passes += 1
        if self._passes == 1:
            fresh = Candidate(registers.rip, 0, 0, 0, 0, 0)
            self._open = self._seen.setdefault(registers.rip, fresh)
            self._open.calls += 1

    def _returned(self, thread: int, registers: Registers) -> None:
        if thread == self.owner.thread and registers.rsp >= self.owner.sp:
            self._is_left = True

    def _hit(self, thread: int, registers: Registers) -> None:
        if self._open and self._passes == 1 and thread == self.owner.thread:
            self._open.hits += 1

    def _drawn(self, thread: int, registers: Registers) -> None:
        if self._open and self._passes == 1:
            if thread == self.owner.thread:
                self._open.draws += 1
            else:
                self._open.draws_elsewhere += 1


def choose(calls: Sequence[Candidate], api: int, led: Collection[int]) -> None:
    """Say of each call of a turn whether it is the frame function, and why.

    `led` are sites whose calls led to the API in other turns: it need not be called in every one.

    With draw calls seen it is the one under which all of them were made; without any on this thread, the one
    while which others made them; without any at all, the one that led to the API.
    """
    here = any(each.draws for each in calls)
    made = {each.site: each.draws if here else each.draws_elsewhere for each in calls}
    total = sum(made.values())
    where = "" if here else ", which other threads made"
    for each in calls:
        draws = made[each.site]
        if each.function == api and not each.entered:
            each.why = "is the API itself"
        elif each.calls != 1:
            each.why = f"called {each.calls} times in a turn"
        elif total and not draws:
            each.why = "draws nothing"
        elif draws < total:
            each.why = f"only {draws} of {total} draw calls are made in it{where}"
        elif not total and not each.hits and each.site not in led:
            each.why = "does not lead to the API"
        elif not each.function:
            each.why = "where it leads was not seen"
        else:
            each.chosen = True
            each.why = (
                f"once per turn, with all draw calls{where}" if total else "once per turn, leads to the API"
            )
