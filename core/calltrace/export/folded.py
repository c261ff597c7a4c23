"""Folded stacks, for flamegraph.pl, inferno, speedscope and the like: a line ``thread;outer;inner WEIGHT``.

The weight is what was spent in the innermost frame itself: ticks of the clock, in a trace without one events.
A stack may have several lines, which readers add up: so many stacks are kept at a time, then they are written
out. Frames more than 1,000 deep count for the one at that depth.
"""

from __future__ import annotations

from typing import TextIO

from calltrace.calltree import steps
from calltrace.model import StepType
from calltrace.tracefile import TraceFile

_DEEPEST = 1000
_KEPT = 1 << 18  # stacks
_TEXTS = 1 << 10  # kept while stacks are written, which mostly begin like one shortly before

_Key = tuple[int, int]  # kind and id of a frame


def write(trace: TraceFile, out: TextIO, kept: int = _KEPT) -> None:
    """Write the stacks of each thread; in memory are at most `kept` of them and the frames that are open."""
    stacks = _Stacks("")
    path: list[int] = []  # the open frames' stacks
    for step in steps(trace):
        if step.type == StepType.THREAD:
            stacks.write(trace, out)
            thread = trace.threads[step.thread]
            stacks = _Stacks(f"thread {thread.index} (id {thread.id})")
            path = []
        elif step.type == StepType.OPEN:
            below = path[-1] if path else stacks.ROOT
            path.append(stacks.within(below, (step.kind, step.id)) if len(path) < _DEEPEST else below)
        elif step.type == StepType.CLOSE:
            stacks.weights[path.pop()] += step.self_time
            if len(stacks.weights) > kept + len(path):
                stacks.write(trace, out)
                stacks, path = stacks.only(path)
    stacks.write(trace, out)


class _Stacks:
    """Stacks of one thread as a tree, each with its weight."""

    ROOT = 0

    def __init__(self, thread: str) -> None:
        self._thread = thread
        self._numbers: dict[tuple[int, _Key], int] = {}
        self._parents = [self.ROOT]
        self._keys: list[_Key] = [(0, 0)]
        self.weights = [0]

    def within(self, stack: int, key: _Key) -> int:
        """The stack of a frame that was called in this one."""
        number = self._numbers.get((stack, key))
        if number is None:
            number = self._numbers[stack, key] = len(self.weights)
            self._parents.append(stack)
            self._keys.append(key)
            self.weights.append(0)
        return number

    def only(self, path: list[int]) -> tuple[_Stacks, list[int]]:
        """Nothing but these open frames, and their stacks there."""
        fresh = _Stacks(self._thread)
        kept: list[int] = []
        for stack in path:
            below = kept[-1] if kept else self.ROOT
            kept.append(fresh.within(below, self._keys[stack]) if len(kept) < _DEEPEST else below)
        return fresh, kept

    def write(self, trace: TraceFile, out: TextIO) -> None:
        """Write what has any weight."""
        texts = {self.ROOT: self._thread}
        for stack, weight in enumerate(self.weights):
            if weight:
                if len(texts) > _TEXTS:
                    texts = {self.ROOT: self._thread}
                out.write(f"{self._text(trace, stack, texts)} {weight}\n")

    def _text(self, trace: TraceFile, stack: int, texts: dict[int, str]) -> str:
        """The names of the stack; `texts`: those of the stacks below it that are known, which become more."""
        missing: list[int] = []
        while stack not in texts:
            missing.append(stack)
            stack = self._parents[stack]
        text = texts[stack]
        for number in reversed(missing):
            text = texts[number] = f"{text};{_plain(trace.node_name(*self._keys[number]))}"
        return text


def _plain(name: str) -> str:
    return name.replace(";", ":")
