"""Feeds the native engine what nobody would send it: `run.py [--seconds N | --runs N] [TARGET ...]`.

reader      trace files; starts from traces of simulated threads (libFuzzer, under ASan and UBSan)
planner     program images; starts from pieces of real ones: MSVC's, gcc's and hand-made ones (the same)
files       whole program files, through Python's part too (fuzz_files.py, under ASan and UBSan)
relocation  random programs that must do and record the same in a copy, under an emulator

No input may take more than 2 s of the processor's time or 1 GB. What is learned is kept in
build/fuzz/TARGET-corpus, and an input that breaks something in build/fuzz. Without a number, 20,000 inputs of
each (10,000 random programs).
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "core"), str(ROOT / "tests")]

from calltrace.pe.image import Image, from_file  # noqa: E402
from rig import corpus, images, random_programs, simulated, targets, tracewriter  # noqa: E402
from rig.generator import Generator  # noqa: E402

BUILD = ROOT / "build" / "fuzz"
LIBRARY = ROOT / "build" / "asan" / "libcalltrace_native"
SEEDS = 60
PAGE, PAGES = 0x1000, 512


def trace(number: int) -> bytes:
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


def traces() -> Iterator[bytes]:
    """Seeds of the reader's fuzzer."""
    return (trace(number) for number in range(SEEDS))


