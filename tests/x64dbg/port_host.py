"""Answers `calltrace EXPRESSION` in x64dbg: the expression's value, in Python, where `port` is our port.

What goes wrong is told by the exception's class and text.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from calltrace_x64dbg.genuine import X64dbg

from calltrace.ports import Protection
from calltrace.win32 import engine_port
from calltrace.win32.exports import export_address
from calltrace_x64dbg.live import LivePort, X64dbgHost

kept: dict[str, LivePort] = {}  # as a live session keeps it


def run(library: int, line: str) -> None:
    host = X64dbgHost(ctypes.CDLL("calltrace.dp64", handle=library))
    try:
        with host.port(kept.get("port")) as port:
            kept["port"] = port
            said = repr(eval(line, {**globals(), **operations(port)}))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    X64dbg(library).show(said + "\n")


def operations(port: LivePort) -> dict[str, object]:
    """What expressions are made of, beside the port."""

    def address(module: str, function: str) -> int:
        return export_address(port, module, function)

    def raw(place: int, size: int) -> str:
        """What stands in memory, the debugger's breakpoints included."""
        data = (ctypes.c_char * size)()
        read = ctypes.windll.kernel32.ReadProcessMemory
        assert read(port._process, ctypes.c_void_p(place), data, ctypes.c_size_t(size), None)
        return bytes(data).hex()

    def code_of(code: str) -> int:
        """The VA of machine code, given in hexadecimal."""
        place = port.allocate(0x1000)
        port.write(place, bytes.fromhex(code))
        port.protect(place, 0x1000, Protection.EXECUTE_READ)
        return place

    def moved(function: int) -> str:
        """Let a function begin elsewhere, as tracing does; its new first bytes."""
        original = port.read(function, 6)
        assert original[:2] == b"\x8b\x05", original.hex()  # mov eax, [rip + displacement]
        elsewhere = port.allocate(0x1000, port.modules()[0])
        displacement = int.from_bytes(original[2:6], "little") + function - elsewhere
        copy = original[:2] + displacement.to_bytes(4, "little", signed=True)
        port.write(elsewhere, copy + jump(elsewhere + len(copy), function + len(copy)))
        port.protect(elsewhere, 0x1000, Protection.EXECUTE_READ)
        port.write(function, jump(function, elsewhere))
        return port.read(function, 5).hex()

    def many(function: int, count: int) -> set[int]:
        return {port.call(function) for _ in range(count)}

    def limited(work: Callable[[], object]) -> object:
        limits = engine_port.FROZEN_SECONDS, engine_port.CALL_SECONDS
        engine_port.FROZEN_SECONDS, engine_port.CALL_SECONDS = 0.2, 0.6
        try:
            return work()
        finally:
            engine_port.FROZEN_SECONDS, engine_port.CALL_SECONDS = limits

    return {
        "port": port,
        "leaf": address(port.modules()[0].name, "leaf") if "session" in port.modules()[0].name else 0,
        **{each.__name__: each for each in (address, raw, code_of, moved, many, limited)},
    }


def jump(source: int, target: int) -> bytes:
    """jmp target"""
    return b"\xe9" + (target - source - 5).to_bytes(4, "little", signed=True)
