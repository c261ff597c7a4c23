"""The contract of a port, as checks that any port can be put through: see `CHECKS`.

Each check gets a stopped target of its own. No test framework is needed, so that the suite also runs inside a
debugger or in Windows Python.
"""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from calltrace.errors import AccessRefused, CalltraceError, EngineError, OutOfSpace, TargetLost
from calltrace.ports import Capability, Port, Protection, Registers

PAGE = 0x1000
GIGABYTE = 1 << 30


@dataclass
class Subject:
    """A port whose target is stopped, and what the suite must know of that target."""

    port: Port
    process_id_function: int  # VA of a function that returns the process's id
    thread_id_function: int  # VA of a function that returns its thread's id
    muldiv_function: int  # VA of a function of three 32-bit numbers: the first two multiplied, over the third
    end: Callable[[], None]  # ends the target at once, behind the port's back


Check = Callable[[Subject], None]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


@contextlib.contextmanager
def raises(kind: type[CalltraceError], text: str = "") -> Iterator[None]:
    try:
        yield
    except kind as error:
        message = str(error)
    else:
        raise AssertionError(f"no {kind.__name__} was raised")
    assert text in message, f"{text!r} is not in {message!r}"
    assert "\n" not in message


@check
def the_program_is_the_first_module(subject: Subject) -> None:
    modules = subject.port.modules()
    assert modules[0].name.lower().endswith(".exe"), modules[0]
    assert len(modules) == len({module.base for module in modules})


@check
def modules_are_mapped_where_they_are_said_to_be(subject: Subject) -> None:
    for module in subject.port.modules():
        assert subject.port.read(module.base, 2) == b"MZ", module
        assert len(subject.port.read(module.end - PAGE, PAGE)) == PAGE, module


@check
def unmapped_memory_is_refused_with_its_address(subject: Subject) -> None:
    with raises(AccessRefused, "0x10"):
        subject.port.read(0x10, 4)
    with raises(AccessRefused, "0x10"):
        subject.port.write(0x10, b"1234")


@check
def a_write_that_is_mapped_in_part_is_refused_and_writes_nothing(subject: Subject) -> None:
    address = subject.port.allocate(PAGE)
    with raises(AccessRefused, f"{address + PAGE:#x}"):
        subject.port.write(address, b"x" * (PAGE + 1))
    assert subject.port.read(address, PAGE) == bytes(PAGE)


