"""The loop behind an API as a trace tells it: from the recorded calls alone, without any breakpoint.

What a frame calls is recorded, but not by which of its instructions, unless all calls are: then the code in
the module's file tells, if it has one call only that can be meant. Where it has more, the loop shows by more
calls than there are such instructions.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from calltrace import calltree
from calltrace.errors import UsageError
from calltrace.loop.activations import Activation, Hit
from calltrace.loop.code import back_edges
from calltrace.loop.prototypes import KNOWN, Prototype, Prototypes
from calltrace.loop.result import Candidate, Conclusions, Found, Loop
from calltrace.loop.survey import choose
from calltrace.loop.traced_code import TracedCode
from calltrace.loop.tracing import Climb, LoopOptions
from calltrace.loop.watch import Outcome
from calltrace.model import LINE_TAIL_KNOWN, NONE_ID, Cause, Clock, LineType, NodeKind, Step, StepType
from calltrace.model import STEP_RESUMED as RESUMED
from calltrace.model import STEP_TAIL_CALLEE as TAIL_CALLEE
from calltrace.patterns import Pattern, module_matches
from calltrace.stacks import may_call
from calltrace.tracefile import TraceFile

_Node = tuple[int, int]  # NodeKind and id
_OPENS = (StepType.OPEN, StepType.CLOSE)
_NEVER = -1  # the position of what was entered before the recording
_ACTIVATIONS = 400_000  # kept of a trace, some hundred bytes each
_ACTIVATIONS_OF_A_THREAD = 1000  # at least, however many threads there are


@dataclass(eq=False)
class _Call(Activation):
    """An activation that a trace tells of."""

    position: int = 0  # in its thread, of the step that opened it
    doubtful: dict[int, int] = field(default_factory=dict)  # sites that stand for this many instructions


@dataclass
class _Frame:
    """An open frame of the call tree; a call and the function that it led to are two."""

    node: _Node
    position: int
    functions: list[int]  # VAs of those that ran in it: each jumped to the next
    call: _Frame | None = None  # of the function it led to: the frame of that call
    inside: bool = False  # something was called in it
    activation: _Call | None = None


def search(trace: TraceFile, options: LoopOptions, traced: TracedCode) -> Climb:
    """The loops that call `options.api`, as far as `trace` tells; with `traced`, its code.

    Reads the threads' events up to three times; of more calls than fit into memory, it takes the first. Can
    be interrupted. UsageError if the trace has no such API, or is to tell what no trace does.
    """
    return _Search(trace, options, traced).run()


class _Search:
    def __init__(self, trace: TraceFile, options: LoopOptions, traced: TracedCode) -> None:
        if options.arguments is not None or options.group_by is not None:
            raise UsageError("no arguments are recorded: --args and --group-by want the program itself")
        if trace.mode != "trace":
            raise UsageError(
                f"{trace.path} was recorded with --mode {trace.mode}: it does not have every call"
            )
        if trace.budget:
            raise UsageError(f"{trace.path} was recorded with --budget: it does not have every call")
        self._trace, self._options, self._traced = trace, options, traced
        self._prototypes = Prototypes([*options.prototypes, *KNOWN.splitlines()])
        self._notes: list[str] = []
        self._entries: dict[int, list[int]] = {}  # by site: the functions entered by it
        self._outside: dict[int, int] = {}  # calls by functions that were entered before the recording
        self._api = self._find_api()
        self._draws = self._find_draws()

    def run(self) -> Climb:
        hits: dict[int, list[Hit]] = {}  # by thread
        begin, count = calltree.thread_range(self._trace, self._options.thread)
        threads = self._trace.threads[begin : begin + count]
        for at, thread in enumerate(threads, begin):
            builder = self._builder(at)
            calls = builder.run(max(_ACTIVATIONS // len(threads), _ACTIVATIONS_OF_A_THREAD))
            if builder.is_cut:
                self._note(
                    f"thread {thread.id} called it more often than is looked at: what is told are its first "
                    f"{len(calls):,} calls"
                )
            if calls:
                hits[thread.id] = calls
            if calls and thread.lost:
                self._note(f"{thread.lost:,} units of thread {thread.id} were lost: they may matter")
        found = Found("recorded", sum(map(len, hits.values())), notes=self._notes)
        conclusions = Conclusions(self._traced, self)
        for thread_id, calls in hits.items():
            owners = self._owners(calls)
            for owner, led in owners:
                loop = conclusions.loop(owner, led)
                loop.back_edges = self._back_edges(loop)
                loop.candidates = self._candidates(owner, loop)
                found.loops.append(loop)
            if not owners:
                found.chains[thread_id] = conclusions.chain(calls[0])
        first = min(self._api)
        address = self._place(first) if hits else 0
        climb = Climb(self._options.api, address, Outcome.DONE, 0.0, [found], self._traced, [], recorded=True)
        if self._options.subtree and climb.frame:
            climb.subtree = self._subtree(climb.frame)
        return climb

    def _subtree(self, frame: int) -> Sequence[int]:
        """The functions that were recorded in calls of the frame function."""
        found = {frame}
        below = calltree.TreeFilter(functions=[Pattern.parse(f"{frame:#x}")])
        for line in calltree.Tree(self._trace, below):
            nodes = [(line.kind, line.id)] if line.type == LineType.FRAME else []
            if line.flags & LINE_TAIL_KNOWN:
                nodes.append((line.tail_kind, line.tail_id))
            found |= {self._place(node) for node in nodes if node[0] == NodeKind.FUNCTION}
        return sorted(found)

    def entry(self, site: int) -> list[int]:
        """The functions that the call at `site` entered."""
        return self._entries.get(site, [])

    def _note(self, line: str) -> None:
        if line not in self._notes:
            self._notes.append(line)

    # What is looked for

    def _find_api(self) -> set[_Node]:
        text = self._options.api
        method = self._prototypes.method(text)
        if method:
            return self._find_method(text, method)
        pattern = Pattern.parse(text)
        if pattern.va is not None or pattern.rva is not None:
            sites = {(int(NodeKind.CALL), site) for site in self._sites_at(pattern)}
            if sites:
                return sites
        functions, calls = calltree.matching(self._trace, [pattern])
        return {(int(NodeKind.FUNCTION), each) for each in functions} | {
            (int(NodeKind.CALL), each) for each in calls
        }

    def _sites_at(self, pattern: Pattern) -> Iterator[int]:
        for module in self._trace.modules:
            if pattern.va is None and not pattern.matches_module(module.name):
                continue
            rva = pattern.va - module.base if pattern.va is not None else pattern.rva
            for number, site in enumerate(self._trace.sites(module), module.first_site):
                if site.rva == rva:
                    yield number

    def _find_method(self, text: str, method: Prototype) -> set[_Node]:
        """The recorded calls through the method's entry of a table of pointers."""
        assert method.slot is not None
        sites = self._calls_by_slot(method.slot)
        if not sites:
            raise UsageError(
                f"{text}: no recorded call goes through entry {method.slot} of an object's methods; name the "
                "call itself, module+0xRVA, as `tree` shows it"
            )
        places = ", ".join(self._traced.place(self._place((NodeKind.CALL, each))) for each in sites)
        self._note(f"{text} is known by its entry among an object's methods alone, {method.slot}: {places}")
        return {(int(NodeKind.CALL), each) for each in sites}

    def _calls_by_slot(self, slot: int) -> list[int]:
        found = []
        for module in self._trace.modules:
            by_address = {
                module.base + site.rva: number
                for number, site in enumerate(self._trace.sites(module), module.first_site)
                if not site.target and site.imported == NONE_ID
            }
            if by_address and self._traced.has_code(module.base):
                found += [by_address[each] for each in self._traced.by_slot(by_address, slot)]
        return found

    def _find_draws(self) -> set[_Node]:
        """The recorded calls that draw: of exported functions, and of methods of what the program imports."""
        draws: set[_Node] = set()
        imports = {name.lower() for module in self._trace.modules for name in module.imports}
        made = {
            each.kind
            for maker in self._prototypes.makers()
            if maker.slot is None and f"{maker.owner}!{maker.name}".lower() in imports
            for each in maker.parameters
            if each.out
        }
        for maker in self._prototypes.makers():  # objects made by objects
            if maker.slot is not None and maker.owner in made:
                made |= {each.kind for each in maker.parameters if each.out}
        slots = set()
        for prototype in self._prototypes.functions:
            if prototype.draws and prototype.slot is None:
                name = f"{prototype.owner}!{prototype.name}"
                if name.lower() in imports:
                    _, sites = calltree.matching(self._trace, [Pattern.parse(name)])
                    draws |= {(int(NodeKind.CALL), each) for each in sites}
            elif prototype.draws and prototype.owner in made and prototype.slot is not None:
                slots.add(prototype.slot)
        for slot in slots:
            draws |= {(int(NodeKind.CALL), each) for each in self._calls_by_slot(slot)}
        return draws - self._api

    def _place(self, node: _Node) -> int:
        return place_of(self._trace, self._traced, node)

    # Loops

    def _owners(self, hits: Sequence[Hit]) -> list[tuple[Activation, list[Hit]]]:
        """The activations whose loops led to the hits of one thread, and their hits; the most hits first.

        Each is the innermost that led to as many hits one after the other as samples are wanted.
        """
        led: dict[Activation, list[Hit]] = {}
        at, samples = 0, max(2, min(self._options.samples, len(hits)))
        while at + samples <= len(hits):
            owner = self._owner(hits[at : at + samples])
            begin = at
            while owner and at < len(hits) and owner in hits[at].activation.ancestors():
                at += 1
            if owner:
                led.setdefault(owner, []).extend(hits[begin:at])
            at += at == begin
        best: dict[tuple[int, int], Activation] = {}
        times: dict[tuple[int, int], int] = {}
        for owner in led:
            key = owner.place, owner.rounds()[0]
            times[key] = times.get(key, 0) + 1
            if key not in best or len(led[owner]) > len(led[best[key]]):
                best[key] = owner
        for key, count in times.items():
            if count > 1:
                self._note(
                    f"the loop of {self._traced.name(key[0])} was run {count:,} times: the longest is shown"
                )
        return sorted(((each, led[each]) for each in best.values()), key=lambda each: -len(each[1]))

    def _owner(self, hits: Sequence[Hit]) -> Activation | None:
        common = list(hits[0].activation.ancestors())
        for hit in hits[1:]:
            above = set(hit.activation.ancestors())
            common = [each for each in common if each in above]
        return next((each for each in common if each.rounds() and self._may_own(each.place)), None)

    def _may_own(self, place: int) -> bool:
        module, wanted = self._traced.module_at(place), self._options.modules
        return not wanted or (
            module is not None and any(module_matches(each, module.name) for each in wanted)
        )

    def _back_edges(self, loop: Loop) -> list[tuple[int, int]]:
        call = self._traced.code.at(loop.site) if loop.site > 0 else None
        if call is None:
            return []
        code = self._traced.code.follow(call.behind, self._traced.function_at)
        return back_edges(code, call.behind, loop.site)

    # The calls of a turn

    def _candidates(self, owner: Activation, loop: Loop) -> list[Candidate]:
        """All that the loop's function called in one whole turn."""
        head = [child for child in owner.children if child.site == loop.site]
        first = head[min(1, len(head) - 2)]  # the very first turn may do what is done once only
        assert isinstance(owner, _Call)
        assert isinstance(first, _Call)
        turn = _Turn(owner, first.position, loop.site, self._api, self._draws)
        position = [thread.id for thread in self._trace.threads].index(owner.thread)
        self._builder(position, turn).run(0)
        found = turn.candidates
        if self._draws and not any(each.draws for each in found):
            self._count_elsewhere(turn, position)
        choose(found, self._place(min(self._api)), {child.site for child in owner.children})
        return found

    def _count_elsewhere(self, turn: _Turn, owner: int) -> None:
        """Find the draw calls that other threads made meanwhile, by their times."""
        others = [thread for at, thread in enumerate(self._trace.threads) if at != owner]
        if others and self._trace.clock is Clock.NONE:
            self._note("when other threads drew is not known without times: record with --clock tsc")
            return
        for thread in others:
            for step in calltree.steps(self._trace, thread.index):
                if step.type == StepType.OPEN and (step.kind, step.id) in self._draws:
                    turn.drawn_elsewhere(step.time)

    def _builder(self, thread: int, turn: _Turn | None = None) -> _Builder:
        known = self._entries, self._outside
        return _Builder(self._trace, thread, self._traced, self._api, *known, self._note, turn)