def packed_image(
    image: Image, pages: set[int], code: Sequence[tuple[int, int]], pdata: bytes, number: int
) -> bytes:
    """A packed image, see fuzz_planner.c: some pages of a real one, its exception directory behind them."""
    size = (max(pages) + 1) * PAGE + len(pdata)
    sections = [*code, (0, 0)][:2]
    seeds = [rva for rva, _ in image.seeds if rva // PAGE in pages][:4]
    seeds += [0] * (4 - len(seeds))
    head = struct.pack(
        "<14IHH",
        size - 1, size - len(pdata), len(pdata), *image.relocations, *sections[0], *sections[1], *seeds,
        min(image.imports, default=0), number % 3, number % 9 == 0,
    )  # fmt: skip
    parts = [(page, image.data[page * PAGE : (page + 1) * PAGE]) for page in sorted(pages)]
    parts += [(max(pages) + 1 + at // PAGE, pdata[at : at + PAGE]) for at in range(0, len(pdata), PAGE)]
    return head + b"".join(struct.pack("<HH", page, len(raw)) + raw for page, raw in parts)


def cut_out(image: Image, rng: random.Random, number: int) -> bytes | None:
    """A few functions of a large image, with the pages that their exception data is in."""
    count = image.pdata[1] // 12
    first = rng.randrange(max(count - 12, 1))
    entries = image.data[image.pdata[0] + 12 * first : image.pdata[0] + 12 * (first + 12)]
    pages: set[int] = set()
    code = (PAGES * PAGE, 0)
    for begin, end, unwind in struct.iter_unpack("<III", entries):
        pages.update(range(begin // PAGE, end // PAGE + 1))
        code = min(code[0], begin), max(code[1], end)
        pages.add(unwind // PAGE)
        tail = unwind + 4 + 2 * (image.data[unwind + 2] + 1 & ~1)
        info = image.u32(tail + 4)
        if image.data[unwind] >> 3 & 3 and PAGE <= info < image.size:  # maybe an RVA: FuncInfo and its maps
            pages.add(info // PAGE)
            pages.update(image.u32(info + at) // PAGE for at in range(0, 28, 4))
            pages.update(
                int.from_bytes(image.data[info + 1 + at : info + 5 + at], "little") // PAGE for at in (0, 4)
            )
    pages = {page for page in pages if 0 < page < PAGES - 4 and page * PAGE < image.size}
    return packed_image(image, pages, [code], entries, number) if 0 < len(pages) < 40 else None


def programs() -> Iterator[bytes]:
    """Seeds of the planner's fuzzer."""
    rng = random.Random(1)
    whole = [from_file(targets.build("frames"))]
    whole += [images.build(made.code, made.data).image for made in map(Generator, range(20))]
    for number, image in enumerate(whole):
        pdata = image.data[image.pdata[0] : sum(image.pdata)]
        yield packed_image(image, set(range(1, image.size // PAGE)), image.executable, pdata, number)
    large = [
        from_file(path)
        for path in (corpus.program("ninja"), targets.build("throws"), corpus.program("dbgeng"))
    ]
    large.append(from_file(corpus.program("clang-format")))
    for number in range(120):
        packed = cut_out(large[number % len(large)], rng, number)
        if packed:
            yield packed


LONGEST = {"reader": 20_000, "planner": 150_000}  # inputs, bytes
RUNS = {"reader": 20_000, "planner": 20_000, "files": 20_000, "relocation": 10_000}


def libfuzzer(target: str, seeds: Iterator[bytes], seconds: int, runs: int) -> int:
    """Build one of the fuzzers in C and let it run; its exit code."""
    learned = BUILD / f"{target}-corpus"
    learned.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (learned / f"seed{number}").write_bytes(seed)
    fuzzer = BUILD / f"fuzz_{target}"
    includes = [f"-I{ROOT / 'native' / folder}" for folder in ("include", "reader", "planner")]
    sanitizers = "-fsanitize=fuzzer,address,undefined"
    source = Path(__file__).with_name(f"fuzz_{target}.c")
    subprocess.run(
        ["clang-14", "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", sanitizers,
         "-fno-sanitize-recover=undefined", *includes, str(source), f"{LIBRARY}.a", "-o", str(fuzzer)],
        check=True,
    )  # fmt: skip
    known = sum(1 for _ in learned.iterdir())  # are run first
    options = [
        f"-max_total_time={seconds}" if seconds else f"-runs={runs + known}",
        f"-max_len={LONGEST[target]}",
        "-timeout=600",  # by the clock on the wall: for what waits; limit.h ends what computes for too long
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    ]
    return subprocess.run(
        [str(fuzzer), *options, f"-artifact_prefix={BUILD}/{target}-", str(learned)], check=False
    ).returncode


def files(seconds: int, runs: int) -> int:
    """Let fuzz_files.py run; its exit code."""
    BUILD.mkdir(parents=True, exist_ok=True)
    found = subprocess.run(
        ["clang-14", "-print-file-name=libclang_rt.asan-x86_64.so"],
        capture_output=True,
        text=True,
        check=True,
    )
    # Python itself leaks by intention
    sanitized = {**os.environ, "LD_PRELOAD": found.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    limit = ["--seconds", str(seconds)] if seconds else ["--runs", str(runs)]
    script = Path(__file__).with_name("fuzz_files.py")
    command = [sys.executable, str(script), f"{LIBRARY}.so", str(BUILD), *limit]
    return subprocess.run(command, env=sanitized, check=False).returncode


def relocation(seconds: int, runs: int) -> int:
    """Run random programs as they are and instrumented; 0 if they are alike."""
    end = time.monotonic() + seconds if seconds else float("inf")
    done = 0
    while time.monotonic() < end and (seconds or done < runs):
        random_programs.check(done)
        done += 1
    print(f"{done:,} random programs alike")
    return 0


def fuzz(target: str, seconds: int, runs: int) -> int:
    """Let one target run for a time, or else so many times; 0: nothing broke."""
    runs = runs or RUNS[target]
    print(f"{target}: {f'{seconds} s' if seconds else f'{runs:,} inputs'}", flush=True)
    if target == "reader":
        return libfuzzer(target, traces(), seconds, runs)
    if target == "planner":
        return libfuzzer(target, programs(), seconds, runs)
    return files(seconds, runs) if target == "files" else relocation(seconds, runs)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(RUNS))
    chosen = parser.parse_args()
    results = [fuzz(target, chosen.seconds, chosen.runs) for target in chosen.targets or RUNS]
    return max(results)


if __name__ == "__main__":
    sys.exit(main())
