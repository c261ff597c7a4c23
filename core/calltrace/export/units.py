"""Numbers as a user reads them."""

from __future__ import annotations

from collections.abc import Callable

from calltrace.tracefile import TraceFile

NameText = Callable[[str, "int | None"], str]  # of what is called so and whose code is at that VA, if known


def plain(name: str, address: int | None) -> str:
    """The name as it is."""
    return name


def duration(trace: TraceFile, ticks: int) -> str:
    """A time span with its unit; ticks where the counter's frequency is not known."""
    seconds = trace.seconds(ticks)
    if seconds is None:
        return f"{ticks:,} ticks"
    if seconds >= 1:
        return f"{seconds:,.3f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.3f} ms"
    if seconds >= 1e-6:
        return f"{seconds * 1e6:.2f} µs"
    return f"{seconds * 1e9:.0f} ns"


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
