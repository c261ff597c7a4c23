"""What a trace is turned into: text, CSV, Chrome's trace events, and the reports of `info` and `top`.

Every exporter writes to an open text stream as it reads, in constant memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TextIO

from calltrace.export import chrome, csv, text
from calltrace.tracefile import TraceFile


class Format(NamedTuple):
    """What a whole trace can be written as."""

    write: Callable[[TraceFile, TextIO], None]
    suffix: str  # of a file's name


FORMATS = {
    "text": Format(text.write, ".txt"),
    "csv": Format(csv.write, ".csv"),
    "chrome": Format(chrome.write, ".json"),
}
