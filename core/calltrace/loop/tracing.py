"""One climb from an API to the loop that calls it, through whatever port the target is seen by."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from calltrace.errors import AccessRefused, EngineError, TargetLost, UsageError
from calltrace.loop.activations import Activation, Hit
from calltrace.loop.callsites import CallSites
from calltrace.loop.code import Code, Kind, back_edges
from calltrace.loop.objects import Objects, Vtables
from calltrace.loop.originals import Originals
from calltrace.loop.places import Places
from calltrace.loop.prototypes import KNOWN, Prototype, Prototypes
from calltrace.loop.result import Conclusions, Found, Loop, innermost_loop, seen_below
from calltrace.loop.returning import ByReturns
from calltrace.loop.survey import Survey
from calltrace.loop.unwinding import ByUnwinding
from calltrace.loop.watch import Outcome, Watch
from calltrace.patterns import module_matches
from calltrace.places import Copied
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
    arguments: str | None = None  # the API's prototype; None: a known one, if there is any
    prototypes: Sequence[str] = ()  # lines that state more of them
    group_by: str | None = None  # an argument, or Function.argument: that of the call before
    subtree: bool = False  # also tell what the frame function can call


class _Climber(Protocol):
    def hit(self, thread: int, registers: Registers) -> Activation: ...

    def ended(self, thread: int) -> None: ...


@dataclass
class _Method:
    name: str
    climber: _Climber
    notes: list[str]
    hits: dict[int, list[Hit]] = field(default_factory=dict)  # by thread


class Names(Protocol):
    """What addresses are called; numbers below zero are of what has no address."""

    def name(self, address: int) -> str:
        """`module!function` of the function that starts there, else `module+0xRVA`."""
        ...

    def place(self, address: int) -> str:
        """`module+0xRVA`."""
        ...


@dataclass
class Climb:
    """How a climb ended, and what each method has found."""

    api: str
    address: int  # VA; 0: its module was never loaded
    outcome: Outcome
    seconds: float
    found: list[Found]
    places: Names
    arguments: list[dict[str, str]]  # of the API's first calls
    recorded: bool = False  # by a trace, not by this climb
    interface: str = ""  # whose method the API is; empty: it is a function
    subtree: Sequence[int] = ()  # starts of the frame function and of what it calls, in its module; VAs

    @property
    def loops(self) -> list[Loop]:
        """Those found by whichever method."""
        return [loop for found in self.found for loop in found.loops]

    @property
    def frame(self) -> int | None:
        """The start of the frame function of the loop found first that has one, a VA."""
        chosen = (each for loop in self.loops for each in loop.candidates if each.chosen)
        return next((each.entered or each.function for each in chosen if each.function > 0), None)

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

    def __init__(
        self,
        port: Port,
        options: LoopOptions,
        copied: Sequence[Copied] = (),
        vtables: Vtables | None = None,
    ) -> None:
        """`port` is stopped, and can debug: else EngineError. UsageError for an API that is none.

        `copied` are the copies of functions in the target, if it is or was recorded. `vtables` are what
        earlier climbs have learned of this target's objects, to be added to.
        """
        if not port.supports(Capability.DEBUG):
            raise EngineError(
                "this host lets nobody but its user set breakpoints: `calltrace loop` needs them"
            )
        if options.method not in METHODS:
            raise UsageError(f"method {options.method}: one of {', '.join(METHODS)}")
        self._port, self._options = Originals(port, copied), options
        self._started = time.monotonic()
        self._interrupted: Sequence[object] = ()
        self._places = Places(self._port, self._port.original)
        self._code = Code(self._read)
        self._watch = Watch(self._port, self._is_over)
        self._sites = CallSites(self._code, self._places, self._watch)
        self._conclusions = Conclusions(self._places, self._sites)
        self._prototypes = Prototypes([*options.prototypes, *KNOWN.splitlines()])
        self._method = self._prototypes.method(options.api)
        self._prototype = self._find_prototype(options)
        self._grouping = self._find_grouping(options.group_by)
        self._groups: dict[int, str] = {}  # by object or thread: what the call before said of the group
        self._arguments: list[dict[str, str]] = []
        self._returns: dict[tuple[int, int], dict[str, str]] = {}  # of calls that are to return: thread, RSP
        self._objects = Objects(
            self._read,
            self._places,
            self._prototypes,
            self._watch,
            self._learned,
            set() if vtables is None else vtables,
        )
        self._api = 0
        self._methods = [self._make(name) for name in METHODS[:2] if options.method in (name, "both")]
        self._draws: set[int] = set()  # VAs of functions known to draw
        self._is_known = False  # the loop is
        self._survey: Survey | None = None  # of the loop that the last hits show
        self._enough = 0  # hits after which a method that has found nothing is not waited for; 0: none has

    def run(self, interrupts: Sequence[object] = ()) -> Climb:
        """Let the target run until the loop is found, or the time is over, or `interrupts` has something.

        The target is stopped afterwards, or has ended; no breakpoint of ours is left.
        """
        self._interrupted = interrupts
        self._started = time.monotonic()
        self._watch.loads.append(self._modules_changed)
        self._watch.exits += [method.climber.ended for method in self._methods]
        try:
            self._look()
            outcome = self._watch.run(self._is_done)
        finally:
            self._watch.clear()
        seconds = time.monotonic() - self._started
        found = [self._conclude(method) for method in self._methods]
        climb = Climb(self._options.api, self._api, outcome, seconds, found, self._places, self._arguments)
        climb.interface = self._method.owner if self._method else ""
        if self._options.subtree and climb.frame:
            climb.subtree = self._subtree(climb, climb.frame)
        return climb

    def _subtree(self, climb: Climb, frame: int) -> Sequence[int]:
        """What is reached from the frame function by direct calls, and by those seen through pointers."""
        home = self._places.module_at(frame)
        starts = seen_below(climb.loops, frame) | {frame}
        return self._code.reachable(
            starts,
            self._places.function_at,
            lambda address: self._places.is_code(address) and self._places.module_at(address) == home,
        )

    def _find_prototype(self, options: LoopOptions) -> Prototype | None:
        if options.arguments is not None:
            return self._prototypes.parse(options.arguments)
        if self._method:
            return self._method
        module, _, name = options.api.rpartition("!")
        known = (each for each in self._prototypes.exported() if each.name == name)
        return next((each for each in known if module_matches(module or "*", each.owner)), None)

    def _find_grouping(self, text: str | None) -> tuple[Prototype, str] | None:
        """The function and its argument by whose value calls are told apart."""
        if text is None:
            return None
        function, _, argument = text.rpartition(".")
        grouping = self._prototype
        if function:
            named = (each for each in self._prototypes.exported() if each.name == function.rpartition("!")[2])
            grouping = self._prototypes.method(function) or next(named, None)
        if grouping is None:
            raise UsageError(f"--group-by {text}: no prototype is known: state it by --args or --prototypes")
        if argument not in [parameter.name for parameter in grouping.parameters]:
            known = ", ".join(parameter.name for parameter in grouping.parameters) or "none"
            raise UsageError(f"--group-by {text}: no such argument; {grouping.name} has {known}")
        return grouping, argument

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

    def _look(self) -> None:
        """Look at the modules that are loaded now for what is to be watched."""
        self._objects.look()
        if not self._api and self._method is None:
            self._begin(self._places.resolve(self._options.api) or 0)
        for function in self._prototypes.exported():
            is_grouping = self._grouping is not None and function is self._grouping[0]
            if function.draws or (is_grouping and function is not self._prototype):
                with contextlib.suppress(UsageError):  # of another version, without it
                    address = self._places.resolve(f"{function.owner}!{function.name}")
                    if address:
                        self._learned(function, address)

    def _learned(self, function: Prototype, address: int) -> None:
        """`function` has been found at a VA."""
        if function.draws:
            self._draws.add(address)
        if function is self._method and not self._api:
            self._begin(address)
        elif self._grouping and function is self._grouping[0] and function is not self._prototype:
            self._watch.at([address], self._note_group)

    def _note_group(self, thread: int, registers: Registers) -> None:
        assert self._grouping
        function, argument = self._grouping
        values = function.values(registers, self._read, functools.partial(self._port.vectors, thread))
        self._groups[self._group_key(thread, registers)] = values[argument]

    def _group_key(self, thread: int, registers: Registers) -> int:
        """Of calls that belong together: those of one object, or else of one thread."""
        return registers.rcx if self._method else thread

    def _begin(self, api: int) -> None:
        self._api = api
        if api:
            self._require_start()
            self._watch.at([api], self._hit)

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
        self._look()

    def _hit(self, thread: int, registers: Registers) -> None:
        if self._is_known or self._options.thread not in (None, thread):
            return
        group = self._note_arguments(thread, registers)
        for method in self._methods:
            hits = method.hits.setdefault(thread, [])
            activation = method.climber.hit(thread, registers)
            activation.hit = Hit(len(hits), thread, group, activation)
            hits.append(activation.hit)
        self._look_closer()

    def _note_arguments(self, thread: int, registers: Registers) -> str:
        """Keep the arguments of a call of the API; the group that it belongs to."""
        values: dict[str, str] = {}
        if self._prototype:
            values = self._prototype.values(
                registers, self._read, functools.partial(self._port.vectors, thread)
            )
            if len(self._arguments) < self._options.samples:
                self._arguments.append(values)
                if self._prototype.returns:
                    back = self._places.original(int.from_bytes(self._read(registers.rsp, 8), "little"))
                    self._returns[thread, registers.rsp + 8] = values
                    self._watch.at([back], self._api_returned)
        if self._grouping is None:
            return ""
        if self._grouping[0] is self._prototype:
            return values[self._grouping[1]]
        return self._groups.get(self._group_key(thread, registers), "?")

    def _api_returned(self, thread: int, registers: Registers) -> None:
        values = self._returns.pop((thread, registers.rsp), None)
        if values is not None and self._prototype:
            vectors = functools.partial(self._port.vectors, thread)
            values["returns"] = self._prototype.result(registers, self._read, vectors)

    def _is_done(self) -> bool:
        """Is the loop found, and a whole turn of it seen?"""
        if not self._is_known and self._is_found():
            self._is_known = True
            self._look_closer()
        return self._is_known and (self._survey is None or self._survey.is_over)

    def _is_found(self) -> bool:
        found = [any(map(self._has_come_round, method.hits.values())) for method in self._methods]
        if any(found) and not all(found):  # one of both: the other gets as many hits again
            hits = sum(map(len, self._methods[0].hits.values()))
            self._enough = self._enough or hits + self._options.samples
            return hits > self._enough
        return all(found)

    def _has_come_round(self, hits: list[Hit]) -> bool:
        if len(hits) < self._options.samples:
            return False
        if not any(above.rounds() for above in hits[-1].activation.ancestors()):
            return False
        return self._latest_loop(hits) is not None

    def _latest_loop(self, hits: list[Hit]) -> tuple[Activation, list[Hit]] | None:
        """The loop that led to all of the last samples, and all hits that it led to."""
        last = hits[-self._options.samples :]
        found = innermost_loop(last, self._may_own)
        if found is None or len(found[1]) < len(last):
            return None
        return found[0], [hit for hit in hits if found[0] in hit.activation.ancestors()]

    def _may_own(self, place: int) -> bool:
        module = self._places.module_at(place)
        wanted = self._options.modules
        return not wanted or (
            module is not None and any(module_matches(each, module.name) for each in wanted)
        )

    def _loops(self, method: _Method) -> list[tuple[Activation, list[Hit]]]:
        found = (
            self._latest_loop(hits) or innermost_loop(hits, self._may_own) for hits in method.hits.values()
        )
        return [each for each in found if each]

    def _look_closer(self) -> None:
        """Survey the loop that the hits show, before the last if it can be: that saves a turn."""
        long_enough = self._options.samples - 1
        shown = (
            self._latest_loop(hits) or self._latest_loop(hits[:-1])  # by returns the last is known later
            for method in self._methods
            for hits in method.hits.values()
            if len(hits) >= long_enough
        )
        owner = next((loop[0] for loop in shown if loop), None)
        known = self._survey
        if owner is None or (known and (known.owner, known.head) == (owner, owner.rounds()[0])):
            return
        if known:
            known.end()
        self._survey = None
        head = self._code.at(owner.rounds()[0])
        if head and head.kind is Kind.CALL:
            code = self._code.follow(head.behind, self._places.function_at)
            home = self._places.function_at(head.address)
            # What is followed beyond the function, behind a call that never returns, may be no code.
            code.exits = {each for each in code.exits if self._places.function_at(each) == home}
            self._survey = Survey(owner, code, self._watch, self._sites, self._api, self._draws)
            self._survey.begin()

    def _conclude(self, method: _Method) -> Found:
        found = Found(method.name, sum(map(len, method.hits.values())), notes=method.notes)
        for owner, hits in self._loops(method):
            loop = self._conclusions.loop(owner, hits)
            if self._grouping:
                for group in dict.fromkeys(hit.group for hit in hits):
                    loop.groups[group] = self._conclusions.levels(owner, group)
            loop.back_edges = self._back_edges(loop)
            survey = self._survey
            if survey and (loop.thread, loop.site) == (survey.owner.thread, survey.head):
                loop.candidates = survey.candidates()
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
