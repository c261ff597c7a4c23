"""Numbers as a user reads them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from calltrace.model import Clock
from calltrace.tracefile import TraceFile, reader_library

NameText = Callable[[str, "int | None"], str]  # of what is called so and whose code is at that VA, if known


def plain(name: str, address: int | None) -> str:
    """The name as it is."""
    return name


def duration(trace: TraceFile, ticks: int) -> str:
    """A time span with its unit; ticks where the counter's frequency is not known."""
    text = ctypes.create_string_buffer(32)
    hz = 0 if trace.clock is Clock.NONE else trace.header.tsc_hz
    size = reader_library().ct_reader_duration(ticks, hz, text)
    return text.raw[:size].decode()


def size(count: int) -> str:
    """A number of bytes."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{count:,} bytes" if unit == "bytes" else f"{value:,.1f} {unit}"


def share(part: int, whole: int) -> str:
    """A part as a percentage, never rounded up to the whole."""
    if not whole:
        return "-"
    # Rounded down: 100 % means all.
    return f"{part * 10000 // whole / 100:.2f} %"


def count(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it belongs."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
