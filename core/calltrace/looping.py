"""The loop tracer without a debugger: on a program that it starts, or on a running one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from calltrace.loop.tracing import Climb, LoopOptions, LoopTracing
from calltrace.session import interrupts_held
from calltrace.win32 import launch

_SLICE_SECONDS = 0.1

Show = Callable[[Climb], None]  # takes what was found, as soon as it is
Progress = Callable[[str], None]


def run(
    program: str,
    arguments: Sequence[str],
    command_line: str | None,
    options: LoopOptions,
    show: Show,
    progress: Progress,
) -> int:
    """Start a program, find the loop that calls `options.api`, let it go on to its end; 0 if found, else 1.

    `command_line` is the program's to the letter, None: made of the words. If the search cannot begin the
    program is ended, and the error says why.
    """
    path = launch.find_program(program, progress)
    port = launch.create(path, command_line or subprocess.list2cmdline([program, *arguments]))
    try:
        with interrupts_held() as interrupts:
            try:
                climb = LoopTracing(port, options).run(interrupts)
            except BaseException:
                port.terminate()
                raise
            port.detach()
            show(climb)
            while port.wait(_SLICE_SECONDS) is None:  # its standard handles are ours
                pass
    finally:
        port.close()
    return 0 if climb.loops else 1


def attach(process_id: int, options: LoopOptions, show: Show, progress: Progress) -> int:
    """Find the loop that calls `options.api` in a running program, which goes on; 0 if found, else 1."""
    with interrupts_held() as interrupts:
        port = launch.attach(process_id, progress)
        try:
            climb = LoopTracing(port, options).run(interrupts)
        finally:
            port.close()
        show(climb)
    return 0 if climb.loops else 1
