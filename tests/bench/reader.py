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

from calltrace.export import FORMATS, To  # noqa: E402
from rig import tracewriter  # noqa: E402

FUNCTIONS = 20_000
SITES = 2 * FUNCTIONS  # two in each function
THREADS = 4
DISTINCT_BLOCKS = 200
QUERIES = (
    "SELECT event, count(*) FROM events GROUP BY event",
    "SELECT name, count(*) AS n, max(duration) FROM events JOIN functions USING (trace, function) "
    "GROUP BY name ORDER BY n DESC LIMIT 20",
    "SELECT * FROM events ORDER BY duration DESC LIMIT 20",
)


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


def measure(events: int, *words: str, what: str = "") -> None:
    """Run one command and print how long it took for so many events, and how much memory."""
    start = time.perf_counter()
    with subprocess.Popen([str(ROOT / "calltrace"), *words], stdout=subprocess.PIPE) as process:
        assert process.stdout
        shown = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    seconds = time.perf_counter() - start
    megabytes = used.ru_maxrss / 1024
    what = what or (" ".join(words[:2]) if words[0] == "export" else words[0])
    speed = f"{events / seconds / 1e6:8.1f} M/s"
    lines = len(shown.splitlines())
    print(f"  {what:<18}{seconds:7.2f} s{speed}{megabytes:8.0f} MiB{lines:8} lines", flush=True)


def main() -> None:
    millions = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for unit_size, clock in ((4, "without a clock"), (8, "with a clock")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.calltrace"
            events = write(path, millions * 10**6, unit_size)
            print(f"{events:,} events {clock}, {path.stat().st_size / 2**20:,.0f} MiB")
            measure(events, "info", str(path))
            measure(events, "top", str(path))
            measure(events, "tree", str(path), "--limit", "1000")
            measure(events, "stacks", str(path))
            measure(events, "callers", str(path), "function1", "--depth", "3")
            measure(events, "callees", str(path), "function1", "--depth", "3")
            measure(events, "diff", str(path))
            measure(events, "diff", "--edges", str(path))
            measure(events, "report", str(path))
            measure(events, "query", str(path), QUERIES[0], what="query, and tables")
            for name, form in FORMATS.items():
                out = path.with_suffix(form.suffix) if form.to is To.PATH else Path(os.devnull)
                measure(events, "export", name, str(path), "-o", str(out))
            for sql in QUERIES:  # the tables are there by now
                measure(events, "query", str(path), sql)


if __name__ == "__main__":
    main()
