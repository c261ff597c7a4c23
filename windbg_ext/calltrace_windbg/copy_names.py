"""Lets the debugger's stack walk pass through copies of functions, and names their frames as the originals'.

Each region of copies is shown to the engine as a module that has the name of the copied one. The engine finds
unwind data by the PE headers in the region. Symbols it is given one by one: for each address in a copy that a
thread stands at or may return to, one whose name is all that the original address is called, offset and all
(`leaf+0x5`). So a frame reads `demo!leaf+0x5`, while `demo!leaf` still names the original alone.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ctypes import POINTER, c_int32, c_uint32, c_uint64, c_wchar_p
from typing import Any

from calltrace.errors import AccessRefused, EngineError
from calltrace.places import Copied
from calltrace.win32 import api
from calltrace.win32.memory import ProcessMemory
from calltrace_windbg import notifications
from calltrace_windbg.export_engine import ExportEngine
from calltrace_windbg.listener import Listener

_NAME = 4096  # characters
_FUNCTIONS: dict[str, list[Any]] = {
    "ct_name": [c_uint64, c_wchar_p, c_uint32, POINTER(c_uint64)],
    "ct_line": [c_uint64, c_wchar_p, c_uint32, POINTER(c_uint32)],
    "ct_reset_scope": [],
    "ct_scope": [POINTER(c_uint64)],
    "ct_set_scope": [c_uint64],
    "ct_image_name": [c_uint64, c_wchar_p, c_uint32],
    "ct_add_module": [c_uint64, c_uint32, c_wchar_p, c_wchar_p],
    "ct_remove_module": [c_uint64],
    "ct_add_symbol": [c_uint64, c_wchar_p],
}


class CopyNames(Listener):
    """The copies in one target, as its debugger shows them."""

    def __init__(self, library: ctypes.CDLL, memory: ProcessMemory) -> None:
        """`library` is the extension; `memory` the target's."""
        self._library = library
        self._engine = ExportEngine(library)
        self._memory = memory
        self._shown: dict[int, Copied] = {}  # by region
        self._modules: dict[int, str] = {}  # by base: what the engine called the copied ones at first
        self._names: dict[int, str] = {}  # by address in a copy
        self._stacks: dict[int, tuple[int, int]] = {}  # by thread: from an address in use to its end
        self._functions: dict[str, Any] = {}
        for name, arguments in _FUNCTIONS.items():
            function = library[name]
            function.argtypes, function.restype = arguments, c_int32
            self._functions[name] = function

    def is_of(self, memory: ProcessMemory) -> bool:
        """Whether this is the target."""
        return self._memory is memory

    def show(self, copied: Iterable[Copied]) -> None:
        """Show these copies of the stopped target, and no others; as long as there are any, keep it so.

        EngineError if the engine refuses.
        """
        wanted = {copies.region: copies for copies in copied}
        for region in self._shown.keys() - wanted.keys():
            self._hide(region)
        for region in wanted.keys() - self._shown.keys():
            self._show(wanted[region])
        self.accessible()
        if wanted:
            notifications.add(self._library, self)
        else:
            notifications.remove(self._library, self)

    def accessible(self) -> None:
        """Name where the threads stand in copies, and where they may return to."""
        stop = self._engine.stop_event()
        if not self._shown or stop is None or stop.process != self._memory.process_id:
            return
        stands = dict(self._standing())
        for address in set(self._addresses(stands)) - self._names.keys():
            name = self._name_of(address)
            self._names[address] = name
            self._add(address, name)
        self._set_scope(stands.get(self._engine.current_thread(), (0, 0))[0])

    def inactive(self) -> None:
        """The engine forgets all of it with the target."""
        notifications.remove(self._library, self)
        self._shown.clear()
        self._modules.clear()
        self._names.clear()

    def scope_changed(self) -> None:
        """Let the chosen frame's local variables be looked for in the original function."""
        address = c_uint64()
        self._do("tell the scope", "ct_scope", ctypes.byref(address))
        original = self._original(address.value)
        if original is not None:
            self._do("change the scope", "ct_set_scope", original)

    def symbols_loaded(self, base: int) -> None:
        """Name everything anew that the engine has dropped our names of.

        By `.reload` it may also have learned better ones, and it gives a module another name then if one of
        ours has it already.
        """
        if base in self._shown:
            for address, name in self._names.items():
                if address in self._shown[base]:
                    self._add(address, name)
        elif base == 0:
            self._renew()

    def _renew(self) -> None:
        maps = list(self._shown.values())
        for copies in maps:
            self._hide(copies.region)
        for copies in maps:
            if self._module(copies.base) != self._modules[copies.base]:
                image = ctypes.create_unicode_buffer(_NAME)
                self._do("name an image", "ct_image_name", copies.base, image, _NAME)
                self._engine.execute(f".reload {image.value}={copies.base:#x},{copies.module_size:#x}")
        self.show(maps)

    def _set_scope(self, rip: int) -> None:
        """If the thread that the user sees stands in a copy, settle the innermost frame's variables, too."""
        if self._original(rip) is not None:
            self._do("reset the scope", "ct_reset_scope")
            self.scope_changed()

    def _show(self, copies: Copied) -> None:
        self._load_symbols(copies.base)
        name = self._module(copies.base)
        self._modules.setdefault(copies.base, name)
        self._do(
            "show copies", "ct_add_module", copies.region, copies.size, f"{name} (calltrace's copies)", name
        )
        self._shown[copies.region] = copies
        self._load_symbols(copies.region)

    def _load_symbols(self, address: int) -> None:
        """Let the engine look for a module's symbols now, when what it says of that is not shown."""
        self._engine.execute(f"ln {address:#x}")

    def _hide(self, region: int) -> None:
        copies = self._shown.pop(region)
        self._names = {address: name for address, name in self._names.items() if address not in copies}
        self._do("forget copies", "ct_remove_module", region)

    def _name_of(self, address: int) -> str:
        """What the original of an address in a copy is called, without its module; "" if it has none."""
        original = self._original(address)
        if original is None:
            return ""
        name, displacement = self._called(original)
        function = name.partition("!")[2]
        behind = f"+0x{_number(displacement)}" if displacement or not function else ""
        return function + behind + self._line(original)

    def _add(self, address: int, name: str) -> None:
        if name:
            self._do(f"name {address:#x}", "ct_add_symbol", address, name)

    def _original(self, address: int) -> int | None:
        for copies in self._shown.values():
            original = copies.original(address)
            if original is not None:
                return original
        return None

    def _standing(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Each thread with its instruction pointer and its stack pointer."""
        for thread in self._engine.threads():
            with contextlib.suppress(AccessRefused):  # it is ending
                context = self._engine.context(thread)
                yield thread, (context.Rip, context.Rsp)

    def _addresses(self, stands: Mapping[int, tuple[int, int]]) -> Iterator[int]:
        """Where threads stand in copies, and what on their stacks may be return addresses there."""
        lowest = min(self._shown)
        highest = max(copies.region + copies.size for copies in self._shown.values())
        self._stacks = {thread: stack for thread, stack in self._stacks.items() if thread in stands}
        for thread, (rip, rsp) in stands.items():
            words = (rip, *self._stack(thread, rsp & ~7))
            yield from (word for word in words if lowest <= word < highest)

    def _stack(self, thread: int, start: int) -> Sequence[int]:
        """The words of a stack from an address up."""
        begin, end = self._stacks.get(thread, (0, 0))
        if not begin <= start < end:
            found = self._memory.query(start)
            if found is None or found.State != api.MEM_COMMIT:
                return ()
            begin, end = self._stacks[thread] = found.BaseAddress, found.BaseAddress + found.RegionSize
        return memoryview(self._memory.read(start, end - start)).cast("Q")

    def _module(self, base: int) -> str:
        return self._called(base)[0].partition("!")[0]

    def _called(self, address: int) -> tuple[str, int]:
        name, displacement = ctypes.create_unicode_buffer(_NAME), c_uint64()
        self._do(f"name {address:#x}", "ct_name", address, name, _NAME, ctypes.byref(displacement))
        return name.value, displacement.value

    def _line(self, address: int) -> str:
        """The source line of an address as the stack walk shows it, if the user wants that and it has one."""
        file, line = ctypes.create_unicode_buffer(_NAME), c_uint32()
        found = self._functions["ct_line"](address, file, _NAME, ctypes.byref(line)) >= 0
        return f" [{file.value} @ {line.value}]" if found else ""

    def _do(self, action: str, name: str, *arguments: Any) -> None:
        result = self._functions[name](*arguments)
        if result < 0:
            raise EngineError(f"the debugger's engine cannot {action}: {result & 0xFFFFFFFF:#010x}")


def _number(value: int) -> str:
    """As the debugger prints it; an address may lie before the symbol that is nearest, too."""
    return f"{value >> 32:08x}`{value & 0xFFFFFFFF:08x}" if value >> 32 else f"{value:x}"
