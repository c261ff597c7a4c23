"""One climb from an API to the loop that calls it, through whatever port the target is seen by."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from calltrace.errors import AccessRefused, EngineError, TargetLost, UsageError
from calltrace.loop.activations import Activation, Hit
from calltrace.loop.callsites import CallSites
from calltrace.loop.code import Code, back_edges
from calltrace.loop.places import Places
from calltrace.loop.result import Candidate, Conclusions, Found, Loop, innermost_loop
from calltrace.loop.returning import ByReturns
from calltrace.loop.survey import Survey
from calltrace.loop.unwinding import ByUnwinding
from calltrace.loop.watch import Outcome, Watch
from calltrace.patterns import module_matches
from calltrace.ports import Capability, Port, Registers

METHODS = ("unwind", "returns", "both")


@dataclass(frozen=True)
class LoopOptions:
    """What is climbed from, and how far."""

    api: str  # module!function, module+0xRVA or 0xVA
    method: str = "unwind"  # of METHODS
    samples: int = 3  # hits of the API to see at least
    thread: int | None = None  # system id; None: any
    seconds: float = 30.0  # after which it ends with what it has
    modules: Sequence[str] = ()  # only functions of these may own the loop; none: any


class _Climber(Protocol):
    def hit(self, thread: int, registers: Registers) -> Activation: ...

    def ended(self, thread: int) -> None: ...


@dataclass
class _Method:
    name: str
    climber: _Climber
    notes: list[str]
    hits: dict[int, list[Hit]] = field(default_factory=dict)  # by thread


@dataclass
class Climb:
    """How a climb ended, and what each method has found."""

    api: str
    address: int  # VA; 0: its module was never loaded
    outcome: Outcome
    seconds: float
    found: list[Found]
    places: Places

    @property
    def loops(self) -> list[Loop]:
        """Those found by whichever method."""
        return [loop for found in self.found for loop in found.loops]

    @property
    def differences(self) -> list[str]:
        """In what the methods do not agree; empty if they do, or there is one only."""
        if len(self.found) < 2:
            return []
        owners = [sorted({self.places.name(loop.function) for loop in found.loops}) for found in self.found]
        if owners[0] == owners[1]:
            return []
        first, second = (
            f"by {found.method} the loop belongs to {' and '.join(names) or 'nobody'}"
            for found, names in zip(self.found, owners)
        )
        return [f"{first}, {second}"]


class LoopTracing:
    """Climbs once."""

    def __init__(self, port: Port, options: LoopOptions, tell: Callable[[str], None]) -> None:
        """`port` is stopped, and can debug: else EngineError. UsageError for an API that is none."""
        if not port.supports(Capability.DEBUG):
            raise EngineError(
                "this host lets nobody but its user set breakpoints: `calltrace loop` needs them"
            )
        if options.method not in METHODS:
            raise UsageError(f"method {options.method}: one of {', '.join(METHODS)}")
        self._port, self._options, self._tell = port, options, tell
        self._started = time.monotonic()
        self._interrupted: Sequence[object] = ()
        self._places = Places(port)
        self._code = Code(self._read)
        self._watch = Watch(port, self._is_over)
        self._sites = CallSites(self._code, self._places, self._watch)
        self._conclusions = Conclusions(self._places, self._sites)
        self._api = self._places.resolve(options.api) or 0
        self._methods = [self._make(name) for name in METHODS[:2] if options.method in (name, "both")]
        self._draws: set[int] = set()  # VAs of functions known to draw
        self._is_known = False  # the loop is
        self._enough = 0  # hits after which a method that has found nothing is not waited for; 0: none has
        self._surveyed = 0, 0  # thread and site of the loop that was looked at for a whole turn
        self._candidates: list[Candidate] = []

    def run(self, interrupts: Sequence[object] = ()) -> Climb:
        """Let the target run until the loop is found, or the time is over, or `interrupts` has something.

        The target is stopped afterwards, or has ended; no breakpoint of ours is left.
        """
        self._interrupted = interrupts
        self._started = time.monotonic()
        self._watch.loads.append(self._modules_changed)
        self._watch.exits += [method.climber.ended for method in self._methods]
        try:
            if self._api:
                self._begin()
            outcome = self._watch.run(self._is_done)
            if outcome is Outcome.DONE:
                self._is_known = True
                outcome = self._survey()
        finally:
            self._watch.clear()
        seconds = time.monotonic() - self._started
        found = [self._conclude(method) for method in self._methods]
        return Climb(self._options.api, self._api, outcome, seconds, found, self._places)

    def _make(self, name: str) -> _Method:
        notes: list[str] = []

        def note(line: str) -> None:
            if line not in notes:
                notes.append(line)

        climber: _Climber
        if name == "unwind":
            climber = ByUnwinding(self._port, self._places, self._sites, self._watch, note)
        else:
            climber = ByReturns(self._port, self._places, self._code, self._sites, self._watch, note)
        return _Method(name, climber, notes)

    def _read(self, address: int, size: int) -> bytes:
        try:
            return self._port.read(address, size)
        except TargetLost as error:  # what was found is told all the same
            raise AccessRefused(str(error)) from None

    def _is_over(self) -> bool:
        return bool(self._interrupted) or time.monotonic() - self._started > self._options.seconds

    def _begin(self) -> None:
        self._require_start()
        self._watch.at([self._api], self._hit)

    def _require_start(self) -> None:
        """A breakpoint within an instruction would change what the program does."""
        start = self._places.function_at(self._api)
        if start is None or start == self._api:
            return
        at: int = start
        while at < self._api:
            instruction = self._code.at(at)
            if instruction is None:  # data between the code: what lies behind it cannot be judged
                return
            at = instruction.behind
        if at != self._api:
            place = self._places.place(self._api)
            raise UsageError(f"{self._options.api}: no instruction begins at {place}, but one lies across it")

    def _modules_changed(self) -> None:
        self._places.refresh()
        self._code.forget()
        self._watch.forget(lambda address: self._places.module_at(address) is None)
        if not self._api:
            self._api = self._places.resolve(self._options.api) or 0
            if self._api:
                self._begin()

    def _hit(self, thread: int, registers: Registers) -> None:
        if self._is_known or self._options.thread not in (None, thread):
            return
        for method in self._methods:
            hits = method.hits.setdefault(thread, [])
            activation = method.climber.hit(thread, registers)
            activation.hit = Hit(len(hits), thread, registers, activation)
            hits.append(activation.hit)

    def _is_done(self) -> bool:
        found = [any(map(self._is_found, method.hits.values())) for method in self._methods]
        if any(found) and not all(found):  # one of both: the other gets as many hits again
            hits = sum(map(len, self._methods[0].hits.values()))
            self._enough = self._enough or hits + self._options.samples
            return hits > self._enough
        return all(found)

    def _is_found(self, hits: list[Hit]) -> bool:
        if len(hits) < self._options.samples:
            return False
        if not any(above.rounds() for above in hits[-1].activation.ancestors()):
            return False
        found = innermost_loop(hits, self._may_own)
        return found is not None and len(found[1]) == len(hits)

    def _may_own(self, place: int) -> bool:
        module = self._places.module_at(place)
        wanted = self._options.modules
        return not wanted or (
            module is not None and any(module_matches(each, module.name) for each in wanted)
        )

    def _loops(self, method: _Method) -> list[tuple[Activation, list[Hit]]]:
        found = (innermost_loop(hits, self._may_own) for hits in method.hits.values())
        return [each for each in found if each]

    def _survey(self) -> Outcome:
        """Look at one more turn of a loop that was found."""
        owner, _ = next(loop for method in self._methods for loop in self._loops(method))
        self._surveyed = owner.thread, owner.rounds()[0]
        head = self._code.at(owner.rounds()[0])
        if head is None:
            return Outcome.DONE
        code = self._code.follow(head.behind, self._places.function_at)
        watched = Survey(owner, code, self._watch, self._sites)
        outcome = watched.run(self._api, self._draws)
        self._candidates = watched.candidates(self._api, bool(self._draws))
        return outcome

    def _conclude(self, method: _Method) -> Found:
        found = Found(method.name, sum(map(len, method.hits.values())), notes=method.notes)
        for owner, hits in self._loops(method):
            loop = self._conclusions.loop(owner, hits)
            loop.back_edges = self._back_edges(loop)
            if (loop.thread, loop.site) == self._surveyed:
                loop.candidates = self._candidates
            found.loops.append(loop)
        looping = {loop.thread for loop in found.loops}
        for thread, hits in method.hits.items():
            if thread not in looping:
                found.chains[thread] = self._conclusions.chain(hits[0])
        return found

    def _back_edges(self, loop: Loop) -> list[tuple[int, int]]:
        call = self._code.at(loop.site)
        if call is None:
            return []
        return back_edges(self._code.follow(call.behind, self._places.function_at), call.behind, loop.site)
