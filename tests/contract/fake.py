"""A port without a process: a target made of plain Python objects, for tests on any machine."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from calltrace.errors import AccessRefused, EngineError, OutOfSpace, TargetLost
from calltrace.ports import Capability, Protection, Registers, TargetModule

GRANULARITY = 0x10000
REACH = 1 << 31
TOP = 0x7FFF_FFFF_0000


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
        self.stopped = True
        self.ended = False
        self._modules: list[TargetModule] = []
        self._ranges: list[_Range] = []

    def map(self, module: TargetModule, data: bytes) -> None:
        self._modules.append(module)
        self._ranges.append(_Range(module.base, bytearray(data.ljust(module.size, b"\0")), writable=False))

    def supports(self, capability: Capability) -> bool:
        return capability == Capability.STOP

    def stop(self) -> None:
        self._alive()
        self.stopped = True

    def detach(self) -> None:
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
        if function not in self.functions:
            raise EngineError(f"{function:#x} raised exception 0xc0000005")
        code = self.read(function, 6)
        if code[0] == 0xB8 and code[5] == 0xC3:  # mov eax, immediate ; ret: all the machine code we know
            return int.from_bytes(code[1:5], "little")
        return self.functions[function](*arguments)

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
