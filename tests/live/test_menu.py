"""What ran only when a menu's action was chosen: in a real window, over runs with other module bases."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pefile
import pytest

from rig import display, targets, tracing, windows

DRAW, COUNT = "101", "102"
MOVED = 0x7FF6_5432_0000
IMPORTS = {"draw": {"GDI32.dll!LineTo", "GDI32.dll!MoveToEx"}, "count": {"KERNEL32.dll!lstrlenA"}}


def moved(program: Path) -> Path:
    """The same program relocated to another base, where Wine loads it, which moves no program by itself."""
    copy = program.parent / "moved" / program.name
    with pefile.PE(str(program), fast_load=True) as image:  # what it has not read it leaves alone
        image.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_BASERELOC"]])
        image.relocate_image(MOVED)
        copy.parent.mkdir(exist_ok=True)
        image.write(str(copy))
    return copy


class Recording:
    """The program while it is recorded."""

    def __init__(self, trace: Path, said: IO[str], user: IO[str]) -> None:
        self.trace = trace
        self.base = int(said.readline().removeprefix("ready at "), 16)
        self._said, self._user = said, user

    def choose(self, action: str) -> None:
        """Choose from the menu, and wait until that is done."""
        self._user.write(action + "\n")
        self._user.flush()
        assert self._said.readline() == {DRAW: "drawn\n", COUNT: "counted\n"}[action]

    def mark(self, name: str) -> None:
        tracing.shell("mark", self.trace, name)


@contextmanager
def recording(trace: Path, program: Path) -> Iterator[Recording]:
    env = {**windows.environment(), **display.environment()}
    words = [tracing.CALLTRACE, "run", "--quiet", "-o", trace, "--", program]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen([str(word) for word in words], env=env, stdout=pipe, text=True) as process,
        subprocess.Popen(
            ["wine", windows.path(targets.build("menu_user"))], env=env, stdin=pipe, text=True
        ) as user,
    ):
        assert process.stdout
        assert user.stdin
        try:
            yield Recording(trace, process.stdout, user.stdin)
        finally:
            user.stdin.write("0\n")
            user.stdin.close()


def functions(action: str) -> set[str]:
    """All functions of an action alone, as the compiler's symbols name them, and its imports."""
    found = {f"menu!{name}" for name in targets.symbols("menu") if name.startswith(f"{action}_")}
    assert len(found) == 3
    return found | IMPORTS[action]


def found(*words: str | Path, column: int = 0) -> set[str]:
    """What `diff` finds that is in one part and in none of the others."""
    done = tracing.calltrace("diff", "--json", *words)
    rows = json.loads(done.stdout)["found"]
    return {row["name"] for row in rows if row["calls"][column] and sum(row["calls"]) == row["calls"][column]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recording of both actions, with marks, and one of drawing alone at another base."""
    folder, program = tmp_path_factory.mktemp("menu"), targets.build("menu")
    with recording(folder / "both.calltrace", program) as both:
        both.mark("idle")
        both.mark("draw")
        both.choose(DRAW)
        both.mark("count")
        both.choose(COUNT)
        both.mark("end")
    with recording(folder / "draw.calltrace", moved(program)) as draw:
        draw.mark("draw")
        draw.choose(DRAW)
        draw.mark("end")
    assert (both.base, draw.base) == (0x140000000, MOVED)
    return both.trace, draw.trace


def test_an_action_is_found_over_two_runs_with_other_bases(runs: tuple[Path, Path]) -> None:
    both, draw = runs
    assert found(both, draw, column=0) == functions("count")
    assert found(both, draw, column=1) == set()
    assert found(f"{both}@count", f"{draw}@draw", column=0) == functions("count")
    assert found(f"{both}@count", f"{draw}@draw", column=1) == functions("draw")


def test_what_ran_only_when_i_clicked(runs: tuple[Path, Path]) -> None:
    both, draw = runs
    assert found(f"{both}@draw - {both}@count - {both}@idle") == functions("draw")
    new = json.loads(tracing.shell("new", both, "count", "--json"))["found"]
    assert {row["name"] for row in new} - closing(both) == functions("count")
    # In both runs, but not by the other action.
    done = json.loads(tracing.shell("diff", "--json", f"{both}@draw & {draw}@draw - {both}@count"))
    assert {row["name"] for row in done["found"]} == functions("draw")
    calls = {row["name"]: row["calls"] for row in done["found"]}
    assert calls["menu!draw_point"] == [15, 15, 0]  # three rows of five
    assert calls["menu!draw_row"] == [3, 3, 0]


def closing(trace: Path) -> set[str]:
    """What ran only behind the last mark, when the window was closed."""
    told = json.loads(tracing.shell("new", trace, "--json"))["found"]
    return {row["name"] for row in told}


def test_edges_of_an_action_are_those_of_the_source(runs: tuple[Path, Path]) -> None:
    both, draw = runs
    words = ("diff", "--json", "--edges", f"{both}@count..end - {draw}@draw..end")
    told = json.loads(tracing.shell(*words))["found"]
    assert {(row["caller"], row["name"]): row["calls"][0] for row in told} == {
        ("menu!command", "menu!count_all"): 1,
        ("menu!count_all", "menu!count_deep"): 1,
        ("menu!count_deep", "menu!count_deep"): 4,
        ("menu!count_deep", "menu!count_letters"): 4,
        ("menu!count_deep", "menu!shared_scale"): 1,
        ("menu!count_letters", "KERNEL32.dll!lstrlenA"): 4,
    }
