"""A port without a process: a target made of plain Python objects, for tests on any machine.

Its threads stand still, but for those that come to the few machine instructions it knows (`_execute`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from calltrace.errors import AccessRefused, EngineError, OutOfSpace, TargetLost
from calltrace.ports import (
    Capability,
    DebugEvent,
    DebugEventKind,
    ModuleSymbols,
    Protection,
    Registers,
    TargetModule,
)

GRANULARITY = 0x10000
REACH = 1 << 31
TOP = 0x7FFF_FFFF_0000
TURNS = 1000  # instructions of each thread after which nothing is expected any more
FLAGS = 0x202
BREAKPOINT_CODE, ILLEGAL_CODE = 0x80000003, 0xC000001D


@dataclass
class _Range:
    base: int
    data: bytearray
    writable: bool = True


class FakePort:
    """A stopped target. Modules are mapped with `map`, functions are Python callables at addresses."""

    process_id = 4711

    def __init__(self) -> None:
        self.functions: dict[int, Callable[..., int]] = {}
        self.threads_at: dict[int, Registers] = {}
        self.tebs: dict[int, int] = {}
        self.names: dict[int, dict[int, str]] = {}  # of functions: by module base, by RVA
        self.stopped = True
        self.ended = False
        self._modules: list[TargetModule] = []
        self._ranges: list[_Range] = []
        self._breakpoints: set[int] = set()
        self._vectors: dict[int, bytes] = {}
        self._told: int | None = None  # the thread of the event told last; none: it was stopped on the first
        self._stack: dict[int, list[int]] = {}  # what threads pushed
        self._end_told = False

    def map(self, module: TargetModule, data: bytes) -> None:
        self._modules.append(module)
        self._ranges.append(_Range(module.base, bytearray(data.ljust(module.size, b"\0")), writable=False))

    def supports(self, capability: Capability) -> bool:
        return capability in (Capability.STOP, Capability.DEBUG)

    def stop(self) -> None:
        self._alive()
        self.stopped = True

    def detach(self) -> None:
        self._breakpoints.clear()
        self.stopped = False

    def share_handle(self, handle: int) -> int:
        self._alive()
        return handle

    def read(self, address: int, size: int) -> bytes:
        place, offset = self._find(address, size)
        return bytes(place.data[offset : offset + size])

    def write(self, address: int, data: bytes) -> None:
        place, offset = self._find(address, len(data))
        place.data[offset : offset + len(data)] = data

    def allocate(self, size: int, above: TargetModule | None = None) -> int:
        self._alive()
        start = -(-(above.end if above else GRANULARITY) // GRANULARITY) * GRANULARITY
        taken = sorted((r.base, r.base + len(r.data)) for r in self._ranges)
        for base, end in taken:
            if base < start + size and start < end:
                start = -(-end // GRANULARITY) * GRANULARITY
        if start + size > (above.base + REACH if above else TOP):
            raise OutOfSpace(f"no room above {above.name if above else 'nothing'}")
        self._ranges.append(_Range(start, bytearray(size)))
        return start

    def protect(self, address: int, size: int, protection: Protection) -> None:
        place, _ = self._find(address, size)
        place.writable = protection == Protection.READ_WRITE  # of all of it: all that tests need

    def free(self, address: int) -> None:
        self._ranges.remove(self._find(address, 1)[0])

    def writable(self) -> Iterator[tuple[int, int]]:
        self._alive()
        for place in sorted(self._ranges, key=lambda place: place.base):
            if place.writable:
                yield place.base, place.base + len(place.data)

    def add_thread(self, thread: int, registers: Registers, stack: int, size: int) -> None:
        """A thread whose stack is an allocated range."""
        self.threads_at[thread] = registers
        teb = self.tebs[thread] = self.allocate(0x2000)
        self.write(teb + 8, struct.pack("<QQ", stack + size, stack))
        self.write(teb + 0x30, struct.pack("<Q", teb))
        self.write(teb + 0x1478, struct.pack("<Q", stack))

    def modules(self) -> list[TargetModule]:
        return list(self._modules)

    def symbols(self, module: TargetModule) -> ModuleSymbols | None:
        names = self.names.get(module.base)
        if names is None:
            return None
        return ModuleSymbols("labels", lambda rvas: {rva: names[rva] for rva in rvas if rva in names})

    def threads(self) -> list[int]:
        self._need_stop()
        return list(self.threads_at)

    def registers(self, thread: int) -> Registers:
        self._need_stop()
        if thread not in self.threads_at:
            raise AccessRefused(f"there is no thread {thread}")
        return self.threads_at[thread]

    def set_registers(self, thread: int, registers: Registers) -> None:
        self.registers(thread)
        self.threads_at[thread] = registers

    def teb(self, thread: int) -> int:
        self.registers(thread)
        return self.tebs[thread]

    def call(self, function: int, *arguments: int) -> int:
        self._need_stop()
        if self._breakpoints:
            raise EngineError("nothing can be called while breakpoints are set")
        if function not in self.functions:
            raise EngineError(f"{function:#x} raised exception 0xc0000005")
        code = self.read(function, 6)
        if code[0] == 0xB8 and code[5] == 0xC3:  # mov eax, immediate ; ret: all the machine code we know
            return int.from_bytes(code[1:5], "little")
        return self.functions[function](*arguments)

    def set_breakpoints(self, addresses: Iterable[int]) -> None:
        self._need_stop()
        self._breakpoints |= set(addresses)

    def clear_breakpoints(self, addresses: Iterable[int]) -> None:
        self._need_stop()
        self._breakpoints -= set(addresses)

    def vectors(self, thread: int) -> bytes:
        self.registers(thread)
        return self._vectors.get(thread, bytes(256))

    def go(self, step: bool = False, over: Callable[[], bool] | None = None) -> DebugEvent:
        if self.ended and not self._end_told:
            self._end_told = True
            return DebugEvent(DebugEventKind.PROCESS_EXIT, 0, code=3)
        self._need_stop()
        if self._told is None:
            self._told = next(iter(self.threads_at))
        passing = {self._told}
        for _ in range(TURNS):
            for thread in self.threads_at:
                event = self._turn(thread, thread in passing, step and thread == self._told)
                passing.discard(thread)
                if event:
                    self._told = thread
                    return event
        if over and over():
            self._told = None
            return DebugEvent(DebugEventKind.INTERRUPT, 0)
        raise AssertionError("nothing happens in the target any more")

    def _turn(self, thread: int, passing: bool, step: bool) -> DebugEvent | None:
        """One instruction of one thread, unless it stops before that."""
        rip = self.threads_at[thread].rip
        if rip in self._breakpoints and not passing:
            return DebugEvent(DebugEventKind.BREAKPOINT, thread, rip)
        code = self._execute(thread)
        if code:
            return DebugEvent(DebugEventKind.EXCEPTION, thread, rip, code)
        return DebugEvent(DebugEventKind.STEP, thread, self.threads_at[thread].rip) if step else None

    def _execute(self, thread: int) -> int:
        """Execute what the thread stands at, if we know it; the code of the exception it raises, or 0."""
        registers, stack = self.threads_at[thread], self._stack.setdefault(thread, [])
        code, rip, rax = self.read(registers.rip, 3), registers.rip, registers.rax
        if code[0] == 0x90:  # nop
            rip += 1
        elif code == b"\x66\x48\x0f":  # movq xmm3, rax
            before = self._vectors.get(thread, bytes(256))
            self._vectors[thread] = before[:48] + rax.to_bytes(16, "little") + before[64:]
            rip += 5
        elif code == b"\x48\xff\xc0":  # inc rax
            rip, rax = rip + 3, rax + 1
        elif code[0] == 0xEB:  # jmp rel8
            rip += 2 + int.from_bytes(code[1:2], "little", signed=True)
        elif code[0] == 0x9C:  # pushfq
            stack.append(FLAGS)
            rip += 1
        elif code[0] == 0x58:  # pop rax
            rip, rax = rip + 1, stack.pop()
        elif code[0] == 0xCC:  # int3
            return BREAKPOINT_CODE
        elif code[:2] == b"\x0f\x0b":  # ud2
            return ILLEGAL_CODE
        self.threads_at[thread] = replace(registers, rip=rip, rax=rax)
        return 0

    def _find(self, address: int, size: int) -> tuple[_Range, int]:
        self._alive()
        end = address + size
        for place in self._ranges:
            if place.base <= address < place.base + len(place.data):
                limit = place.base + len(place.data)
                if end > limit:
                    raise AccessRefused(f"no memory at {limit:#x}")
                return place, address - place.base
        raise AccessRefused(f"no memory at {address:#x}")

    def _need_stop(self) -> None:
        self._alive()
        if not self.stopped:
            raise EngineError(f"process {self.process_id} is not stopped")

    def _alive(self) -> None:
        if self.ended:
            raise TargetLost(f"process {self.process_id} has ended")
