"""The code of what a trace was recorded of, read from the files of its modules. Addresses are VAs."""

from __future__ import annotations

import bisect
import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import capstone

from calltrace.errors import AccessRefused, CalltraceError
from calltrace.loop.code import Code, Kind
from calltrace.model import Module
from calltrace.pe.image import Image, from_file
from calltrace.tracefile import TraceFile

_SLOT = re.compile(r"qword ptr \[\w+(?: \+ (0x[0-9a-f]+|\d+))?\]\Z")
_LONGEST = 15  # bytes of an instruction
_CALL, _CALL_SIZE = b"\xe8", 5  # call rel32


class TracedCode:
    """The modules of a trace, with their code where their files are still what they were."""

    def __init__(self, trace: TraceFile, find_file: Callable[[str], Path]) -> None:
        """`find_file` turns a path as the trace's system writes it into one of this system."""
        self._trace, self._find_file = trace, find_file
        self._images: dict[int, Image | None] = {}  # by base
        self._starts: dict[int, list[int]] = {}
        self._names: list[str] = []  # of what has no address: its number is the place in here, negative
        self._numbers: dict[str, int] = {}
        self.code = Code(self._read)
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._calls: dict[tuple[int, ...], list[int]] = {}

    def unplaced(self, name: str, fresh: bool = False) -> int:
        """A number below zero for what has a name, but no address; a `fresh` one is nobody else's."""
        if fresh or name not in self._numbers:
            self._names.append(name)
            number = -len(self._names)
            if fresh:
                return number
            self._numbers[name] = number
        return self._numbers[name]

    def name(self, address: int) -> str:
        """`module!function` of the function that starts there, else `module+0xRVA`."""
        return self._names[-address - 1] if address < 0 else self._trace.address_name(address)

    def place(self, address: int) -> str:
        """`module+0xRVA`."""
        if address < 0:
            return self._names[-address - 1]
        module = self.module_at(address)
        return f"{module.stem}+{address - module.base:#x}" if module else f"{address:#x}"

    def module_at(self, address: int) -> Module | None:
        """The recorded module there."""
        modules = self._trace.modules
        return next((each for each in modules if each.base <= address < each.base + each.size), None)

    def function_at(self, address: int) -> int | None:
        """The start of the function that an address belongs to."""
        if address < 0:
            return address
        module = self.module_at(address)
        if module is None:
            return None
        if module.base not in self._starts:
            records = self._trace.functions(module)
            self._starts[module.base] = sorted(module.base + record.rva for record in records)
        starts = self._starts[module.base]
        at = bisect.bisect_right(starts, address) - 1
        return starts[at] if at >= 0 else None

    def has_code(self, address: int) -> bool:
        """Is the code there known?"""
        module = self.module_at(address)
        return module is not None and self._image(module) is not None

    def calls(self, functions: Sequence[int], callee: int) -> list[int]:
        """The direct calls of `callee` in functions of one frame, each of which jumped to the next."""
        key = (*functions, callee)
        if key not in self._calls:
            found: set[int] = set()
            for start in functions:
                for instruction in self.code.follow(start, self.function_at).instructions.values():
                    if instruction.kind is Kind.CALL and callee in self.code.reached(instruction):
                        found.add(instruction.address)
            self._calls[key] = sorted(found)
        return self._calls[key]

    def callers(self, callee: int) -> list[int]:
        """All direct calls of the function at a VA in its module."""
        module = self.module_at(callee)
        image = self._image(module) if module else None
        if module is None or image is None:
            return []
        found = []
        for begin, end in image.executable:
            at = image.data.find(_CALL, begin, end)
            while 0 <= at <= end - _CALL_SIZE:
                target = at + _CALL_SIZE + int.from_bytes(image.data[at + 1 : at + 5], "little", signed=True)
                if module.base + target == callee and self._is_instruction(module.base + at):
                    found.append(module.base + at)
                at = image.data.find(_CALL, at + 1, end)
        return found

    def _is_instruction(self, address: int) -> bool:
        """Is it reached from the start of its function, and no operand that looks like it?"""
        start = self.function_at(address)
        return start is not None and address in self.code.follow(start, self.function_at).instructions

    def by_slot(self, sites: Iterable[int], slot: int) -> list[int]:
        """Those of `sites` that call or jump through entry `slot` of a table of pointers, as of an object."""
        return [site for site in sites if self._slot(site) == slot]

    def _slot(self, site: int) -> int | None:
        with contextlib.suppress(AccessRefused):
            for _, _, mnemonic, operand in self._decoder.disasm_lite(self._read(site, _LONGEST), site, 1):
                through = _SLOT.match(operand)
                if through and mnemonic.split()[-1] in ("call", "jmp"):
                    return int(through[1] or "0", 0) // 8
        return None

    def _read(self, address: int, size: int) -> bytes:
        module = self.module_at(address)
        image = self._image(module) if module else None
        if module is None or image is None:
            raise AccessRefused(f"the code at {address:#x} is not known")
        at = address - module.base
        data = image.data[at : at + size]
        if len(data) < size:
            raise AccessRefused(f"no code lies at {address + size:#x}")
        return data

    def _image(self, module: Module) -> Image | None:
        if module.base not in self._images:
            image = None
            with contextlib.suppress(CalltraceError, OSError):
                image = from_file(self._find_file(module.path))
            if image and (image.timestamp, image.size) != (module.timestamp, module.size):
                image = None  # another version
            self._images[module.base] = image
        return self._images[module.base]