def place_of(trace: TraceFile, traced: TracedCode, node: _Node) -> int:
    """What is run in a frame: a function's VA, or a number for what is called outside."""
    kind, number = node
    if kind == NodeKind.CALL:
        return traced.unplaced(trace.node_name(kind, number))
    return trace.node_address(kind, number) or traced.unplaced(trace.node_name(kind, number))


class _Builder:
    """Makes activations of those frames of one thread that led to the API."""

    def __init__(
        self,
        trace: TraceFile,
        thread: int,
        traced: TracedCode,
        api: set[_Node],
        entries: dict[int, list[int]],
        outside: dict[int, int],
        note: Callable[[str], None],
        turn: _Turn | None,
    ) -> None:
        """`turn` is told of each frame until it is over, and no activations are made then.

        `outside` is to have the calls of outermost frames: what stands for them, and what they are.
        """
        self._trace, self._traced, self._api, self._note = trace, traced, api, note
        self._entries, self._outside, self._turn = entries, outside, turn
        self._places: dict[_Node, int] = {}
        self._callees: dict[
            tuple[_Node, _Node], bool
        ] = {}  # by call and function: can it be what was called?
        self._thread = trace.threads[thread]
        before = traced.unplaced("code that was entered before the recording, or is not traced")
        self._root = _Call(self._thread.id, before, position=_NEVER)
        self._frames: list[_Frame] = []
        self._left: _Frame | None = None  # by a jump
        self._suspended: list[list[_Frame]] = []  # stacks that were left for others
        self._closing: list[_Frame] = []  # of the one that is being left, the innermost first
        self._resumed: list[_Node] = []  # frames of one that is gone on with
        self._hits: list[Hit] = []
        self._doubtful: set[_Call] = set()
        self._made = 0  # activations
        self.is_cut = False  # there were more of them

    def run(self, limit: int) -> list[Hit]:
        """The hits of the API, until there are more than `limit` activations."""
        for step in calltree.steps(self._trace, self._thread.index):
            if step.type in _OPENS:
                self._take(step)
                if self._turn and self._turn.is_over:
                    return []
                if self._made > limit:
                    self.is_cut = True
                    break
        for parent in self._doubtful:
            self._settle(parent)
        self._name_outermost()
        return self._hits

    def _name_outermost(self) -> None:
        """Say who called the outermost frames, in a loop that was entered before: who alone can have."""
        loops = set(self._root.rounds())
        owners: dict[int, _Call] = {}
        for child in self._root.children:
            child.parent = self._root if child.site in loops else None
        for site in loops:
            called = [child for child in self._root.children if child.site == site]
            for callee in self._entries[site]:
                calls = self._traced.callers(callee)
                functions = {self._traced.function_at(call) for call in calls}
                function = functions.pop() if len(functions) == 1 else None
                if function is None:
                    continue
                owner = owners.setdefault(function, _Call(self._thread.id, function, position=_NEVER))
                self._entries.setdefault(calls[0], []).append(callee)
                if len(calls) == 1:
                    self._outside[site] = calls[0]
                for child in called:
                    owner.called(child, self._outside.get(site, site))
                name = self._traced.name(function)
                self._note(
                    f"{name} was entered before the recording: it is known as the only function that calls "
                    f"{self._traced.name(callee)} directly"
                )
        for owner in owners.values():
            owner.children.sort(key=_position)

    def _take(self, step: Step) -> None:
        is_open = step.type == StepType.OPEN
        if is_open and step.flags & RESUMED:
            self._resumed.append((step.kind, step.id))
            return
        if self._resumed:
            self._resume()
        if self._closing and (is_open or step.cause != Cause.SWITCHED):
            self._suspended.append(self._closing[::-1])
            self._closing = []
        if is_open:
            self._open(step)
            return
        if step.depth < len(self._frames):
            frame = self._frames[step.depth]
            del self._frames[step.depth :]
            self._left = frame if step.cause == Cause.TAIL else None
            if step.cause == Cause.SWITCHED:
                self._closing.append(frame)

    def _resume(self) -> None:
        """Find the stack that has just these frames; of several, the one that was left first."""
        for stack in self._suspended:
            if [frame.node for frame in stack] == self._resumed:
                self._suspended.remove(stack)
                break
        else:
            stack = [_Frame(node, 0, [self._place(node)]) for node in self._resumed]
        self._frames, self._resumed = stack, []

    def _open(self, step: Step) -> None:
        node = (step.kind, step.id)
        place = self._place(node)
        below = self._frames[step.depth - 1] if 0 < step.depth <= len(self._frames) else None
        del self._frames[step.depth :]
        left, self._left = self._left, None
        if step.flags & TAIL_CALLEE and left:
            frame = left
            frame.node, frame.inside = node, False
            frame.functions.append(place)
            if frame.activation:
                frame.activation.place = place
        else:
            frame = _Frame(node, step.position, [place])
            if below and not below.inside and self._is_callee(below.node, node):
                frame.call = below
                if below.activation:
                    below.activation.place = place
        if below:
            below.inside = True
        self._frames.append(frame)
        if self._turn:
            caller = self._frames[-2] if len(self._frames) > 1 else None
            self._turn.opened(self._frames, step, lambda: self._site(frame, caller))
        elif node in self._api:
            self._hit(frame)

    def _place(self, node: _Node) -> int:
        place = self._places.get(node)
        if place is None:
            place = self._places[node] = place_of(self._trace, self._traced, node)
        return place

    def _is_callee(self, call: _Node, function: _Node) -> bool:
        if call[0] != NodeKind.CALL or function[0] != NodeKind.FUNCTION:
            return False
        known = self._callees.get((call, function))
        if known is None:
            site = self._trace.site(call[1])
            name = self._trace.node_name(*function)
            known = site is not None and may_call(*site, name, self._trace.node_address(*function))
            self._callees[call, function] = known
        return known

    def _hit(self, frame: _Frame) -> None:
        activation = self._activate()
        if frame.call and activation.hit:  # of the call that has led here
            return
        if activation.hit:  # it was jumped to by what was called before it
            jumped = _Call(self._thread.id, activation.place, position=frame.position)
            activation.called(jumped, 0)
            self._made += 1
            activation = jumped
        activation.hit = Hit(len(self._hits), self._thread.id, "", activation)
        self._hits.append(activation.hit)

    def _activate(self) -> _Call:
        """Activations of all frames that are open; that of the innermost."""
        parent: _Call = self._root
        caller: _Frame | None = None
        for frame in self._frames:
            entered = frame.functions[0]
            if frame.call:
                frame.activation = parent
                parent.place = frame.functions[-1]
            elif frame.activation is None:
                frame.activation = _Call(self._thread.id, frame.functions[-1], position=frame.position)
                parent.called(frame.activation, self._site(frame, caller))
                self._made += 1
            known = self._entries.setdefault(frame.activation.site, [])
            if entered not in known and frame.node[0] == NodeKind.FUNCTION:
                known.append(entered)
            parent, caller = frame.activation, frame
        return parent

    def _site(self, frame: _Frame, caller: _Frame | None) -> int:
        """The instruction that called a frame, or a number for it if that is not known."""
        kind, number = frame.node
        if kind == NodeKind.CALL and len(frame.functions) == 1:
            return self._trace.node_address(kind, number) or 0
        callee = self._traced.name(frame.functions[0])
        if caller is None:
            site = self._traced.unplaced(f"a call of {callee}")
            return self._outside.get(site, site)
        if caller.node[0] != NodeKind.FUNCTION:
            return self._traced.unplaced(f"in {self._traced.name(caller.functions[-1])}, a call of {callee}")
        functions = caller.functions
        known = all(map(self._traced.has_code, functions))
        sites = self._traced.calls(functions, frame.functions[0]) if known else []
        if len(sites) == 1:
            return sites[0]
        name = self._traced.name(functions[-1])
        site = self._traced.unplaced(f"in {name}, a call of {callee}")
        if sites and caller.activation:
            caller.activation.doubtful[site] = len(sites)
            self._doubtful.add(caller.activation)
        if sites:
            self._note(
                f"{name} calls {callee} at {len(sites)} places, which are not told apart: "
                "record with --events all"
            )
        else:
            self._note(
                "where functions call each other is not known: two calls pass for a loop. Record with "
                "--events all, or put the program's file where it was"
            )
        return site

    def _settle(self, parent: _Call) -> None:
        """No more calls than there are instructions for: each is by its own."""
        for site, places in parent.doubtful.items():
            same = [child for child in parent.children if child.site == site]
            if len(same) <= places:
                for child in same[1:]:
                    child.site = self._traced.unplaced(self._traced.place(site), fresh=True)


