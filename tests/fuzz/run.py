"""Fuzzes the native trace reader under ASan and UBSan for so many seconds (first argument, else 60).

Starts from traces of simulated threads; what it learns is kept in build/fuzz/corpus, and an input that breaks
the reader in build/fuzz.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from rig import simulated, tracewriter  # noqa: E402

BUILD = ROOT / "build" / "fuzz"
LIBRARY = ROOT / "build" / "asan" / "libcalltrace_native.a"
SEEDS = 60


def seed(number: int) -> bytes:
    """A small packed trace, see fuzz_reader.c."""
    rng = random.Random(number)
    unit_size = rng.choice([4, 8])
    writer = tracewriter.TraceWriter(unit_size, state=number % 4, append_end=0)
    if number % 3:
        simulated.describe(writer)
        writer.info({"command_line": "x"})
    slots = []
    for index in range(rng.randrange(1, 4)):
        thread = simulated.SimulatedThread(unit_size, now=rng.randrange(1 << 41))
        thread.run(rng.randbytes(rng.randrange(10, 300)))
        blocks = writer.blocks_of(thread.units, index, block_units=rng.randrange(8, 200))[:6]
        slots.append(blocks.pop())
        if number % 5 == 0:
            rng.shuffle(blocks)
        writer.chunks += blocks[number % 7 == 0 :]
    writer.live(slots)
    file = writer.bytes()
    packed = rng.randbytes(2)
    for at in range(0, len(file), tracewriter.BLOCK):
        block = file[at : at + tracewriter.BLOCK].rstrip(b"\0")[:0xFFFF]
        packed += struct.pack("<H", len(block)) + block
    return packed


def main() -> int:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    corpus = BUILD / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number in range(SEEDS):
        (corpus / f"seed{number}").write_bytes(seed(number))
    fuzzer = BUILD / "fuzz_reader"
    includes = [f"-I{ROOT / 'native' / 'include'}", f"-I{ROOT / 'native' / 'reader'}"]
    sanitizers = "-fsanitize=fuzzer,address,undefined"
    source = Path(__file__).with_name("fuzz_reader.c")
    subprocess.run(
        ["clang-14", "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", sanitizers,
         "-fno-sanitize-recover=undefined", *includes, str(source), str(LIBRARY), "-o", str(fuzzer)],
        check=True,
    )  # fmt: skip
    options = [
        f"-max_total_time={seconds}",
        "-max_len=20000",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    return subprocess.run(
        [str(fuzzer), *options, f"-artifact_prefix={BUILD}/", str(corpus)], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
