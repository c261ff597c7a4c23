"""Counting what a target records, while it does: without events (--mode graph), or with few (--budget).

The target's threads fill blocks of the trace file, which both have mapped. A thread here counts what is in
them and gives them back, so the file does not grow. What it has counted goes into the file when somebody
asks, and in the end.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from ctypes import c_char, c_uint32, c_uint64, c_void_p

from calltrace import tracefile
from calltrace.budget import Budget
from calltrace.edges import sites_of_traced_imports
from calltrace.errors import EngineError
from calltrace.model import Cause, State
from calltrace.recorder import SlotSignals, TraceFile
from calltrace.tracefile import BLOCK, Chunk, ChunkKind, bits_of, reader_library
from calltrace.win32 import api

_FULL, _LOOK, _LAST = range(3)  # enum ct_graph_taken
_WAIT_SECONDS = 0.1  # until it is looked for slots that came since, at the latest
_CAUSES = {State.EXITED: Cause.PROCESS_END, State.KILLED: Cause.PROCESS_END, State.STOPPED: Cause.RUNNING}


class Counting:
    """Counts what is recorded into one file, from `modules_changed` to `finish` or `give_up`."""

    def __init__(self, file: TraceFile, budget: Budget | None = None) -> None:
        """Nothing is counted before the first module is known. EngineError without memory or events.

        `budget`, which is ours from here on, lets events into the file; without one none are.
        """
        self._file = file
        self._budget = budget
        self._slots_file = file.open_for_target()  # by its position nobody else reads or writes
        self._library = reader_library()
        self._lock = threading.Lock()  # held by whoever uses _graph
        self._graph = self._library.ct_graph_open()
        self._known: tracefile.TraceFile | None = None  # the file when a module was added last
        self._mapped: dict[int, mmap.mmap] = {}  # by offset in the file
        self._slots: ctypes.Array[c_void_p] = (c_void_p * 0)()  # addresses
        self._looked_to = file.slots - BLOCK  # what lies before in the file is known, and no hole
        self._thread: threading.Thread | None = None
        self._ends = False
        self._failed = False
        self.signals = SlotSignals(*(api.kernel32().CreateEventW(None, 0, 0, None) for _ in range(2)))
        if not (self._graph and all(self.signals)):
            raise EngineError("no memory to count calls in")
        if budget:
            self._library.ct_graph_set_budget(self._graph, budget.handle)

    def modules_changed(self) -> None:
        """Before any event of a module that was just added to the file. EngineError if memory runs out."""
        known = tracefile.TraceFile(self._file.path, counted=False)
        through, size = bits_of(sites_of_traced_imports(known))
        with self._lock:
            if not self._library.ct_graph_set_reader(
                self._graph, known.reader, ctypes.addressof(through), size
            ):
                known.close()
                self._fail()
                raise EngineError("no memory to count the calls of another module in")
            if self._known:
                self._known.close()
            self._known = known
        if self._thread is None:
            self._thread = threading.Thread(target=self._count, name="calltrace counting", daemon=True)
            self._thread.start()

    def counted(self, cause: Cause = Cause.CUT) -> bytes:
        """What has been counted so far, as a GRAPH chunk has it, open frames as if closed for `cause`.

        EngineError if memory runs out.
        """
        size = c_uint64()
        with self._lock:
            if self._known:
                while self._take(_FULL) or self._take(_LOOK):
                    pass
            data = self._library.ct_graph_write(self._graph, cause, ctypes.byref(size))
        if not data:
            raise EngineError("no memory to write down what was counted")
        try:
            return ctypes.string_at(data, size.value)
        finally:
            self._library.ct_graph_free(data)

    def write(self, cause: Cause = Cause.CUT, last: bool = False) -> None:
        """Add to the file what `counted` gives, and with a budget all events that it has so far.

        `last`: nothing comes any more. Errors as of `counted`, OutOfSpace if the disk is full.
        """
        payload = self.counted(cause)
        header = Chunk.before(ChunkKind.GRAPH, len(payload))
        if self._budget:
            with self._lock:
                self._budget.settle(last)
                self._budget.write(everything=True)
                muted = self._budget.muted()
            self._file.append_info(muted)
        self._file.append(bytes(header) + payload, header.length)

    def finish(self, state: State) -> None:
        """Count the rest, and write it all down; nobody records any more. Errors as of `write`."""
        try:
            self._end()
            with self._lock:
                while self._known and self._take(_LAST):
                    pass
            if self._failed:
                raise EngineError("no memory was left to count calls in")
            self.write(_CAUSES.get(state, Cause.CUT), last=True)
        finally:
            self._close()

    def give_up(self) -> None:
        """Count nothing more, and write nothing."""
        self._end()
        self._close()

    def _end(self) -> None:
        self._ends = True
        api.kernel32().SetEvent(self.signals.full)
        if self._thread:
            self._thread.join()

    def _close(self) -> None:
        self._library.ct_graph_close(self._graph)
        if self._budget:
            self._budget.close()
        if self._known:
            self._known.close()
        for event in self.signals:
            api.kernel32().CloseHandle(event)
        for mapped in self._mapped.values():
            mapped.close()
        self._slots_file.close()

    def _count(self) -> None:
        header = self._file.header
        while not self._ends:
            if self._take_some():
                continue
            header.ring_next = 1  # from here on a full slot sets the event
            if not self._take_some():
                api.kernel32().WaitForSingleObject(self.signals.full, int(_WAIT_SECONDS * 1000))
            header.ring_next = 0

    def _take_some(self) -> int:
        with self._lock:
            taken = self._take(_FULL)
        if self._file.header.blocked:
            api.kernel32().SetEvent(self.signals.room)
        return taken

    def _take(self, what: int) -> int:
        """How many blocks were counted; `what`: enum ct_graph_taken."""
        if self._failed:
            return 0
        self._map_slots()
        slots = self._slots
        status = c_uint32()
        taken = self._library.ct_graph_take(self._graph, slots, len(slots), what, ctypes.byref(status))
        if self._budget:
            self._budget.write()
        if status.value:
            self._fail()
        return int(taken)

    def _fail(self) -> None:
        self._failed = True
        self._file.header.stop = 1  # rather than keep the target's threads waiting

    def _map_slots(self) -> None:
        """Map what slots the target has added: each is a LIVE chunk, which was a hole first."""
        end = self._file.header.append_end
        offset, first_hole = self._looked_to, None
        while offset < end:
            self._slots_file.seek(offset)
            chunk = Chunk()
            header = self._slots_file.read(ctypes.sizeof(Chunk))
            ctypes.memmove(ctypes.addressof(chunk), header, len(header))
            if not chunk.kind and first_hole is None:
                first_hole = offset
            if chunk.kind == ChunkKind.LIVE and offset not in self._mapped:
                size = chunk.length - BLOCK
                mapped = mmap.mmap(self._slots_file.fileno(), size, offset=offset + BLOCK)
                self._mapped[offset] = mapped
                first = ctypes.addressof(c_char.from_buffer(mapped))
                slots = [*self._slots, *range(first, first + size, BLOCK)]
                self._slots = (c_void_p * len(slots))(*slots)
            offset += chunk.length or BLOCK
        self._looked_to = offset if first_hole is None else first_hole
