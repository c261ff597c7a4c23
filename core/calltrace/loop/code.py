"""Code in the target's memory, followed from instructions known to be executed. Addresses are VAs."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import capstone

from calltrace.errors import AccessRefused
from calltrace.loop.unwind import Read

_LONGEST = 15  # bytes of an instruction
_PIECE = 64  # bytes read at a time
_MOST_FOLLOWED = 20_000  # instructions
_MOST_REACHED = 10_000  # functions
_MOST_JUMPS = 8  # from a call's target to what it reaches
_ENDS = {"int3", "ud2", "ud0", "ud1", "hlt", "iretq", "iretd", "iret"}
_RETURNS = {"ret", "retf", "retfq"}
_CONDITIONS = {"loop", "loope", "loopne", "xbegin"}  # beside those that begin with j
_FAST_FAIL = "0x29"
_ADDRESS = re.compile(r"0x[0-9a-f]+\Z")
_RIP_RELATIVE = re.compile(r"(?<!s:)\[rip ([+-]) (\w+)\]")


class Kind(enum.Enum):
    """What an instruction does to the flow of control."""

    PLAIN = enum.auto()
    CALL = enum.auto()
    RETURN = enum.auto()
    JUMP = enum.auto()
    CONDITION = enum.auto()  # jumps or runs on
    POINTER_JUMP = enum.auto()
    END = enum.auto()  # nothing behind it is executed


class Instruction(NamedTuple):
    """One instruction."""

    address: int
    size: int
    kind: Kind
    target: int | None = None  # of a direct call or jump
    pointer: int | None = None  # of a call or jump through memory at a known place: that place

    @property
    def behind(self) -> int:
        """The VA behind it."""
        return self.address + self.size


@dataclass
class Followed:
    """What can be reached from somewhere without leaving the frame."""

    instructions: dict[int, Instruction] = field(default_factory=dict)
    exits: set[int] = field(default_factory=set)  # instructions that return
    pointer_jumps: set[int] = field(default_factory=set)  # where they lead is seen when they are executed
    tails: set[tuple[int, int]] = field(default_factory=set)  # jumps out of the function: from, to


class Code:
    """Decodes the target's code; what was decoded once is kept."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._known: dict[int, Instruction | None] = {}

    def forget(self) -> None:
        """Modules have come or gone."""
        self._known.clear()

    def at(self, address: int) -> Instruction | None:
        """The instruction at `address`; None if there is none, or nothing to read."""
        if address not in self._known:
            self._known[address] = None
            self._decode(address)
        return self._known[address]

    def _decode(self, address: int) -> None:
        code = b""
        for size in (_PIECE, _LONGEST, 1):  # the last bytes of what is mapped may be fewer
            try:
                code = self._read(address, size)
                break
            except AccessRefused:
                continue
        for at, size, mnemonic, operand in self._decoder.disasm_lite(code, address):
            if at != address and at in self._known:
                return
            instruction = self._known[at] = _instruction(at, size, mnemonic, operand)
            if instruction.kind in (Kind.END, Kind.RETURN, Kind.JUMP, Kind.POINTER_JUMP):
                return

    def follow(self, start: int, function: Callable[[int], int | None]) -> Followed:
        """Follow the code from `start` to what returns: past calls, along both sides of a condition.

        Jumps out of the function are followed, too, since they keep the frame; `function` tells the start of
        the one that an address belongs to.
        """
        found = Followed()
        work = [(start, function(start))]
        while work and len(found.instructions) < _MOST_FOLLOWED:
            address, home = work.pop()
            while address not in found.instructions:
                instruction = self.at(address)
                if instruction is None or instruction.kind is Kind.END:
                    break
                found.instructions[address] = instruction
                if instruction.kind is Kind.RETURN:
                    found.exits.add(address)
                    break
                if instruction.kind is Kind.POINTER_JUMP:
                    found.pointer_jumps.add(address)
                    break
                if instruction.kind in (Kind.JUMP, Kind.CONDITION) and instruction.target is not None:
                    there = function(instruction.target)
                    if there != home:
                        found.tails.add((address, instruction.target))
                    work.append((instruction.target, there))
                if instruction.kind is Kind.JUMP:
                    break
                address = instruction.behind
        return found

    def reachable(
        self, starts: Iterable[int], function: Callable[[int], int | None], within: Callable[[int], bool]
    ) -> list[int]:
        """The functions that those at `starts` lead to by direct calls and jumps, themselves among them.

        Only of what is `within`; `function` tells the start of the one that an address belongs to.
        """
        found: dict[int, None] = {}
        work = list(starts)
        while work and len(found) < _MOST_REACHED:
            start = work.pop()
            if start in found or not within(start):
                continue
            found[start] = None
            code = self.follow(start, function)
            targets = [target for _, target in code.tails]
            for instruction in code.instructions.values():
                if instruction.kind is Kind.CALL:
                    targets += self.reached(instruction)
            work += [function(target) or target for target in targets]
        return sorted(found)

    def call_before(self, back: int) -> list[Instruction]:
        """The call instructions that may stand before return address `back`, the likeliest first."""
        found = []
        for size in (5, 6, 3, 2, 7, 4, 8, 9):
            instruction = self.at_unkept(back - size)
            if instruction and instruction.kind is Kind.CALL and instruction.size == size:
                found.append(instruction)
        return found

    def at_unkept(self, address: int) -> Instruction | None:
        """As `at`, of an address that need not be where an instruction begins."""
        try:
            code = self._read(address, _LONGEST)
        except AccessRefused:
            return None
        decoded = next(self._decoder.disasm_lite(code, address, 1), None)
        return _instruction(*decoded) if decoded else None

    def reached(self, instruction: Instruction) -> list[int]:
        """Where a direct call or jump, or one through a known pointer, leads; on along jumps that follow.

        The first is its own target. Empty if that is known at run time only.
        """
        found: list[int] = []
        step: Instruction | None = instruction
        while step and len(found) < _MOST_JUMPS:
            target = step.target
            if step.pointer is not None:
                try:
                    target = int.from_bytes(self._read(step.pointer, 8), "little")
                except AccessRefused:
                    break
            if target is None or target in found:
                break
            found.append(target)
            step = self.at(target)
            if step and step.kind not in (Kind.JUMP, Kind.POINTER_JUMP):
                break
        return found


