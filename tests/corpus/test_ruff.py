"""ruff (Rust, MSVC linker, static runtime): mends Python files with several threads, and catches a panic."""

from __future__ import annotations

from pathlib import Path

from rig import corpus, tracing

_SETTINGS = 'select = ["ALL"]\n[flake8-type-checking]\nquote-annotations = true\n'

_FILE = """
import os, sys
from typing import List, Optional, Dict
def f{i}(a, b = [], c = {{}}, *args, d: Optional[int] = None):
  l = lambda x: x + {i}
  for i in range(len(a)):
    if a[i] == None: print("%s is %d" % (a[i], i))
    elif not a[i] in b: b.append(dict(a = 1, b = {i}))
  try:
    return open("x").read()
  except: pass
class C{i}(object):
    def m(self, x: List[Dict[str, int]]) -> "Optional[C{i}]":
        '''Return a thing'''
        if x: return super(C{i}, self).m(x)
        else:
            return [y for y in [z for z in x]] or {{k: v for k, v in x}}
"""

# Mending this panics in this release, which catches that and goes on: https://github.com/astral-sh/ruff/issues/9162
_PANIC = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from something import asdf


def func() -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    pass
"""


_ARGUMENTS = ["check", "--no-cache", "--fix", "--unsafe-fixes", "."]


def _prepare(folder: Path) -> None:
    (folder / "ruff.toml").write_text(_SETTINGS)
    for number in range(24):
        (folder / f"file{number}.py").write_text(_FILE.format(i=number))


def _prepare_panic(folder: Path) -> None:
    (folder / "ruff.toml").write_text(_SETTINGS)
    (folder / "panic.py").write_text(_PANIC)


def test_mends_files_the_same_three_times_traced(tmp_path: Path) -> None:
    job = tracing.Job(corpus.program("ruff"), _ARGUMENTS, tmp_path / "work", _prepare)
    plain = tracing.runs_the_same_three_times_traced(job, tmp_path / "ruff.calltrace")
    assert plain.exit_code == 1
    assert b"class C23:" in plain.files["file23.py"]


def test_survives_a_panic_the_same_three_times_traced(tmp_path: Path) -> None:
    job = tracing.Job(corpus.program("ruff"), _ARGUMENTS, tmp_path / "work", _prepare_panic)
    plain = tracing.runs_the_same_three_times_traced(job, tmp_path / "ruff.calltrace")
    assert b"Panicked while linting panic.py" in plain.stderr
    # It prints its stack, walked through the copies: of one file, since how deep a file's job is nested in
    # those of others is a matter of luck.
    assert plain.stderr.count(b": <unknown>\n") > 15
    assert b": BaseThreadInitThunk\n" in plain.stderr
