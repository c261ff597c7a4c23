"""A running process as it is seen without touching it: opened to be read and queried, never stopped."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import c_uint32, c_uint64

from calltrace import preflight
from calltrace.errors import AccessRefused, CalltraceError, TargetLost
from calltrace.ports import TargetModule
from calltrace.preflight import ProcessFacts
from calltrace.recorder import DLL, RecorderState
from calltrace.win32 import api
from calltrace.win32.exports import export_address
from calltrace.win32.port import Win32Port, process_environment_block

_HIGHEST = 0x7FFFFFFF0000  # where user mode addresses end


class Observed:
    """A process by a handle that allows to read and to query, and nothing else."""

    def __init__(self, port: Win32Port, process: int) -> None:
        """`port` is only read through; `process` is its handle."""
        self._port = port
        self._process = process
        self.process_id = port.process_id

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at VA `address`. AccessRefused if any is unreadable, TargetLost if it has ended."""
        return self._port.read(address, size)

    def modules(self) -> list[TargetModule]:
        """What is mapped, the program first. EngineError if the system does not list it."""
        return self._port.mapped_modules()

    def facts(self) -> ProcessFacts:
        """All that the system tells of it."""
        modules = self.modules()
        return dataclasses.replace(
            facts_before_start(self._process),
            debugged=self._debugged(),
            recorder=self._recorder(modules),
            loose_code=sum(self._loose_code(modules)),
            modules=tuple(modules),
        )

    def _debugged(self) -> bool | None:
        try:
            flag = self.read(process_environment_block(self._process) + 2, 1)  # PEB.BeingDebugged
        except CalltraceError:
            return None
        port = _query(self._process, api.PROCESS_DEBUG_PORT, 8)
        return flag != b"\0" or bool(port)

    def _recorder(self, modules: list[TargetModule]) -> bool | None:
        if not any(module.name.lower() == DLL.lower() for module in modules):
            return False
        with suppress(CalltraceError):
            field = export_address(self, DLL, "ct_recorder") + RecorderState.recording.offset
            host = int.from_bytes(self.read(field, 4), "little")
            return True if host and _is_running(host) else None
        return None

    def _loose_code(self, modules: list[TargetModule]) -> Iterator[int]:
        """Sizes of executable ranges that are no part of a file, but for the copies we made."""
        address = 0
        while address < _HIGHEST:
            info = self._port.query(address)
            if info is None or not info.RegionSize:
                return
            if (
                info.State == api.MEM_COMMIT
                and info.Type == api.MEM_PRIVATE
                and info.Protect & api.PAGES_EXECUTABLE
                and not any(module.base <= info.BaseAddress < module.end for module in modules)
            ):
                yield info.RegionSize
            address = info.BaseAddress + info.RegionSize


@contextmanager
def observe(process_id: int) -> Iterator[Observed]:
    """Open a running process for reading.

    TargetLost if there is none, AccessRefused if it may not be read: protected processes among them.
    """
    handle = api.kernel32().OpenProcess(api.OBSERVER_RIGHTS, 0, process_id)
    if not handle:
        raise _open_failure(process_id)
    port = Win32Port(handle, process_id)
    try:
        if port.wait(0) == 0:
            raise TargetLost(f"process {process_id} has ended (exit code {port.exit_code()})")
        yield Observed(port, handle)
    finally:
        port.close()


def open_whole(process_id: int) -> int:
    """A handle with PROCESS_RIGHTS.

    TargetLost if there is no such process, AccessRefused if it may not be opened so.
    """
    handle = api.kernel32().OpenProcess(api.PROCESS_RIGHTS, 0, process_id)
    if not handle:
        raise _open_failure(process_id)
    return int(handle)


def open_stopped(process_id: int) -> int:
    """`open_whole` what a debugger has stopped. NotTraceable if it cannot be traced (calltrace.preflight)."""
    handle = open_whole(process_id)
    try:
        facts = facts_before_start(handle)
        preflight.refuse_blocked(f"process {process_id}", preflight.of_process(facts))
    except BaseException:
        api.kernel32().CloseHandle(handle)
        raise
    return handle


def facts_before_start(process: int) -> ProcessFacts:
    """What the system demands of a process, by its handle; of one just made there is no more to be told."""
    wow64 = _query(process, api.PROCESS_WOW64_INFORMATION, 8)
    return ProcessFacts(
        wow64=None if wow64 is None else bool(wow64),
        debugged=False,
        protection=_query(process, api.PROCESS_PROTECTION_INFORMATION, 1),
        dynamic_code=_policy(process, api.PROCESS_DYNAMIC_CODE_POLICY),
        signatures=_policy(process, api.PROCESS_SIGNATURE_POLICY),
        shadow_stack=_policy(process, api.PROCESS_USER_SHADOW_STACK_POLICY),
    )


def _open_failure(process_id: int) -> CalltraceError:
    """Why a process could not be opened, by the last error."""
    kernel32, error = api.kernel32(), api.last_error()
    if error == api.ERROR_INVALID_PARAMETER:
        return TargetLost(f"there is no process {process_id}")
    handle = kernel32.OpenProcess(api.LIMITED_RIGHTS, 0, process_id)
    if handle:
        protection = facts_before_start(handle).protection
        kernel32.CloseHandle(handle)
        if protection and protection & 7:
            return AccessRefused(
                f"process {process_id} is a protected process: the system lets nobody read it"
            )
    return AccessRefused(
        f"cannot open process {process_id}: {api.error_text(error)}; run calltrace as the user who runs "
        "the program, or as administrator"
    )


def _is_running(process_id: int) -> bool:
    """Whether there is such a process; one that may not even be asked counts."""
    kernel32 = api.kernel32()
    handle = kernel32.OpenProcess(api.LIMITED_RIGHTS | api.SYNCHRONIZE, 0, process_id)
    if not handle:
        return api.last_error() != api.ERROR_INVALID_PARAMETER
    ended = kernel32.WaitForSingleObject(handle, 0) == 0
    kernel32.CloseHandle(handle)
    return not ended


def _query(process: int, what: int, size: int) -> int | None:
    """An integer that NtQueryInformationProcess tells; None if it does not."""
    value = c_uint64()
    status = api.ntdll().NtQueryInformationProcess(process, what, ctypes.byref(value), size, None)
    return None if status else int(value.value)


def _policy(process: int, which: int) -> int | None:
    """The flags of a mitigation policy; None if the system does not tell."""
    flags = c_uint32()
    done = api.kernel32().GetProcessMitigationPolicy(
        process, which, ctypes.byref(flags), ctypes.sizeof(flags)
    )
    return int(flags.value) if done else None
