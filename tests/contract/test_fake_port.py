"""The fake port keeps the contract of real ones, so that what is tested with it holds for them."""

from __future__ import annotations

import pytest

from calltrace.ports import Port, Registers, TargetModule
from contract.fake import FakePort
from contract.suite import CHECKS, Subject

BASE = 0x1_4000_0000


def subject() -> Subject:
    port = FakePort()
    program = TargetModule(BASE, 0x5000, r"C:\folder\program.exe")
    library = TargetModule(BASE + 0x10000, 0x3000, r"C:\folder\library.dll")
    for module in (program, library):
        port.map(module, b"MZ")
    port.names[BASE] = {0x1100: "process_id", 0x1105: "second"}
    for thread in (8, 12):
        stack = port.allocate(0x4000)
        port.add_thread(thread, Registers(BASE + 0x100 * thread, stack + 0x3000), stack, 0x4000)
    port.functions = {
        BASE + 0x1100: lambda: port.process_id,
        BASE + 0x1200: lambda: 8,
        BASE + 0x1300: lambda number, numerator, denominator: number * numerator // denominator,
    }
    checked: Port = port  # the type checker holds the fake against the protocols here

    def end() -> None:
        port.ended = True

    return Subject(checked, BASE + 0x1100, BASE + 0x1200, BASE + 0x1300, end)


@pytest.mark.parametrize("check", CHECKS)
def test_the_fake_port_keeps_the_contract(check: str) -> None:
    CHECKS[check](subject())
