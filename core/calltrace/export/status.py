"""What `calltrace status` says.

The object that ``status --json`` prints has these keys; they stay as they are, further ones may come:

- ``trace``: the file of the recording under way, or of the last one (or null)
- ``recording``: null if nothing is recorded, else ``process_id``, ``paused``, ``mode``, ``since`` (ISO
  8601, UTC), ``size`` (bytes), ``units``, ``lost`` (units), ``threads`` (how many), ``modules`` and ``marks``
  (names)
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from calltrace.export import report, units


@dataclass(frozen=True)
class Recording:
    """A recording under way."""

    process_id: int
    paused: bool
    mode: str  # as in TraceOptions
    budget: int  # calls of each function that are recorded, in each thread; 0: all
    since: float  # seconds since 1970
    size: int  # bytes
    units: int
    lost: int  # units
    threads: int
    modules: Sequence[str]
    marks: Sequence[str]


@dataclass(frozen=True)
class Status:
    """What a debugger's user has recorded."""

    trace: Path | None  # of the recording, or of the last one
    recording: Recording | None


def write_status(status: Status, out: TextIO) -> None:
    """Write it as lines of a label and a text."""
    report.write_rows(_rows(status), out)


def write_status_json(status: Status, out: TextIO) -> None:
    """Write it as JSON."""
    told = None
    if status.recording:
        since = datetime.datetime.fromtimestamp(status.recording.since, datetime.timezone.utc)
        told = {**asdict(status.recording), "since": since.isoformat()}
    trace = None if status.trace is None else str(status.trace)
    json.dump({"trace": trace, "recording": told}, out, indent=2, ensure_ascii=False)
    out.write("\n")


def _rows(status: Status) -> Iterator[tuple[str, str]]:
    recording = status.recording
    if recording is None:
        yield "recording", "nothing"
        if status.trace:
            yield "last trace", str(status.trace)
        return
    yield "recording", f"process {recording.process_id}{', paused' if recording.paused else ''}"
    since = time.strftime("%H:%M:%S", time.localtime(recording.since))
    yield "since", f"{since}, {time.time() - recording.since:,.1f} s ago"
    if recording.mode != "trace":
        yield "mode", recording.mode
    if recording.budget:
        yield "budget", f"{units.count(recording.budget, 'call')} of each function or import, in each thread"
    yield "trace", f"{status.trace}, {units.size(recording.size)}"
    threads = units.count(recording.threads, "thread")
    yield "recorded", f"{units.count(recording.units, 'unit')} in {threads}"
    yield "lost", units.count(recording.lost, "unit") if recording.lost else "nothing"
    for module in recording.modules:
        yield "module", module
    for mark in recording.marks:
        yield "mark", mark
