"""Formats that the native reader writes: it makes the bytes, and asks what to call each function it meets."""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from ctypes import c_uint32, c_uint64, c_void_p
from typing import TextIO

from calltrace.calltree import MORE, NO_MEMORY, SPLIT, WANTS_TEXT, Tree, no_memory, units_of
from calltrace.model import Clock
from calltrace.tracefile import ExportOptions, Node, TraceFile, reader_library


class ExportFormat(enum.IntEnum):
    """enum ct_export_format."""

    CSV = 0
    CHROME = 1
    SPEEDSCOPE = 2
    FOLDED = 3
    PERFETTO = 4
    TREE = 5


class TextKind(enum.IntEnum):
    """enum ct_text_kind: what has a text beside the frames of NodeKind."""

    MARK = 4
    CAUSE = 5
    PROCESS = 6


TextOf = Callable[[int, int], str]  # of a NodeKind or TextKind and an id, as it is to stand in the file


class Export:
    """The bytes of a trace in one of the formats, in parts of whole records; iterate once.

    None among them: what follows belongs into another file.
    """

    def __init__(
        self,
        trace: TraceFile,
        form: ExportFormat,
        text_of: TextOf,
        *,
        limit: int = 0,
        thread_ids: Sequence[int] = (),
        tree: Tree | None = None,
    ) -> None:
        """`limit`, `thread_ids`: see struct ct_export_options; `tree`: what TREE shows.

        UsageError for a trace without events.
        """
        trace.need_events()
        self._trace = trace
        self._text_of = text_of
        self._tree = tree
        self._thread_ids = (c_uint32 * len(thread_ids))(*thread_ids)  # as long as the options name it
        timed = trace.clock is not Clock.NONE
        self._options = ExportOptions(
            format=form,
            process_id=trace.header.process_id,
            start=trace.header.tsc_start if timed else 0,
            hz=trace.header.tsc_hz if timed else 0,
            limit=limit,
            timed=timed,
            thread_ids=ctypes.addressof(self._thread_ids) if thread_ids else None,
        )

    def __iter__(self) -> Iterator[bytes | None]:
        """Raises EngineError if memory runs out."""
        library = reader_library()
        tree, threads = None, (0, len(self._trace.threads))
        if self._tree:
            options = self._tree.options
            tree, threads = ctypes.byref(options), (options.first_thread, options.thread_count)
        handle = library.ct_reader_export_open(self._trace.reader, ctypes.byref(self._options), tree)
        if not handle:
            raise no_memory(self._trace)
        out, size, wanted = c_void_p(), c_uint64(), Node()
        by_reference = ctypes.byref(out), ctypes.byref(size), ctypes.byref(wanted)
        pull = MORE
        try:
            with self._trace.reading(units_of(self._trace, *threads)) as tell:
                while pull in (MORE, WANTS_TEXT, SPLIT):
                    pull = library.ct_reader_export_run(handle, *by_reference)
                    tell()
                    if out.value and size.value:
                        yield ctypes.string_at(out.value, size.value)
                    if pull == SPLIT:
                        yield None
                    elif pull == WANTS_TEXT:
                        text = self._text_of(wanted.kind, wanted.id).encode(errors="replace")
                        if not library.ct_reader_export_text(handle, by_reference[2], text, len(text)):
                            pull = NO_MEMORY
            if pull == NO_MEMORY:
                raise no_memory(self._trace)
        finally:
            library.ct_reader_export_close(handle)
        self.pull = pull


def nodes_of(get: Callable[[int, object], int | None], handle: int) -> list[tuple[int, int]]:
    """Kind and id of each node that the handle has numbered."""
    count = c_uint32()
    address = get(handle, ctypes.byref(count))
    nodes = (Node * count.value).from_address(address) if address else ()
    return [(node.kind, node.id) for node in nodes]


def write_text(out: TextIO, parts: Iterable[bytes | None]) -> None:
    """Write what is text and one file."""
    for part in parts:
        assert part is not None
        out.write(part.decode())
