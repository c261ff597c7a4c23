"""The call trees of a trace as far as they are a target's own: see rig.stated for what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calltrace.calltree import steps
from calltrace.model import NONE_ID, STEP_RESUMED, Cause, FunctionRecord, Module, NodeKind, Step, StepType
from calltrace.tracefile import TraceFile
from rig.stated import Line, lifted

Names = Mapping[str, Mapping[int, str]]  # by RVA, by the module's lower-case file name

_ENDS = {cause.value: cause.text for cause in Cause}


@dataclass
class Thread:
    """One thread's frames."""

    id: int  # the system's
    lines: list[Line]


class _Growing:
    """A thread's frames so far. Lists side by side: there may be millions of frames."""

    def __init__(self, thread_id: int) -> None:
        self.id = thread_id
        self.depths: list[int] = []
        self.names: list[str] = []  # empty: left out after all
        self.ends: list[str] = []
        self._open: list[int] = []  # positions of the open frames; -1 for one that is nobody's concern
        self._depth = 0
        self._functions = 0
        self._functions_before: dict[int, int] = {}  # by position of an open call

    def open(self, name: str, is_call: bool) -> None:
        if not name:
            self._open.append(-1)
            return
        position = len(self.names)
        self._open.append(position)
        self.depths.append(self._depth)
        self.names.append(name)
        self.ends.append("")
        self._depth += 1
        if is_call:
            self._functions_before[position] = self._functions
        else:
            self._functions += 1

    def close(self, end: str, stated_calls: set[str]) -> None:
        position = self._open.pop()
        if position < 0:
            return
        self._depth -= 1
        if end:
            self.ends[position] = end
        before = self._functions_before.pop(position, None)
        name = self.names[position]
        if before is not None and name not in stated_calls and (name == "[*]" or before == self._functions):
            self.names[position] = ""

    def lines(self) -> list[Line]:
        lines = map(Line, self.depths, self.names, self.ends)
        return list(lines) if all(self.names) else list(lifted(lines, lambda line: not line.name))


class OwnTrees:
    """What a trace has of a target's own functions."""

    def __init__(self, trace: TraceFile, names: Names) -> None:
        """`names` are the functions that count."""
        self._trace = trace
        self._names = names
        self._name_cache: dict[tuple[int, int], str] = {}
        self._callee_cache: dict[int, int | None] = {}
        self._ids = {
            (module.index, record.rva): number
            for module in trace.modules
            for number, record in enumerate(trace.functions(module), module.first_function)
            if not record.status
        }
        self.problems: list[str] = []  # what no whole trace has

    def threads(self, stated_calls: set[str]) -> list[Thread]:
        """Every thread's frames; of calls those in `stated_calls`, and imports with own functions below."""
        grown: list[_Growing] = []
        callee: int | None = None  # of the direct call that was the step before
        for step in steps(self._trace):
            if callee is not None:
                self._check_entered(callee, step)
                callee = None
            if step.type == StepType.OPEN:
                name = self._name(step.kind, step.id)
                goes_on = " (goes on)" if name and step.flags & STEP_RESUMED else ""
                grown[-1].open(name + goes_on, step.kind == NodeKind.CALL)
                if step.kind == NodeKind.CALL:
                    callee = self._callee(step.id)
            elif step.type == StepType.CLOSE:
                grown[-1].close(_ENDS[step.cause], stated_calls)
            elif step.type == StepType.THREAD:
                grown.append(_Growing(self._trace.threads[step.thread].id))
            elif step.type in (StepType.GAP, StepType.ORPHAN):
                self.problems.append(f"{StepType(step.type).name} in thread {step.thread}")
        return [Thread(thread.id, thread.lines()) for thread in grown]

    def refused(self) -> dict[str, str]:
        """Own functions that are not instrumented, and why."""
        why: dict[str, str] = {}
        for module in self._trace.modules:
            statuses = {record.rva: record.status for record in self._trace.functions(module)}
            for rva, name in self._own(module).items():
                if statuses.get(rva) != 0:
                    why[name] = module.statuses.get(statuses.get(rva, -1), "not found")
        return why

    def _own(self, module: Module) -> Mapping[int, str]:
        return self._names.get(module.name.lower(), {})

    def _name(self, kind: int, number: int) -> str:
        key = (kind, number)
        if key not in self._name_cache:
            self._name_cache[key] = self._new_name(kind, number)
        return self._name_cache[key]

    def _new_name(self, kind: int, number: int) -> str:
        if kind == NodeKind.FUNCTION:
            return self._function_name(self._trace.function(number))
        site = self._trace.site(number) if kind == NodeKind.CALL else None
        if not site or not self._function_name(self._trace.function(site[1].function)):
            return ""
        module, call = site
        if call.imported != NONE_ID:
            return f"[{module.imports[call.imported].rpartition('!')[2]}]"
        return "" if call.target else "[*]"

    def _function_name(self, found: tuple[Module, FunctionRecord] | None) -> str:
        return self._own(found[0]).get(found[1].rva, "") if found else ""

    def _callee(self, site_id: int) -> int | None:
        """The instrumented function that a direct call goes to."""
        if site_id not in self._callee_cache:
            site = self._trace.site(site_id)
            self._callee_cache[site_id] = self._ids.get((site[0].index, site[1].target)) if site else None
        return self._callee_cache[site_id]

    def _check_entered(self, callee: int, step: Step) -> None:
        if (step.type, step.kind, step.id) != (StepType.OPEN, NodeKind.FUNCTION, callee):
            name = self._trace.node_name(NodeKind.FUNCTION, callee)
            self.problems.append(f"a direct call of {name} is not followed by its entry")
