"""Files that exports write into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from calltrace.errors import AccessRefused, FileMissing, UsageError

T = TypeVar("T")


def created(path: Path, source: Path | None, create: Callable[[Path], T]) -> T:
    """What `create` makes of the path.

    Raises UsageError if that is the file `source` itself, FileMissing or AccessRefused if it cannot be made.
    """
    try:
        if source is not None and path.exists() and path.samefile(source):
            raise UsageError(f"{path} is the trace itself: name another file with -o")
        return create(path)
    except FileNotFoundError:
        raise FileMissing(f"cannot create {path}: its folder does not exist") from None
    except OSError as error:
        raise AccessRefused(f"cannot create {path}: {error.strerror}") from None
