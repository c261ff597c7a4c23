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
from calltrace.ports import Capability, DebugEvent, DebugEventKind, Port, Protection, Registers

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
def symbols_name_nothing_but_what_they_are_asked_for(subject: Subject) -> None:
    for module in subject.port.modules():
        symbols = subject.port.symbols(module)
        if symbols is not None:
            assert symbols.source, module
            assert not symbols.names([]), module
            asked = [*range(0x1000, module.size, 7)]
            names = symbols.names(asked)
            assert names.keys() <= set(asked), module
            assert all(names.values()), module


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


# A debugger. A thread is made to run instructions of ours:
#
#   00  nop
#   01  inc rax
#   04  jmp 00
LOOP, INCREMENT, JUMP = bytes.fromhex("90 48 ff c0 eb fa"), 1, 4


def debugged(subject: Subject, code: bytes) -> tuple[int, int]:
    """A thread that stands at the start of `code`, and the VA of that."""
    port = subject.port
    thread = port.call(subject.thread_id_function)
    address = port.allocate(PAGE)
    port.write(address, code)
    port.protect(address, PAGE, Protection.EXECUTE_READ)
    port.set_registers(thread, dataclasses.replace(port.registers(thread), rip=address))
    return thread, address


def told(port: Port, thread: int, step: bool = False) -> DebugEvent:
    """The next event of `thread`: others may start and end as they like."""
    while True:
        event = port.go(step)
        if event.thread == thread or event.kind is DebugEventKind.PROCESS_EXIT:
            return event
        step = False


def debug_check(function: Check) -> Check:
    """A check of hosts that can debug."""

    def checked(subject: Subject) -> None:
        if subject.port.supports(Capability.DEBUG):
            function(subject)

    CHECKS[function.__name__] = checked
    return function


@debug_check
def a_step_executes_one_instruction(subject: Subject) -> None:
    port = subject.port
    thread, address = debugged(subject, LOOP)
    for _ in range(3):
        for place in (INCREMENT, JUMP, 0):
            event = told(port, thread, step=True)
            assert event == DebugEvent(DebugEventKind.STEP, thread, address + place), event
            assert port.registers(thread).rip == address + place


@debug_check
def a_thread_stops_in_front_of_a_breakpoint_each_time_it_comes_there(subject: Subject) -> None:
    port = subject.port
    thread, address = debugged(subject, LOOP)
    rax = port.registers(thread).rax
    port.set_breakpoints([address + JUMP])
    for turn in range(1, 6):
        event = told(port, thread)
        assert event == DebugEvent(DebugEventKind.BREAKPOINT, thread, address + JUMP), event
        registers = port.registers(thread)
        assert (registers.rip, registers.rax) == (address + JUMP, rax + turn)


@debug_check
def a_breakpoint_where_a_thread_stands_does_not_hold_it(subject: Subject) -> None:
    port = subject.port
    thread, address = debugged(subject, LOOP)
    rax = port.registers(thread).rax
    port.set_breakpoints([address])
    assert told(port, thread) == DebugEvent(DebugEventKind.BREAKPOINT, thread, address)
    assert port.registers(thread).rax == rax + 1  # once round


@debug_check
def a_breakpoint_reached_by_a_step_is_told_of_once(subject: Subject) -> None:
    port = subject.port
    thread, address = debugged(subject, LOOP)
    port.set_breakpoints([address, address + INCREMENT, address + JUMP])
    for step in (True, True, False, True, False, False, True):
        kind = DebugEventKind.STEP if step else DebugEventKind.BREAKPOINT
        places = {0: INCREMENT, INCREMENT: JUMP, JUMP: 0}
        expected = address + places[port.registers(thread).rip - address]
        event = told(port, thread, step)
        assert event == DebugEvent(kind, thread, expected), event


@debug_check
def a_breakpoint_that_was_cleared_holds_nobody(subject: Subject) -> None:
    port = subject.port
    thread, address = debugged(subject, LOOP)
    port.set_breakpoints([address + INCREMENT, address + JUMP])
    assert told(port, thread).address == address + INCREMENT
    port.clear_breakpoints([address + INCREMENT, address + 2])
    for _ in range(3):
        assert told(port, thread).address == address + JUMP


@debug_check
def vector_registers_are_those_of_the_thread(subject: Subject) -> None:
    port = subject.port
    thread, address = debugged(subject, bytes.fromhex("66 48 0f 6e d8 90"))  # movq xmm3, rax; nop
    before = port.vectors(thread)
    assert len(before) == 16 * 16
    number = struct.pack("<d", 0.75)
    rax = int.from_bytes(number, "little")
    port.set_registers(thread, dataclasses.replace(port.registers(thread), rax=rax))
    assert told(port, thread, step=True) == DebugEvent(DebugEventKind.STEP, thread, address + 5)
    assert port.vectors(thread) == before[:48] + number + bytes(8) + before[64:]
    with raises(AccessRefused):
        port.vectors(1)


