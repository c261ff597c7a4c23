"""Dependencies point one way: from the command line down to the errors."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parent.parent.parent / "core"
PACKAGE = CORE / "calltrace"

# From the top down; a module imports from lower layers, or from its own where they are parts side by side.
LAYERS = (
    ("__main__",),
    ("cli", "running"),
    ("hosted",),
    ("dispatch", "terminal"),
    ("commands",),
    ("live", "looping"),
    ("session", "wine"),
    (
        "export",
        "calltree",
        "comparison",
        "marking",
        "parts",
        "pausing",
        "edges",
        "profile",
        "program_marks",
        "stacks",
        "tracefile",
        "plan",
        "copies",
        "preflight",
        "survey",
        "pe",
        "stubs",
        "patches",
        "places",
        "recorder",
        "counting",
        "budget",
        "graph",
        "flow",
        "install",
        "loop",
        "reference",
        "difference",
        "win32",
        "patterns",
        "native",
        "query",
    ),
    ("ports",),
    ("model",),
    ("extras",),
    ("errors", "__version__"),
)
PARTS = 7  # the layer whose modules may import each other


def part_of(path: Path) -> str:
    """The module or subpackage directly below calltrace that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(part: str) -> int:
    for number, parts in enumerate(LAYERS):
        if part in parts:
            return number
    raise AssertionError(f"{part} is in no layer: add it to LAYERS")


def imported_parts(path: Path) -> set[str]:
    """The parts of calltrace that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole name"
            if node.module == "calltrace":
                found |= {name.name for name in node.names}
            elif node.module and node.module.startswith("calltrace."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("calltrace.")}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = part_of(path)
    for other in imported_parts(path) - {here}:
        sideways_allowed = layer_of(here) == PARTS
        assert layer_of(other) > layer_of(here) or (sideways_allowed and layer_of(other) == PARTS), (
            f"{path.relative_to(CORE)} must not import calltrace.{other}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_core_knows_no_debugger(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not any(name in text for name in ("calltrace_windbg", "calltrace_x64dbg"))


def test_reading_a_trace_needs_nothing_of_windows() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(CORE)!r}); import calltrace.cli; "
        "print([name for name in sys.modules if name.startswith('calltrace.win32') or name in "
        "('calltrace.session', 'calltrace.recorder', 'capstone', 'keystone', 'pefile')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
