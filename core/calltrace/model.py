"""The words of a trace as types: what the reader finds and what exporters and commands speak of.

The numbers are those of native/include/trace_format.h and native/reader/reader.h; a test compares them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple

NONE_ID = 0xFFFFFFFF  # CT_NONE
ENTRY_SHIFT = 4  # CT_FUNCTION_ENTRY_SHIFT
PAUSED, RESUMED = "paused", "resumed"  # marks that a recording sets by itself


class Event(enum.IntEnum):
    """enum ct_event: what one recorded unit says."""

    FRAME = 0
    ENTER = 1
    LEAVE = 2
    TAIL = 3
    CALL = 4
    RETURN = 5
    LAND = 6
    EXT = 7


class Ext(enum.IntEnum):
    """enum ct_ext: the rarer events."""

    THREAD_START = 1
    THREAD_EXIT = 2
    MARK = 3
    ENTER = 4
    EXIT = 5
    CALL = 6
    RET = 7
    GOTO = 8
    RESET = 9
    STOP = 10
    MUTED = 11


class Clock(enum.IntEnum):
    """enum ct_clock."""

    NONE = 0
    TSC = 1
    COARSE = 2


class Policy(enum.IntEnum):
    """enum ct_policy: what is done when there is no room for further events."""

    BLOCK = 0
    DROP_OLDEST = 1
    COUNT = 2  # the host counts events, and keeps none, or what budgets leave of them


class State(enum.IntEnum):
    """enum ct_state: how a recording ended; RECORDING also if its end was not written down."""

    RECORDING = 0
    EXITED = 1
    STOPPED = 2
    KILLED = 3


class Pause(enum.IntEnum):
    """enum ct_pause: what another process asks of the one that records."""

    NONE = 0
    WANTED = 1
    PAUSED = 2
    RESUME_WANTED = 3


class Source(enum.IntFlag):
    """enum ct_source: who named a function."""

    PDATA = 1
    CALL = 2
    EXPORT = 4
    ENTRY = 8
    TLS = 16
    GUARD = 32
    POINTER = 64
    SYMBOL = 128
    JUMP = 256
    GAP = 512
    HANDLER = 1024


class FunctionFlag(enum.IntFlag):
    """enum ct_function_flags."""

    FUNCLET = 1
    THUNK = 2
    FILTERED = 4


class Entry(enum.IntEnum):
    """enum ct_entry: how the start of an instrumented function leads to its copy."""

    JUMP = 0
    PADDING = 1
    SHORT_JUMP = 2
    BREAKPOINT = 3

    @property
    def text(self) -> str:
        """What it is, for the user."""
        return _ENTRY_TEXTS[self]


_ENTRY_TEXTS = {
    Entry.JUMP: "by a jump",
    Entry.PADDING: "by a jump that reaches into the padding behind",
    Entry.SHORT_JUMP: "by a short jump to padding near by",
    Entry.BREAKPOINT: "by a breakpoint, which costs microseconds each time",
}


class NodeKind(enum.IntEnum):
    """enum ct_node_kind: what a frame of the call tree stands for."""

    FUNCTION = 0
    CALL = 1
    API_FUNCTION = 2
    API_CALL = 3


class Cause(enum.IntEnum):
    """enum ct_cause: how a frame was closed; from UNWOUND on without an event of its own."""

    NONE = 0
    RETURN = 1
    TAIL = 2
    UNWOUND = 3  # by an exception or longjmp
    INFERRED = 4
    THREAD_EXIT = 5
    PROCESS_END = 6
    RUNNING = 7
    CUT = 8
    GAP = 9
    STOPPED = 10
    RESET = 11
    TOO_DEEP = 12
    SWITCHED = 13

    @property
    def text(self) -> str:
        """What a user is told about a frame that was closed like this; empty for RETURN."""
        return _CAUSE_TEXTS[self]


_CAUSE_TEXTS = {
    Cause.NONE: "goes on",
    Cause.RETURN: "",
    Cause.TAIL: "tail",
    Cause.UNWOUND: "unwound",
    Cause.INFERRED: "end not recorded",
    Cause.THREAD_EXIT: "open at thread exit",
    Cause.PROCESS_END: "open at process end",
    Cause.RUNNING: "still running",
    Cause.CUT: "open where the trace is cut",
    Cause.GAP: "open at a gap",
    Cause.STOPPED: "still running when stopped",
    Cause.RESET: "reset",
    Cause.TOO_DEEP: "nested too deep",
    Cause.SWITCHED: "left to another fiber",
}


class StepType(enum.IntEnum):
    """enum ct_step_type."""

    THREAD = 1
    OPEN = 2
    CLOSE = 3
    LAND = 4
    MARK = 5
    GAP = 6
    ORPHAN = 7
    THREAD_START = 8
    THREAD_EXIT = 9
    STOP = 10
    RESET = 11
    MUTED = 12


class LineType(enum.IntEnum):
    """enum ct_line_type."""

    THREAD = 1
    FRAME = 2
    CLOSE = 3
    MARK = 4
    GAP = 5
    MUTED = 6


NOBODY = 4  # CT_NODE_NOBODY: in place of a NodeKind where no recorded frame has called
STEP_TAIL_CALLEE = 1
STEP_OUTERMOST = 2
STEP_RESUMED = 4
STEP_OTHERS = 8
LINE_TAIL_CALLEE = 1
LINE_TAIL_KNOWN = 2
LINE_OTHERS = 8


class Step(NamedTuple):
    """struct ct_step: one thing that happened. Times are ticks, or positions in a trace without a clock."""

    time: int
    begin: int
    self_time: int
    value: int
    position: int
    id: int
    depth: int
    thread: int  # position in TraceFile.threads
    type: int  # StepType
    kind: int  # NodeKind
    cause: int  # Cause
    flags: int


class Line(NamedTuple):
    """struct ct_line: one line of a call tree. Times as in Step."""

    begin: int
    end: int
    duration: int
    calls: int  # folded into this line
    value: int
    id: int
    depth: int
    thread: int  # position in TraceFile.threads
    tail_id: int
    type: int  # LineType
    kind: int  # NodeKind
    cause: int  # Cause
    flags: int
    tail_kind: int


class FunctionRecord(NamedTuple):
    """struct ct_function_record: one function of a module."""

    rva: int
    size: int  # bytes
    sources: int  # Source
    flags: int  # FunctionFlag, Entry
    status: int  # 0: instrumented
    parent: int  # function id, or NONE_ID

    @property
    def filtered(self) -> bool:
        """Left out by the user's patterns?"""
        return bool(self.flags & FunctionFlag.FILTERED)

    @property
    def entry(self) -> Entry:
        """How its start leads to its copy, if it is instrumented."""
        return Entry(self.flags >> ENTRY_SHIFT & 3)

    @property
    def thunk(self) -> bool:
        """A jump through a pointer, left alone since its calls are recorded where they are made?"""
        return bool(self.status and self.flags & FunctionFlag.THUNK)


