"""Tests run on what `make test` has set up, and say so where it is missing."""

from __future__ import annotations

import pytest

from calltrace import wine
from calltrace.errors import FileMissing

pytest.register_assert_rewrite("rig")


def pytest_sessionstart() -> None:
    try:
        wine.windows_python()
    except FileMissing as missing:
        pytest.exit(str(missing), returncode=2)
