"""A trace in a picture's size: its call stacks as one tree, and what ran when in its threads.

Both are made by the native reader in one pass (native/reader/profile.h); neither grows with the trace.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import POINTER, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from struct import Struct
from typing import Any, NamedTuple

from calltrace.calltree import no_memory, read_through
from calltrace.errors import EngineError
from calltrace.model import NONE_ID
from calltrace.tracefile import TraceFile, bits_of, reader_library

STACK = Struct("<3Q2IB7x")  # struct ct_profile_stack
CELL = Struct("<Q3IBB2x")  # struct ct_profile_cell
COLUMN = Struct("<QII")  # struct ct_profile_column


class ProfileOptions(ctypes.LittleEndianStructure):
    """struct ct_profile_options."""

    _fields_ = (
        ("shown", c_void_p),
        ("first_time", c_uint64),
        ("column_ticks", c_uint64),
        ("shown_bits", c_uint32),
        ("column_count", c_uint32),
        ("level_count", c_uint32),
        ("stack_limit", c_uint32),
        ("depth_limit", c_uint32),
        ("by_calls", c_uint32),
    )


class Limits(NamedTuple):
    """How much of a trace is told apart."""

    stacks: int = 1 << 18  # in memory, at a time
    depth: int = 256  # frames on one another
    columns: int = 600  # of time
    levels: int = 12  # outermost frames of which columns are told


class Stack(NamedTuple):
    """The frames of one function or call that were entered on the same stack."""

    calls: int
    self_weight: int  # of these frames themselves: ticks; without a clock, calls
    hidden: int  # the same of such frames within them as are not told apart
    parent: int | None  # position of the stack below; None: that of a whole thread
    id: int  # of a thread its position in TraceFile.threads
    kind: int  # NodeKind; NOBODY: a thread


class Cell(NamedTuple):
    """What filled the most of a column at one level of a thread."""

    time: int  # it spent there: ticks; positions in a trace without a clock
    thread: int  # position in TraceFile.threads
    column: int
    id: int
    level: int  # 0: the outermost
    kind: int  # NodeKind


class Column(NamedTuple):
    """How many calls a thread began in a part of the time."""

    calls: int
    thread: int
    column: int


@dataclass(frozen=True)
class Profile:
    """Stacks come after their parents; cells of a thread and level in the order of time."""

    stacks: Sequence[Stack]
    cells: Sequence[Cell]
    columns: Sequence[Column]
    column_ticks: int  # how long a column is: ticks, or positions


def profile(
    trace: TraceFile,
    shown: Sequence[int],
    span: tuple[int, int],
    by_calls: bool,
    limits: Limits,
) -> Profile:
    """Read the whole trace; can be interrupted.

    `shown`: the threads, by their positions, of which columns are made. `span`: times of the first and the
    last event. Raises UsageError for a trace without events, EngineError if memory runs out.
    """
    trace.need_events()
    bits, bit_count = bits_of(shown)
    options = ProfileOptions(
        shown=ctypes.addressof(bits),
        first_time=span[0],
        column_ticks=(span[1] - span[0]) // limits.columns + 1,
        shown_bits=bit_count,
        column_count=limits.columns,
        level_count=limits.levels,
        stack_limit=limits.stacks,
        depth_limit=limits.depth,
        by_calls=by_calls,
    )
    library = _library()
    handle = library.ct_reader_profile_open(trace.reader, ctypes.byref(options))
    if not handle:
        raise no_memory(trace)
    try:
        read_through(trace, 0, len(trace.threads), functools.partial(library.ct_reader_profile_run, handle))
        stacks = map(Stack._make, STACK.iter_unpack(_array(handle, "stacks", STACK)))
        return Profile(
            [one._replace(parent=None) if one.parent == NONE_ID else one for one in stacks],
            list(map(Cell._make, CELL.iter_unpack(_array(handle, "cells", CELL)))),
            list(map(Column._make, COLUMN.iter_unpack(_array(handle, "columns", COLUMN)))),
            options.column_ticks,
        )
    finally:
        library.ct_reader_profile_close(handle)


def _array(handle: int, name: str, form: Struct) -> bytes:
    count = c_uint32()
    address = getattr(_library(), f"ct_reader_profile_{name}")(handle, ctypes.byref(count))
    return ctypes.string_at(address, count.value * form.size) if address else b""


@functools.cache
def _library() -> ctypes.CDLL:
    """The native library with the types of these functions declared."""
    library = reader_library()
    given = [c_void_p, POINTER(c_uint32)]
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "open": (c_void_p, [c_void_p, POINTER(ProfileOptions)]),
        "run": (c_uint32, [c_void_p]),
        "stacks": (c_void_p, given),
        "cells": (c_void_p, given),
        "columns": (c_void_p, given),
        "close": (None, [c_void_p]),
    }
    try:
        for name, (result, arguments) in signatures.items():
            function = getattr(library, f"ct_reader_profile_{name}")
            function.restype = result
            function.argtypes = arguments
    except AttributeError as error:
        raise EngineError(f"the native engine makes no profiles ({error}): build it again") from None
    return library
