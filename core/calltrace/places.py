"""Where breakpoints on traced functions have to stand, so that they are hit as often as untraced.

The original of a traced function begins with a jump to its copy, and hardly runs any more: only threads that
were inside when the jump was written, and what the analysis missed, go on there. After the recording it is
the other way round: new calls run the original, and threads that are inside go on in the copy.
"""

from __future__ import annotations

import functools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence

from calltrace.patches import Patch
from calltrace.ports import TargetModule
from calltrace.recorder import Code


class Copied:
    """The copies of one module's functions, as long as they lie in the target."""

    def __init__(
        self, module: TargetModule, code: Code, patches: Sequence[Patch], places: Callable[[], bytes]
    ) -> None:
        """`patches` lead into the copies; `places` gives an array of struct ct_place (native/planner/plan.h).

        It is asked at most once, when that is needed first, or when `settle` is called.
        """
        self.region = code.region  # VA
        self.active = True  # the jumps to the copies are in place
        self._module = module
        self._patches = sorted((rva, rva + len(new)) for rva, _, new in patches)
        self._ask = places

    def settle(self) -> None:
        """What `places` gives will soon be of other copies."""
        _ = self._places

    def place(self, address: int) -> int | None:
        """Where a breakpoint on the instruction at a VA has to stand in these copies, or in front of them.

        That is its own address for an entry that every call passes; None if the instruction has no copy.
        """
        rva = address - self._module.base
        instructions, at = self._places
        if not 0 <= rva < self._module.size:
            return None
        index = bisect_left(instructions, rva)
        found = index < len(instructions) and instructions[index] == rva
        return self._module.base + at[index] if found else None

    def overwrites(self, address: int) -> bool:
        """Whether a jump to the copies stands at this VA."""
        rva = address - self._module.base
        index = bisect_right(self._patches, (rva, self._module.size)) - 1
        return index >= 0 and rva < self._patches[index][1]

    @functools.cached_property
    def _places(self) -> tuple[Sequence[int], Sequence[int]]:
        words = memoryview(self._ask()).cast("I")
        return words[::2], words[1::2]


def places(copied: Iterable[Copied], address: int) -> list[int]:
    """The VAs at which a breakpoint on the instruction at `address` has to stand, the usual one first.

    In the middle of a jump to a copy none may stand: what is no instruction of a traced function, and hence
    never runs, goes to a VA where nothing runs.
    """
    usual, original = address, True
    others: list[int] = []
    for each in copied:
        place = each.place(address)
        if not each.active:
            if place is not None and place != address:
                others.append(place)
        elif place is not None:
            usual, original = place, not each.overwrites(address)
        elif each.overwrites(address):
            usual, original = each.region, False
    return [usual, *([address] if original and usual != address else []), *others]