@check
def allocated_memory_is_zero_and_holds_what_is_written(subject: Subject) -> None:
    size = 5 << 20
    address = subject.port.allocate(size)
    assert address % 0x10000 == 0
    assert subject.port.read(address, size) == bytes(size)
    data = bytes(range(256)) * (size // 256)
    subject.port.write(address, data)
    assert subject.port.read(address, size) == data
    assert subject.port.read(address + 3, 5) == data[3:8]


@check
def memory_above_a_module_is_within_its_reach(subject: Subject) -> None:
    for module in subject.port.modules():
        size = 3 * 0x10000
        first = subject.port.allocate(size, module)
        second = subject.port.allocate(size, module)
        for address in (first, second):
            assert address >= module.end
            assert address + size - module.base < 2 * GIGABYTE
            assert address % 0x10000 == 0
        assert abs(first - second) >= size


@check
def memory_that_no_module_can_reach_is_out_of_space(subject: Subject) -> None:
    program = subject.port.modules()[0]
    with raises(OutOfSpace, program.name):
        subject.port.allocate(3 * GIGABYTE, program)


@check
def protected_memory_can_still_be_written_through_the_port(subject: Subject) -> None:
    address = subject.port.allocate(3 * PAGE)
    subject.port.protect(address + PAGE, PAGE, Protection.EXECUTE_READ)
    subject.port.protect(address + 2 * PAGE, PAGE, Protection.READ)
    data = b"x" * (3 * PAGE - 2)
    subject.port.write(address + 1, data)
    assert subject.port.read(address, 3 * PAGE) == b"\0" + data + b"\0"


@check
def code_of_a_module_can_be_changed_and_put_back(subject: Subject) -> None:
    place = subject.muldiv_function
    before = subject.port.read(place, 16)
    subject.port.write(place, bytes.fromhex("b8 2a 00 00 00 c3"))  # mov eax, 42 ; ret
    assert subject.port.call(place, 6, 7, 3) == 42
    subject.port.write(place, before[:6])
    assert subject.port.read(place, 16) == before
    assert subject.port.call(place, 6, 7, 3) == 14


@check
def freed_memory_is_gone(subject: Subject) -> None:
    address = subject.port.allocate(PAGE)
    subject.port.free(address)
    with raises(AccessRefused, f"{address:#x}"):
        subject.port.write(address, b"1")


@check
def a_call_runs_in_the_target_and_returns_its_result(subject: Subject) -> None:
    assert subject.port.call(subject.process_id_function) == subject.port.process_id
    assert subject.port.call(subject.thread_id_function) in subject.port.threads()


@check
def a_call_passes_its_arguments(subject: Subject) -> None:
    assert subject.port.call(subject.muldiv_function, 6, 7, 3) == 14
    assert subject.port.call(subject.muldiv_function, 100, 100, 8) == 1250


@check
def a_call_leaves_every_thread_where_it_stood(subject: Subject) -> None:
    port = subject.port
    before = {thread: port.registers(thread) for thread in port.threads()}
    for _ in range(20):
        port.call(subject.process_id_function)
    assert {thread: port.registers(thread) for thread in port.threads()} == before


@check
def a_call_that_raises_is_an_error_and_nothing_else_changes(subject: Subject) -> None:
    port = subject.port
    before = {thread: port.registers(thread) for thread in port.threads()}
    with raises(EngineError, "0xc0000005"):
        port.call(0x10)
    assert {thread: port.registers(thread) for thread in port.threads()} == before
    assert port.call(subject.process_id_function) == port.process_id


@check
def a_thread_can_be_moved(subject: Subject) -> None:
    port = subject.port
    thread = port.call(subject.thread_id_function)
    before = port.registers(thread)
    elsewhere = dataclasses.replace(before, rip=subject.process_id_function, rcx=0x123456789ABCDEF0, r15=15)
    port.set_registers(thread, elsewhere)
    assert port.registers(thread) == elsewhere
    port.set_registers(thread, before)
    assert port.registers(thread) == before


@check
def every_thread_stands_on_the_stack_that_its_teb_names(subject: Subject) -> None:
    port = subject.port
    for thread in port.threads():
        teb = port.teb(thread)
        base, limit = struct.unpack("<QQ", port.read(teb + 8, 16))
        assert limit <= port.registers(thread).rsp < base, thread
        assert struct.unpack("<Q", port.read(teb + 0x30, 8)) == (teb,)
        assert any(start <= base - 1 < end for start, end in port.writable()), thread


@check
def writable_memory_is_what_can_be_written(subject: Subject) -> None:
    port = subject.port
    address = port.allocate(3 * PAGE)
    assert any(start <= address and address + 3 * PAGE <= end for start, end in port.writable())
    port.protect(address, 3 * PAGE, Protection.EXECUTE_READ)
    assert not any(start < address + 3 * PAGE and address < end for start, end in port.writable())
    ranges = list(port.writable())
    assert ranges == sorted(ranges)
    code = port.modules()[0].base
    assert not any(start <= code < end for start, end in ranges)


@check
def a_thread_that_does_not_exist_is_refused(subject: Subject) -> None:
    unknown = max(subject.port.threads()) + 4000
    with raises(AccessRefused, str(unknown)):
        subject.port.registers(unknown)
    with raises(AccessRefused, str(unknown)):
        subject.port.set_registers(unknown, Registers(0, 0))
    with raises(AccessRefused, str(unknown)):
        subject.port.teb(unknown)


@check
def a_running_target_has_no_threads_to_touch(subject: Subject) -> None:
    port = subject.port
    if not port.supports(Capability.STOP):
        return
    thread = port.threads()[0]
    port.detach()
    for touch in (
        port.threads,
        lambda: port.registers(thread),
        lambda: port.call(subject.process_id_function),
    ):
        with raises(EngineError, "not stopped"):
            touch()
    port.detach()  # harmless


@check
def a_target_can_be_stopped_again_and_again(subject: Subject) -> None:
    port = subject.port
    if not port.supports(Capability.STOP):
        return
    bases = {module.base for module in port.modules()}
    for _ in range(5):
        port.detach()
        port.stop()
        assert port.call(subject.process_id_function) == port.process_id
        assert bases <= {module.base for module in port.modules()}


@check
def a_running_target_can_be_read_and_written(subject: Subject) -> None:
    port = subject.port
    if not port.supports(Capability.STOP):
        return
    port.detach()
    address = port.allocate(PAGE, port.modules()[0])
    port.write(address, b"written")
    port.protect(address, PAGE, Protection.READ)
    assert port.read(address, 7) == b"written"


@check
def a_target_that_ended_is_lost_to_every_method(subject: Subject) -> None:
    port = subject.port
    address = port.allocate(PAGE)
    subject.end()
    for use in (
        lambda: port.call(subject.process_id_function),
        lambda: port.read(address, 1),
        lambda: port.write(address, b"1"),
        lambda: port.allocate(PAGE),
        lambda: port.protect(address, PAGE, Protection.READ),
        port.stop,
    ):
        with raises(TargetLost, str(port.process_id)):
            use()
    port.detach()  # harmless
