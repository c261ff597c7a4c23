"""From every instruction of real copies, the system's unwinder finds what it finds in the originals."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig import targets, windows
from rig.tracing import calltrace, info

FUNCTIONS = "mix many_registers vectors large_frame dynamic_frame variadic chosen recursive run".split()


def steps(counts: Path) -> tuple[int, int]:
    """Instructions seen in the originals and in copies."""
    original, copied = counts.read_text(encoding="ascii").split()
    return int(original), int(copied)


@pytest.mark.parametrize(
    ("events", "clock"), [("functions", "none"), ("outward", "coarse"), ("all", "tsc"), ("all", "none")]
)
def test_stack_walks_are_the_same_at_every_instruction(events: str, clock: str, tmp_path: Path) -> None:
    program = targets.build("unwind_steps")
    frames, counts = tmp_path / "frames", tmp_path / "counts"
    words = [windows.path(frames), windows.path(counts)]
    plain = windows.execute(["wine", windows.path(program), *words])
    assert plain.returncode == 0, plain.stderr
    expected = frames.read_bytes()
    original, copied = steps(counts)
    assert original > 1000
    assert copied == 0

    chosen = [word for name in FUNCTIONS for word in ("--include", f"unwind_steps!{name}")]
    trace = tmp_path / "t.calltrace"
    options = ["--quiet", "-o", trace, "--events", events, "--clock", clock, *chosen]
    traced = calltrace("run", *options, "--", program, *words)
    assert traced.returncode == 0, traced.stderr
    outside, copied_now = steps(counts)
    assert copied_now > original  # all that the originals ran, and the events
    assert outside == info(trace)["events"]["enter"]  # the jumps at the functions' starts
    assert frames.read_bytes() == expected
