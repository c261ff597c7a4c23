"""Scenes with the standalone port, each a function here: port_main.py SCENE ARGUMENT...

Runs in Windows Python. A scene prints its result as JSON to the standard error output: the standard output
belongs to the target.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from calltrace.errors import CalltraceError
from calltrace.plan import ModulePlan, read_image
from calltrace.ports import DebugEventKind, Protection
from calltrace.preflight import ProcessFacts
from calltrace.recorder import load_library
from calltrace.win32 import api, launch, process
from calltrace.win32 import port as standalone_port
from calltrace.win32.exports import export_address
from calltrace.win32.port import Win32Port, process_environment_block


def run(program: str, command_line: str) -> Any:
    """Start, call into, and let go a program."""
    port = launch.create(launch.find_program(program), command_line)
    port.call(export_address(port, "kernel32.dll", "GetCurrentThreadId"))
    port.detach()
    assert port.wait(60) == 0
    return port.exit_code()


def attach_and_leave(program: str) -> Any:
    """Stop a running program three times, call into it, and let it end by itself."""
    child = _start(program)
    results = []
    for _ in range(3):
        port = launch.attach(child.pid)
        results.append(
            [len(port.threads()), port.call(export_address(port, "kernel32.dll", "GetCurrentProcessId"))]
        )
        port.close()
        time.sleep(0.05)
    output, _ = child.communicate(timeout=900)
    return {"pid": child.pid, "results": results, "output": output.decode(), "exit_code": child.returncode}


def flag_after_detach(program: str) -> Any:
    """PEB.BeingDebugged while stopped and after detaching."""
    child = _start(program)
    port = launch.attach(child.pid)
    flag = process_environment_block(port._process) + 2
    flags = [port.read(flag, 1)[0]]
    port.detach()
    flags.append(port.read(flag, 1)[0])
    child.communicate(timeout=900)
    return flags


def protection_is_restored(program: str) -> Any:
    """The protection of code and of a constant before and after writing across both sides of them."""
    port = launch.create(launch.find_program(program), "program")
    base = port.modules()[0].base
    before = [(info.Protect, info.RegionSize) for info in _regions(port, base)]
    size = port.modules()[0].size
    port.write(base, port.read(base, size))
    after = [(info.Protect, info.RegionSize) for info in _regions(port, base)]
    region = port.allocate(0x3000, port.modules()[0])
    port.protect(region + 0x1000, 0x1000, Protection.EXECUTE_READ)
    region_info = [info.Protect for info in (port.query(region), port.query(region + 0x1000)) if info]
    port.terminate()
    return {"before": before, "after": after, "region": region_info}


def call_that_waits(program: str, held: str, seconds: str) -> Any:
    """Call a function that needs a lock which another, frozen thread holds for `held` milliseconds.

    It may take `seconds`.
    """
    standalone_port.CALL_SECONDS = float(seconds)
    child = _start(program, held)
    port = launch.attach(child.pid)
    started = time.monotonic()
    result: Any
    try:
        result = port.call(child.address)
    except CalltraceError as error:
        result = f"{type(error).__name__}: {error}"
    taken = time.monotonic() - started
    port.close()
    output, _ = child.communicate(timeout=900)
    return {"result": result, "seconds": taken, "output": output.decode(), "exit_code": child.returncode}


def library(program: str, *paths: str) -> Any:
    """Load DLLs into a stopped program."""
    port = launch.create(launch.find_program(program), "program")
    results = []
    for path in paths:
        try:
            load_library(port, Path(path))
            results.append(any(module.name.lower() == Path(path).name.lower() for module in port.modules()))
        except CalltraceError as error:
            results.append(f"{type(error).__name__}: {error}")
    port.terminate()
    return results


def create_error(program: str) -> Any:
    """What starting something that cannot be traced says."""
    launch.create(launch.find_program(program), program).terminate()
    return None


def create_blocked(program: str) -> Any:
    """Start a program that the system has let no dynamic code."""
    process.facts_before_start = lambda handle: ProcessFacts(dynamic_code=1)  # type: ignore[assignment]
    launch.create(launch.find_program(program), program).terminate()
    return None


def attach_blocked(program: str) -> Any:
    """Attach to a process that loads only signed DLLs."""
    child = _start(program)
    process.facts_before_start = lambda handle: ProcessFacts(signatures=1)  # type: ignore[assignment]
    try:
        launch.attach(child.pid).close()
        said = ""
    except CalltraceError as error:
        said = f"{type(error).__name__}: {error}"
    output, _ = child.communicate(timeout=900)
    return {"said": said, "output": output.decode(), "exit_code": child.returncode}


def attach_error(process_id: str) -> Any:
    """What attaching to something that cannot be traced says."""
    launch.attach(os.getpid() if process_id == "self" else int(process_id)).close()
    return None


def attach_to_ended(program: str) -> Any:
    """Attach to a process that has ended, whose id is still taken as we hold a handle to it."""
    child = _start(program)
    child.communicate()
    launch.attach(child.pid).close()
    return None


def attach_twice(program: str) -> Any:
    """Attach to a process that has a debugger already."""
    child = _start(program)
    first = launch.attach(child.pid)
    try:
        launch.attach(child.pid).close()
    finally:
        first.terminate()
    return None


def debug_events(program: str, plugin: str) -> Any:
    """What a debugger is told of a program that loads a DLL on a second thread, uses it, and unloads it."""
    port = launch.create(launch.find_program(program), f'program "{plugin}" 2')
    told, loaded = [], {}
    while not told or told[-1][0] != "PROCESS_EXIT":
        event = port.go()
        names = {module.base: module.name for module in port.modules()} if event.address else {}
        loaded.update(names)
        told.append([event.kind.name, event.thread, loaded.get(event.address, ""), event.code])
    return told


def shared_breakpoint(program: str) -> Any:
    """A breakpoint on a function that four threads run: met often, then taken away with the debugger."""
    child = _start(program)
    port = launch.attach(child.pid)
    [module, *_] = port.modules()
    planned = ModulePlan(read_image(port.read, module))
    [rva] = [rva for rva, name in planned.image.names.items() if name == "fibonacci"]
    port.set_breakpoints([module.base + rva])
    threads: set[int] = set()
    for number in range(30_000):
        if number >= 600 and len(threads) == 4:  # the system may let one wait for long
            break
        event = port.go(step=number % 3 == 0)
        if event.kind is DebugEventKind.BREAKPOINT:
            threads.add(event.thread)
    port.close()
    output, _ = child.communicate(timeout=900)
    return {"threads": len(threads), "output": output.decode(), "exit_code": child.returncode}


def _start(program: str, *arguments: str) -> Any:
    child = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    line = child.stdout.readline()  # it is running now
    child.address = int(line) if line.strip().isdigit() else 0  # type: ignore[attr-defined]
    return child


def _regions(port: Win32Port, base: int) -> list[api.MemoryBasicInformation]:
    regions, address = [], base
    while True:
        info = port.query(address)
        if info is None or info.AllocationBase != base:
            return regions
        regions.append(info)
        address = info.BaseAddress + info.RegionSize


def main() -> None:
    scene, *arguments = sys.argv[1:]
    try:
        result = globals()[scene](*arguments)
    except CalltraceError as error:
        result = f"{type(error).__name__}: {error}"
    print(json.dumps(result), file=sys.stderr)


main()
