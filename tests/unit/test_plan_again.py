"""A plan that is laid out again, for a recording with other slots, is as good as a new one."""

from __future__ import annotations

import ctypes
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from calltrace.pe.image import Image, from_file
from calltrace.plan import Composition, ModulePlan
from rig import corpus, images, targets
from rig.emulator import Slots
from rig.generator import Generator

ROOT = Path(__file__).resolve().parent.parent.parent
FIRST = Slots()
OTHER = Slots(
    cursor=0x1490, scratch=(ctypes.c_uint32 * 3)(0x1498, 0x14A0, 0x14A8), slow_path=FIRST.slow_path + 0x40
)
SCRIPT = """
import sys
sys.path[:0] = ["core", "tests"]
from pathlib import Path
from calltrace.pe.image import from_file
from calltrace.plan import ModulePlan
from rig.emulator import Slots
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) << 12
plan = ModulePlan(from_file(Path(sys.argv[1])))
sizes = []
for turn in range(60):
    plan.lay_out(Slots(slow_path=0x1000 * turn), "all", "none", 0, 0)
    plan.compose(plan.image.base + 0x10000000, 0)
    sizes.append(resident())
print(sizes[9], sizes[-1])
"""


def composed(plan: ModulePlan, slots: Slots, events: str, clock: str) -> Composition:
    image = plan.image
    plan.lay_out(slots, events, clock, 100, 200)
    made = plan.compose(image.base + -(-image.size // 0x10000) * 0x10000, 0)
    # The module's chunk says how long planning took.
    return dataclasses.replace(made, module_chunk=b"")


def mapped(made: Composition, plan: ModulePlan) -> tuple[list[int | None], list[int | None]]:
    """What the code of the copies is of, here and there, and where the copies of functions and sites are."""
    copies = made.copies
    rvas = [function.rva for function in plan.functions] + [site.rva for site in plan.sites]
    return (
        [copies.original(copies.region + offset) for offset in range(0, copies.size, 7)],
        [copies.copy(copies.base + rva) for rva in rvas],
    )


def program(name: str) -> Image:
    if name.isdigit():
        made = Generator(int(name))
        return images.build(made.code, made.data).image
    return from_file(corpus.program(name) if name == "ninja" else targets.build(name))


@pytest.mark.parametrize("clock", ["none", "tsc"])
@pytest.mark.parametrize("name", ["frames", "throws", "ninja", *map(str, range(10))])
def test_laid_out_again_it_is_what_a_new_plan_would_be(name: str, clock: str) -> None:
    image = program(name)
    again, new = ModulePlan(image), ModulePlan(image)
    before = composed(again, FIRST, "functions", "coarse")
    found, expected = composed(again, OTHER, "all", clock), composed(new, OTHER, "all", clock)
    assert found.code != before.code
    for each in dataclasses.fields(Composition):
        if each.name != "copies":
            assert getattr(found, each.name) == getattr(expected, each.name), each.name
    assert mapped(found, again) == mapped(expected, new)
    assert again.functions == new.functions
    assert again.sites == new.sites


def test_the_map_of_copies_stays_that_of_its_layout() -> None:
    image = program("frames")
    again, new = ModulePlan(image), ModulePlan(image)
    before = composed(again, FIRST, "functions", "coarse")
    after = composed(again, OTHER, "all", "none")
    found = mapped(before, again)
    assert found != mapped(after, again)
    expected = composed(new, FIRST, "functions", "coarse")
    assert found[0] == mapped(expected, new)[0]
    assert any(found[0])


def test_laid_out_again_and_again_it_takes_no_more_memory() -> None:
    """Labels of all instructions are megabytes each time."""
    command = [sys.executable, "-c", SCRIPT, str(corpus.program("ninja"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    early, late = map(int, done.stdout.split())
    assert late < early + (4 << 20)
