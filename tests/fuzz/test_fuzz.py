"""Each fuzz target for a short while, so that no change to the engine goes without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = {"reader": 60, "planner": 60, "files": 40}


@pytest.fixture(scope="module", autouse=True)
def _sanitized_engine() -> None:
    subprocess.run(["make", "-C", ROOT / "native", "-s", "-j2", "asan"], check=True)


@pytest.mark.parametrize("target", SECONDS)
def test_nothing_breaks_the_engine(target: str) -> None:
    command = [sys.executable, ROOT / "tests" / "fuzz" / "run.py", "--seconds", str(SECONDS[target]), target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-8000:]
