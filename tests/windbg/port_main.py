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
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pefile

from calltrace import session
from calltrace.errors import EngineError
from calltrace.model import Clock, Policy, State
from calltrace.ports import Protection
from calltrace.recorder import TraceFile
from calltrace.win32 import engine_port
from calltrace.win32.exports import export_address
from calltrace_windbg.target import WindbgPort
from contract.suite import raises
from rig.dbgeng import Session, open_session

PAGE = 0x1000
SESSION_CALLS_ENDS_WITH = 11
LEAF_CALLS = 5
THREADS = 5  # of port_threads

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
                file=sys.stderr,
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
        print(f"a call takes {(time.perf_counter() - started) * 10:.2f} ms", file=sys.stderr)

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
    rip = re.search(r"rip=([0-9a-f]+)", opened.type("r rip"))
    assert rip
    assert int(rip[1], 16) == address, said


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
