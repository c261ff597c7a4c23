"""Where the call trees of two recordings of one program differ.

Compared are, thread by thread, frames in the order in which they were opened and closed, and how each was
closed; functions and call sites by module and RVA. Times, ids and addresses may differ. Threads that did the
same belong together, whichever of them was first; the others are compared in the order in which they began.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

from calltrace.calltree import steps
from calltrace.model import STEP_TAIL_CALLEE, Cause, Event, NodeKind, Step, StepType
from calltrace.tracefile import TraceFile

_COMPARED = {StepType.OPEN, StepType.CLOSE, StepType.MARK, StepType.GAP, StepType.ORPHAN, StepType.RESET}
_BEFORE, _AFTER = 6, 3  # steps shown before the first difference, and from it on
_THREADS = 4  # of which the difference is shown
_PATH = 12  # innermost open frames named
_BATCH = 1 << 14  # steps digested at once

_Word = tuple[object, ...]


@dataclass(frozen=True)
class Comparison:
    """What comparing two traces gave."""

    threads: int  # that are in both
    frames: int  # of those, in one trace
    differences: Sequence[str]  # each of several lines; none: the traces are equal


@dataclass(frozen=True)
class _Thread:
    position: int  # in TraceFile.threads
    digest: bytes  # equal if what is compared is
    frames: int


def compare(first: TraceFile, second: TraceFile, names: tuple[str, str]) -> Comparison:
    """Compare two traces, called by `names` in the texts. EngineError if memory runs out."""
    numbers: dict[_Word, int] = {}
    one, other = _Side(first, names[0], numbers), _Side(second, names[1], numbers)
    differences = []
    if (first.state, first.header.exit_code) != (second.state, second.header.exit_code):
        differences.append(f"{one.end()}, {other.end()}")
    ours, theirs = list(one.threads()), list(other.threads())
    if len(ours) != len(theirs):
        differences.append(f"{one.name} has {len(ours):,} threads, {other.name} {len(theirs):,}")
    equal = []
    for thread in list(ours):
        match = next((candidate for candidate in theirs if candidate.digest == thread.digest), None)
        if match:
            equal.append(thread)
            ours.remove(thread)
            theirs.remove(match)
    pairs = list(zip_longest(ours, theirs))
    for our, their in pairs[:_THREADS]:
        differences.append(_first_difference((one, our), (other, their)))
    if len(pairs) > _THREADS:
        differences.append(f"{len(pairs) - _THREADS:,} more threads differ")
    return Comparison(len(equal), sum(thread.frames for thread in equal), differences)


class _Side:
    """One of the two traces, as words that are equal where what they say is."""

    def __init__(self, trace: TraceFile, name: str, numbers: dict[_Word, int]) -> None:
        """`numbers` gives each word a number, the same in both traces."""
        self.name = name
        self._trace = trace
        self._numbers = numbers
        self._places: dict[tuple[int, int], tuple[str, int]] = {}

    def end(self) -> str:
        """How the program ended."""
        header = self._trace.header
        return f"{self.name}: {self._trace.state.name.lower()} with exit code {header.exit_code}"

    def thread_name(self, thread: _Thread | None) -> str:
        """What a thread is called, in this trace."""
        if thread is None:
            return f"no thread of {self.name}"
        told = self._trace.threads[thread.position]
        return f"thread {told.index} (id {told.id}) of {self.name}"

    def threads(self) -> Iterator[_Thread]:
        """All threads of which anything is compared."""
        for position in range(len(self._trace.threads)):
            digest, batch, frames, empty = hashlib.blake2b(), array("Q"), 0, True
            for step in self.steps(position):
                word = self._word(step)
                batch.append(self._numbers.setdefault(word, len(self._numbers)))
                frames += step.type == StepType.OPEN
                empty = False
                if len(batch) == _BATCH:
                    digest.update(batch)
                    del batch[:]
            digest.update(batch)
            if not empty:
                yield _Thread(position, digest.digest(), frames)

    def steps(self, position: int) -> Iterator[Step]:
        """What is compared of a thread."""
        index = self._trace.threads[position].index
        return (step for step in steps(self._trace, index) if step.type in _COMPARED)

    def number(self, step: Step) -> int:
        """The number of what a step says."""
        return self._numbers[self._word(step)]

    def frame_name(self, step: Step) -> str:
        """What the frame of a step is called."""
        name = self._trace.node_name(step.kind, step.id)
        if step.kind == NodeKind.CALL:
            module, rva = self._place(step.kind, step.id)
            name += f" from {module}+{rva:#x}"
        return name

    def text(self, step: Step) -> str:
        """What a step says, for a reader."""
        indent = "  " * min(step.depth, _PATH)
        if step.type == StepType.OPEN:
            return indent + self.frame_name(step) + (", by a jump" if step.flags & STEP_TAIL_CALLEE else "")
        if step.type == StepType.CLOSE:
            return f"{indent}end of {self.frame_name(step)}: {Cause(step.cause).text or 'return'}"
        if step.type == StepType.ORPHAN:
            return f"{indent}{Event(step.value).name} of {self.frame_name(step)}, which is not open"
        return f"{indent}{StepType(step.type).name.lower()} {step.value}"

    def _word(self, step: Step) -> _Word:
        if step.type in (StepType.MARK, StepType.GAP, StepType.RESET):
            return step.type, step.value
        place = self._place(step.kind, step.id)
        if step.type == StepType.OPEN:
            return step.type, step.kind, place, step.flags & STEP_TAIL_CALLEE
        return step.type, step.kind, place, step.cause, step.value if step.type == StepType.ORPHAN else 0

    def _place(self, kind: int, node: int) -> tuple[str, int]:
        place = self._places.get((kind, node))
        if place is None:
            place = self._places[kind, node] = self._find_place(kind, node)
        return place

    def _find_place(self, kind: int, node: int) -> tuple[str, int]:
        """The module and RVA of what a frame stands for; the bare number if no module has it."""
        if kind in (NodeKind.FUNCTION, NodeKind.CALL):
            found = self._trace.function(node) if kind == NodeKind.FUNCTION else self._trace.site(node)
            return (found[0].name.lower(), found[1].rva) if found else ("", node)
        va = self._trace.address(node)
        for module in self._trace.modules:
            if module.base <= va < module.base + module.size:
                return module.name.lower(), va - module.base
        return "", va


def _first_difference(*sides: tuple[_Side, _Thread | None]) -> str:
    """Where two threads begin to differ: what was open, what came before, and what comes in each."""
    (one, our), (other, their) = sides
    runs = [iter(side.steps(thread.position)) if thread else iter(()) for side, thread in sides]
    path: list[str] = []
    before: deque[str] = deque(maxlen=_BEFORE)
    equal = 0
    for ours, theirs in zip_longest(*runs):
        if ours is None or theirs is None or one.number(ours) != other.number(theirs):
            break
        equal += 1
        before.append(one.text(ours))
        if ours.type == StepType.OPEN:
            path.append(one.frame_name(ours))
        elif ours.type == StepType.CLOSE:
            path.pop()
    lines = [
        f"{one.thread_name(our)}, {other.thread_name(their)}: the first {equal:,} steps are equal",
        f"  inside {' > '.join(['...'] * (len(path) > _PATH) + path[-_PATH:]) or 'nothing'}",
        *(f"      {line}" for line in before),
    ]
    for (side, _), run, next_step in zip(sides, runs, (ours, theirs)):
        coming = chain([next_step] if next_step else [], islice(run, _AFTER - 1))
        lines.append(f"  {side.name}:")
        lines += [f"      {side.text(step)}" for step in coming] or ["      nothing more"]
    return "\n".join(lines)
