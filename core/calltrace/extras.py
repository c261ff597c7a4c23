"""Packages that only some commands need."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from calltrace.errors import EngineError


def package(name: str, extra: str) -> Any:
    """The module `name` of a package that the extra `extra` of ours brings.

    Raises EngineError if it is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(
            f"this Python ({sys.prefix}) has no {name.partition('.')[0]} that works ({error}): "
            f"`pip install calltrace[{extra}]` in it"
        ) from None
