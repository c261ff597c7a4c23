"""Starting a program stopped at its initial breakpoint, and stopping a running one."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from calltrace import preflight
from calltrace.errors import AccessRefused, CalltraceError, FileMissing, NotTraceable
from calltrace.pe.image import from_memory
from calltrace.win32 import api, process
from calltrace.win32.debugging import DebuggingPort
from calltrace.win32.exports import export_address
from calltrace.win32.port import Win32Port

# With this in its environment a program started by a debugger gets the ordinary heap, not the debugging one.
_ORDINARY_HEAP = "_NO_DEBUG_HEAP"


def _silent(line: str) -> None:
    pass


def find_program(name: str, tell: Callable[[str], None] = _silent) -> Path:
    """The file of the program `name`, found as the shell does, and checked to be one we can trace.

    What limits that is told, a line each. FileMissing, or NotTraceable for a script, a DLL, another machine's
    program, or one with a language runtime that allows no tracing.
    """
    found = shutil.which(name)
    if found is None:
        raise FileMissing(f"no such program: {name}")
    path = Path(found).absolute()
    if path.suffix.lower() in (".bat", ".cmd"):
        raise NotTraceable(f"{path} is a batch file: name the program that it starts")
    preflight.tell_limits(path.name, preflight.check_program(path), tell)
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
        # What the system demands of it, it may have from whoever set it up, or inherit from us.
        preflight.refuse_blocked(
            str(program), preflight.of_process(process.facts_before_start(information.hProcess))
        )
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


def attach(process_id: int, tell: Callable[[str], None] = _silent) -> DebuggingPort:
    """Stop the running process `process_id`, after a look at whether it can be traced.

    What limits that is told, a line each. TargetLost if there is none, AccessRefused if it may not be opened,
    NotTraceable if it cannot be traced (calltrace.preflight), EngineError if it does not stop.
    """
    if process_id == os.getpid():
        raise NotTraceable("calltrace cannot trace itself")
    name = f"process {process_id}"
    with process.observe(process_id) as observed:
        facts = observed.facts()
        findings = preflight.refuse_blocked(name, preflight.of_process(facts))
        program = facts.modules[0]
        image = from_memory(observed.read, program.base, program.size, program.path)
        of_program = preflight.refuse_blocked(program.name, preflight.of_module(image))
    preflight.tell_limits(name, findings, tell)
    preflight.tell_limits(program.name, of_program, tell)
    return reopen(process_id)


def reopen(process_id: int) -> DebuggingPort:
    """Stop a running process that is known to be traceable. Errors as of `attach`."""
    port = DebuggingPort(process.open_whole(process_id), process_id)
    try:
        port.stop()
    except BaseException:
        port.close()
        raise
    return port
