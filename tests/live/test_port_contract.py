"""The standalone port, held to the contract of every port: on processes it starts and on running ones."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import pytest

from contract.suite import CHECKS
from rig import targets, windows

MAIN = Path(__file__).parent.parent / "contract" / "win32_main.py"


@functools.cache
def results(mode: str) -> dict[str, str | None]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "results.json"
        done = windows.python(MAIN, mode, targets.build("port_threads"), output, timeout=windows.HANGS)
        assert done.returncode == 0, done.stderr.decode()
        found: dict[str, str | None] = json.loads(output.read_text())
    return found


@pytest.mark.parametrize("mode", ["create", "attach"])
@pytest.mark.parametrize("check", CHECKS)
def test_the_standalone_port_keeps_the_contract(mode: str, check: str) -> None:
    problem = results(mode)[check]
    assert problem is None, problem