def _instruction(address: int, size: int, mnemonic: str, operand: str) -> Instruction:
    verb = mnemonic.split()[-1]  # behind prefixes
    direct = int(operand, 16) if _ADDRESS.match(operand) else None
    if verb == "call":
        return Instruction(address, size, Kind.CALL, direct, _pointer(operand, address + size))
    if verb in _RETURNS:
        return Instruction(address, size, Kind.RETURN)
    if verb == "jmp":
        kind = Kind.POINTER_JUMP if direct is None else Kind.JUMP
        return Instruction(address, size, kind, direct, _pointer(operand, address + size))
    if direct is not None and (verb.startswith("j") or verb in _CONDITIONS):
        return Instruction(address, size, Kind.CONDITION, direct)
    if verb in _ENDS or (verb == "int" and operand == _FAST_FAIL):
        return Instruction(address, size, Kind.END)
    return Instruction(address, size, Kind.PLAIN)


def _pointer(operand: str, behind: int) -> int | None:
    """The VA that `qword ptr [rip + 0x1234]` means, with RIP at `behind`."""
    parts = _RIP_RELATIVE.search(operand)
    return behind + int(parts[1] + parts[2], 16) if parts else None


def back_edges(code: Followed, start: int, site: int) -> list[tuple[int, int]]:
    """The jumps that close the loop in which `site` comes again after `start`, behind it: from, to.

    All of them lead to one place, without which there would be no way round; so an inner loop's are not among
    them. Empty if no such place is found.
    """
    inside = cycle(code, start, site)
    by_header: dict[int, list[tuple[int, int]]] = {}
    for address in inside:
        instruction = code.instructions[address]
        if instruction.kind in (Kind.JUMP, Kind.CONDITION) and instruction.target in inside:
            assert instruction.target is not None
            if instruction.target <= address:
                by_header.setdefault(instruction.target, []).append((address, instruction.target))
    for _, edges in sorted(by_header.items()):
        if site not in _reachable(code, start, frozenset(edges)):
            return sorted(edges)
    return []


def cycle(code: Followed, start: int, site: int) -> set[int]:
    """The instructions that may be executed between `start` and the next time at `site`, that included."""
    return _reachable(code, start, frozenset()) & _reaching(code, site)


def _successors(code: Followed, instruction: Instruction) -> list[int]:
    after = []
    if instruction.kind in (Kind.JUMP, Kind.CONDITION) and instruction.target is not None:
        after.append(instruction.target)
    if instruction.kind in (Kind.PLAIN, Kind.CALL, Kind.CONDITION):
        after.append(instruction.behind)
    return [address for address in after if address in code.instructions]


def _reachable(code: Followed, start: int, without: frozenset[tuple[int, int]]) -> set[int]:
    found: set[int] = set()
    work = [start] if start in code.instructions else []
    while work:
        address = work.pop()
        if address in found:
            continue
        found.add(address)
        following = _successors(code, code.instructions[address])
        work += [after for after in following if (address, after) not in without]
    return found


def _reaching(code: Followed, end: int) -> set[int]:
    before: dict[int, list[int]] = {}
    for address, instruction in code.instructions.items():
        for after in _successors(code, instruction):
            before.setdefault(after, []).append(address)
    found: set[int] = set()
    work = [end]
    while work:
        address = work.pop()
        if address not in found:
            found.add(address)
            work += before.get(address, [])
    return found
