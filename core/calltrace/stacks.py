"""The call stacks of a trace: the frames that were open where each thread's recording ends, or has come to.

A frame is a function, or a call of what is not traced itself. A call whose callee recorded itself is no frame
of its own, but tells where that function was called.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator, Iterator
from ctypes import c_char, c_uint32
from dataclasses import dataclass
from typing import NamedTuple

from calltrace.calltree import MORE, NO_MEMORY, no_memory, thread_range, units_of
from calltrace.model import NONE_ID, Cause, Module, NodeKind, SiteRecord, Thread, module_stem
from calltrace.tracefile import STACK, STACK_FRAME, TraceFile, reader_library


class StackFrame(NamedTuple):
    """One frame. Addresses are VAs, None where they are not known."""

    name: str
    kind: NodeKind
    address: int | None  # of the function; None of a call of something else
    call_place: str | None  # the call instruction, as module+0xRVA
    call_address: int | None
    begin: int  # ticks, or the position in a trace without a clock


@dataclass
class Stack:
    """A thread's stack."""

    trace: TraceFile
    thread: Thread
    time: int  # of the last thing it recorded; ticks or position
    cause: Cause  # why the frames are open; NONE if none is
    incomplete: bool  # events were lost: there may be further frames below the outermost
    raw_frames: bytes  # struct ct_stack_frame each

    @property
    def events(self) -> int:
        """How much the thread had recorded by then: units, lost ones counted."""
        return self.thread.units + self.thread.lost

    def frames(self) -> Iterator[StackFrame]:
        """Each frame, innermost first, as long as the trace is open."""
        return _frames(self.trace, STACK_FRAME.iter_unpack(self.raw_frames))


def stacks(trace: TraceFile, thread: int | None = None) -> Generator[Stack, None, None]:
    """The stack of each thread, or of one (index or system id).

    Reads all that the threads recorded; can be interrupted. Raises UsageError for an unknown thread
    or a trace without events, EngineError if memory runs out.
    """
    trace.need_events()
    library = reader_library()
    first, count = thread_range(trace, thread)
    handle = library.ct_reader_stacks_open(trace.reader, first, count)
    if not handle:
        raise no_memory(trace)
    raw = (c_char * STACK.size)()
    pull = c_uint32(MORE)
    try:
        with trace.reading(units_of(trace, first, count)) as tell:
            while pull.value == MORE:
                found = library.ct_reader_stacks_next(handle, raw, ctypes.byref(pull))
                tell()
                if not found:
                    continue
                time, position, depth, cause, incomplete = STACK.unpack(raw)
                frames = (c_char * (depth * STACK_FRAME.size))()
                library.ct_reader_stacks_frames(handle, raw, frames)
                thread_told = trace.threads[position]
                yield Stack(trace, thread_told, time, Cause(cause), bool(incomplete), frames.raw)
    finally:
        library.ct_reader_stacks_close(handle)
    if pull.value == NO_MEMORY:
        raise no_memory(trace)


def _frames(trace: TraceFile, raw: Iterator[tuple[int, ...]]) -> Iterator[StackFrame]:
    function: StackFrame | None = None  # waits for the call below it
    for begin, node, kind in raw:
        frame = _frame(trace, NodeKind(kind), node, begin)
        if function and frame.kind == NodeKind.CALL and _stands_for(trace, node, function):
            yield function._replace(call_place=frame.call_place, call_address=frame.call_address)
            function = None
            continue
        if function:
            yield function
        function = frame if frame.kind == NodeKind.FUNCTION else None
        if not function:
            yield frame
    if function:
        yield function


def _frame(trace: TraceFile, kind: NodeKind, node: int, begin: int) -> StackFrame:
    name = trace.node_name(kind, node)
    if kind == NodeKind.CALL:
        site = trace.site(node)
        if site is None:
            return StackFrame(name, kind, None, None, None, begin)
        module, record = site
        return StackFrame(name, kind, None, f"{module.stem}+{record.rva:#x}", module.base + record.rva, begin)
    address: int | None = None
    if kind == NodeKind.FUNCTION:
        function = trace.function(node)
        address = function[0].base + function[1].rva if function else None
    else:
        address = trace.address(node)
    return StackFrame(name, kind, address, None, None, begin)


def _stands_for(trace: TraceFile, site_id: int, function: StackFrame) -> bool:
    """Is the function that was entered right in this call what the call site calls?"""
    site = trace.site(site_id)
    return site is not None and may_call(*site, function.name, function.address)


def may_call(module: Module, site: SiteRecord, name: str, address: int | None) -> bool:
    """Whether a call site of `module` can have led to a function, whose VA may not be known."""
    if site.target:
        return module.base + site.target == address
    if site.imported == NONE_ID or site.imported >= len(module.imports):
        return True  # through a pointer: nothing speaks against it
    library, _, function = module.imports[site.imported].partition("!")
    stem, _, own = name.partition("!")
    return module_stem(library).lower() == stem.lower() and function == own
