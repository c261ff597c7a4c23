"""Start/stop cycles in Windows Python: cycles_main.py SCENE JSON; prints a JSON object with what it saw."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from calltrace import copies, session
from calltrace.model import State
from calltrace.recorder import CodeState
from calltrace.win32 import api, launch
from calltrace.win32.port import Win32Port, process_environment_block


class Target:
    """The program of tests/targets/cycles.cpp, running, and its port."""

    def __init__(self, program: str, *plugins: str) -> None:
        self.child = subprocess.Popen(
            [program, *plugins], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._hear()
        self.port = launch.attach(self.child.pid)
        names = {Path(path).name for path in (program, *plugins)}
        self.modules = [module for module in self.port.modules() if module.name in names]
        self.code = self.read_code()

    def _hear(self) -> bytes:
        assert self.child.stdout
        return self.child.stdout.readline().strip()

    def order(self, word: str) -> None:
        """Have the running program do something, and wait until it has."""
        assert self.child.stdin
        self.child.stdin.write(word.encode() + b"\n")
        self.child.stdin.flush()
        assert self._hear() == word.encode()

    def read_code(self) -> list[bytes]:
        """All executable bytes of the program and its plugins."""
        found = []
        for module in self.modules:
            address = module.base
            while address < module.end:
                info = self.port.query(address)
                assert info
                if info.Protect & (api.PAGE_EXECUTE_READ | api.PAGE_EXECUTE_READWRITE):
                    found.append(self.port.read(info.BaseAddress, info.RegionSize))
                address = info.BaseAddress + info.RegionSize
        return found

    def end(self) -> Any:
        """Let the running program end by itself; what it says, and its exit code."""
        self.port.close()
        output, _ = self.child.communicate(b"quit\n", timeout=900)
        return [output.decode().strip(), self.child.returncode]


def usage(port: Win32Port) -> dict[str, int]:
    """What a stopped target, the call stub's page and tables gone, holds of the system; and what we do."""
    peb = process_environment_block(port._process)
    (bitmap,) = struct.unpack("<Q", port.read(peb + 0x78, 8))
    (bits,) = struct.unpack("<Q", port.read(bitmap + 8, 8))
    regions, committed = memory(port)
    own = Win32Port(api.kernel32().GetCurrentProcess(), os.getpid())
    return {
        "regions": regions,
        "committed": committed,
        "threads": len(port.threads()),
        "tls": bin(int.from_bytes(port.read(bits, 8), "little")).count("1"),
        "handles": handles(port.process_id),
        "our_handles": handles(os.getpid()),
        "our_memory": memory(own)[1],
    }


def handles(process_id: int) -> int:
    """How many handles a process has, of the system's list of all (SystemHandleInformation)."""
    size, needed = 1 << 20, ctypes.c_uint32()
    while True:
        store = ctypes.create_string_buffer(size)
        status = ctypes.WinDLL("ntdll").NtQuerySystemInformation(16, store, size, ctypes.byref(needed))
        if status & 0xFFFFFFFF != 0xC0000004:  # STATUS_INFO_LENGTH_MISMATCH
            break
        size *= 2
    (count,) = struct.unpack_from("<I", store)
    assert status == 0
    assert count
    return sum(struct.unpack_from("<I", store, 8 + 24 * at)[0] == process_id for at in range(count))


def memory(port: Win32Port) -> tuple[int, int]:
    """Committed memory of a target: how many allocations, how many bytes."""
    regions = committed = address = 0
    while (info := port.query(address)) is not None:
        address = info.BaseAddress + info.RegionSize
        if info.State == api.MEM_COMMIT:
            regions += info.BaseAddress == info.AllocationBase
            committed += info.RegionSize
    return regions, committed


