"""Readers of other people's for what calltrace exports, as tests/rig/setup.py has unpacked them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from calltrace import wine

_READERS = wine.cache_folder() / "readers"


def _unpacked() -> None:
    assert _READERS.is_dir(), f"{_READERS} is missing: run tests/rig/setup.sh"
    if str(_READERS) not in sys.path:
        sys.path.append(str(_READERS))


def read_drcov(path: str) -> Any:
    """covtool's CoverageData of a drcov file; it checks sizes, counts, ids and bounds."""
    _unpacked()
    from covtool import drcov

    data = drcov.read(path)
    data.validate()
    return data


def perfetto_trace(data: bytes) -> Any:
    """Perfetto's own Trace message of a file. No field may be one that its definition lacks."""
    _unpacked()
    from google.protobuf.unknown_fields import UnknownFieldSet
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2

    def check(message: Any) -> None:
        assert not len(UnknownFieldSet(message)), message
        for field, value in message.ListFields():
            if field.message_type:
                for each in [value] if hasattr(value, "ListFields") else value:
                    check(each)

    trace = perfetto_trace_pb2.Trace.FromString(data)
    check(trace)
    return trace


def chrome_threads(path: Path) -> list[tuple[int, int, str, list[tuple[str, float, float]]]]:
    """The threads that Chrome's DevTools see in a trace: process, id, name, and the slices.

    Of each slice the name, when it began, and how long it was, in microseconds.
    """
    command = ["node", str(Path(__file__).with_name("chrome.mjs")), str(_READERS / "trace_engine"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(*thread, [tuple(each) for each in slices]) for *thread, slices in json.loads(done.stdout)]


def speedscope_validator() -> Callable[[Any], Any]:
    """Checks a file of speedscope's by the schema that speedscope publishes; raises if it does not fit."""
    _unpacked()
    import fastjsonschema

    schema = _READERS / "speedscope" / "dist" / "release" / "file-format-schema.json"
    compiled: Callable[[Any], Any] = fastjsonschema.compile(json.loads(schema.read_text(encoding="utf-8")))
    return compiled


def ida_names() -> set[str]:
    """The names ``module.name`` of IDA's interface that Hex-Rays' own ida-domain uses."""
    _unpacked()
    sources = (_READERS / "ida_domain").rglob("*.py")
    texts = [source.read_text(encoding="utf-8") for source in sources]
    return {name for text in texts for name in re.findall(r"\bida_\w+\.\w+", text)}


def ghidra_names(module: str, *classes: str) -> set[str]:
    """The names that a module of Ghidra's interface, or these classes of it, have."""
    _unpacked()
    top, _, rest = module.partition(".")
    path = Path(_READERS, f"{top}-stubs", *rest.split("."), "__init__.pyi")
    bodies = [ast.parse(path.read_text(encoding="utf-8")).body]
    if classes:
        bodies = [one.body for one in bodies[0] if isinstance(one, ast.ClassDef) and one.name in classes]
        assert len(bodies) == len(classes)
    return {name for body in bodies for statement in body for name in _named(statement)}


def _named(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


def speedscope_page() -> Path:
    """The page that speedscope is."""
    _unpacked()
    return _READERS / "speedscope" / "dist" / "release" / "index.html"
