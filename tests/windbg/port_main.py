"""What the port for WinDbg must do beyond the contract of ports.

    port_main.py FOLDER KIND PROGRAMS TRACES OUTPUT

Runs in Windows Python; FOLDER and KIND are rig.dbgeng's, PROGRAMS is where the test programs are, TRACES gets
the traces that are made. OUTPUT gets a JSON object: check -> null if it holds, else what went wrong.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pefile

from calltrace import session
from calltrace.errors import EngineError, NotTraceable
from calltrace.model import Clock, Policy, State
from calltrace.plan import ModulePlan, read_image
from calltrace.ports import DebugEventKind, Protection
from calltrace.recorder import TraceFile, dll_path
from calltrace.reference import ReferenceTracing
from calltrace.win32 import engine_port
from calltrace.win32.exports import export_address
from calltrace_windbg.target import WindbgPort
from contract.suite import raises
from rig.dbgeng import ExtensionSession, Session, open_session

PAGE = 0x1000
SESSION_CALLS_ENDS_WITH = 11
LEAF_CALLS = 5
LEAF_SECOND = 6  # bytes: where its second instruction begins
THREADS = 5  # of port_threads
REFERENCES = {"reference_threads": 0, "seh": 23}  # programs, the second with int3s of its own: exit codes

CLEARS_ALL = bytes.fromhex("c5 fc 77  db e3  c3")  # vzeroall; fninit; ret
FOR_EVER = bytes.fromhex("eb fe  c3")  # jmp $; ret
FAULTS = bytes.fromhex("0f 0b")  # ud2: the engine lets the handlers have it before it tells of it
READS_NOTHING = bytes.fromhex("8b 04 25 00 00 00 00")  # mov eax, [0]: it does not

_SYMBOLS_MISSING = re.compile(r"\*\*\* (ERROR|WARNING): .*\n")


class Checks:
    """One session a check, on the programs it names."""

    def __init__(self, folder: Path, kind: str, programs: Path, traces: Path) -> None:
        self._folder, self._kind, self._programs, self._traces = folder, kind, programs, traces

    def _open(
        self, program: str, *arguments: str, mode: str = "create"
    ) -> contextlib.AbstractContextManager[Session]:
        command = " ".join([str(self._programs / f"{program}.exe"), *arguments])
        return open_session(self._folder, self._kind, command, mode)

    def _file_bytes(self, program: str, rva: int, size: int) -> bytes:
        """What stands in the program's file."""
        with contextlib.closing(pefile.PE(str(self._programs / f"{program}.exe"), fast_load=True)) as image:
            found: bytes = image.get_data(rva, size)
        return found

    # Where calls work

    def calls_at_the_initial_break_change_nothing_that_is_seen(self) -> None:
        with self._open("session_calls", "1") as opened:
            changes_nothing(opened)

    def calls_at_a_breakpoint_change_nothing_that_is_seen(self) -> None:
        with self._open("port_threads") as opened:
            opened.type("bp kernel32!Sleep")
            while opened.type("~").count("Id: ") < THREADS:  # of others nothing is to be heard any more
                opened.type("g")
            opened.type("r xmm0=1 2 3 4; r xmm7=5 6 7 8; r ymm1=1 2 3 4 5 6 7 8")
            changes_nothing(opened)

    def calls_after_attaching_to_a_busy_process_change_nothing_that_is_seen(self) -> None:
        with self._open("port_threads", mode="attach") as opened:
            changes_nothing(opened)

    def the_thread_that_the_user_has_chosen_stays_chosen(self) -> None:
        with self._open("port_threads", mode="attach") as opened:
            opened.type("~1s")
            changes_nothing(opened)

    # The user's breakpoints

    def breakpoints_of_the_user_are_not_seen_and_not_met(self) -> None:
        with self._open("session_calls", "1") as opened:
            work = opened.command(lambda port: address_of(port, "session_calls.exe", "work"))
            opened.type(f"bp {work:#x}")
            stop_at(opened, work)  # the engine refuses `ba` before the program itself runs
            opened.type("bc *")
            leaf = opened.command(lambda port: address_of(port, "session_calls.exe", "leaf"))
            function = opened.command(lambda port: address_of(port, "kernel32.dll", "GetCurrentProcessId"))
            base = opened.command(lambda port: port.modules()[0].base)
            opened.type(f"bp {leaf:#x}; bp {function:#x}; bp {function + 1:#x}; bd 2; ba e1 {function:#x}")
            before = lasting(opened.type("bl"))
            assert opened.command(lambda port: port.call(function)) == opened.command(
                lambda port: port.process_id
            )
            read = opened.command(lambda port: port.read(leaf, 16))
            assert read == self._file_bytes("session_calls", leaf - base, 16)
            same([before], [lasting(opened.type("bl"))])

    def breakpoints_at_a_written_place_hit_and_put_nothing_stale_back(self) -> None:
        with self._open("session_calls", str(LEAF_CALLS)) as opened:
            leaf = opened.command(lambda port: address_of(port, "session_calls.exe", "leaf"))
            opened.type(f"bp {leaf:#x}")
            stop_at(opened, leaf)  # the engine has had its int3 there, and taken it out again
            original = opened.command(lambda port: port.read(leaf, 16))
            moved = opened.command(lambda port: jump_away(port, leaf, original))
            for _ in range(LEAF_CALLS - 1):
                stop_at(opened, leaf)
                assert opened.command(lambda port: port.read(leaf, 5)) == moved
            opened.type("bc *")
            assert opened.command(lambda port: port.read(leaf, 5)) == moved
            opened.type("g")

    # What cannot be

    def a_call_at_an_exception_of_the_target_s_own_is_refused(self) -> None:
        with self._open("session_calls", "1") as opened:
            code = opened.command(lambda port: code_of(port, READS_NOTHING))
            opened.type(f"r rip={code:#x}")
            opened.type("g")
            before = seen(opened)
            refused(opened, lambda port: port.call(code), "0xc0000005")
            same(before, seen(opened))

    def a_call_that_does_not_end_is_given_up_and_the_thread_goes_on(self) -> None:
        limits = engine_port.FROZEN_SECONDS, engine_port.CALL_SECONDS
        engine_port.FROZEN_SECONDS, engine_port.CALL_SECONDS = 0.2, 0.6
        try:
            with self._open("session_calls", "1000") as opened:
                work = opened.command(lambda port: address_of(port, "session_calls.exe", "work"))
                opened.type(f"bp {work:#x}")
                stop_at(opened, work)
                code = opened.command(lambda port: code_of(port, FOR_EVER))
                refused(opened, lambda port: port.call(code), "did not come back")
                port = opened.command(lambda port: port)
                opened.command(lambda port: port.write(code, b"\x90\x90"))
                opened.type("bc *")
                opened.type("g")
                assert port.exit_code() == SESSION_CALLS_ENDS_WITH
        finally:
            engine_port.FROZEN_SECONDS, engine_port.CALL_SECONDS = limits

    def threads_are_thawed_for_a_call_that_waits_for_one_of_them(self) -> None:
        with self._open("port_locks", "1500", mode="attach") as opened:
            wait = opened.command(lambda port: address_of(port, "port_locks.exe", "wait_for_lock"))
            assert opened.command(lambda port: port.call(wait)) & 0xFFFFFFFF == 42

    def a_dump_is_refused(self) -> None:
        with self._open("session_calls", "1") as opened:
            opened.command(lambda port: port)
            dump = self._traces / f"{self._kind}.dmp"
            opened.type(f".dump /ma {dump}")
            opened.type(f".opendump {dump}")
            opened.type("g")
            opened.type(f".load {dll_path().with_name('calltrace_windbg.dll')}")
            with raises(NotTraceable, "but this is: Full memory user mini dump"):
                opened.command(lambda port: port)

    def a_running_target_is_refused(self) -> None:
        with self._open("session_calls", "1") as opened:
            assert isinstance(opened, ExtensionSession)
            opened.start("g")
            with raises(EngineError, "there is no stopped target"):
                opened.command(lambda port: port)

    # What it costs

    def memory_is_moved_in_bulk(self) -> None:
        size = 64 << 20

        def move(port: WindbgPort) -> None:
            address = port.allocate(size)
            data = bytes(range(256)) * (size // 256)
            started = time.perf_counter()
            port.write(address, data)
            written = time.perf_counter()
            assert port.read(address, size) == data
            read = time.perf_counter()
            print(
                f"wrote {size / 1e6 / (written - started):,.0f} MB/s, "
                f"read {size / 1e6 / (read - written):,.0f} MB/s",
                file=sys.__stderr__,
            )

        with self._open("session_calls", "1") as opened:
            opened.command(move)

    # Recording

    def a_recording_from_the_initial_break_is_that_of_a_whole_run(self) -> None:
        with self._open("session_calls", "1000") as opened:
            before = seen(opened)
            file = self._traces / f"{self._kind}.calltrace"
            tracing = opened.command(lambda port: start(port, file))
            same(before, seen(opened, threads=1))  # the recorder has a thread of its own
            port = opened.command(lambda port: port)
            opened.type("g")
            assert port.exit_code() == SESSION_CALLS_ENDS_WITH
            tracing.finish(State.KILLED, port.exit_code())

    def a_recording_leaves_the_user_s_breakpoints_on_traced_functions(self) -> None:
        with self._open("session_calls", str(LEAF_CALLS)) as opened:
            leaf = opened.command(lambda port: address_of(port, "session_calls.exe", "leaf"))
            work = opened.command(lambda port: address_of(port, "session_calls.exe", "work"))
            opened.type(f"bp {leaf:#x}")  # before start; the other after it
            original = opened.command(lambda port: port.read(leaf, 16))
            file = self._traces / f"{self._kind}-breakpoints.calltrace"
            tracing = opened.command(lambda port: start(port, file))
            assert opened.command(lambda port: port.read(leaf, 1)) == b"\xe9"
            opened.type(f"bp {work:#x}")
            stop_at(opened, work)
            for _ in range(LEAF_CALLS - 1):
                stop_at(opened, leaf)
            opened.command(lambda port: tracing.stop())
            assert opened.command(lambda port: port.read(leaf, 16)) == original
            stop_at(opened, leaf)  # the last call
            port = opened.command(lambda port: port)
            opened.type("g")
            assert port.exit_code() == SESSION_CALLS_ENDS_WITH
            tracing.finish(State.STOPPED, 0)

    # Debugging

    def a_reference_by_breakpoints(self) -> None:
        for program in REFERENCES:
            self._reference(program, single_step=False)

    def a_reference_by_single_steps(self) -> None:
        self._reference("reference_threads", single_step=True)

    def _reference(self, program: str, single_step: bool) -> None:
        kind = "steps" if single_step else "breakpoints"
        file = self._traces / f"{self._kind}-{program}-{kind}.calltrace"
        with self._open(program) as opened:
            opened.type("bp kernel32!GetProcAddress; bd 0")
            state, code = opened.command(lambda port: refer(port, file, single_step))
            assert state is State.EXITED
            assert code == REFERENCES[program]
            assert "Exit process" in opened.type(".lastevent")

    def a_breakpoint_of_the_user_ends_a_run(self) -> None:
        with self._open("session_calls", str(LEAF_CALLS)) as opened:
            leaf = opened.command(lambda port: address_of(port, "session_calls.exe", "leaf"))
            work = opened.command(lambda port: address_of(port, "session_calls.exe", "work"))
            before = opened.command(lambda port: port.read(work, 16) + port.read(leaf, 16))
            opened.type(f"bp {leaf:#x}")
            for call in range(LEAF_CALLS):
                met, why = opened.command(lambda port: run_to_end(port, [work, leaf, leaf + LEAF_SECOND]))
                assert met == [leaf + LEAF_SECOND] if call else [work], met
                assert why.startswith("Breakpoint 0 is here: "), why
                assert rip_of(opened) == leaf
                assert opened.command(lambda port: port.read(work, 16) + port.read(leaf, 16)) == before
            port = opened.command(lambda port: port)
            opened.type("g")
            assert port.exit_code() == SESSION_CALLS_ENDS_WITH

    def steps_from_and_to_breakpoints_of_the_user(self) -> None:
        with self._open("session_calls", str(LEAF_CALLS)) as opened:
            leaf = opened.command(lambda port: address_of(port, "session_calls.exe", "leaf"))
            opened.type(f"bp {leaf:#x}")
            stop_at(opened, leaf)
            stepped = opened.command(lambda port: port.go(step=True))
            assert (stepped.kind, stepped.address) == (DebugEventKind.STEP, leaf + LEAF_SECOND), stepped
            stop_at(opened, leaf)
            opened.type(f"bp {leaf + LEAF_SECOND:#x}")
            refused(opened, lambda port: port.go(step=True), "reakpoint 1")
            assert rip_of(opened) == leaf + LEAF_SECOND
            refused(opened, lambda port: port.go(step=False), "Hit breakpoint 0")

    def a_breakpoint_of_the_user_that_goes_on_by_itself_ends_nothing(self) -> None:
        with self._open("session_calls", str(LEAF_CALLS)) as opened:
            leaf = opened.command(lambda port: address_of(port, "session_calls.exe", "leaf"))
            opened.type(f'r $t0=0; bp {leaf:#x} "r $t0=@$t0+1; gc"')
            met = opened.command(lambda port: run_some(port, [leaf + LEAF_SECOND], 2))
            assert met == [leaf + LEAF_SECOND] * 2
            assert "= 00000000`00000002" in opened.type("? @$t0")
            port = opened.command(lambda port: port)
            opened.type("g")
            assert port.exit_code() == SESSION_CALLS_ENDS_WITH

    def ctrl_break_ends_a_run_in_which_nothing_happens(self) -> None:
        with self._open("port_threads", mode="attach") as opened:
            interrupt(opened, [])

    def ctrl_break_ends_a_run_in_which_much_happens(self) -> None:
        with self._open("port_threads", mode="attach") as opened:
            interrupt(opened, [opened.command(lambda port: address_of(port, "kernel32.dll", "Sleep"))])

    def no_thread_meets_a_breakpoint_after_its_command(self) -> None:
        with self._open("port_threads", mode="attach") as opened:
            fibonacci = opened.command(lambda port: named(port, "fibonacci"))
            sleep = opened.command(lambda port: address_of(port, "kernel32.dll", "Sleep"))
            for number in range(10):
                opened.command(lambda port, number=number: run_some(port, [fibonacci], 5 + number))
                opened.type(f"bp {sleep:#x}")
                stop_at(opened, sleep)
                opened.type("bc *")
            opened.type(".detach")
            assert opened.child
            output, _ = opened.child.communicate(timeout=30)
            assert output.decode().strip() == "rounds some, wrong 0, debugged 0", output
            assert opened.child.returncode == 5


def refer(port: WindbgPort, file: Path, single_step: bool) -> tuple[State, int]:
    """Let the target run to its end under the exact tracer."""
    trace = session.create_file(session.TraceOptions(file, "all"), file, {})
    tracing = ReferenceTracing(port, trace, "all", [], [], [], True, single_step, lambda line: None)
    state = tracing.run()
    trace.finish(state, port.exit_code())
    return state, port.exit_code()


def run_some(port: WindbgPort, places: Sequence[int], count: int) -> list[int]:
    """Run on until breakpoints at `places` were met `count` times: where."""
    port.set_breakpoints(places)
    met: list[int] = []
    while len(met) < count:
        event = port.go()
        if event.kind is DebugEventKind.BREAKPOINT:
            met.append(event.address)
    return met


def run_to_end(port: WindbgPort, places: Sequence[int]) -> tuple[list[int], str]:
    """Run on until that fails: the breakpoints met before, and the error."""
    met: list[int] = []
    try:
        while True:
            met += run_some(port, places, 1)
    except EngineError as error:
        return met, str(error)


def interrupt(opened: Session, places: Sequence[int]) -> None:
    """Press Ctrl+Break in a run with breakpoints: it ends, and the session is usable."""
    function = opened.command(lambda port: address_of(port, "kernel32.dll", "GetCurrentProcessId"))
    before = opened.command(lambda port: [port.read(place, 16) for place in places])

    def run(port: WindbgPort) -> None:
        threading.Timer(0.3, opened.interrupt).start()
        run_some(port, places, sys.maxsize)

    started = time.monotonic()
    try:
        opened.command(run)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("it was not interrupted")
    assert time.monotonic() - started < 5
    assert places or "ntdll!DbgBreakPoint" in opened.type("r")
    assert opened.command(lambda port: [port.read(place, 16) for place in places]) == before
    assert opened.command(lambda port: port.call(function)) == opened.command(lambda port: port.process_id)
    sleep = opened.command(lambda port: address_of(port, "kernel32.dll", "Sleep"))
    opened.type(f"bp {sleep:#x}")
    stop_at(opened, sleep)


def named(port: WindbgPort, function: str) -> int:
    """The VA of a function of the program that its symbols name."""
    program = port.modules()[0]
    names = ModulePlan(read_image(port.read, program)).image.names
    [rva] = [rva for rva, name in names.items() if name == function]
    return program.base + rva


def address_of(port: WindbgPort, module: str, function: str) -> int:
    return export_address(port, module, function)


def code_of(port: WindbgPort, code: bytes) -> int:
    """The VA of `code` in the target."""
    address = port.allocate(PAGE)
    port.write(address, code)
    port.protect(address, PAGE, Protection.EXECUTE_READ)
    return address


def jump_away(port: WindbgPort, leaf: int, original: bytes) -> bytes:
    """Let `leaf` begin elsewhere, as tracing does; its new first bytes."""
    assert original[:2] == b"\x8b\x05", original.hex()  # mov eax, [rip + displacement]
    elsewhere = port.allocate(PAGE, port.modules()[0])
    displacement = int.from_bytes(original[2:6], "little") + leaf - elsewhere
    copy = original[:2] + displacement.to_bytes(4, "little", signed=True)
    port.write(elsewhere, copy + jump(elsewhere + len(copy), leaf + len(copy)))
    port.protect(elsewhere, PAGE, Protection.EXECUTE_READ)
    moved = jump(leaf, elsewhere)
    port.write(leaf, moved)
    return moved


def jump(source: int, target: int) -> bytes:
    """jmp target"""
    return b"\xe9" + (target - source - 5).to_bytes(4, "little", signed=True)


def seen(opened: Session, threads: int = 0) -> tuple[str, ...]:
    """All that the user sees of where the session stands; the last `threads` of the list are left out.

    (But `.lastevent`, which tells of the end of a call; whose event it was stands in the list of threads.)
    """
    listed = opened.type("~").splitlines()
    state = [re.sub(r"Suspend: \d+", "", line) for line in listed[: len(listed) - threads]]
    shown = (opened.type("r"), opened.type("rX; r ymm1,st0"), *state, opened.type("k 5"))
    return tuple(map(lasting, shown))


def lasting(text: str) -> str:
    """Without what is said once, whoever asks first: that a module has no symbols."""
    return _SYMBOLS_MISSING.sub("", text)


def changes_nothing(opened: Session) -> None:
    """A hundred calls, those among them that clobber all registers and that raise, are not to be seen."""
    before = seen(opened)
    clobber = opened.command(lambda port: code_of(port, CLEARS_ALL))
    faults = opened.command(lambda port: code_of(port, FAULTS))
    opened.command(lambda port: port.call(clobber))
    refused(opened, lambda port: port.call(faults), "0xc000001d")

    def many(port: WindbgPort) -> None:
        function = address_of(port, "kernel32.dll", "GetCurrentProcessId")
        started = time.perf_counter()
        for _ in range(100):
            assert port.call(function) == port.process_id
        print(f"a call takes {(time.perf_counter() - started) * 10:.2f} ms", file=sys.__stderr__)

    opened.command(many)
    same(before, seen(opened))


def same(before: Sequence[str], after: Sequence[str]) -> None:
    assert before == after, "\n".join(
        difflib.ndiff("\n".join(before).split("\n"), "\n".join(after).split("\n"))
    )


def refused(opened: Session, work: Callable[[WindbgPort], object], text: str) -> None:
    def attempt(port: WindbgPort) -> None:
        with raises(EngineError, text):
            work(port)

    opened.command(attempt)


def stop_at(opened: Session, address: int) -> None:
    said = opened.type("g")
    assert rip_of(opened) == address, said


def rip_of(opened: Session) -> int:
    rip = re.search(r"rip=([0-9a-f]+)", opened.type("r rip"))
    assert rip
    return int(rip[1], 16)


def start(port: WindbgPort, file: Path) -> session.Tracing:
    trace = TraceFile(file, Clock.NONE, Policy.BLOCK, 0, {})
    tracing = session.Tracing(port, lambda line: None)
    tracing.start(session.TraceOptions(), trace)
    return tracing


def main() -> None:
    folder, kind, programs, traces, output = sys.argv[1:]
    # The programs end with their input, so they get one that stays open.
    reading_end, _ = os.pipe()
    os.dup2(reading_end, 0)
    checks = Checks(Path(folder), kind, Path(programs), Path(traces))
    results: dict[str, str | None] = {}
    for name in vars(Checks):
        if name.startswith("_"):
            continue
        try:
            getattr(checks, name)()
            results[name] = None
        except BaseException:
            results[name] = traceback.format_exc()
    Path(output).write_text(json.dumps(results))


main()