def cycles(
    program: str, plugins: list[str], folder: str, turns: int, kept: int, options: list[dict[str, Any]]
) -> dict[str, Any]:
    """Record again and again, with each of `options` in turn; all but every `kept`th trace become *.over.

    Odd turns begin in the same stop in which the one before ended. Some threads block, or leave a fiber, in
    the middle of what they do, for a good part of the time.
    """
    target = Target(program, *plugins)
    port, lines = target.port, []
    tracing = session.Tracing(port, lines.append)
    at_start = usage(port)
    left, used, done_with = [], {}, []
    held: dict[str, set[int]] = {}  # regions that have stayed since a thread, or a fiber, was left in one
    held_before: dict[str, set[int]] = {}
    was_held: dict[str, bool] = {}
    orders = {
        turns // 10: "block",
        turns // 8: "fiber",
        turns // 2: "unblock",
        turns // 2 + turns // 10: "resume",
    }
    for turn in range(turns):
        trace = session.TraceOptions(**options[turn % len(options)])
        file = Path(folder) / f"{turn}.calltrace"
        tracing.start(trace, session.create_file(trace, file, {"turn": turn}))
        port.detach()
        time.sleep(0.003)
        if turn in orders:
            target.order(orders[turn])
        port.stop()
        tracing.stop()
        assert target.read_code() == target.code, f"turn {turn}"
        assert tracing._recorder
        codes = tracing._recorder.codes()
        assert {code.state for code in codes} <= {CodeState.LEFT}
        left.append(len(codes))
        regions = {code.region for code in codes}
        for word in held:
            held[word] &= regions  # without a break: an address that comes back is another region
        if orders.get(turn) in ("unblock", "resume"):
            word = {"unblock": "block", "resume": "fiber"}[orders[turn]]
            was_held[word] = bool(held_before[word])
        if orders.get(turn) in ("block", "fiber"):
            held[orders[turn]] = regions
        held_before = {word: set(found) for word, found in held.items()}
        if turn % 2:
            port.detach()
            tracing.wait_for_release()
        tracing.finish(State.STOPPED)
        if turn % kept:
            done_with.append(file)
        if turn % 2:  # before the target has gone on it may have its last trace open
            while done_with:
                file = done_with.pop()
                file.rename(file.with_suffix(".over"))
            port.stop()
            if turn in (turns // 20 * 2 + 1, turns - 1):
                used[turn] = usage(port)
    for _ in range(20):  # what a dead thread's stack still holds goes with the next dead thread's
        if not left[-1]:
            break
        port.detach()
        target.order("wash")
        port.stop()
        copies.free_unused(port, tracing._recorder)
        left.append(len(tracing._recorder.codes()))
    port.detach()
    tracing.wait_for_release()
    port.stop()
    at_end = usage(port)
    return {
        "left": left,
        "was_held": was_held,
        "is_held": {
            word: len(held[word] & {code.region for code in tracing._recorder.codes()}) for word in held
        },
        "used": list(used.values()),
        "at_start": at_start,
        "at_end": at_end,
        "lines": lines[-3:],
        "ended": target.end(),
    }


def loads(program: str, plugin: str, file: str, times: int) -> dict[str, Any]:
    """A traced plugin is loaded and unloaded `times` times; what the target holds at every tenth."""
    child = subprocess.Popen(
        [program, plugin, str(times)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout
    assert child.stdin
    child.stdout.readline()
    port = launch.attach(child.pid)
    held: list[tuple[int, int, int]] = []
    loaded = 0

    def tell(line: str) -> None:
        nonlocal loaded
        if line.startswith(Path(plugin).name) and "instrumented" in line:
            loaded += 1
            if loaded % 10 == 0:
                assert tracing._recorder
                held.append((len(tracing._recorder.codes()), *memory(port)))

    tracing = session.Tracing(port, tell)
    trace = session.TraceOptions(modules=[Path(plugin).name])
    tracing.start(trace, session.create_file(trace, Path(file), {}))
    port.detach()
    child.stdin.write(b"\n")
    child.stdin.close()
    with ThreadPoolExecutor() as pool:
        output = pool.submit(child.stdout.read)
        tracing.wait_for_end()
    tracing.finish(State.KILLED, port.exit_code())
    return {"loaded": loaded, "held": held, "output": output.result().decode(), "exit_code": child.wait()}


def main() -> None:
    scene, words = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(globals()[scene](**words)))


main()
