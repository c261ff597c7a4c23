"""The host's side of recording: the trace file around the events, and the DLL in the target that writes them.

Layouts are those of native/include/trace_format.h and recorder.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import functools
import json
import mmap
import sys
import threading
import time
from ctypes import c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from calltrace import native
from calltrace.errors import AccessRefused, CalltraceError, EngineError, FileMissing, OutOfSpace
from calltrace.model import Clock, Policy, State
from calltrace.ports import Port, TargetModule
from calltrace.tracefile import BLOCK, MAGIC, VERSION, Chunk, ChunkKind, FileHeader
from calltrace.win32 import api
from calltrace.win32.exports import export_address

DLL = "calltrace.dll"
NEVER_TRACED = ("ntdll.dll", DLL.lower())  # whatever the patterns say: recording itself runs through them
SLOTS = 64  # blocks of the LIVE chunk: threads that record at once without going through private memory
RECORDER_ABI = 4
NOTIFY_LOADS, HITS = 1, 2  # of StartRequest.flags

_STATUS_TEXTS = {
    1: "it is of another version than this program",
    2: "the process has no four free TLS slots left",
    3: "the trace file cannot be mapped into the process",
    4: "the system refused the function table",
    5: "recording was not started",
    6: "another recording is under way in this process",
    7: "the process has no memory left",
}
_BUSY = 8
_HZ_SECONDS = 0.05  # shortest time over which the counter's frequency is measured
_RELEASE_SECONDS = 2.0  # for the recorder's threads in the target to end


class StartRequest(ctypes.LittleEndianStructure):
    """struct ct_start."""

    _fields_ = [
        ("abi", c_uint32),
        ("flags", c_uint32),
        ("file", c_uint64),
        ("host_process", c_uint64),
        ("load_request", c_uint64),
        ("load_answer", c_uint64),
        ("full", c_uint64),
        ("room", c_uint64),
        ("status", c_uint32),
        ("system_error", c_uint32),
        ("cursor", c_uint32),
        ("scratch", c_uint32 * 3),
        ("slow_path", c_uint64),
        ("coarse_clock", c_uint64),
    ]


class CodeState(enum.IntEnum):
    """enum ct_code_state."""

    FREE = 0
    ACTIVE = 1
    LEFT = 2
    UNLOADED = 3


class Code(ctypes.LittleEndianStructure):
    """struct ct_code."""

    _fields_ = [
        ("base", c_uint64),
        ("region", c_uint64),
        ("region_size", c_uint32),
        ("code_size", c_uint32),
        ("table", c_uint32),
        ("table_count", c_uint32),
        ("patches", c_uint32),
        ("patch_count", c_uint32),
        ("breakpoints", c_uint32),
        ("breakpoint_count", c_uint32),
        ("state", c_uint32),
        ("cursor", c_uint32),
    ]


class RecorderState(ctypes.LittleEndianStructure):
    """struct ct_recorder."""

    _fields_ = [
        ("abi", c_uint32),
        ("recording", c_uint32),
        ("open_files", c_uint32),
        ("code_count", c_uint32),
        ("codes", c_uint64),
        ("nowhere", c_uint64),
    ]


@functools.cache
def _engine() -> ctypes.CDLL:
    library = native.library()
    library.ct_reserve.argtypes, library.ct_reserve.restype = [c_void_p, c_uint64], c_uint64
    library.ct_give_back.argtypes, library.ct_give_back.restype = [c_void_p, c_uint64, c_uint64], None
    library.ct_add_lost.argtypes, library.ct_add_lost.restype = [c_void_p, c_uint64], None
    library.ct_tsc.argtypes, library.ct_tsc.restype = [], c_uint64
    return library


@functools.cache
def _first_time() -> tuple[int, int]:
    """Time stamp counter and nanoseconds of our first recording: the longer ago, the more exact."""
    return _engine().ct_tsc(), time.perf_counter_ns()


def dll_path() -> Path:
    """The recorder that is injected into targets. EngineError if it is not there."""
    path = Path(__file__).absolute().parent / "_native" / DLL
    if not path.is_file():
        raise EngineError(f"the recorder {path} is missing: build it with `make native`")
    return path


class TraceFile:
    """A trace file in the making: mapped, appended to and finished here; events are the target's to write."""

    def __init__(self, path: Path, clock: Clock, policy: Policy, max_size: int, info: dict[str, Any]) -> None:
        """Create `path` with header, INFO chunk (`info` as JSON) and an empty LIVE chunk.

        FileMissing if its folder does not exist, AccessRefused or OutOfSpace if it cannot be written.
        """
        self.path = path
        self._lock = threading.Lock()  # held by whoever uses the position of _file
        try:
            self._file = path.open("w+b", buffering=0)  # unbuffered: the target writes the same file
        except FileNotFoundError:
            raise FileMissing(f"cannot create {path}: its folder does not exist") from None
        except OSError as error:
            if error.errno == errno.EINVAL:  # what the C runtime makes of ERROR_USER_MAPPED_FILE
                raise AccessRefused(
                    f"cannot write {path}: a program is being recorded into it, or was, and has not run "
                    "since; choose another file with -o"
                ) from None
            raise _write_failure(path, error) from None
        try:
            _make_sparse(self._file)
            self._file.write(bytes(BLOCK))  # a full disk shows here, not as a fault in the mapping
            self._map = mmap.mmap(self._file.fileno(), BLOCK)
        except OSError as error:
            self._file.close()
            raise _write_failure(path, error) from None
        self.header = FileHeader.from_buffer(self._map)
        self.header.magic = MAGIC
        self.header.version = VERSION
        self.header.header_size = ctypes.sizeof(FileHeader)
        self.header.block_size = BLOCK
        self.header.unit_size = 4 if clock == Clock.NONE else 8
        self.header.clock = clock
        self.header.policy = policy
        self.header.max_size = max_size
        self.header.created_ns = time.time_ns()
        self.header.append_end = BLOCK
        _first_time()
        self.header.tsc_start = _engine().ct_tsc()
        self.append_info(info)
        live = Chunk.before(ChunkKind.LIVE, SLOTS * BLOCK)
        self.slots = self.append(bytes(live), live.length) + BLOCK  # offset of the first one
        for slot in range(SLOTS):
            # A reader looks at every slot's header; on a full tmpfs, mapped holes cannot even be read.
            self._put(self.slots + slot * BLOCK, bytes(ctypes.sizeof(Chunk)))

    @classmethod
    def join(cls, path: Path) -> TraceFile:
        """The file that another process of ours records into, so that something can be appended.

        AccessRefused if it cannot be written.
        """
        joined = cls.__new__(cls)
        joined.path = path
        joined._lock = threading.Lock()
        try:
            joined._file = path.open("r+b", buffering=0)
            joined._map = mmap.mmap(joined._file.fileno(), BLOCK)
        except OSError as error:
            raise AccessRefused(f"cannot write {path}: {error.strerror}") from None
        joined.header = FileHeader.from_buffer(joined._map)
        return joined

    def open_for_target(self) -> BinaryIO:
        """The file once more: the target needs a file position of its own."""
        return self.path.open("r+b", buffering=0)

    def append(self, chunk: bytes, length: int | None = None) -> int:
        """Append a chunk, whose header says `length` bytes (None: as many as there are, in whole blocks).

        Returns its offset in the file. Safe while the target appends, too. OutOfSpace if the disk is full.
        """
        if length is None:
            length = _whole_blocks(len(chunk))
        offset = _engine().ct_reserve(ctypes.addressof(self.header), length)
        self._put(offset, chunk)
        if len(chunk) < length:
            self._put(offset + length - 1, b"\0")  # whatever else appends, the file reaches this far
        return int(offset)

    def put_events(self, block: bytes, offset: int, max_size: int) -> int:
        """Write an EVENTS chunk where an earlier state of it is, or, with `offset` 0, at the end.

        Returns its offset; 0 if the file, which is not to grow beyond `max_size` (0: no limit), has no room,
        or cannot be written.
        """
        header = ctypes.addressof(self.header)
        fresh = not offset
        if fresh:
            if max_size and self.header.append_end + len(block) > max_size:
                return 0
            offset = int(_engine().ct_reserve(header, len(block)))
        head = ctypes.sizeof(Chunk)
        try:
            self._put(offset + head, block[head:])
            self._put(offset, block[:head])  # until now it is a hole, or what it was
        except (OutOfSpace, AccessRefused):
            if fresh:
                _engine().ct_give_back(header, offset, len(block))
            return 0
        return offset

    def add_lost(self, units: int) -> None:
        """Say that so many units found no room."""
        _engine().ct_add_lost(ctypes.addressof(self.header), units)

    def loaded_module(self) -> TargetModule:
        """The module that the DLL has just reported as loaded."""
        path = bytes(self.header.load_path).decode("utf-16-le", "replace").partition("\0")[0]
        return TargetModule(self.header.load_base, self.header.load_size, path)

    def answer_load(self, loads: LoadSignals, code: Code | None) -> None:
        """Let the thread that loaded a module go on; the DLL first registers `code`, if there is any."""
        if code is not None:
            ctypes.memmove(self._load_code(), bytes(code), ctypes.sizeof(code))
        self.header.load_answer = 0 if code is None else 1
        api.kernel32().SetEvent(loads.answer)

    def unregistered_code(self) -> Code | None:
        """What was answered for a module's load, if the stopped target has not come to register it."""
        if not self.header.load_answer:
            return None
        return Code.from_buffer_copy(ctypes.string_at(self._load_code(), ctypes.sizeof(Code)))

    def _load_code(self) -> int:
        return ctypes.addressof(self.header) + FileHeader.load_path.offset

    def append_info(self, info: dict[str, Any]) -> None:
        """Append an INFO chunk, whose keys replace those of earlier ones."""
        text = json.dumps(info, ensure_ascii=False).encode()
        header = Chunk.before(ChunkKind.INFO, len(text))
        self.append(bytes(header) + text, header.length)

    def finish(self, state: State, exit_code: int) -> None:
        """Write down how the recording ended, and close the file.

        `state` stands unless the target has said itself that it ended in order.
        """
        if self.header.state == State.RECORDING:
            self.header.state = state
        self.header.exit_code = exit_code
        now = self.tell_frequency()
        if not self.header.tsc_end:
            self.header.tsc_end = now
        self.close()

    def mark(self, name: str, positions: dict[int, int]) -> None:
        """Write down the name of this moment, and how many units each thread (index) has recorded."""
        told = {"name": name, "tsc": int(_engine().ct_tsc()), "positions": sorted(positions.items())}
        self.append_info({"marks": [told]})

    def tell_frequency(self) -> int:
        """Write down the time stamp counter's frequency, as far as it is known by now; the counter."""
        first_tsc, first_ns = _first_time()
        short = _HZ_SECONDS - (time.perf_counter_ns() - first_ns) / 1e9
        if short > 0:
            time.sleep(short)
        now = int(_engine().ct_tsc())
        self.header.tsc_hz = round((now - first_tsc) * 1e9 / (time.perf_counter_ns() - first_ns))
        return now

    def finish_copy(self, path: Path) -> None:
        """Complete a copy of this file that was made while the target stood still, as if stopped then."""
        now = self.tell_frequency()
        header = FileHeader.from_buffer_copy(self._map)
        if header.state == State.RECORDING:
            header.state, header.stop, header.tsc_end = State.STOPPED, 1, now
        with path.open("r+b") as copy:
            copy.write(bytes(header))

    def _put(self, offset: int, data: bytes) -> None:
        try:
            with self._lock:
                self._file.seek(offset)
                view = memoryview(data)
                while view:
                    view = view[self._file.write(view) :]
        except OSError as error:
            raise _write_failure(self.path, error) from None

    def close(self) -> None:
        """Unmap and close; what is in the file stays."""
        del self.header  # it keeps the mapping in use
        self._map.close()
        self._file.close()

    def discard(self) -> None:
        """Close it, of which nothing can be made, and take it away."""
        self.close()
        with contextlib.suppress(OSError):  # a target that lives on may have it open
            self.path.unlink()


