"""What images may take that are damaged where it hurts most: time and memory in proportion to their size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rig.worst import WORST

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = """
import sys, time
sys.path[:0] = ["core", "tests"]
from calltrace.plan import ModulePlan
from rig.emulator import Slots
from rig.worst import WORST
image = WORST[sys.argv[1]](int(sys.argv[2]))
begin = time.process_time()
plan = ModulePlan(image)
plan.lay_out(Slots(), "outward", "none", 0, 0)
plan.compose(image.base + -(-image.size // 0x10000) * 0x10000, 0)
# Not by getrusage: that remembers how large the process was that this one was forked from.
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(time.process_time() - begin, peak)
"""
COUNTS = {"padding": 60, "crossings": 100_000}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_of_images_is_planned_in_time(name: str) -> None:
    """A process of its own for each, so that memory is its own, too."""
    command = [sys.executable, "-c", SCRIPT, name, str(COUNTS.get(name, 20_000))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 3
    assert kilobytes < 600_000
