"""A module's instructions, found by following what runs: where control comes from and where it may go.

Nothing is taken for code on suspicion. A function is followed from an address that is known to be executed,
along its jumps and past its conditions, but neither behind a call, before that has returned, nor through a
pointer, before it was seen where that leads. So a breakpoint at any place found is one at an instruction.
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Sequence
from typing import NamedTuple

import capstone

from calltrace.pe.image import Image
from calltrace.plan import Extent

_LONGEST = 15  # bytes of an instruction
_ENDS = {"int3", "ud2", "ud0", "ud1", "hlt", "iretq", "iretd", "iret"}
_RETURNS = {"ret", "retf", "retfq"}
_CONDITIONAL = {"loop", "loope", "loopne", "xbegin"}  # beside those that begin with j
_FAST_FAIL = "0x29"


class Flow(enum.Enum):
    """By what an instruction may take control elsewhere."""

    CALL = enum.auto()
    RETURN = enum.auto()
    JUMP = enum.auto()  # may leave its function, or lead back to its start
    POINTER_JUMP = enum.auto()  # the same, to where is known at run time only


class Place(NamedTuple):
    """An instruction at which a function may be left, or something called."""

    function: int  # position among the module's functions
    flow: Flow
    size: int  # bytes
    target: int | None  # RVA, of a direct call or jump


class CodeFlow:
    """What has been found out of one module so far. Addresses are RVAs."""

    def __init__(self, image: Image, extents: Sequence[Extent], entries: Sequence[int]) -> None:
        """`entries` are the starts of the functions, in their order."""
        self.places: dict[int, Place] = {}
        self._data = image.data
        self._extents = extents
        self._begins = [extent.begin for extent in extents]
        self._entries = entries
        self._known: set[int] = set()  # instructions seen
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)

    def function_at(self, rva: int) -> int | None:
        """The position of the function whose code lies there; None: nobody's."""
        extent = self._extent(rva)
        return extent.function if extent else None

    def follow(self, rva: int) -> list[int]:
        """Follow the instructions from `rva`, which is executed; the places that were not known before."""
        found: list[int] = []
        work = [rva]
        while work:
            at = work.pop()
            extent = self._extent(at)
            if extent and at not in self._known:
                self._follow_run(at, extent, work, found)
        return found

    def _follow_run(self, rva: int, extent: Extent, work: list[int], found: list[int]) -> None:
        """One run of instructions; where else in its function it leads is added to `work`."""
        function = extent.function
        code = self._data[rva : extent.end + _LONGEST]
        for at, size, mnemonic, operand in self._decoder.disasm_lite(code, rva):
            if at >= extent.end:
                work.append(at)  # its function's, or it would not run on
                return
            if at in self._known:
                return
            self._known.add(at)
            verb = mnemonic.split()[-1]  # behind prefixes
            direct = int(operand, 16) if operand.startswith("0x") else None
            flow, runs_on = None, verb not in _ENDS
            if verb == "call":
                flow, runs_on = Flow.CALL, False
            elif verb in _RETURNS:
                flow, runs_on = Flow.RETURN, False
            elif verb == "jmp" and direct is None:
                flow, runs_on = Flow.POINTER_JUMP, False
            elif direct is not None and (verb.startswith("j") or verb in _CONDITIONAL):
                runs_on = verb != "jmp"
                inside = self.function_at(direct) == function
                if inside:
                    work.append(direct)
                if not inside or direct == self._entries[function]:
                    flow = Flow.JUMP
            elif verb == "int" and operand == _FAST_FAIL:
                runs_on = False
            if runs_on and self.function_at(at + size) != function:
                flow, runs_on = Flow.JUMP, False
            if flow:
                self.places[at] = Place(function, flow, size, direct)
                found.append(at)
            if not runs_on:
                return

    def _extent(self, rva: int) -> Extent | None:
        at = bisect.bisect_right(self._begins, rva) - 1
        if at >= 0 and rva < self._extents[at].end:
            return self._extents[at]
        return None
