"""Frames per second of renderers while the loop tracer watches them, and while they are recorded.

As ratios to the untraced runs that alternate with the others; of several runs of each the best counts. The
programs, of tests/targets, time their own frames, from the first to the last.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "core")]

from rig import display, targets, tracing, windows  # noqa: E402
from rig.searched import RENDERERS  # noqa: E402

RUNS = 3
FRAMES = {"main": "300", "opengl": "3000"}  # of each renderer, to be drawn in some seconds
RATE = re.compile(rb"([\d.]+) frames per second")
WATCHED = re.compile(rb"(\d+) frames, (\d+) of them watched")

Run = Callable[[], "subprocess.CompletedProcess[bytes]"]


def rate(run: Run, watched: bool) -> float:
    """What a run tells; all of its frames met a breakpoint at the API if it is `watched`, else none."""
    done = run()
    told, counted = RATE.search(done.stderr), WATCHED.search(done.stderr)
    assert told, done.stderr
    assert counted, done.stderr
    assert int(counted[2]) == (int(counted[1]) if watched else 0), done.stderr
    return float(told[1])


def bench(variant: str, folder: Path) -> None:
    """Print the frame rates of one renderer."""
    renderer, env = RENDERERS[variant], display.environment()
    command = [targets.build(renderer.program), *renderer.arguments, FRAMES[variant]]
    frame = f"{renderer.program}!{renderer.frame}"

    def recorded(*options: str) -> Run:
        trace = folder / "bench.calltrace"
        words = ["run", "--quiet", "-o", trace, *options, "--", *command]
        return lambda: tracing.calltrace(*words, env=env)

    # More samples than there are frames: it watches to the end.
    words = ["loop", renderer.api, "--method", "unwind", "--samples", "1000000", "--timeout", "600"]
    runs: dict[str, tuple[Run, bool]] = {
        "untraced": (lambda: windows.run(command, env=env), False),
        "watched by unwinding": (lambda: tracing.calltrace(*words, "--", *command, env=env), True),
        f"{renderer.frame} recorded": (recorded("--include", frame), False),
        "all functions recorded": (recorded(), False),
    }
    best = dict.fromkeys(runs, 0.0)
    for _ in range(RUNS):
        for name, (run, watched) in runs.items():
            best[name] = max(best[name], rate(run, watched))
    print(f"{renderer.program}, {FRAMES[variant]} frames")
    for name, frames in best.items():
        added = 1000 / frames - 1000 / best["untraced"]
        ratio = frames / best["untraced"]
        print(f"  {name:28}{frames:9.1f} frames/s  x{ratio:5.3f}  {added:+8.3f} ms per frame")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        for variant in FRAMES:
            bench(variant, Path(name))


if __name__ == "__main__":
    main()
