"""Addresses of exported functions in a target, read from the target's own memory."""

from __future__ import annotations

import struct
from typing import Protocol

from calltrace.errors import EngineError
from calltrace.ports import Modules, TargetModule

_FORWARDS = 8  # forwarders followed before we call it a circle


class _Reader(Modules, Protocol):
    def read(self, address: int, size: int) -> bytes: ...


def export_address(target: _Reader, module_name: str, function: str) -> int:
    """The VA of `function` of the module file `module_name` in the target, forwarders followed.

    EngineError if the module is not loaded or does not export it.
    """
    for _ in range(_FORWARDS):
        module = _find(target, module_name)
        rva, table, table_size = _look_up(target, module, function)
        if not table <= rva < table + table_size:
            return module.base + rva
        forwarder = target.read(module.base + rva, min(256, module.size - rva)).split(b"\0")[0]
        library, _, function = forwarder.decode("latin-1").rpartition(".")
        module_name = library + ".dll"
    raise EngineError(f"{module_name} forwards {function} in a circle")


def _find(target: _Reader, name: str) -> TargetModule:
    module = next((m for m in target.modules() if m.name.lower() == name.lower()), None)
    if module is None:
        raise EngineError(f"{name} is not loaded in the target")
    return module


def _look_up(target: _Reader, module: TargetModule, function: str) -> tuple[int, int, int]:
    """RVA of the export, and RVA and size of the export directory (an RVA inside it is a forwarder)."""
    base = module.base
    (nt_headers,) = struct.unpack("<I", target.read(base + 0x3C, 4))
    table, table_size = struct.unpack("<II", target.read(base + nt_headers + 0x88, 8))
    if not table or table + table_size > module.size:
        raise EngineError(f"{module.name} at {base:#x} has no export directory")
    directory = target.read(base + table, 40)
    function_count, name_count, functions, names, ordinals = struct.unpack_from("<IIIII", directory, 20)
    wanted = function.encode("latin-1") + b"\0"
    name_rvas = struct.unpack(f"<{name_count}I", target.read(base + names, 4 * name_count))
    low, high = 0, name_count
    while low < high:  # the names are sorted by their bytes
        middle = (low + high) // 2
        name = target.read(base + name_rvas[middle], len(wanted))
        if name == wanted:
            (ordinal,) = struct.unpack("<H", target.read(base + ordinals + 2 * middle, 2))
            if ordinal < function_count:
                (rva,) = struct.unpack("<I", target.read(base + functions + 4 * ordinal, 4))
                return rva, table, table_size
        if name < wanted:
            low = middle + 1
        else:
            high = middle
    raise EngineError(f"{module.name} does not export {function}")
