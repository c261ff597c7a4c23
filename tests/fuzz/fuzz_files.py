"""Mutated program files through everything that reads one before a process is touched: headers, symbols,
discovery, plan and copies. The native engine is the one built with ASan and UBSan (run.py sees to it).

    fuzz_files.py LIBRARY FOLDER --seconds N | --runs N

A file must be refused by one clear error or be planned, within 2 s and 1 GB. The file being read lies in
FOLDER/files-current.exe; it stays there, and the exit code is 1, if it breaks something.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import random
import resource
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "core"), str(ROOT / "tests")]

from calltrace import native  # noqa: E402
from calltrace.errors import CalltraceError  # noqa: E402
from calltrace.pe.image import from_file  # noqa: E402
from calltrace.pe.symbols import add_symbols  # noqa: E402
from calltrace.plan import ModulePlan  # noqa: E402
from rig import corpus, targets  # noqa: E402
from rig.emulator import Slots  # noqa: E402

LONGEST_SECONDS = 2.0  # of the processor's time
LARGEST_KIB = 1 << 20
_WORDS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x1000, 0x140000000]


class Mutator:
    """Changes files where it hurts: headers, and the tables that discovery reads."""

    def __init__(self, raw: bytes, chance: random.Random) -> None:
        self._raw, self._chance = raw, chance
        header = int.from_bytes(raw[0x3C:0x40], "little")
        sections = header + 24 + int.from_bytes(raw[header + 20 : header + 22], "little")
        count = int.from_bytes(raw[header + 6 : header + 8], "little")
        self._tables = []  # file offset, size: sections without code
        self._headers = (header, sections + 40 * count)
        for at in range(sections, sections + 40 * count, 40):
            size, start = (int.from_bytes(raw[at + skip : at + skip + 4], "little") for skip in (16, 20))
            if size and not raw[at + 39] & 0x20:
                self._tables.append((start, size))

    def file(self) -> bytes:
        """One mutated file."""
        chance, data = self._chance, bytearray(self._raw)
        for _ in range(chance.choice((1, 1, 2, 3, 8, 30))):
            kind = chance.random()
            if kind < 0.3:
                at = chance.randrange(*self._headers)
            elif kind < 0.8 and self._tables:
                start, size = chance.choice(self._tables)
                at = start + chance.randrange(size)
            else:
                at = chance.randrange(len(data))
            self._change(data, at & -4 if chance.random() < 0.7 else at)
        if chance.random() < 0.05:
            del data[chance.randrange(len(data)) :]
        return bytes(data)

    def _change(self, data: bytearray, at: int) -> None:
        chance, size = self._chance, self._chance.choice((1, 2, 4, 4, 4, 8))
        size = min(size, len(data) - at)
        old = int.from_bytes(data[at : at + size], "little")
        new = chance.choice(
            (
                chance.getrandbits(8 * size) if size else 0,
                chance.choice(_WORDS),
                old + chance.randrange(-16, 17),
                old ^ 1 << chance.randrange(8 * size or 1),
                len(data) - chance.randrange(64),
            )
        )
        data[at : at + size] = (new & (1 << 8 * size) - 1).to_bytes(size, "little")


def read(path: Path, number: int) -> bool:
    """Plan a file as a recording would; whether it could be."""
    events, clock = (("all", "tsc"), ("outward", "none"), ("functions", "coarse"))[number % 3]
    with contextlib.suppress(CalltraceError):
        image = from_file(path)
        add_symbols(image)
        plan = ModulePlan(image)
        plan.lay_out(Slots(), events, clock, 0, 0)
        plan.compose(image.base + -(-image.size // 0x10000) * 0x10000, 0)
        return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("library", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--runs", type=int, default=sys.maxsize)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    native.library = functools.cache(lambda: ctypes.CDLL(str(chosen.library)))
    chance = random.Random(chosen.seed)
    programs = [
        targets.build("demo"),
        targets.build("frames"),
        targets.build("throws"),
        corpus.program("ninja"),
    ]
    *small, large = (Mutator(path.read_bytes(), chance) for path in programs)
    current = chosen.folder / "files-current.exe"
    end = time.monotonic() + chosen.seconds
    runs = planned = 0
    while runs < chosen.runs and time.monotonic() < end:
        mutator = large if runs % 32 == 0 else small[runs % len(small)]
        current.write_bytes(mutator.file())
        begin = time.process_time()
        try:
            planned += read(current, runs)
        except Exception:
            traceback.print_exc()
            print(f"{current} after {runs:,} files: an error that nobody meets", file=sys.stderr)
            return 1
        seconds = time.process_time() - begin
        if seconds > LONGEST_SECONDS:
            print(f"{current} after {runs:,} files: took {seconds:.1f} s", file=sys.stderr)
            return 1
        runs += 1
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > LARGEST_KIB:
            print(f"{current} after {runs:,} files: took more than 1 GB", file=sys.stderr)
            return 1
    current.unlink(missing_ok=True)
    print(f"{runs:,} mutated files: {planned:,} planned, {runs - planned:,} refused by a clear error")
    return 0


if __name__ == "__main__":
    sys.exit(main())