@dataclass(frozen=True)
class LoadSignals:
    """Two auto-reset events of this process: a module was loaded; it was dealt with."""

    request: int
    answer: int

    @classmethod
    def create(cls) -> LoadSignals:
        """Two fresh events. EngineError if the system has none."""
        events = [api.kernel32().CreateEventW(None, 0, 0, None) for _ in range(2)]
        if not all(events):
            raise EngineError(f"cannot create an event: {api.error_text(api.last_error())}")
        return cls(*events)

    def close(self) -> None:
        """Give both up."""
        for event in (self.request, self.answer):
            api.kernel32().CloseHandle(event)


class SlotSignals(NamedTuple):
    """Auto-reset events between the threads of a target and whoever counts what is in its slots."""

    full: int  # set by the target when whoever counts sleeps and slots are full
    room: int  # set by whoever counts when the target's threads want room


class Recorder:
    """calltrace.dll in a target: it records into one trace file after the other, and stays until the end."""

    def __init__(self, port: Port) -> None:
        """Load the DLL into the stopped target, unless it is there already.

        EngineError if the target cannot load it, or has one of another version.
        """
        self._port = port
        self._exports: dict[str, int] = {}
        if not any(module.name.lower() == DLL for module in port.modules()):
            load_library(port, dll_path())
        try:
            abi = self._state().abi
        except EngineError:  # the first version had no such variable
            abi = 1
        if abi != RECORDER_ABI:
            path = next(module.path for module in port.modules() if module.name.lower() == DLL)
            raise EngineError(
                f"process {port.process_id} was recorded by another version of calltrace and keeps {path}: "
                "use that version, or start the program anew"
            )

    @property
    def nowhere(self) -> int:
        """VA of room for units that nobody reads."""
        return int(self._state().nowhere)

    def is_orphaned(self) -> bool:
        """Whether the stopped target is being recorded by a process of ours that has ended."""
        return bool(self._state().recording and self._call("ct_is_orphaned"))

    def start(
        self,
        file: TraceFile,
        loads: LoadSignals | None = None,
        mode: str = "trace",
        slots: SlotSignals | None = None,
    ) -> StartRequest:
        """Begin recording into `file` in the stopped target; what the copies' event code needs to know.

        With `loads` the DLL reports each module load and waits for the answer. `mode` is as in TraceOptions;
        `slots` belong to a file of Policy.COUNT. EngineError if it cannot.
        """
        port, request = self._port, StartRequest(abi=RECORDER_ABI)
        request.flags = HITS if mode == "hits" else 0
        with file.open_for_target() as target_file:
            request.file = port.share_handle(_handle(target_file))
        request.host_process = port.share_handle(api.kernel32().GetCurrentProcess())
        if loads:
            request.flags |= NOTIFY_LOADS
            request.load_request = port.share_handle(loads.request)
            request.load_answer = port.share_handle(loads.answer)
        if slots:
            request.full = port.share_handle(slots.full)
            request.room = port.share_handle(slots.room)
        if self._call_with("ct_start", request):
            raise _refusal("record", request.status, request.system_error)
        return request

    def codes(self) -> list[Code]:
        """The copies in the target: those being recorded, and what earlier recordings left."""
        state = self._state()
        size = ctypes.sizeof(Code)
        data = self._port.read(state.codes, state.code_count * size) if state.code_count else b""
        codes = (Code.from_buffer_copy(data, offset) for offset in range(0, len(data), size))
        return [code for code in codes if code.state != CodeState.FREE]

    def add_code(self, code: Code) -> None:
        """Register the copies of a module for unwinding, in the stopped target. EngineError if it refuses."""
        status = self._call_with("ct_add_code", code)
        if status:
            raise _refusal(f"register the copies at {code.region:#x}", status)

    def remove_code(self, code: Code) -> None:
        """Forget copies in the stopped target; their memory is the caller's to free."""
        self._call_with("ct_remove_code", code)

    def stop(self) -> bool:
        """Let no thread of the stopped target record any more; copies may go on running.

        False if that was not possible just now. Threads have gone on since, then, and are stopped again.
        """
        if self._call("ct_stop") != _BUSY:
            return True
        self._call("ct_await")
        return False

    def wait_for_release(self) -> None:
        """Wait until the running target has closed the trace files of recordings that were stopped."""
        deadline = time.monotonic() + _RELEASE_SECONDS
        while self._state().open_files and time.monotonic() < deadline:
            time.sleep(0.001)

    def _state(self) -> RecorderState:
        data = self._port.read(self._export("ct_recorder"), ctypes.sizeof(RecorderState))
        return RecorderState.from_buffer_copy(data)

    def _export(self, name: str) -> int:
        if name not in self._exports:
            self._exports[name] = export_address(self._port, DLL, name)
        return self._exports[name]

    def _call(self, function: str, *arguments: int) -> int:
        """Call an export; its 32-bit result."""
        return self._port.call(self._export(function), *arguments) & 0xFFFFFFFF

    def _call_with(self, function: str, argument: ctypes.LittleEndianStructure) -> int:
        """Call an export with a structure, which it may fill in; its 32-bit result."""
        size = ctypes.sizeof(argument)
        address = self._port.allocate(size)
        self._port.write(address, bytes(argument))
        status = self._call(function, address)
        ctypes.memmove(ctypes.addressof(argument), self._port.read(address, size), size)
        self._port.free(address)
        return status


