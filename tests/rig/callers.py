"""Who called whom in a simulated thread, as `callers`, `callees` and `diff` count it."""

from __future__ import annotations

from collections.abc import Iterator

from rig import simulated
from rig.simulated import Frame, SimulatedThread

Key = tuple[int, int, bool]  # kind, id, entered by a tail jump
NOBODY = (-1, 0, False)


class Truth:
    """What a simulated thread's frames say of who called whom."""

    def __init__(self, thread: SimulatedThread) -> None:
        self.frames = thread.frames()
        self.parents: dict[int, Frame | None] = {}
        self.replaced: dict[int, Frame] = {}
        self._relate(thread, None, thread.roots)

    def _relate(self, thread: SimulatedThread, parent: Frame | None, children: list[Frame]) -> None:
        before: Frame | None = None
        for child in children:
            self.parents[id(child)] = parent
            # The jump is the event right before the one that enters.
            if before and before.cause == simulated.TAIL and self._end(thread, before) == self.begin(child):
                self.replaced[id(child)] = before
            self._relate(thread, child, child.children)
            before = child

    @staticmethod
    def _end(thread: SimulatedThread, frame: Frame) -> int:
        """The position behind the event that closed it."""
        return frame.closed + (
            1 if frame.kind == simulated.FUNCTION else 1 + 2 * (8 // thread.units.unit_size)
        )

    @staticmethod
    def begin(frame: Frame) -> int:
        """The position of the event that opened it, or of the stack pointer before that."""
        has_frame = frame.kind == simulated.FUNCTION and frame.id not in simulated.PLAIN
        return frame.opened - has_frame

    def stands_for_callee(self, frame: Frame) -> bool:
        """A call site that is told of as the call of the function entered there."""
        first = frame.children[0] if frame.children else None
        return frame.kind == simulated.CALL_NODE and first is not None and first.kind == simulated.FUNCTION

    def caller(self, frame: Frame) -> Frame | None:
        if id(frame) in self.replaced:
            return self.replaced[id(frame)]
        caller = self.parents[id(frame)]
        while caller and self.stands_for_callee(caller):
            caller = self.parents[id(caller)]
        return caller

    def key(self, frame: Frame) -> Key:
        return frame.kind, frame.id, id(frame) in self.replaced

    def chain(self, frame: Frame, depth: int) -> Iterator[tuple[tuple[Key, ...], Frame | None]]:
        """Contexts of 0 to `depth` levels of callers, with the outermost frame of each."""
        path: list[Key] = [(frame.kind, frame.id, False)]
        at: Frame | None = frame
        yield tuple(path), at
        for _ in range(depth):
            if at is None:
                return
            caller = self.caller(at)
            path.append((caller.kind, caller.id, id(at) in self.replaced) if caller else NOBODY)
            at = caller
            yield tuple(path), at


def name(key: Key) -> str:
    kind, number, _ = key
    if key == NOBODY:
        return "code not traced"
    if kind == simulated.FUNCTION:
        return f"simulated!f{number}"
    if kind == simulated.CALL_NODE:
        return f"call at simulated+{0x2000 + 5 * number:#x}"
    address = {0x140001000: "simulated!f0", 0x7FFE00001234: "0x7ffe00001234", 1: "0x1"}[number]
    return address if kind == simulated.API_FUNCTION else f"call {address}"
