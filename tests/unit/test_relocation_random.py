"""Random programs behave and record alike as they are and instrumented."""

from __future__ import annotations

import random

import pytest

from calltrace.model import Source
from rig import images
from rig.emulator import Pair, State
from rig.generator import Generator

SETTINGS = [("all", "none"), ("outward", "none"), ("functions", "none"), ("all", "tsc"), ("all", "coarse")]
BATCHES, BATCH = 25, 20


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_programs(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        made = Generator(seed)
        program = images.build(made.code, made.data, seeds=[("f", Source.EXPORT)])
        pair = Pair(program, *SETTINGS[seed % len(SETTINGS)])
        for run in range(3):
            try:
                pair.check("f", State.arbitrary(random.Random(seed * 3 + run)))
            except AssertionError as difference:
                raise AssertionError(f"program {seed}, run {run}:\n{made.code}\n{made.data}") from difference
