"""What lies where in the target: modules, functions, names, unwind data. Addresses are VAs."""

from __future__ import annotations

import bisect
import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from calltrace.errors import AccessRefused, CalltraceError, UsageError
from calltrace.loop.unwind import Damaged, FunctionTable
from calltrace.model import module_stem
from calltrace.patterns import Pattern
from calltrace.pe.demangle import readable
from calltrace.pe.image import Image, from_file, from_memory
from calltrace.pe.symbols import add_symbols
from calltrace.ports import Port, TargetModule
from calltrace.win32.exports import export_address

_EXCEPTIONS = 0x88 + 3 * 8  # of the exception directory, behind "PE"
_EXECUTE = 0x20000000  # IMAGE_SCN_MEM_EXECUTE
_HEADERS = 0x1000


@dataclass
class _Module:
    module: TargetModule
    table: FunctionTable | None
    executable: list[tuple[int, int]]
    image: Image | None = None
    starts: list[int] | None = None  # of functions that have names: RVAs


class Places:
    """The target's modules as they were last looked at."""

    def __init__(self, port: Port, original: Callable[[int], int] = lambda address: address) -> None:
        """`original` turns an address in the copy of a function into that of the function."""
        self.original = original
        self._port = port
        self._modules: dict[int, _Module] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look again at what is loaded."""
        found = {}
        for module in self._port.modules():
            known = self._modules.get(module.base)
            found[module.base] = known if known and known.module == module else self._new(module)
        self._modules = found

    def _new(self, module: TargetModule) -> _Module:
        try:
            headers = self._port.read(module.base, _HEADERS)
            (at,) = struct.unpack_from("<I", headers, 0x3C)
            begin, size = struct.unpack_from("<II", headers, at + _EXCEPTIONS)
            count, optional = (
                struct.unpack_from("<H", headers, at + 6),
                struct.unpack_from("<H", headers, at + 20),
            )
            executable = []
            for number in range(*count):
                section = at + 24 + optional[0] + 40 * number
                length, rva = struct.unpack_from("<II", headers, section + 8)
                if struct.unpack_from("<I", headers, section + 36)[0] & _EXECUTE:
                    executable.append((module.base + rva, module.base + rva + length))
            table = FunctionTable(self._port.read, module.base, begin, size)
        except (CalltraceError, struct.error):
            return _Module(module, None, [])
        return _Module(module, table, executable)

    def module_at(self, address: int) -> TargetModule | None:
        """The module that is mapped there."""
        found = self._at(address)
        return found.module if found else None

    def table_at(self, address: int) -> FunctionTable | None:
        """The unwind data of the module there."""
        found = self._at(address)
        return found.table if found else None

    def is_code(self, address: int) -> bool:
        """Does it lie in an executable section of a module?"""
        found = self._at(address)
        return found is not None and any(begin <= address < end for begin, end in found.executable)

    def function_at(self, address: int) -> int | None:
        """The start of the function whose code lies there, as far as unwind data and names tell."""
        table = self.table_at(address)
        if table is None:
            return None
        try:
            entry = table.find(address - table.base)
            return table.base + table.primary(entry).begin if entry else self._named_before(address, table)
        except (Damaged, AccessRefused):
            return None

    def _named_before(self, address: int, table: FunctionTable) -> int | None:
        """The function without unwind data whose name stands nearest before an address."""
        found = self._at(address)
        if not found or not self.is_code(address):
            return None
        if found.starts is None:
            image = self._image(found)
            found.starts = sorted(image.names) if image else []
        at = bisect.bisect_right(found.starts, address - table.base) - 1
        if at < 0 or table.begins_between(found.starts[at], address - table.base):
            return None
        return table.base + found.starts[at]

    def name(self, address: int) -> str:
        """`module!function` of the function that starts there, else `module+0xRVA`."""
        found = self._at(address)
        if found is None:
            return f"{address:#x}"
        image = self._image(found)
        name = image.names.get(address - found.module.base) if image else None
        return f"{module_stem(found.module.name)}!{name}" if name else self.place(address)

    def place(self, address: int) -> str:
        """`module+0xRVA`."""
        found = self._at(address)
        return (
            f"{module_stem(found.module.name)}+{address - found.module.base:#x}" if found else f"{address:#x}"
        )

    def resolve(self, text: str) -> int | None:
        """The VA of `module!function`, `module+0xRVA` or `0xVA`; None if the module is not loaded (yet).

        UsageError if it is none of these, lies in no code, or the module has no such function.
        """
        pattern = Pattern.parse(text)
        if pattern.va is not None:
            self._require_code(pattern.va, text)
            return pattern.va
        module, _, function = text.strip().rpartition("!") if pattern.rva is None else (text, "", "")
        if pattern.rva is None and (not module or "*" in text):
            raise UsageError(f"{text}: write one module!function, module+0xRVA or 0xVA")
        found = [each for each in self._modules.values() if pattern.matches_module(each.module.name)]
        if not found:
            return None
        if pattern.rva is not None:
            address = found[0].module.base + pattern.rva
        else:
            address = self._named(found[0], function)
        self._require_code(address, text)
        return address

    def _named(self, found: _Module, function: str) -> int:
        try:
            return export_address(self._port, found.module.name, function)
        except CalltraceError:
            pass
        image = self._image(found)
        rva = next((rva for rva, name in image.names.items() if name == function), None) if image else None
        if rva is None:
            raise UsageError(f"{found.module.name} has no function {function} that is known by name")
        return found.module.base + rva

    def _require_code(self, address: int, text: str) -> None:
        if self.module_at(address) is None:
            raise UsageError(f"{text}: no module lies at {address:#x}")
        if not self.is_code(address):
            raise UsageError(f"{text}: {self.place(address)} is not code")

    def _at(self, address: int) -> _Module | None:
        return next((m for m in self._modules.values() if m.module.base <= address < m.module.end), None)

    def _image(self, found: _Module) -> Image | None:
        module = found.module
        if found.image is None:
            # The file serves, too, if the target is gone or runs again; but not all modules have one.
            try:
                found.image = from_file(Path(module.path))
            except CalltraceError:
                with contextlib.suppress(CalltraceError):
                    found.image = from_memory(self._port.read, module.base, module.size, module.path)
            if found.image:
                add_symbols(found.image)
                found.image.names = {rva: readable(name) for rva, name in found.image.names.items()}
        return found.image