def _position(activation: Activation) -> int:
    assert isinstance(activation, _Call)
    return activation.position


class _Turn:
    """What one activation called in a turn of its loop."""

    def __init__(self, owner: _Call, first: int, head: int, api: set[_Node], draws: set[_Node]) -> None:
        """The call at position `first` is by instruction `head`, whose next call begins another turn."""
        self._owner, self._first, self._head, self._api, self._draws = owner, first, head, api, draws
        self.is_over = False
        self._level = 0 if owner.parent is None else -1  # of the frames that the owner calls; -1: not open
        self._by_site: dict[int, Candidate] = {}
        self._open: Candidate | None = None  # the call made last
        self._begins: list[tuple[int, Candidate | None]] = []  # when each call began; None: the turn is over

    @property
    def candidates(self) -> list[Candidate]:
        """The calls, in the order of the turn."""
        return list(self._by_site.values())

    def opened(self, frames: Sequence[_Frame], step: Step, site: Callable[[], int]) -> None:
        """The last of `frames` is new, or has become another function by a jump; `site` tells its call."""
        call = frames[-1].call  # the function that the owner's call has led to is the owner
        if self._owner.position in (step.position, call.position if call else None):
            self._level = len(frames)
        if self._level < 0 or step.position < self._first or len(frames) <= self._level:
            return
        frame, node = frames[-1], (step.kind, step.id)
        if len(frames) - 1 == self._level and len(frame.functions) == 1:
            place = site()
            if place == self._head and self._open:
                self._begins.append((step.time, None))
                self.is_over = True
                return
            self._open = self._by_site.setdefault(place, Candidate(place, 0, 0, 0, 0, 0))
            self._open.calls += 1
            self._begins.append((step.time, self._open))
        called = self._open
        assert called
        if len(frames) - 1 == self._level or frame.call is frames[self._level]:
            called.function = frame.functions[-1]
            called.entered = frame.functions[0] if len(frame.functions) > 1 else 0
        through = frame.call.node if frame.call else None  # which was counted itself
        called.hits += node in self._api and through not in self._api
        called.draws += node in self._draws and through not in self._draws

    def drawn_elsewhere(self, time: int) -> None:
        """Another thread drew at `time`."""
        at = bisect.bisect_right([begin for begin, _ in self._begins], time) - 1
        called = self._begins[at][1] if at >= 0 else None
        if called:
            called.draws_elsewhere += 1
