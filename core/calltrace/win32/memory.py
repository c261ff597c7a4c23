"""The memory of another process of this machine, and what a port needs of a process besides its threads."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from calltrace.errors import AccessRefused, CalltraceError, EngineError, OutOfSpace, TargetLost
from calltrace.ports import Protection, TargetModule
from calltrace.win32 import api

_ALLOCATION = 0x10000  # the system's allocation granularity, bytes
_REACH = 0x7FFF0000  # a range must end within this many bytes of its module's base
_PAGE = 0x1000
_PIECE = 4 << 20  # bytes moved by one system call

_PROTECTIONS = {
    Protection.READ: api.PAGE_READONLY,
    Protection.READ_WRITE: api.PAGE_READWRITE,
    Protection.EXECUTE_READ: api.PAGE_EXECUTE_READ,
}
_MODULES = 4096  # more than a process has


class ProcessMemory:
    """A process by its handle: every method works while it runs, too."""

    def __init__(self, process: int, process_id: int) -> None:
        """Use `process`, a handle with PROCESS_RIGHTS; with OBSERVER_RIGHTS what only reads."""
        self.process_id = process_id
        self._process = process

    def exit_code(self) -> int:
        """The exit code of a target that has ended, or that is ending, 0 to 2**32 - 1."""
        code = ctypes.c_uint32()
        api.kernel32().GetExitCodeProcess(self._process, ctypes.byref(code))
        return code.value

    def ended(self) -> int | None:
        """The exit code of the process, if it has ended."""
        running = api.kernel32().WaitForSingleObject(self._process, 0) != api.WAIT_OBJECT_0
        return None if running else self.exit_code()

    def debugged(self) -> bool:
        """Whether a debugger holds the process."""
        held = ctypes.c_uint64()
        status = api.ntdll().NtQueryInformationProcess(
            self._process, api.PROCESS_DEBUG_PORT, ctypes.byref(held), ctypes.sizeof(held), None
        )
        return not status and bool(held.value)

    def share_handle(self, handle: int) -> int:
        """The value in the target of a duplicate of `handle`. AccessRefused if the system refuses."""
        kernel32, duplicate = api.kernel32(), ctypes.c_void_p()
        own = kernel32.GetCurrentProcess()
        if not kernel32.DuplicateHandle(
            own, handle, self._process, ctypes.byref(duplicate), 0, 0, api.DUPLICATE_SAME_ACCESS
        ):
            raise self._failure("hand a file over")
        return duplicate.value or 0

    # Memory

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at VA `address`."""
        return self._read_plain(address, size)

    def _read_plain(self, address: int, size: int) -> bytes:
        store = bytearray(size)
        for offset in range(0, size, _PIECE):
            length = min(_PIECE, size - offset)
            done = ctypes.c_size_t()
            piece = (ctypes.c_char * length).from_buffer(store, offset)
            ok = api.kernel32().ReadProcessMemory(
                self._process, address + offset, piece, length, ctypes.byref(done)
            )
            if not ok or done.value != length:
                raise self._failure(f"read {length} bytes at {address + offset:#x}")
        return bytes(store)

    def write(self, address: int, data: bytes) -> None:
        """Write `data` at VA `address`, and read it back."""
        for start, end, protection in list(self._regions(address, address + len(data))):
            writable = bool(protection & api.PAGES_WRITABLE)
            if not writable:
                self._set_protection(start, end - start, api.PAGE_READWRITE)
            try:
                self._write_plain(start, data[start - address : end - address])
            finally:
                if not writable:
                    self._set_protection(start, end - start, protection)
        api.kernel32().FlushInstructionCache(self._process, address, len(data))
        if self._read_plain(address, len(data)) != data:
            raise AccessRefused(
                f"process {self.process_id} changes its memory at {address:#x} back: it protects itself, "
                "so it cannot be traced"
            )

    def allocate(self, size: int, above: TargetModule | None = None) -> int:
        """The VA of `size` fresh READ_WRITE bytes, behind `above` and within its reach if given."""
        if above is None:
            address = self._allocate_at(0, size)
            if not address:
                raise self._unless_ended(
                    OutOfSpace(f"process {self.process_id} has no {size:,} bytes of memory left")
                )
            return address
        start = _align_up(above.end, _ALLOCATION)
        while start + size <= above.base + _REACH:
            info = self.query(start)
            if info is None:
                break
            region_end = info.BaseAddress + info.RegionSize
            if info.State == api.MEM_FREE and start + size <= region_end:
                address = self._allocate_at(start, size)
                if address:
                    return address
                start += _ALLOCATION  # taken in between, or the system wants it for itself
            else:
                start = _align_up(region_end, _ALLOCATION)
        raise self._unless_ended(
            OutOfSpace(
                f"no free range of {size:,} bytes within 2 GB above {above.name} at {above.base:#x}: "
                "leave functions out with --exclude, or choose some with --include"
            )
        )

    def protect(self, address: int, size: int, protection: Protection) -> None:
        """Set the access to the pages of `address` to `address + size`."""
        self._set_protection(address, size, _PROTECTIONS[protection])

    def free(self, address: int) -> None:
        """Release a range that `allocate` returned."""
        if not api.kernel32().VirtualFreeEx(self._process, address, 0, api.MEM_RELEASE):
            raise self._failure(f"free the memory at {address:#x}")

    def writable(self) -> Iterator[tuple[int, int]]:
        """Start and end of the ranges of heaps, stacks and modules' data."""
        address = 0
        while (info := self.query(address)) is not None:
            address = info.BaseAddress + info.RegionSize
            if (
                info.State == api.MEM_COMMIT
                and info.Type != api.MEM_MAPPED
                and info.Protect & api.PAGES_WRITABLE
                and not info.Protect & api.PAGE_GUARD
            ):
                yield info.BaseAddress, address

    def mapped_modules(self) -> list[TargetModule]:
        """What the loader of the process has mapped, the program first.

        EngineError if the system does not list it.
        """
        bases = (ctypes.c_uint64 * _MODULES)()
        needed = ctypes.c_uint32()
        if not api.kernel32().K32EnumProcessModulesEx(
            self._process, bases, ctypes.sizeof(bases), ctypes.byref(needed), api.LIST_MODULES_ALL
        ):
            why = api.error_text(api.last_error())
            raise self._unless_ended(
                EngineError(
                    f"cannot list the modules of process {self.process_id} (it may be starting: "
                    f"try again): {why}"
                )
            )
        count = min(needed.value // ctypes.sizeof(ctypes.c_uint64), len(bases))
        return [
            TargetModule(base, self.image_size(base), self.module_path(base, None)) for base in bases[:count]
        ]

    def module_path(self, base: int, file: int | None) -> str:
        """The path of a module from its debug event, whose file handle is closed here."""
        kernel32 = api.kernel32()
        text = ctypes.create_unicode_buffer(32768)
        length = kernel32.K32GetModuleFileNameExW(self._process, base, text, len(text))
        if not length and file:
            length = kernel32.GetFinalPathNameByHandleW(file, text, len(text), 0)
        if file:
            kernel32.CloseHandle(file)
        path = text.value if length else ""
        return path[4:] if path.startswith("\\\\?\\") else path

    def image_size(self, base: int) -> int:
        """SizeOfImage from the headers in memory; one page if they are not to be read."""
        try:
            header = self.read(base + 0x3C, 4)
            nt_headers = base + int.from_bytes(header, "little")
            return int.from_bytes(self.read(nt_headers + 0x50, 4), "little")
        except AccessRefused:
            return _PAGE

    def _environment_block(self, thread: int, handle: int) -> int:
        """The VA of the TEB of `thread`, of which `handle` is a handle with THREAD_RIGHTS."""
        info = api.ThreadBasicInformation()
        status = api.ntdll().NtQueryInformationThread(
            handle, 0, ctypes.byref(info), ctypes.sizeof(info), None
        )
        if status:
            raise self._unless_ended(
                AccessRefused(f"cannot find the environment block of thread {thread}: status {status:#x}")
            )
        return int(info.TebBaseAddress)

    # Memory, inside

    def query(self, address: int) -> api.MemoryBasicInformation | None:
        info = api.MemoryBasicInformation()
        size = ctypes.sizeof(info)
        if not api.kernel32().VirtualQueryEx(self._process, address, ctypes.byref(info), size):
            return None
        return info

    def _regions(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The parts of [start, end) with one protection each: (start, end, PAGE_ value)."""
        while start < end:
            info = self.query(start)
            if info is None or info.State != api.MEM_COMMIT:
                raise self._failure(f"find the memory at {start:#x}")
            stop = min(end, info.BaseAddress + info.RegionSize)
            yield start, stop, info.Protect
            start = stop

    def _write_plain(self, address: int, data: bytes) -> None:
        for offset in range(0, len(data), _PIECE):
            piece = data[offset : offset + _PIECE]
            done = ctypes.c_size_t()
            ok = api.kernel32().WriteProcessMemory(
                self._process, address + offset, piece, len(piece), ctypes.byref(done)
            )
            if not ok or done.value != len(piece):
                raise self._failure(f"write {len(piece)} bytes at {address + offset:#x}")

    def _set_protection(self, address: int, size: int, protection: int) -> None:
        old = ctypes.c_uint32()
        if not api.kernel32().VirtualProtectEx(self._process, address, size, protection, ctypes.byref(old)):
            raise self._failure(f"set the protection of {size} bytes at {address:#x}")

    def _allocate_at(self, address: int, size: int) -> int:
        allocate = api.kernel32().VirtualAllocEx
        return int(allocate(self._process, address, size, api.MEM_COMMIT_RESERVE, api.PAGE_READWRITE))

    # Errors

    def _failure(self, action: str, error: int | None = None) -> CalltraceError:
        """The error for a failed system call."""
        code = api.last_error() if error is None else error
        return self._unless_ended(
            AccessRefused(f"cannot {action} in process {self.process_id}: {api.error_text(code)}")
        )

    def _unless_ended(self, error: CalltraceError) -> CalltraceError:
        """`error`, or TargetLost if the process has ended, which is the better explanation."""
        if api.kernel32().WaitForSingleObject(self._process, 0) == api.WAIT_OBJECT_0:
            return TargetLost(f"process {self.process_id} has ended (exit code {self.exit_code()})")
        return error


def _align_up(value: int, alignment: int) -> int:
    return (value + alignment - 1) & -alignment
