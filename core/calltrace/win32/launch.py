"""Starting a program stopped at its initial breakpoint, and stopping a running one."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
from pathlib import Path

from calltrace.errors import AccessRefused, CalltraceError, EngineError, FileMissing, NotTraceable, TargetLost
from calltrace.pe.image import check_machine, check_program
from calltrace.win32 import api
from calltrace.win32.debugging import DebuggingPort
from calltrace.win32.exports import export_address
from calltrace.win32.port import Win32Port, process_environment_block

# With this in its environment a program started by a debugger gets the ordinary heap, not the debugging one.
_ORDINARY_HEAP = "_NO_DEBUG_HEAP"


def find_program(name: str) -> Path:
    """The file of the program `name`, found as the shell does, and checked to be one we can trace.

    FileMissing, or NotTraceable for a script, a DLL or another machine's program.
    """
    found = shutil.which(name)
    if found is None:
        raise FileMissing(f"no such program: {name}")
    path = Path(found).absolute()
    if path.suffix.lower() in (".bat", ".cmd"):
        raise NotTraceable(f"{path} is a batch file: name the program that it starts")
    check_program(path)
    return path


def create(program: Path, command_line: str) -> DebuggingPort:
    """Start `program` with `command_line` as it stands, and stop it at its initial breakpoint.

    It inherits our standard handles, environment, working folder and console. FileMissing, AccessRefused or
    NotTraceable if the system cannot start it.
    """
    kernel32 = api.kernel32()
    startup = api.StartupInfo()
    startup.cb = ctypes.sizeof(startup)
    startup.dwFlags = api.STARTF_USESTDHANDLES
    handles = [kernel32.GetStdHandle(which) for which in api.STD_HANDLES]
    for handle in handles:
        if handle and handle != api.INVALID_HANDLE:
            kernel32.SetHandleInformation(handle, api.HANDLE_FLAG_INHERIT, api.HANDLE_FLAG_INHERIT)
    startup.hStdInput, startup.hStdOutput, startup.hStdError = handles
    information = api.ProcessInformation()
    with_ordinary_heap = _ORDINARY_HEAP not in os.environ
    if with_ordinary_heap:
        os.environ[_ORDINARY_HEAP] = "1"
    try:
        created = kernel32.CreateProcessW(
            str(program),
            ctypes.create_unicode_buffer(command_line),
            None,
            None,
            1,
            api.DEBUG_ONLY_THIS_PROCESS,
            None,
            None,
            ctypes.byref(startup),
            ctypes.byref(information),
        )
        error = api.last_error()
    finally:
        if with_ordinary_heap:
            del os.environ[_ORDINARY_HEAP]
    if not created:
        raise _start_failure(program, error)
    kernel32.CloseHandle(information.hThread)
    port = DebuggingPort(information.hProcess, information.dwProcessId)
    try:
        port.wait_for_break()
        if with_ordinary_heap:
            _forget_variable(port, _ORDINARY_HEAP)
    except BaseException:
        port.terminate()
        port.close()
        raise
    return port


def _start_failure(program: Path, error: int) -> CalltraceError:
    reason = f"cannot start {program}: {api.error_text(error)}"
    if error in (api.ERROR_FILE_NOT_FOUND, api.ERROR_PATH_NOT_FOUND):
        return FileMissing(reason)
    if error in (api.ERROR_BAD_EXE_FORMAT, api.ERROR_EXE_MACHINE_TYPE_MISMATCH):
        return NotTraceable(reason)
    if error == api.ERROR_ELEVATION_REQUIRED:
        return AccessRefused(f"{reason}: run calltrace as administrator")
    return AccessRefused(reason)


def _forget_variable(port: Win32Port, name: str) -> None:
    """Take a variable out of the stopped target's environment, so that it sees just what we were given."""
    text = (name + "\0").encode("utf-16-le")
    address = port.allocate(len(text))
    port.write(address, text)
    port.call(export_address(port, "kernel32.dll", "SetEnvironmentVariableW"), address, 0)
    port.free(address)


def attach(process_id: int) -> DebuggingPort:
    """Stop the running process `process_id`.

    TargetLost if there is none, AccessRefused if it may not be opened, NotTraceable if it is not an x64 one,
    EngineError if it is debugged already or does not stop.
    """
    kernel32 = api.kernel32()
    if process_id == os.getpid():
        raise NotTraceable("calltrace cannot trace itself")
    process = kernel32.OpenProcess(api.PROCESS_RIGHTS, 0, process_id)
    if not process:
        error = api.last_error()
        if error == api.ERROR_INVALID_PARAMETER:
            raise TargetLost(f"there is no process {process_id}")
        raise AccessRefused(
            f"cannot open process {process_id}: {api.error_text(error)}; run calltrace as the user who runs "
            "the program, or as administrator"
        )
    port = DebuggingPort(process, process_id)
    try:
        _check_process(port, process)
        port.stop()
    except BaseException:
        port.close()
        raise
    return port


def _check_process(port: Win32Port, process: int) -> None:
    name = f"process {port.process_id}"
    if port.wait(0) == 0:
        raise TargetLost(f"{name} has ended (exit code {port.exit_code()})")
    peb = process_environment_block(process)
    being_debugged, image_base = struct.unpack("<2xB13xQ", port.read(peb, 24))
    nt_headers = struct.unpack("<I", port.read(image_base + 0x3C, 4))[0]
    check_machine(struct.unpack("<H", port.read(image_base + nt_headers + 4, 2))[0], name)
    if being_debugged:
        raise EngineError(f"{name} is being debugged already: detach the other debugger first")
