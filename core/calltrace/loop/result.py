"""What a climb has found, concluded from the activations it has seen. Addresses are VAs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from calltrace.loop.activations import Activation, Hit

_MOST_LEVELS = 200  # that are told apart between a loop and the API


@dataclass
class Level:
    """A call on the way from the loop to the API."""

    site: int  # the call instruction; 0: a jump
    function: int  # start of the function called, else a place in it
    entered: (
        int  # where the call leads, if that is another function, which ends in a jump to this one; else 0
    )
    hits: int = 0  # of the API, in whole turns
    calls: int = 0  # in whole turns
    turns: set[int] = field(default_factory=set)  # in which it was made
    below: list[Level] = field(default_factory=list)

    def descend(self) -> Iterable[Level]:
        """It and all below."""
        yield self
        for level in self.below:
            yield from level.descend()


@dataclass
class Candidate:
    """A call that the loop's function makes in a turn."""

    site: int
    function: int
    entered: int
    calls: int  # in the turn that was watched
    hits: int  # of the API in it
    draws: int  # calls of known draw functions in it
    draws_elsewhere: int = 0  # those that other threads made meanwhile
    chosen: bool = False
    why: str = ""  # it is, or is not, the frame function


@dataclass
class Loop:
    """A loop that leads to the API again and again."""

    thread: int
    function: int  # the loop's owner: start of the function, else a place in it
    site: int  # the call in it that tells turns
    turns: int  # whole ones
    hits: int  # of the API that it has led to, in whole turns and in the one under way
    back_edges: list[tuple[int, int]] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    groups: dict[str, list[Level]] = field(default_factory=dict)  # the levels of each group's hits alone
    outer: list[tuple[int, int]] = field(default_factory=list)  # further out: call site, its function
    inner: dict[int, int] = field(default_factory=dict)  # loops between it and the API: function -> times run
    outer_loops: list[int] = field(default_factory=list)  # functions whose loops contain it
    candidates: list[Candidate] = field(default_factory=list)


@dataclass
class Found:
    """What one method has found."""

    method: str
    hits: int = 0
    loops: list[Loop] = field(default_factory=list)  # one for each thread that has one
    chains: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # of the others: sites, functions
    notes: list[str] = field(default_factory=list)


def innermost_loop(
    hits: Sequence[Hit], may_own: Callable[[int], bool]
) -> tuple[Activation, list[Hit]] | None:
    """The deepest activation with the same call twice, of those that led to most hits; and these hits."""
    led: dict[Activation, list[Hit]] = {}
    depth: dict[Activation, int] = {}
    for hit in hits:
        above = list(hit.activation.ancestors())
        for distance, activation in enumerate(above):
            if activation.rounds() and may_own(activation.place):
                led.setdefault(activation, []).append(hit)
                depth.setdefault(activation, len(above) - distance)
    if not led:
        return None
    best = max(led, key=lambda activation: (len(led[activation]), depth[activation]))
    return best, led[best]


class Functions(Protocol):
    """What is known of the functions that activations are of."""

    def function_at(self, address: int) -> int | None:
        """The start of the function whose code lies there."""
        ...


class Entries(Protocol):
    """What is known of the calls."""

    def entry(self, site: int) -> list[int]:
        """Where the call at `site` leads, and on along jumps."""
        ...


def seen_below(loops: Iterable[Loop], function: int) -> set[int]:
    """The functions that were seen to be called by the function at a VA, on the way to the API; it too."""
    levels = (level for loop in loops for top in loop.levels for level in top.descend())
    called = [level for level in levels if function in (level.function, level.entered)]
    return {below.function for level in called for below in level.descend()}


class Conclusions:
    """Turns activations into levels."""

    def __init__(self, places: Functions, sites: Entries) -> None:
        self._places = places
        self._sites = sites

    def loop(self, owner: Activation, hits: Sequence[Hit]) -> Loop:
        """What is known of the loop of `owner`, which led to `hits`."""
        head = owner.rounds()[0]
        passes = [at for at, child in enumerate(owner.children) if child.site == head]
        loop = Loop(owner.thread, self.function(owner), head, len(passes) - 1, len(hits))
        loop.levels = self.levels(owner)
        for activation in self._below(owner):
            if activation.rounds():
                function = self.function(activation)
                loop.inner[function] = loop.inner.get(function, 0) + 1
        below = owner
        for above in owner.ancestors():
            loop.outer.append((below.site, self.function(above)))
            if above.rounds():
                loop.outer_loops.append(self.function(above))
            below = above
        return loop

    def levels(self, owner: Activation, group: str | None = None) -> list[Level]:
        """The calls of all whole turns of the loop of `owner`; with `group`, those that led to its hits."""
        head = owner.rounds()[0]
        passes = [at for at, child in enumerate(owner.children) if child.site == head]
        levels: list[Level] = []
        turn = -1
        for child in owner.children[passes[0] : passes[-1]]:
            turn += child.site == head
            self._add(levels, child, turn, group)
        return levels

    def chain(self, hit: Hit) -> list[tuple[int, int]]:
        """Sites and functions that led to a hit, the nearest first, as far as they are known."""
        found, below = [], hit.activation
        for above in hit.activation.ancestors():
            found.append((below.site, self.function(above)))
            below = above
        return found

    def entered(self, site: int, function: int) -> int:
        """Where the call at `site` leads, if not to `function` itself; else 0."""
        reached = self._sites.entry(site) if site else []
        return reached[0] if reached and function not in reached else 0

    def function(self, activation: Activation) -> int:
        """The start of its function; a place in it, if that is not known."""
        start = self._places.function_at(activation.place)
        if start is None and activation.site:
            start = next(reversed(self._sites.entry(activation.site)), None)
        return activation.place if start is None else start

    def _add(
        self, levels: list[Level], activation: Activation, turn: int, group: str | None, depth: int = 1
    ) -> int:
        if group is not None and not self._hits(activation, group):
            return 0
        function = self.function(activation)
        key = (activation.site, function)
        level = next((each for each in levels if (each.site, each.function) == key), None)
        if level is None:
            level = Level(activation.site, function, self.entered(activation.site, function))
            levels.append(level)
        hits = int(activation.hit is not None and group in (None, activation.hit.group))
        for child in activation.children:
            if depth < _MOST_LEVELS:
                hits += self._add(level.below, child, turn, group, depth + 1)
            else:
                hits += self._hits(child, group)
        level.turns.add(turn)
        level.hits += hits
        level.calls += 1
        return hits

    def _hits(self, activation: Activation, group: str | None) -> int:
        """How many hits it led to, itself among them."""
        hits = (each.hit for each in (activation, *self._below(activation)) if each.hit)
        return sum(group in (None, hit.group) for hit in hits)

    def _below(self, activation: Activation) -> Iterator[Activation]:
        work = activation.children[::-1]
        while work:
            each = work.pop()
            yield each
            work += each.children[::-1]