def load_library(port: Port, path: Path) -> None:
    """Load the DLL `path` into the stopped target. EngineError if the target cannot load it."""
    text = (str(path) + "\0").encode("utf-16-le")
    address = port.allocate(len(text))
    port.write(address, text)
    # A call that does not come back goes on reading the text, which then stays.
    base = port.call(export_address(port, "kernel32.dll", "LoadLibraryW"), address)
    port.free(address)
    if not base:
        error = port.call(export_address(port, "kernel32.dll", "GetLastError")) & 0xFFFFFFFF
        raise EngineError(f"process {port.process_id} cannot load {path}: {api.error_text(error)}")


def _refusal(action: str, status: int, system_error: int = 0) -> EngineError:
    reason = _STATUS_TEXTS.get(status, f"status {status}")
    detail = f" (system error {system_error:#x})" if system_error else ""
    return EngineError(f"calltrace.dll cannot {action}: {reason}{detail}")


def _handle(file: BinaryIO) -> int:
    """The system's handle of an open file."""
    if sys.platform == "win32":
        import msvcrt

        return msvcrt.get_osfhandle(file.fileno())
    return file.fileno()


def _make_sparse(file: BinaryIO) -> None:
    """Unused slots then take no room on the disk; file systems that know no sparse files are as welcome."""
    if sys.platform == "win32":
        done = c_uint32()
        api.kernel32().DeviceIoControl(
            _handle(file), api.FSCTL_SET_SPARSE, None, 0, None, 0, ctypes.byref(done), None
        )


def _whole_blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _write_failure(path: Path, error: OSError) -> CalltraceError:
    if error.errno == errno.ENOSPC:
        return OutOfSpace(f"no room for {path} on its disk: choose another with -o")
    return AccessRefused(f"cannot write {path} ({error.strerror}): choose another file with -o")
