"""The host's side of a trace file, and the structures it shares with the recorder."""

from __future__ import annotations

import ctypes
import json
import struct
import subprocess
import time
from pathlib import Path

import pytest

from calltrace import recorder, tracefile
from calltrace.errors import AccessRefused, FileMissing, OutOfSpace
from calltrace.model import Clock, Policy, State
from calltrace.win32 import api

INCLUDE = Path(__file__).parent.parent.parent / "native" / "include"
BLOCK = 0x10000


def make(path: Path, clock: Clock = Clock.NONE) -> recorder.TraceFile:
    return recorder.TraceFile(path, clock, Policy.DROP_OLDEST, 1 << 30, {"program": "größe.exe"})


def numbers_of(folder: Path, source: str) -> list[int]:
    """The numbers that a C program prints."""
    program = folder / "layout"
    (folder / "layout.c").write_text(source)
    subprocess.run(["gcc", f"-I{INCLUDE}", "-o", program, folder / "layout.c"], check=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]


def program_of(header: str, structures: dict[str, type[ctypes.Structure]]) -> str:
    lines = []
    for name, structure in structures.items():
        lines.append(f'printf("%zu ", sizeof(struct {name}));')
        lines += [f'printf("%zu ", offsetof(struct {name}, {field[0]}));' for field in structure._fields_]
    body = "\n".join(lines)
    includes = f"#include <stddef.h>\n#include <stdio.h>\n#include <{header}>\n"
    return f"{includes}int main(void) {{ {body} return 0; }}\n"


def layout_here(structures: dict[str, type[ctypes.Structure]]) -> list[int]:
    numbers = []
    for structure in structures.values():
        numbers.append(ctypes.sizeof(structure))
        numbers += [getattr(structure, field[0]).offset for field in structure._fields_]
    return numbers


@pytest.mark.parametrize(
    ("header", "structures"),
    [
        ("trace_format.h", {"ct_chunk": tracefile.Chunk}),
        ("recorder.h", {"ct_start": recorder.StartRequest, "ct_code": recorder.Code}),
    ],
)
def test_structures_are_laid_out_as_the_recorder_has_them(
    tmp_path: Path, header: str, structures: dict[str, type[ctypes.Structure]]
) -> None:
    assert numbers_of(tmp_path, program_of(header, structures)) == layout_here(structures)


def test_the_abi_is_the_recorders(tmp_path: Path) -> None:
    source = (
        "#include <stdio.h>\n#include <recorder.h>\n"
        'int main(void) { printf("%u %u %u", '
        "CT_RECORDER_ABI, CT_START_NOTIFY_LOADS, CT_START_HITS); return 0; }\n"
    )
    found = numbers_of(tmp_path, source)
    assert found == [recorder.RECORDER_ABI, recorder.NOTIFY_LOADS, recorder.HITS]


def test_windows_structures_have_their_sizes() -> None:
    # As the x64 Windows headers have them.
    assert ctypes.sizeof(api.Context) == 1232
    assert api.Context.Rip.offset == 0xF8
    assert ctypes.sizeof(api.DebugEvent) == 176
    assert ctypes.sizeof(api.StartupInfo) == 104
    assert ctypes.sizeof(api.MemoryBasicInformation) == 48
    assert ctypes.sizeof(api.ExceptionRecord) == 152


def test_a_context_is_aligned_for_the_system() -> None:
    assert all(ctypes.addressof(api.new_context()) % 16 == 0 for _ in range(50))


@pytest.mark.parametrize("clock", list(Clock))
def test_a_new_trace_is_empty_and_readable(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "new"
    made = make(path, clock)
    made.finish(State.KILLED, 5)
    with tracefile.TraceFile(path) as trace:
        header = trace.header
        assert (trace.clock, trace.policy, trace.state) == (clock, Policy.DROP_OLDEST, State.KILLED)
        assert header.unit_size == (4 if clock == Clock.NONE else 8)
        assert (header.exit_code, header.max_size) == (5, 1 << 30)
        assert header.append_end == path.stat().st_size == (1 + 1 + 65) * BLOCK
        assert trace.info == {"program": "größe.exe"}
        assert not trace.threads
        assert not trace.modules


def test_the_counter_is_measured_against_the_clock(tmp_path: Path) -> None:
    for _ in range(2):
        before = time.perf_counter()
        made = make(tmp_path / "new")
        header = tracefile.FileHeader.from_buffer_copy(bytes(made.header))
        started = time.perf_counter()
        time.sleep(0.02)
        ended = time.perf_counter()
        made.finish(State.EXITED, 0)
        after = time.perf_counter()
        with tracefile.TraceFile(tmp_path / "new") as trace:
            assert 0.5e9 < trace.header.tsc_hz < 10e9
            elapsed = (trace.header.tsc_end - header.tsc_start) / trace.header.tsc_hz
            assert (ended - started) * 0.99 <= elapsed <= (after - before) * 1.01


def test_what_the_target_says_of_its_end_stands(tmp_path: Path) -> None:
    made = make(tmp_path / "new")
    made.header.state, made.header.tsc_end = State.EXITED, 12345
    made.finish(State.KILLED, 3)
    with tracefile.TraceFile(tmp_path / "new") as trace:
        assert (trace.state, trace.header.exit_code, trace.header.tsc_end) == (State.EXITED, 3, 12345)


def test_chunks_follow_each_other_in_whole_blocks(tmp_path: Path) -> None:
    path = tmp_path / "new"
    made = make(path)
    places = []
    for size in (100, BLOCK, BLOCK + 1):
        places.append(made.header.append_end)
        made.append(struct.pack("<IIQQQ", 99, 0, -(-size // BLOCK) * BLOCK, size - 32, 0).ljust(size, b"x"))
    made.header.append_end += BLOCK  # as if the target had appended a block, but not written it yet
    places.append(made.header.append_end)
    made.append(struct.pack("<IIQQQ", 99, 0, BLOCK, 0, 0))
    made.close()
    data = path.read_bytes()
    assert [after - before for before, after in zip(places, places[1:])] == [BLOCK, BLOCK, 3 * BLOCK]
    assert all(data[place : place + 4] == b"\x63\0\0\0" for place in places)
    assert len(data) == places[-1] + BLOCK


def test_a_large_description_takes_several_blocks(tmp_path: Path) -> None:
    info = {"command_line": "x" * 200_000}
    made = recorder.TraceFile(tmp_path / "new", Clock.NONE, Policy.BLOCK, 0, info)
    made.finish(State.EXITED, 0)
    with tracefile.TraceFile(tmp_path / "new") as trace:
        assert trace.info == info


def test_a_file_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match=r"no_folder.*its folder does not exist"):
        make(tmp_path / "no_folder" / "new")
    with pytest.raises(AccessRefused, match="cannot write"):
        make(tmp_path)


def test_a_full_disk_is_an_error_that_names_the_file() -> None:
    with pytest.raises(OutOfSpace, match="/dev/full"):
        recorder.TraceFile(Path("/dev/full"), Clock.NONE, Policy.BLOCK, 0, {})


def test_descriptions_are_json(tmp_path: Path) -> None:
    make(tmp_path / "new").close()
    data = (tmp_path / "new").read_bytes()
    kind, _, length, size, _ = struct.unpack_from("<IIQQQ", data, BLOCK)
    assert (kind, length) == (4, BLOCK)
    assert json.loads(data[BLOCK + 32 : BLOCK + 32 + size]) == {"program": "größe.exe"}
