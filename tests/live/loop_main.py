"""Holds the unwinder against single steps: loop_main.py STEPS PROGRAM ARGUMENT...

Runs in Windows Python. What every call really left on the stack and in the registers is remembered, and from
every instruction of the program the unwinder must lead back to just that. Prints a JSON object to the
standard error output: the standard output belongs to the program.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from calltrace.loop.code import Code, Kind
from calltrace.loop.places import Places
from calltrace.loop.unwind import Unwinder
from calltrace.ports import DebugEventKind, Registers
from calltrace.win32 import launch
from calltrace.win32.debugging import DebuggingPort

KEPT = ("rip", "rsp", "rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15")


def kept(registers: Registers) -> dict[str, int]:
    return {name: getattr(registers, name) for name in KEPT}


def is_undescribed(places: Places, registers: Registers) -> bool:
    """Is this a function without unwind data, which may then not move the stack pointer, though some do?"""
    table = places.table_at(registers.rip)
    return table is None or table.find(registers.rip - table.base) is None


def arrive(port: DebuggingPort, step: bool) -> int | None:
    """The thread that stands at a breakpoint or has made a step; None at the program's end."""
    while True:
        event = port.go(step)
        step = False
        if event.kind is DebugEventKind.PROCESS_EXIT:
            return None
        if event.kind in (DebugEventKind.BREAKPOINT, DebugEventKind.STEP):
            return event.thread


def main() -> None:
    steps, program, *arguments = sys.argv[1:]
    port = launch.create(launch.find_program(program), subprocess.list2cmdline([program, *arguments]))
    module = port.modules()[0]
    header = module.base + int.from_bytes(port.read(module.base + 0x3C, 4), "little")
    entry = module.base + int.from_bytes(port.read(header + 0x28, 4), "little")
    code, places = Code(port.read), Places(port)
    unwinder = Unwinder(port.read, places.table_at)
    port.set_breakpoints([entry])
    main_thread = arrive(port, False)
    assert main_thread
    port.clear_breakpoints([entry])
    calls: list[dict[str, int]] = []
    told: dict[str, Any] = {"instructions": 0, "frames": 0, "deepest": 0, "undescribed": 0, "wrong": []}
    registers = port.registers(main_thread)
    while told["instructions"] < int(steps) and not told["wrong"]:
        while calls and calls[-1]["rsp"] <= registers.rsp:
            calls.pop()
        told["instructions"] += 1
        told["deepest"] = max(told["deepest"], len(calls))
        state: Registers | None = registers
        if calls and is_undescribed(places, registers) and registers.rsp != calls[-1]["rsp"] - 8:
            told["undescribed"] += 1
            state = None
        for depth, truth in enumerate(reversed(calls if state else [])):
            state = unwinder.caller(state, depth == 0) if state else None
            told["frames"] += 1
            if state is None or kept(state) != truth:
                found = state and {name: hex(value) for name, value in kept(state).items()}
                true = {name: hex(value) for name, value in truth.items()}
                told["wrong"].append([hex(registers.rip - module.base), depth, found, true])
                break
        instruction = code.at(registers.rip)
        thread = arrive(port, True)
        assert thread in (None, main_thread)
        if thread is None:
            break
        before, registers = registers, port.registers(thread)
        assert instruction
        if instruction.kind is Kind.CALL:
            after = kept(before)
            after["rip"] = instruction.behind
            calls.append(after)
        if not module.base <= registers.rip < module.end:  # another module's: on to where it returns
            back = int.from_bytes(port.read(registers.rsp, 8), "little")
            port.set_breakpoints([back])
            thread = arrive(port, False)
            if thread is None:
                break
            port.clear_breakpoints([back])
            registers = port.registers(thread)
    port.terminate()
    port.close()
    print(json.dumps(told), file=sys.stderr)


main()
