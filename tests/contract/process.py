"""What the contract's suite must know of a target that is a process of Windows'."""

from __future__ import annotations

from calltrace.ports import Port
from calltrace.win32 import api
from calltrace.win32.exports import export_address
from contract.suite import Subject


def subject(port: Port) -> Subject:
    """The port, whose target has kernel32.dll loaded as every process has."""
    process_id = port.process_id
    functions = ("GetCurrentProcessId", "GetCurrentThreadId", "MulDiv")
    return Subject(
        port, *(export_address(port, "kernel32.dll", name) for name in functions), lambda: _end(process_id)
    )


def _end(process_id: int) -> None:
    handle = api.kernel32().OpenProcess(api.PROCESS_RIGHTS, 0, process_id)
    assert handle
    api.kernel32().TerminateProcess(handle, 3)
    api.kernel32().CloseHandle(handle)