@debug_check
def breakpoints_are_seen_neither_by_reading_nor_by_writing(subject: Subject) -> None:
    port = subject.port
    thread, address = debugged(subject, LOOP)
    port.set_breakpoints([address, address + JUMP])
    assert port.read(address, len(LOOP)) == LOOP
    assert port.read(address + JUMP, 1) == LOOP[JUMP : JUMP + 1]
    # 00 nop; nop; nop; nop; jmp 00
    changed = bytes.fromhex("90 90 90 90 eb fa")
    port.write(address, changed)
    assert port.read(address, len(changed)) == changed
    rax = port.registers(thread).rax
    for place in (JUMP, 0, JUMP):
        assert told(port, thread).address == address + place
    assert port.registers(thread).rax == rax
    port.clear_breakpoints([address, address + JUMP])
    assert port.read(address, len(changed)) == changed


@debug_check
def an_exception_is_told_of_before_the_program_s_handlers_see_it(subject: Subject) -> None:
    port = subject.port
    thread, address = debugged(subject, bytes.fromhex("90 0f 0b"))  # nop; ud2
    assert told(port, thread, step=True).kind is DebugEventKind.STEP
    event = told(port, thread)
    assert event == DebugEvent(DebugEventKind.EXCEPTION, thread, address + 1, 0xC000001D), event


@debug_check
def an_exception_of_the_stepped_instruction_is_told_of_instead(subject: Subject) -> None:
    port = subject.port
    thread, address = debugged(subject, bytes.fromhex("0f 0b"))  # ud2
    port.set_breakpoints([address])
    event = told(port, thread, step=True)
    assert event == DebugEvent(DebugEventKind.EXCEPTION, thread, address, 0xC000001D), event


@debug_check
def the_program_s_own_int3_is_an_exception(subject: Subject) -> None:
    port = subject.port
    thread, address = debugged(subject, bytes.fromhex("90 cc"))  # nop; int3
    port.set_breakpoints([address + 1])
    assert told(port, thread) == DebugEvent(DebugEventKind.BREAKPOINT, thread, address + 1)
    event = told(port, thread)
    assert event == DebugEvent(DebugEventKind.EXCEPTION, thread, address + 1, 0x80000003), event


@debug_check
def flags_saved_by_a_stepped_instruction_do_not_tell_of_the_step(subject: Subject) -> None:
    port = subject.port
    # 00 pushfq; 01 pop rax; 02 jmp 00
    thread, address = debugged(subject, bytes.fromhex("9c 58 eb fc"))
    for breakpoint_at in ([], [address]):
        port.set_breakpoints(breakpoint_at)
        for _ in range(4):
            assert told(port, thread, step=True).thread == thread
            if port.registers(thread).rip == address + 2:
                assert port.registers(thread).rax & 0x302 == 0x202


@debug_check
def nothing_is_called_while_breakpoints_are_set(subject: Subject) -> None:
    port = subject.port
    _, address = debugged(subject, LOOP)
    port.set_breakpoints([address])
    with raises(EngineError, "breakpoints"):
        port.call(subject.process_id_function)
    port.clear_breakpoints([address])
    assert port.call(subject.process_id_function) == port.process_id


@debug_check
def a_running_target_is_no_debugger_s(subject: Subject) -> None:
    port = subject.port
    if not port.supports(Capability.STOP):
        return
    address = subject.muldiv_function
    port.detach()
    for use in (port.go, lambda: port.set_breakpoints([address]), lambda: port.clear_breakpoints([address])):
        with raises(EngineError, "not stopped"):
            use()


@debug_check
def breakpoints_are_gone_when_the_target_is_let_go(subject: Subject) -> None:
    port = subject.port
    if not port.supports(Capability.STOP):
        return
    before = port.read(subject.muldiv_function, 16)
    port.set_breakpoints([subject.muldiv_function, subject.process_id_function])
    port.detach()
    port.stop()
    assert port.read(subject.muldiv_function, 16) == before
    assert port.call(subject.muldiv_function, 6, 7, 3) == 14
    assert port.call(subject.process_id_function) == port.process_id


@debug_check
def a_run_in_which_nothing_happens_can_be_ended(subject: Subject) -> None:
    port = subject.port
    for _ in range(2):
        event = port.go(over=lambda: True)
        while event.kind is not DebugEventKind.INTERRUPT:
            assert event.kind is not DebugEventKind.PROCESS_EXIT, event
            event = port.go(over=lambda: True)
        assert all(port.registers(thread).rip for thread in port.threads())
    before = port.read(subject.muldiv_function, 16)
    port.set_breakpoints([subject.muldiv_function])
    port.clear_breakpoints([subject.muldiv_function])
    assert port.read(subject.muldiv_function, 16) == before


@debug_check
def the_end_of_a_target_is_told_of_once(subject: Subject) -> None:
    port = subject.port
    debugged(subject, LOOP)
    subject.end()
    event = port.go()
    while event.kind is DebugEventKind.THREAD_EXIT:
        event = port.go()
    assert (event.kind, event.code) == (DebugEventKind.PROCESS_EXIT, 3), event
    with raises(TargetLost, str(port.process_id)):
        port.go()


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
