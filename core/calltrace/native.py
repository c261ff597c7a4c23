"""The native engine: planner and trace reader, one shared library per platform."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

from calltrace.errors import EngineError

_NAME = "calltrace_native.dll" if os.name == "nt" else "libcalltrace_native.so"


@functools.cache
def library() -> ctypes.CDLL:
    """The library of this platform, loaded once. Whoever calls a function of it declares its types.

    Raises EngineError if it is not there or does not load.
    """
    path = Path(__file__).parent / "_native" / _NAME
    if not path.is_file():
        raise EngineError(f"the native engine {path} is missing: build it with `make native`")
    try:
        return ctypes.CDLL(os.fspath(path))
    except OSError as error:
        raise EngineError(f"the native engine {path} does not load: {error}") from error
