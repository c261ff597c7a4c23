"""What a trace is turned into: text, CSV, Chrome's trace events, and the reports of `info` and `top`.

Every exporter writes to an open text stream as it reads, in constant memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from calltrace.export import chrome, csv, text
from calltrace.tracefile import TraceFile

FORMATS: dict[str, Callable[[TraceFile, TextIO], None]] = {
    "text": text.write,
    "csv": csv.write,
    "chrome": chrome.write,
}
