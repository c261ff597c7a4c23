"""How well functions are found, by the symbols of programs that have them: recall, precision, what is missed.

The symbols are the compiler's and are withheld from discovery; rig.measured says what counts. With --all
every program by each compiler at each level.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "core")]

from calltrace.pe.image import from_file  # noqa: E402
from rig import measured  # noqa: E402

SHOWN = 5


def row(name: str, score: measured.Score) -> None:
    print(
        f"{name:<28}{len(score.truth.functions):>10,}{score.leaves:>8,}"
        f"{score.recall:>10.3%}{score.precision:>11.3%}{len(score.missed):>8}{len(score.false):>7}"
    )
    for what, addresses in (("missed", score.missed), ("false", score.false)):
        for rva in addresses[:SHOWN]:
            print(f"    {what} {rva:#x} {score.truth.functions.get(rva, '')}")


def main() -> None:
    builds = measured.BUILDS + (measured.MORE_BUILDS if "--all" in sys.argv else ())
    head = ("program", "functions", "leaves", "recall", "precision", "missed", "false")
    print("{:<28}{:>10}{:>8}{:>10}{:>11}{:>8}{:>7}".format(*head))
    for build, program in zip(builds, measured.build_all(builds)):
        image = from_file(program)
        truth = measured.truth_of(program, image)
        row(str(build), measured.measure(truth, image))
        if build.compiler == "gcc":
            row("  leaves not in .pdata", measured.measure(truth, measured.without_leaf_entries(image)))


if __name__ == "__main__":
    main()