class SiteRecord(NamedTuple):
    """struct ct_site_record: one call instruction of a module."""

    rva: int
    function: int  # function id
    target: int  # RVA, or 0
    imported: int  # position in Module.imports, or NONE_ID


@dataclass(frozen=True)
class Thread:
    """A thread that recorded."""

    index: int  # the recorder's number
    id: int  # the system's
    units: int  # present in the file
    lost: int  # units missing in between
    open_tsc: int  # ticks


@dataclass(frozen=True)
class Mark:
    """A name for a moment of a recording, in every thread."""

    name: str
    tsc: int  # ticks
    positions: dict[int, int]  # by thread index: units it had recorded
    by_program: bool = False  # the number that the program gave to the C API's mark(), else by a user


@dataclass(frozen=True)
class Module:
    """A module whose functions were planned. Ids of functions and sites run through all modules."""

    index: int
    base: int  # VA
    size: int  # bytes
    path: str
    name: str
    load_tsc: int  # ticks
    first_function: int
    function_count: int
    first_site: int
    site_count: int
    timestamp: int = 0
    checksum: int = 0
    names: dict[int, str] = field(default_factory=dict)  # by RVA
    imports: tuple[str, ...] = ()
    statuses: dict[int, str] = field(default_factory=dict)  # why a function was refused, by status
    refusals: dict[int, int] = field(default_factory=dict)  # function RVA: RVA of the instruction it is about
    plan: dict[str, Any] = field(default_factory=dict)  # figures of the planner
    events: str = ""
    pdb: dict[str, Any] = field(default_factory=dict)  # the one that belongs to it: path, GUID, age
    named_by: str = ""  # where names are from, besides the module's own file

    @property
    def stem(self) -> str:
        """The name without its extension, as debuggers write it before ``!`` and ``+``."""
        return module_stem(self.name)

    def place(self, rva: int) -> str:
        """``module!function`` if `rva` has a name, else ``module+0xRVA``."""
        name = self.names.get(rva)
        return f"{self.stem}!{name}" if name else f"{self.stem}+{rva:#x}"


def printable(text: str) -> str:
    """`text` fit for a terminal: no name in a trace, which may come from anywhere, may steer the screen."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def module_name(path: str) -> str:
    """The file name of a module without its folder."""
    return path.replace("/", "\\").rsplit("\\", 1)[-1]


def module_stem(name: str) -> str:
    """A module's file name without its extension."""
    stem, dot, _ = name.rpartition(".")
    return stem if dot and stem else name
