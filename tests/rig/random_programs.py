"""A random program of `rig.generator`, run as it is and instrumented under the emulator."""

from __future__ import annotations

import random

from calltrace.model import Source
from rig import images
from rig.emulator import Pair, State
from rig.generator import Generator

_SETTINGS = [("all", "none"), ("outward", "none"), ("functions", "none"), ("all", "tsc"), ("all", "coarse")]
_RUNS = 3  # from different registers, flags and memory


def check(seed: int) -> None:
    """Raises AssertionError, with the program, if its copy does or records something else."""
    made = Generator(seed)
    program = images.build(made.code, made.data, seeds=[("f", Source.EXPORT)])
    pair = Pair(program, *_SETTINGS[seed % len(_SETTINGS)])
    for run in range(_RUNS):
        state = State.arbitrary(random.Random(seed * _RUNS + run))
        try:
            pair.check("f", state)
        except AssertionError as difference:
            if _emulator_errs(pair, state):
                continue
            raise AssertionError(f"program {seed}, run {run}:\n{made.code}\n{made.data}") from difference


def _emulator_errs(pair: Pair, state: State) -> bool:
    """Does the emulator begin one instruction twice, the second time with other flags?

    Unicorn restarts an instruction that writes memory now and then, and does not always restore the flags
    that the one before has set. No instruction of either program is to blame for what comes of it.
    """
    for machine in (pair.original, pair.patched):
        seen: list[tuple[int, int]] = []
        machine.run(
            pair.program.symbols["f"],
            state,
            each=lambda at, machine=machine, seen=seen: seen.append((at, machine.register("rflags"))),
        )
        for (at, flags), (again, later) in zip(seen, seen[1:]):
            if at == again and flags != later:
                return True
    return False
