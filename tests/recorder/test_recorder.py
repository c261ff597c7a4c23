"""calltrace.dll in a Windows program under Wine; checker.py reads what it wrote, not our own reader."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder.checker import (
    API_CALL,
    API_ENTER,
    API_EXIT,
    API_GOTO,
    API_RET,
    BLOCK,
    CALL,
    ENTER,
    EXIT,
    EXITED,
    EXT,
    LEAVE,
    MARK,
    RECORDING,
    RESET,
    RETURN,
    START,
    STOP,
    STOPPED,
    Trace,
    codes,
    counted,
    decoded,
    ext_code,
    header_of,
)
from rig import targets, windows

HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent
DLL = TREE / "core" / "calltrace" / "_native" / "calltrace.dll"
COMPILE = "x86_64-w64-mingw32-gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static".split()
CLOCKS = {"none": 0, "tsc": 1, "coarse": 2}
DROP_OLDEST = 1


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("host") / "host.exe"
    subprocess.run(
        [
            *COMPILE,
            f"-I{targets.INCLUDE}",
            str(HERE / "host.c"),
            str(HERE / "probe.S"),
            "-o",
            str(program),
            "-lntdll",
        ],
        check=True,
    )
    return program


def record(host: Path, trace: Path, scenario: str, *, exit_code: int = 0, **options: int) -> dict[str, str]:
    """Run a scenario of the host program; what it printed, by name."""
    words = [f"{name}={value}" for name, value in options.items()]
    done = windows.run([host, DLL, trace, scenario, *words])
    # Wine now and then says this about a thread it has killed at the process's end.
    errors = re.sub(rb"wine client error:[^\n]*\n?", b"", done.stderr)
    assert (done.returncode, errors) == (exit_code, b""), done.stdout
    lines = done.stdout.decode().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def counts_of(trace: Path, threads: int) -> list[int]:
    """How many events each thread had recorded when it last said so."""
    return list(array("Q", Path(f"{trace}.counts").read_bytes()))[:threads]


def body(trace: Trace, thread: int, end: list[int]) -> array[int]:
    """The codes of a thread between THREAD_START and the units of `end`."""
    found = trace.codes(thread)
    assert found[0] == ext_code(START)
    assert list(found[len(found) - len(end) :]) == end
    return found[1 : len(found) - len(end)]


def test_slow_path_keeps_registers_flags_vectors_and_last_error(host: Path, tmp_path: Path) -> None:
    said = record(host, tmp_path / "t", "preserve", slots=1)  # with one slot each thread writes by itself
    assert int(said["mask"]) & 3 == 3


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("slots", [64, 8, 1])
def test_every_event_of_64_threads_is_in_the_file(host: Path, tmp_path: Path, clock: str, slots: int) -> None:
    record(host, tmp_path / "t", "events", threads=64, events=50000, slots=slots, clock=CLOCKS[clock])
    trace = Trace(tmp_path / "t")
    assert sorted(trace.threads) == list(range(64))
    assert trace.header["threads"] == 64
    assert trace.header["units_lost"] == 0
    assert trace.header["state"] == EXITED
    assert len({blocks[0].thread_id for blocks in trace.threads.values()}) == 64
    for thread in trace.threads:
        assert body(trace, thread, [ext_code(EXIT)]) == counted(0, 50000)
    closed = sum(len(block.units) for blocks in trace.threads.values() for block in blocks if block.close_tsc)
    assert trace.header["units_total"] == closed


def is_later(late: int, early: int) -> bool:
    """Of two 40-bit counters less than half a wrap apart."""
    return (late - early) & 0xFFFFFFFFFF < 1 << 39


@pytest.mark.parametrize("clock", ["tsc", "coarse"])
def test_time_never_runs_backwards_within_a_thread(host: Path, tmp_path: Path, clock: str) -> None:
    record(host, tmp_path / "t", "events", threads=4, events=100000, clock=CLOCKS[clock])
    trace = Trace(tmp_path / "t")
    assert len(trace.threads) == 4
    for thread, blocks in trace.threads.items():
        times = [unit >> 24 for unit in trace.units(thread)]
        assert all(is_later(late, early) for early, late in zip(times, times[1:]))
        for block in blocks:
            assert is_later(block.close_tsc or trace.header["tsc_end"], block.units[-1] >> 24)
            if clock == "tsc":  # the coarse one may lag behind
                assert is_later(block.units[0] >> 24, block.open_tsc)


def test_events_up_to_exitprocess_are_kept(host: Path, tmp_path: Path) -> None:
    record(host, tmp_path / "t", "exit", exit_code=3, events=123456)
    trace = Trace(tmp_path / "t")
    assert trace.header["state"] == EXITED
    assert trace.header["tsc_end"] > trace.header["tsc_start"]
    assert body(trace, 0, []) == counted(0, 123456)


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("slots", [64, 32])
def test_a_terminated_process_leaves_every_event_in_the_file(
    host: Path, tmp_path: Path, clock: str, slots: int
) -> None:
    for turn in range(3):
        path = tmp_path / f"t{turn}"
        record(
            host,
            path,
            "terminate",
            exit_code=7,
            threads=8,
            slots=slots,
            clock=CLOCKS[clock],
            milliseconds=100,
        )
        trace = Trace(path)
        assert trace.header["state"] == RECORDING
        recorded = []
        for thread in trace.threads:
            if not trace.codes(thread):
                continue  # it was about to say that it had started
            events = body(trace, thread, [])
            assert events == counted(0, len(events))
            recorded.append(len(events))
        # A thread killed between writing an event and counting it has one more.
        recorded += [0] * (8 - len(recorded))  # threads that had not come to run yet
        for said, found in zip(sorted(counts_of(path, 8)), sorted(recorded)):
            assert said <= found <= said + 1


@pytest.mark.parametrize("slots", [4, 1])
def test_slots_of_ended_threads_are_used_again(host: Path, tmp_path: Path, slots: int) -> None:
    record(host, tmp_path / "t", "churn", threads=200, events=1000, slots=slots, trailing=1)
    trace = Trace(tmp_path / "t")
    assert trace.header["threads"] == 200
    assert trace.header["units_lost"] == 0
    for thread in range(200):
        # What a thread-local destructor records comes after the thread's end has been announced.
        assert body(trace, thread, [ext_code(EXIT), 2000 << 3 | ENTER]) == counted(0, 1000)


def test_slots_of_terminated_threads_are_used_again(host: Path, tmp_path: Path) -> None:
    record(host, tmp_path / "t", "churn", threads=40, slots=4, kill=1)
    trace = Trace(tmp_path / "t")
    assert trace.header["threads"] == 40
    assert trace.header["units_lost"] == 0
    for thread, said in enumerate(counts_of(tmp_path / "t", 40)):
        events = body(trace, thread, [])
        assert said <= len(events) <= said + 1
        assert events == counted(0, len(events))


def test_blocked_threads_go_on_when_there_is_room(host: Path, tmp_path: Path) -> None:
    record(host, tmp_path / "t", "block", threads=3, events=3000000, slots=8, max=16)
    trace = Trace(tmp_path / "t")
    assert trace.header["units_lost"] == 0
    for thread in range(3):
        assert body(trace, thread, [ext_code(EXIT)]) == counted(0, 3000000)


def test_blocked_threads_go_on_unrecorded_when_recording_stops(host: Path, tmp_path: Path) -> None:
    record(host, tmp_path / "t", "block", threads=3, events=3000000, slots=8, max=16, stop=1)
    trace = Trace(tmp_path / "t")
    assert trace.size <= BLOCK * (2 + 8 + 16)
    for thread in range(3):
        events = body(trace, thread, [])
        assert 0 < len(events) < 3000000
        assert events == counted(0, len(events))


def test_nobody_waits_for_room_when_the_host_has_died(host: Path, tmp_path: Path) -> None:
    record(host, tmp_path / "t", "events", events=1000000, slots=2, max=4, host_dies=1)
    assert_what_is_missing_was_counted(Trace(tmp_path / "t"), 1, 1000000)


def assert_what_is_missing_was_counted(trace: Trace, threads: int, events: int) -> None:
    """Each run of units is what was recorded there; units_lost is just what is missing."""
    kept = 0
    for thread in range(threads):
        expected = array("I", [ext_code(START)]) + counted(0, events) + array("I", [ext_code(EXIT)])
        for first, units in trace.runs(thread) if thread in trace.threads else []:
            assert codes(units, trace.width) == expected[first : first + len(units)]
            kept += len(units)
    assert trace.header["units_lost"] == threads * (events + 2) - kept


@pytest.mark.parametrize("clock", CLOCKS)
def test_drop_oldest_keeps_the_newest_and_counts_the_rest(host: Path, tmp_path: Path, clock: str) -> None:
    path = tmp_path / "t"
    record(
        host,
        path,
        "events",
        threads=2,
        events=2000000,
        slots=8,
        max=40,
        policy=DROP_OLDEST,
        module=1,
        clock=CLOCKS[clock],
    )
    trace = Trace(path)
    assert trace.size == BLOCK * (2 + 8 + 3 + 40)
    assert_what_is_missing_was_counted(trace, 2, 2000000)
    assert trace.header["units_lost"] > 0
    last = [codes(trace.runs(thread)[-1][1], trace.width)[-1] for thread in trace.threads]
    assert last == [ext_code(EXIT)] * len(last)
    # The MODULE chunk between LIVE and EVENTS chunks, full of decoys, is as it was.
    module = path.read_bytes()[BLOCK * 10 : BLOCK * 13]
    decoy = struct.pack("<IIQQQIIQQQ", 2, 0, BLOCK, 1024, 0, 0, 1, 0, 1, 1)
    assert module[BLOCK:] == (decoy + bytes(BLOCK - 64)) * 2


@pytest.mark.parametrize("room", [0, 1])
def test_a_limit_without_room_for_one_block_loses_and_counts(host: Path, tmp_path: Path, room: int) -> None:
    record(host, tmp_path / "t", "events", events=200000, slots=2, max=room + 1, policy=DROP_OLDEST)
    assert_what_is_missing_was_counted(Trace(tmp_path / "t"), 1, 200000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_drop_oldest_on_a_full_disk(host: Path, small_disk: Path) -> None:
    record(host, small_disk / "t", "events", threads=2, events=3000000, slots=8, policy=DROP_OLDEST)
    trace = Trace(small_disk / "t")
    assert_what_is_missing_was_counted(trace, 2, 3000000)
    assert 0 < trace.header["max_size"] <= (8 << 20) + 8 * BLOCK  # unused slots take no room
    assert sum(len(units) for thread in trace.threads for _, units in trace.runs(thread)) > 1000000


def test_block_on_a_full_disk_until_there_is_room(host: Path, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(6 << 20))
    path = small_disk / "t"
    command = [host, DLL, path, "events", "threads=2", "events=500000", "slots=8"]
    words = [windows.path(word) if isinstance(word, Path) else word for word in command]
    windows.run([host])  # Wine is up
    with subprocess.Popen(["wine", *words], env=windows.environment(), stdin=subprocess.DEVNULL) as process:
        try:
            limit = time.monotonic() + windows.HANGS
            while not path.exists() or path.stat().st_size < BLOCK or header_of(path)["blocked"] == 0:
                assert process.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.01)
            time.sleep(0.5)
            assert process.poll() is None
            (small_disk / "filler").unlink()
            assert process.wait(windows.HANGS) == 0
        finally:
            process.kill()
    trace = Trace(path)
    assert trace.header["units_lost"] == 0
    for thread in range(2):
        assert body(trace, thread, [ext_code(EXIT)]) == counted(0, 500000)


@pytest.mark.parametrize("slots", [64, 2])
@pytest.mark.parametrize("clock", ["none", "tsc"])
def test_stop_and_record_again_into_another_file(host: Path, tmp_path: Path, slots: int, clock: str) -> None:
    said = record(host, tmp_path / "t", "stop", threads=4, slots=slots, clock=CLOCKS[clock])
    for turn, path in enumerate([tmp_path / "t", tmp_path / "t.second"]):
        trace = Trace(path)
        assert trace.header["state"] == STOPPED
        assert trace.header["units_lost"] == 0
        assert len(trace.threads) == 4
        ends = []
        for thread in trace.threads:
            found = trace.codes(thread)
            assert found[0] == ext_code(START)
            # A thread in the slow path just then has no STOP, and one in mid-event may write over it.
            if found[-1] == ext_code(STOP):
                found = found[:-1]
            if len(found) == 1:
                continue  # its first event was still to come
            first = found[1] >> 3
            assert found[1:] == counted(first, first + len(found) - 1)
            ends.append(found[-1] >> 3)
            assert (first == 0) == (turn == 0)
        # Ids wrap, so match each thread's last one; it was recorded before it was counted.
        counts = [int(said[f"stopped_{turn}_{number}"]) & 0x1FFFFF for number in range(4)]
        for end in ends:
            assert (end + 1) & 0x1FFFFF in counts or end in counts


def test_events_of_the_recorders_own_calls_go_nowhere(host: Path, tmp_path: Path) -> None:
    record(host, tmp_path / "t", "reentrant", threads=2, events=200000)
    trace = Trace(tmp_path / "t")
    for thread in range(2):
        assert body(trace, thread, [ext_code(EXIT)]) == counted(0, 200000)


def test_api_records_and_shows_open_frames(host: Path, tmp_path: Path) -> None:
    said = record(host, tmp_path / "t", "api")
    # result, then function/call site/function id/call-site id of each frame, innermost first
    assert said["mixed"] == "0 3000/3001/-1/-1 0/0/8/9 0/0/7/-1 1000/2000/-1/-1"
    assert said["two"] == "2 3000/3001/-1/-1 0/0/8/9"
    assert said["returned"] == "0 0/0/7/-1 1000/2000/-1/-1"
    assert said["jumped"] == said["unmatched"] == "0 4000/0/-1/-1 1000/2000/-1/-1"
    assert said["empty"] == "0"
    assert said["landed"] == said["later"] == "0 0/0/20/-1"
    assert said["far"] == "2"
    assert said["reset"] == "0 6000/6001/-1/-1"

    trace = Trace(tmp_path / "t")
    events = decoded(trace.units(0), 4)
    assert events[:14] == [
        (EXT, START),
        (EXT, API_ENTER, 0x1000, 0x2000),
        (ENTER, 7),
        (CALL, 9),
        (ENTER, 8),
        (EXT, API_CALL, 0x3000, 0x3001),
        (EXT, API_RET, 0x3000, 0x3001),
        (EXT, MARK, 0x123456789ABCDEF0),
        (LEAVE, 8),
        (RETURN, 9),
        (EXT, API_GOTO, 0x4000, 0x4001),
        (EXT, API_ENTER, 0x4000, 0),
        (EXT, API_EXIT, 0x5555, 0),
        (EXT, API_EXIT, 0x1000, 0),
    ]
    reset = events.index((EXT, RESET))
    assert events[reset + 1] == (EXT, API_ENTER, 0x6000, 0x6001)
    expected: list[tuple[int, ...]] = []
    for number in range(100000):
        expected += [(ENTER, number), (EXT, MARK, number)]
    assert events[reset + 2 :] == [*expected, (EXT, EXIT)]
    assert decoded(trace.units(1), 4) == [(EXT, START), (EXT, MARK, 5)]


@pytest.mark.parametrize("clock", ["tsc", "coarse"])
def test_api_values_are_whole_units_in_a_trace_with_a_clock(host: Path, tmp_path: Path, clock: str) -> None:
    record(host, tmp_path / "t", "marks", events=20000, clock=CLOCKS[clock])
    trace = Trace(tmp_path / "t")
    expected: list[tuple[int, ...]] = []
    for number in range(20000):
        expected += [(ENTER, number), (EXT, MARK, number)]
    assert decoded(trace.units(0), 8) == [(EXT, START), *expected]


def test_files_that_are_not_traces_are_refused(host: Path, tmp_path: Path) -> None:
    record(host, tmp_path / "t", "refuse")


@pytest.mark.parametrize("answer", [0, 1])
def test_a_module_load_waits_for_the_hosts_answer(host: Path, tmp_path: Path, answer: int) -> None:
    said = record(host, tmp_path / "t", "loads", answer=answer)
    path, size = said["load"].rsplit(" ", 1)
    assert path.lower() == "c:\\windows\\system32\\msimg32.dll"
    assert int(size) > 0


def test_a_module_load_goes_on_when_the_host_has_died(host: Path, tmp_path: Path) -> None:
    record(host, tmp_path / "t", "orphan", host_dies=1)


def test_nested_function_tables_are_found_in_any_order_of_registration(host: Path, tmp_path: Path) -> None:
    record(host, tmp_path / "t", "tables")


def test_a_breakpoint_leads_to_the_copy_as_long_as_it_is_ours(host: Path, tmp_path: Path) -> None:
    record(host, tmp_path / "t", "breakpoints")


def test_the_dll_needs_nothing_but_kernel32_and_ntdll() -> None:
    words = subprocess.run(
        ["x86_64-w64-mingw32-objdump", "-p", str(DLL)], check=True, capture_output=True, text=True
    ).stdout
    imports = {line.split()[-1].lower() for line in words.splitlines() if "DLL Name:" in line}
    assert imports == {"kernel32.dll", "ntdll.dll"}
    exports = {line.split()[-1] for line in words.splitlines() if line.startswith("\t[") and "] " in line}
    assert {"ct_start", "ct_stop", "ct_add_code", "ct_remove_code", "calltrace_mark"} <= exports


def test_the_api_header_is_c_and_cplusplus(tmp_path: Path) -> None:
    for suffix, compiler, standard in (("c", "gcc", "c99"), ("cpp", "g++", "c++11")):
        source = tmp_path / f"user.{suffix}"
        source.write_text(
            '#include "calltrace.h"\n'
            "calltrace_mark_t *mark;\n"
            "static struct calltrace_frame frame;\n"
            "int main(void) { return mark && mark(1) == CALLTRACE_CUT && !frame.function; }\n"
        )
        subprocess.run(
            [
                shutil.which(f"x86_64-w64-mingw32-{compiler}") or compiler,
                *f"-std={standard} -Wall -Wextra -Wpedantic -Werror -fsyntax-only".split(),
                f"-I{targets.INCLUDE}",
                str(source),
            ],
            check=True,
        )
