"""Random programs behave and record alike as they are and instrumented; `make fuzz` runs 10,000 of them."""

from __future__ import annotations

import pytest

from rig import random_programs

BATCHES, BATCH = 50, 20


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_programs(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        random_programs.check(seed)
