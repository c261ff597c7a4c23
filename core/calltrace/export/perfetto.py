"""Perfetto's protobuf, for ui.perfetto.dev and its trace processor: a track per thread, a slice per frame.

Times are nanoseconds since recording began; in a trace without a clock positions, ticks where the clock's
frequency is not known. What a browser could not open is split: into files ``demo.pftrace``,
``demo-2.pftrace`` and so on, each of which can be opened by itself. Where a file ends, frames that are open
stay so; the next one begins with them, each from its own beginning on.

Format: https://perfetto.dev/docs/reference/synthetic-track-event
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import BinaryIO

from calltrace.export.chrome import frame_text
from calltrace.export.files import created
from calltrace.export.native import Export, ExportFormat
from calltrace.tracefile import TraceFile

# Browsers give a page some 2 GB, and a trace takes up to four times its size there:
# https://perfetto.dev/docs/visualization/large-traces
_FILE_SIZE = 512 << 20


def write(trace: TraceFile, path: Path, file_size: int = _FILE_SIZE) -> list[Path]:
    """Write the whole trace; the files written, each of about `file_size` bytes at most.

    Raises UsageError, FileMissing or AccessRefused where one cannot be.
    """
    export = Export(trace, ExportFormat.PERFETTO, functools.partial(frame_text, trace), limit=file_size)
    paths = [path]
    out: BinaryIO = created(path, trace.path, _open)
    try:
        for part in export:
            if part is not None:
                out.write(part)
                continue
            out.close()
            paths.append(path.with_name(f"{path.stem}-{len(paths) + 1}{path.suffix}"))
            out = created(paths[-1], trace.path, _open)
    finally:
        out.close()
    return paths


def _open(path: Path) -> BinaryIO:
    return path.open("wb")
