"""The log that tests/targets/hooks.h writes: functions entered and left, as the compiler's hooks saw it."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path

from rig.recorded import Thread
from rig.stated import Line

_HEADER = struct.Struct("<QQQ")  # struct hook_thread: id, base, count
_THREAD_SIZE = 8 << 18
OPEN = "not left"  # the end of a frame that no exit hook told of


def threads(log: Path, names: Mapping[int, str]) -> list[Thread]:
    """The call tree of each thread; `names` by RVA.

    AssertionError if a function was left that is not the innermost one.
    """
    found: list[Thread] = []
    with log.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        for at in range(0, len(raw), _THREAD_SIZE):
            number, base, count = _HEADER.unpack_from(raw, at)
            if not number:
                break
            events = struct.unpack_from(f"<{count}Q", raw, at + _HEADER.size)
            found.append(Thread(number, _lines(events, base, names)))
    return found


def _lines(events: tuple[int, ...], base: int, names: Mapping[int, str]) -> list[Line]:
    lines: list[Line] = []
    stack: list[int] = []  # positions in lines
    for event in events:
        name = names[event // 2 - base]
        if event % 2 == 0:
            lines.append(Line(len(stack), name, OPEN))
            stack.append(len(lines) - 1)
        else:
            innermost = stack.pop()
            assert lines[innermost].name == name, f"{name} was left inside {lines[innermost].name}"
            lines[innermost] = lines[innermost]._replace(end="")
    return lines
