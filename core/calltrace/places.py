"""Between originals of traced functions and their copies: for whoever shows or finds the one by the other.

The original of a traced function begins with a jump to its copy, and hardly runs any more: only threads that
were inside when the jump was written, and what the analysis missed, go on there. After the recording it is
the other way round: new calls run the original, and threads that are inside go on in the copy. To be hit as
often as untraced, a breakpoint has to stand in one or the other, or in both.
"""

from __future__ import annotations

import functools
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence

from calltrace.model import NONE_ID
from calltrace.patches import Patch

PIECE = struct.Struct("<II")  # struct ct_piece
COPIED = struct.Struct("<III")  # struct ct_copied
_LONGEST = 15  # bytes of an instruction


class Copied:
    """The copies of one module's functions, as long as they lie in the target. Addresses are VAs."""

    def __init__(
        self, base: int, module_size: int, region: int, size: int, ask: Callable[[], tuple[bytes, bytes]]
    ) -> None:
        """`ask` gives the arrays of struct ct_copies (native/planner/plan.h).

        It is asked at most once, when that is needed first, or when `settle` is called.
        """
        self.base = base  # of the module
        self.module_size = module_size  # SizeOfImage, bytes
        self.region = region
        self.size = size  # bytes of the region: code, and data that nothing maps to
        self.active = False  # the jumps to the copies are in place
        self._jumps: list[tuple[int, int]] = []
        self._own_bytes: dict[int, bytes] = {}  # of the module, by VA: what the jumps stand for
        self._ask = ask

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.region <= address < self.region + self.size

    def lead_in(self, patches: Sequence[Patch]) -> None:
        """These lead to the copies from now on."""
        self._jumps = sorted((rva, rva + len(new)) for rva, _, new in patches)
        self._own_bytes = {self.base + rva: original[: len(new)] for rva, original, new in patches}
        self.active = True

    def without_jumps(self, address: int, data: bytes) -> bytes:
        """What was read at a VA, as it is without the jumps to the copies."""
        if not self.active or address >= self.base + self.module_size or address + len(data) <= self.base:
            return data
        own = bytearray(data)
        first = max(bisect_right(self._jumps, (address - self.base, 0)) - 1, 0)
        for rva, _ in self._jumps[first:]:
            at = self.base + rva - address
            if at >= len(data):
                break
            bytes_there = self._own_bytes[self.base + rva]
            begin, end = max(at, 0), min(at + len(bytes_there), len(data))
            if begin < end:
                own[begin:end] = bytes_there[begin - at : end - at]
        return bytes(own)

    def settle(self) -> None:
        """What would be asked for will soon be of other copies."""
        _ = self._map

    def original(self, address: int) -> int | None:
        """The original instruction that the code at `address` of the region does the work of.

        Event code belongs to the instruction it stands before: that at a function's entry to the function's
        start, that at its exits to the instruction that leaves it. The return address of a call is that of
        the original call. In the middle of an instruction's copy, the instruction's start. None if
        `address` is in no copy of a function.
        """
        if address not in self:
            return None
        begins, rvas = self._pieces
        index = bisect_right(begins, address - self.region) - 1
        return None if index < 0 or rvas[index] == NONE_ID else self.base + rvas[index]

    def copy(self, address: int) -> int | None:
        """Where the copy of the original instruction that begins at `address` begins, event code included.

        A jump inside the function to the original address leads there in the copy. None if its function has
        no copy, or no instruction is known to begin there.
        """
        index = self._find(address)
        return None if index is None else self.region + self._copied[1][index]

    def place(self, address: int) -> int | None:
        """Where a breakpoint on the instruction at `address` has to stand in these copies, or before them.

        That is its own address for an entry that every call passes; None if the instruction has no copy.
        """
        index = self._find(address)
        if index is None:
            return None
        at = self._copied[2][index]
        return self.region + at if at else address

    @property
    def code(self) -> tuple[int, int]:
        """VA and size of the module's code that has copies, and what lies between; size 0: there is none."""
        rvas = self._copied[0]
        if not rvas:
            return self.base, 0
        return self.base + rvas[0], rvas[-1] + _LONGEST - rvas[0]

    def jump_offset(self, address: int) -> int | None:
        """How far a VA is behind the start of the jump to the copies it lies in; None: it lies in none."""
        rva = address - self.base
        index = bisect_right(self._jumps, (rva, self.module_size)) - 1
        if index < 0 or rva >= self._jumps[index][1]:
            return None
        return rva - self._jumps[index][0]

    def _find(self, address: int) -> int | None:
        """The number of a copied instruction."""
        rva, rvas = address - self.base, self._copied[0]
        index = bisect_left(rvas, rva)
        return index if index < len(rvas) and rvas[index] == rva else None

    @property
    def _pieces(self) -> tuple[Sequence[int], ...]:
        return self._map[0]

    @property
    def _copied(self) -> tuple[Sequence[int], ...]:
        return self._map[1]

    @functools.cached_property
    def _map(self) -> tuple[tuple[Sequence[int], ...], tuple[Sequence[int], ...]]:
        """The members of struct ct_piece and of struct ct_copied, of all."""
        pieces, copied = (memoryview(array).cast("I") for array in self._ask())
        return (pieces[::2], pieces[1::2]), (copied[::3], copied[1::3], copied[2::3])


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
            usual, original = place, each.jump_offset(address) is None
        elif each.jump_offset(address) is not None:
            usual, original = each.region, False
    return [usual, *([address] if original and usual != address else []), *others]
