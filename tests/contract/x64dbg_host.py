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

from calltrace_x64dbg.engine import X64dbgEngine
from calltrace_x64dbg.live import X64dbgHost
from contract.process import subject
from contract.suite import CHECKS

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
            CHECKS[check](subject(port))
        port.close()
    except BaseException:
        return traceback.format_exc()
    return "holds\n"
