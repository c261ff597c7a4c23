"""How fast a large trace is read, and with how much memory: times what is said of all of it.

Writes a trace of 100 million events for it, or of as many millions as the first argument says.

The trace holds call trees of random shape over 20,000 functions and 40,000 call sites, on four threads.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "core"), str(ROOT / "tests")]

from calltrace.export import FORMATS  # noqa: E402
from rig import tracewriter  # noqa: E402

FUNCTIONS = 20_000
SITES = 2 * FUNCTIONS  # two in each function
THREADS = 4
DISTINCT_BLOCKS = 200


def balanced_block(rng: random.Random, unit_size: int) -> bytes:
    """One full block in which every frame that is opened is closed."""
    units = tracewriter.Units(unit_size)
    room = tracewriter.BLOCK_UNITS[unit_size]
    open_frames: list[tuple[int, int]] = []
    while len(units) + len(open_frames) < room:
        units.now += rng.randrange(200)
        if open_frames and (rng.random() < 0.48 or len(units) + len(open_frames) + 2 > room):
            units.event(*open_frames.pop())
        elif len(units) + len(open_frames) + 2 > room:
            break
        elif open_frames and open_frames[-1][0] == tracewriter.LEAVE and rng.random() < 0.2:
            site = 2 * open_frames[-1][1] + rng.randrange(2)
            units.event(tracewriter.CALL, site)
            open_frames.append((tracewriter.RETURN, site))
        else:
            function = int(rng.paretovariate(0.5)) % FUNCTIONS
            units.event(tracewriter.ENTER, function)
            open_frames.append((tracewriter.LEAVE, function))
    while open_frames:
        units.event(*open_frames.pop())
    return bytes(units.data)


def write(path: Path, events: int, unit_size: int) -> int:
    """Write the trace; the number of its events."""
    rng = random.Random(1)
    blocks = [balanced_block(rng, unit_size) for _ in range(DISTINCT_BLOCKS)]
    writer = tracewriter.TraceWriter(unit_size, threads=THREADS, append_end=0)
    writer.module(
        {"name": "bench.exe", "names": [[0x1000 + 16 * at, f"function{at}"] for at in range(FUNCTIONS)]},
        [(0x1000 + 16 * at, 16, 1, 0, 0, tracewriter.NONE) for at in range(FUNCTIONS)],
        [(0x1000 + at, at // 2, 0, tracewriter.NONE) for at in range(SITES)],
    )
    written = [0] * THREADS
    at = 0
    with path.open("wb") as file:
        file.write(writer.bytes())
        while sum(written) < events:
            units = blocks[at % DISTINCT_BLOCKS]
            thread = at % THREADS
            file.write(
                writer.events_block(
                    units, thread, written[thread], open_tsc=at << 20, close_tsc=(at << 20) + 1
                )
            )
            written[thread] += len(units) // unit_size
            at += 1
    return sum(written)


def measure(*words: str) -> None:
    """Run one command and print how long it took and how much memory."""
    start = time.perf_counter()
    with subprocess.Popen([str(ROOT / "calltrace"), *words], stdout=subprocess.PIPE) as process:
        assert process.stdout
        shown = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    seconds = time.perf_counter() - start
    megabytes = used.ru_maxrss / 1024
    what = " ".join(words[:2]) if words[0] == "export" else words[0]
    print(f"  {what:<18}{seconds:7.2f} s{megabytes:8.0f} MiB{len(shown.splitlines()):8} lines", flush=True)


def main() -> None:
    millions = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for unit_size, clock in ((4, "without a clock"), (8, "with a clock")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.calltrace"
            events = write(path, millions * 10**6, unit_size)
            print(f"{events:,} events {clock}, {path.stat().st_size / 2**20:,.0f} MiB")
            measure("info", str(path))
            measure("top", str(path))
            measure("tree", str(path), "--limit", "1000")
            measure("stacks", str(path))
            measure("callers", str(path), "function1", "--depth", "3")
            measure("callees", str(path), "function1", "--depth", "3")
            measure("diff", str(path))
            measure("diff", "--edges", str(path))
            for form in FORMATS:
                measure("export", form, str(path), "-o", os.devnull)


if __name__ == "__main__":
    main()
