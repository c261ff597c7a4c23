"""What ran in parts of traces, so that it can be compared: of one recording, or of several.

A function is the same in two traces if its module is, by name, time stamp, checksum, size and PDB, and its
RVA, wherever the module was loaded. In another build of the module it is the function of that name. An import
is the same by its name, whichever site calls it.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from calltrace import program_marks
from calltrace.edges import NOBODY_NAME, Calls, calls_by_part
from calltrace.errors import UsageError
from calltrace.model import NOBODY, NONE_ID, Module, NodeKind
from calltrace.parts import Part
from calltrace.tracefile import TraceFile

Key = Hashable


class Call(NamedTuple):
    """The key of a call."""

    caller: Key
    callee: Key
    tail: bool  # the callee was entered by a jump that replaced its caller


@dataclass(frozen=True)
class Item:
    """A function, an import, or with callers a call of one."""

    name: str
    address: int | None  # VA in the trace in which it was met first; of a call that of the callee
    rva: int | None  # in the module that `name` begins with
    caller: str | None = None
    tail: bool = False  # as of Call


@dataclass(frozen=True)
class Counts:
    """How often what was called in each of some parts. Items are in the order in which they first were."""

    parts: Sequence[Part]
    callers: bool  # items are calls by different callers
    items: dict[Key, Item]
    calls: Sequence[dict[Key, int]]  # by part
    untraced: Sequence[set[Key]]  # by part: what its trace would not show, if it ran
    first_only: Sequence[bool]  # by part: its trace has only the first entry of each function
    notes: Sequence[str]

    def ran(self) -> list[set[Key]]:
        """What was called at all, by part."""
        return [set(calls) for calls in self.calls]


def count(parts: Sequence[Part], traces: Sequence[TraceFile], *, callers: bool) -> Counts:
    """Count calls in parts of `traces`, one for each; a trace that is given twice is read once.

    With `callers` each caller's calls count by themselves. Can be interrupted. UsageError for a mark that a
    trace does not have, or of a trace that has only counts, EngineError if memory runs out.
    """
    for part, trace in zip(parts, traces):
        if part.marks is not None and (trace.budget or trace.mode == "graph"):
            raise UsageError(
                f"{part.text}: recorded with {trace.counting_option}, which counts without regard to marks; "
                "in a debugger `save` the counts, and compare those files"
            )
    sides = {id(trace): _Side(trace) for trace in traces}
    notes = list(_tell_builds(list(sides.values())))
    for side in sides.values():
        notes += program_marks.add(
            [part for part, trace in zip(parts, traces) if trace is side.trace], side.trace
        )
    notes += dict.fromkeys(
        f"{trace.path} has the first entry of each function alone: a part of it shows what began in that part"
        for part, trace in zip(parts, traces)
        if part.marks is not None and trace.mode == "hits"
    )
    stretches = [part.stretches(trace) for part, trace in zip(parts, traces)]
    items: dict[Key, Item] = {}
    calls: list[dict[Key, int]] = [{} for _ in parts]
    for side in sides.values():
        wanted = [number for number, trace in enumerate(traces) if trace is side.trace]
        behind = [[number for number in wanted if at in stretches[number]] for at in _stretches(side.trace)]
        for each in calls_by_part(side.trace, list(_stretches(side.trace)), callers=callers):
            found = side.counted(each) if behind[each.part] else None
            if found:
                key, item = found
                items.setdefault(key, item)
                for number in behind[each.part]:
                    calls[number][key] = calls[number].get(key, 0) + each.calls
    traced = set().union(*(side.traced for side in sides.values()))
    untraced = [_of(items, traced - sides[id(trace)].traced) for trace in traces]
    first_only = [trace.mode == "hits" for trace in traces]
    return Counts(parts, callers, items, calls, untraced, first_only, notes)


def _stretches(trace: TraceFile) -> range:
    return range(len(trace.marks) + 1)


def _of(items: Iterable[Key], called: set[Key]) -> set[Key]:
    """Those of the items, or whose callees, are `called`."""
    return {key for key in items if (key.callee if isinstance(key, Call) else key) in called}


def _tell_builds(sides: Sequence[_Side]) -> Iterator[str]:
    """Let modules of which traces have different builds be compared by names; what to tell of that."""
    builds: dict[str, set[frozenset[Key]]] = {}  # by module: those of each trace that has it
    for side in sides:
        modules = side.trace.modules
        for name in dict.fromkeys(module.name.lower() for module in modules):
            found = frozenset(_identity(module) for module in modules if module.name.lower() == name)
            builds.setdefault(name, set()).add(found)
    for name, differing in builds.items():
        if len(differing) > 1:
            yield f"{name} is not the same build everywhere: its functions are compared by their names"
            for side in sides:
                side.by_name.add(name)


def _identity(module: Module) -> Key:
    pdb = module.pdb
    return (
        module.name.lower(),
        module.timestamp,
        module.checksum,
        module.size,
        str(pdb.get("guid")),
        str(pdb.get("age")),
    )


class _Side:
    """One trace, and what its functions and calls are in all of them."""

    def __init__(self, trace: TraceFile) -> None:
        self.trace = trace
        self.by_name: set[str] = set()  # modules, in lower case, of which only names say what is the same
        self._items: dict[tuple[int, int], tuple[Key, Item] | None] = {}

    def counted(self, calls: Calls) -> tuple[Key, Item] | None:
        """What these calls count for; None if it is not known what was called."""
        found = self.item(calls.node)
        if not found or not calls.caller:
            return found
        caller, name = self.caller(calls.caller)
        return Call(caller, found[0], calls.tail), replace(found[1], caller=name, tail=calls.tail)

    def item(self, node: tuple[int, int]) -> tuple[Key, Item] | None:
        """What was called; None if that is not known, but only from where."""
        if node not in self._items:
            self._items[node] = self._find(*node)
        return self._items[node]

    def caller(self, node: tuple[int, int]) -> tuple[Key, str]:
        """Who called."""
        if node[0] == NOBODY:
            return None, NOBODY_NAME
        found = self.item(node)
        if found:
            return found[0], found[1].name
        # A call by the place where it is, which a callback was made in.
        name = self.trace.node_name(*node)
        place = self.trace.site(node[1]) if node[0] == NodeKind.CALL else None
        return ("call", self._place(place[0], place[1].rva) if place else name), name

    @functools.cached_property
    def traced(self) -> set[Key]:
        """What this trace shows if it is called: functions, and imports if calls of them are recorded."""
        found: set[Key] = set()
        for module in self.trace.modules:
            records = (each for each in self.trace.functions(module) if not each.status and not each.filtered)
            found |= {self._place(module, each.rva) for each in records}
            if module.events != "functions" and self.trace.mode != "hits":
                found |= {_import(name) for name in module.imports}
        return found

    def _place(self, module: Module, rva: int) -> Key:
        name = module.names.get(rva)
        if name and module.name.lower() in self.by_name:
            return module.name.lower(), name
        return _identity(module), rva

    def _at(self, module: Module, rva: int) -> tuple[Key, Item]:
        return self._place(module, rva), Item(module.place(rva), module.base + rva, rva)

    def _find(self, kind: int, number: int) -> tuple[Key, Item] | None:
        if kind == NodeKind.FUNCTION:
            function = self.trace.function(number)
            return self._at(function[0], function[1].rva) if function else None
        if kind == NodeKind.CALL:
            return self._called(number)
        va = self.trace.address(number)
        for module in self.trace.modules:
            if module.base <= va < module.base + module.size:
                return self._at(module, va - module.base)
        return ("address", va), Item(f"{va:#x}", va or None, None)

    def _called(self, number: int) -> tuple[Key, Item] | None:
        found = self.trace.site(number)
        if not found:
            return None
        module, site = found
        if site.imported != NONE_ID and site.imported < len(module.imports):
            name = module.imports[site.imported]
            return _import(name), Item(name, None, None)
        return self._at(module, site.target) if site.target else None


def _import(name: str) -> Key:
    library, _, function = name.partition("!")
    return "import", library.lower(), function
