"""The call trees of a trace as far as they are a target's own: see rig.stated for what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calltrace.calltree import steps
from calltrace.model import NONE_ID, STEP_RESUMED, Cause, FunctionRecord, Module, NodeKind, Step, StepType
from calltrace.tracefile import TraceFile
from rig.stated import Line, lifted

Names = Mapping[str, Mapping[int, str]]  # by RVA, by the module's lower-case file name


@dataclass
class Thread:
    """One thread's frames."""

    id: int  # the system's
    lines: list[Line]


@dataclass
class _Frame:
    depth: int
    name: str  # empty: not shown
    end: str = ""
    is_call: bool = False
    functions_inside: bool = False


@dataclass
class _Growing:
    """A thread's frames so far; `stack` has a None for each open frame that is nobody's concern."""

    id: int
    frames: list[_Frame] = field(default_factory=list)
    stack: list[_Frame | None] = field(default_factory=list)
    shown: list[_Frame] = field(default_factory=list)  # the others of `stack`

    def open(self, name: str, is_call: bool) -> None:
        if not name:
            self.stack.append(None)
            return
        frame = _Frame(len(self.shown), name, is_call=is_call)
        if not is_call:
            for around in reversed(self.shown):
                if around.functions_inside:
                    break
                around.functions_inside = True
        self.frames.append(frame)
        self.stack.append(frame)
        self.shown.append(frame)

    def close(self, end: str) -> _Frame | None:
        frame = self.stack.pop()
        if frame:
            self.shown.pop()
            frame.end = end
        return frame


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
                frame = grown[-1].close(Cause(step.cause).text)
                unstated = frame and frame.is_call and frame.name not in stated_calls
                if frame and unstated and (frame.name == "[*]" or not frame.functions_inside):
                    frame.name = ""
            elif step.type == StepType.THREAD:
                grown.append(_Growing(self._trace.threads[step.thread].id))
            elif step.type in (StepType.GAP, StepType.ORPHAN):
                self.problems.append(f"{StepType(step.type).name} in thread {step.thread}")
        return [Thread(thread.id, _lines(thread.frames)) for thread in grown]

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


def _lines(frames: list[_Frame]) -> list[Line]:
    every = (Line(frame.depth, frame.name, frame.end) for frame in frames)
    return list(lifted(every, lambda line: not line.name))
