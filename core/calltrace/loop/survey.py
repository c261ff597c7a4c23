"""One more turn of a loop that has been found, to see all that its function calls in a turn.

Of these calls one may be the frame function: made once per turn, with all that is drawn beneath it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from calltrace.loop.activations import Activation
from calltrace.loop.callsites import CallSites
from calltrace.loop.code import Followed, Kind, cycle
from calltrace.loop.result import Candidate
from calltrace.loop.watch import Outcome, Watch
from calltrace.ports import Registers


class Survey:
    """Watches the calls of one activation, from one pass of the call that tells turns to the next."""

    def __init__(self, owner: Activation, code: Followed, watch: Watch, sites: CallSites) -> None:
        """`code` is that of the loop's function."""
        self._owner, self._watch, self._sites = owner, watch, sites
        self._head = owner.rounds()[0]
        head = code.instructions[self._head]
        self._calls = sorted(
            address
            for address in cycle(code, head.behind, self._head)
            if code.instructions[address].kind is Kind.CALL
        )
        self._passes = 0
        self._open: Candidate | None = None
        self._seen: dict[int, Candidate] = {}  # by site, in the order of the turn
        self.elsewhere = 0  # draw calls that other threads made meanwhile

    def run(self, api: int, draws: Collection[int]) -> Outcome:
        """Let the target run through a whole turn; `api` and `draws` are VAs of functions to count."""
        for site in self._calls:
            self._sites.watch_entry(site)
        self._watch.at(self._calls, self._called)
        self._watch.at([api], self._hit)
        self._watch.at(draws, self._drawn)
        outcome = self._watch.run(lambda: self._passes > 1)
        self._watch.no_more_at(self._calls, self._called)
        self._watch.no_more_at([api], self._hit)
        self._watch.no_more_at(draws, self._drawn)
        return outcome

    def candidates(self, api: int, has_draws: bool) -> list[Candidate]:
        """The calls of the turn, with the frame function chosen, if there is one; none of half a turn."""
        if self._passes < 2:
            return []
        found = list(self._seen.values())
        for each in found:
            reached = self._sites.entry(each.site)
            each.function = reached[-1] if reached else 0
            each.entered = reached[0] if reached and reached[0] != each.function else 0
        choose(found, api, has_draws and any(each.draws for each in found))
        return found

    def _called(self, thread: int, registers: Registers) -> None:
        if thread != self._owner.thread or registers.rsp != self._owner.sp:
            return
        if registers.rip == self._head:
            self._passes += 1
        if self._passes == 1:
            fresh = Candidate(registers.rip, 0, 0, 0, 0, 0)
            self._open = self._seen.setdefault(registers.rip, fresh)
            self._open.calls += 1

    def _hit(self, thread: int, registers: Registers) -> None:
        if self._open and self._passes == 1 and thread == self._owner.thread:
            self._open.hits += 1

    def _drawn(self, thread: int, registers: Registers) -> None:
        if self._open and self._passes == 1:
            if thread == self._owner.thread:
                self._open.draws += 1
            else:
                self.elsewhere += 1


def choose(calls: Sequence[Candidate], api: int, by_draws: bool) -> None:
    """Say of each call of a turn whether it is the frame function, and why.

    With draw calls seen it is the one under which all of them were made; else the one that led to the API.
    """
    total = sum(each.draws for each in calls)
    for each in calls:
        if each.function == api and not each.entered:
            each.why = "is the API itself"
        elif each.calls != 1:
            each.why = f"called {each.calls} times in a turn"
        elif by_draws and not each.draws:
            each.why = "draws nothing"
        elif by_draws and each.draws < total:
            each.why = f"makes {each.draws} of {total} draw calls only"
        elif not by_draws and not each.hits:
            each.why = "does not lead to the API"
        elif not by_draws and not each.function:
            each.why = "where it leads was not seen"
        else:
            each.chosen = True
            each.why = "once per turn, with all draw calls" if by_draws else "once per turn, leads to the API"
