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
        try:
            pair.check("f", State.arbitrary(random.Random(seed * _RUNS + run)))
        except AssertionError as difference:
            raise AssertionError(f"program {seed}, run {run}:\n{made.code}\n{made.data}") from difference
