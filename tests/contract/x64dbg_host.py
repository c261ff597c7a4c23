"""Answers `calltrace` in x64dbg.

    calltrace spawn PROGRAM    starts a process that prints a line when it is ready; $target is its id
    calltrace halt             stops an attached process, in a thread that computes
    calltrace CHECK            puts the port through that check of the contract

What goes wrong is printed; of a check that holds, "holds".
"""

from __future__ import annotations

import ctypes
import subprocess
import time
import traceback

from calltrace_x64dbg.genuine import X64dbg

from calltrace.win32 import api
from calltrace.win32.exports import export_address
from calltrace_x64dbg.engine import X64dbgEngine
from calltrace_x64dbg.live import X64dbgHost
from contract.suite import CHECKS, Subject

children: list[subprocess.Popen[bytes]] = []  # they end with their input


def run(library: int, line: str) -> None:
    verb, _, program = line.strip().partition(" ")
    if verb == "spawn":
        spawn(program)
    elif verb == "halt":
        halt(library)
    else:
        X64dbg(library).show(put_through(verb, library))


def spawn(program: str) -> None:
    child = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    children.append(child)
    execute(f"$target={child.pid:x}")


def halt(library: int) -> None:
    engine = X64dbgEngine(ctypes.CDLL("calltrace.dp64", handle=library))
    while len(threads := engine.threads()) < 2:
        time.sleep(0.01)
    execute(f"switchthread {threads[1]:x}")
    execute("pause")


def execute(command: str) -> None:
    assert ctypes.CDLL("x64bridge.dll").DbgCmdExecDirect(command.encode()), command


def put_through(check: str, library: int) -> str:
    host = X64dbgHost(ctypes.CDLL("calltrace.dp64", handle=library))
    try:
        with host.port(None) as port:
            subject = Subject(
                port,
                export_address(port, "kernel32.dll", "GetCurrentProcessId"),
                export_address(port, "kernel32.dll", "GetCurrentThreadId"),
                export_address(port, "kernel32.dll", "MulDiv"),
                lambda: end_behind_its_back(port.process_id),
            )
            CHECKS[check](subject)
        port.close()
    except BaseException:
        return traceback.format_exc()
    return "holds\n"


def end_behind_its_back(process_id: int) -> None:
    handle = api.kernel32().OpenProcess(api.PROCESS_RIGHTS, 0, process_id)
    assert handle
    api.kernel32().TerminateProcess(handle, 3)
    api.kernel32().CloseHandle(handle)
