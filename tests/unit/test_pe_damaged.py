"""Damaged and foreign images end in one clear error or in refused functions, soon, and never in a crash."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from calltrace import preflight
from calltrace.errors import FileMissing, NotTraceable, OutOfSpace
from calltrace.pe.image import Image, from_file, from_memory
from calltrace.plan import ModulePlan
from rig import images, pefiles, targets
from rig.emulator import Slots

SECONDS = 2.0
UNWIND_BAD, OVERLAP = 5, 10


@pytest.fixture(scope="module")
def whole() -> bytes:
    return targets.build("frames").read_bytes()


def header(raw: bytes, offset: int, values: bytes) -> bytes:
    """`raw` with bytes changed at an offset from its PE header."""
    at = int.from_bytes(raw[0x3C:0x40], "little") + offset
    return raw[:at] + values + raw[at + len(values) :]


FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda raw: b"", "not a Windows program"),
    "a script": (lambda raw: b"#!/bin/sh\n", "not a Windows program"),
    "cut in the headers": (lambda raw: raw[:0x90], "damaged"),
    "cut in a section": (lambda raw: raw[: len(raw) // 2], "is truncated: section .* get a complete copy"),
    "no PE signature": (lambda raw: header(raw, 0, b"XX"), "damaged"),
    "for ARM64": (lambda raw: header(raw, 4, b"\x64\xaa"), "an ARM64 program: only x64 programs"),
    "for 32-bit x86": (lambda raw: header(raw, 4, b"\x4c\x01"), "a 32-bit program: only x64 programs"),
    "of no size": (lambda raw: header(raw, 0x50, bytes(4)), "damaged"),
    "of more than its sections": (lambda raw: header(raw, 0x50, b"\0\0\0\x20"), "its sections only"),
    "of 4 GB": (lambda raw: header(raw, 0x50, b"\xff" * 4), "image size is 4,294,967,295"),
    ".pdata outside": (lambda raw: header(raw, 0xA0, b"\0\0\0\x10"), r"\.pdata .* lies outside the image"),
    ".pdata too large": (lambda raw: header(raw, 0xA4, b"\xff\xff\xff\x7f"), r"\.pdata .* lies outside"),
}


@pytest.mark.parametrize("what", FILES)
def test_damaged_file_is_one_clear_error(what: str, whole: bytes, tmp_path: Path) -> None:
    damage, words = FILES[what]
    path = tmp_path / "damaged.exe"
    path.write_bytes(damage(whole))
    begin = time.process_time()
    with pytest.raises(NotTraceable, match=words) as raised:
        from_file(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert time.process_time() - begin < SECONDS


def test_file_that_is_not_there_is_named() -> None:
    with pytest.raises(FileMissing, match=r"nowhere\.exe cannot be read: No such file"):
        from_file(Path("/nowhere.exe"))


def test_image_in_memory_is_checked_as_a_file_is() -> None:
    with pytest.raises(NotTraceable, match="not a Windows program"):
        from_memory(lambda va, size: bytes(size), 0x140000000, 0x1000, "C:\\zeros.exe")


def test_headers_with_any_byte_changed_are_read_or_refused(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "changed.exe"
    start = int.from_bytes(whole[0x3C:0x40], "little")
    for at in range(start, start + 0x200, 3):
        for value in (0x00, 0x7F, 0xFF):
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            begin = time.process_time()
            with contextlib.suppress(NotTraceable):
                image = from_file(path)
                preflight.of_module(image)
                plan = ModulePlan(image)
                plan.lay_out(Slots(), "all", "none", 0, 0)
            assert time.process_time() - begin < SECONDS, f"byte {at:#x} = {value:#x}"


def plan_of(image: Image) -> dict[int, int]:
    """Plan to the end within the time allowed. RVA -> status."""
    begin = time.process_time()
    plan = ModulePlan(image)
    plan.lay_out(Slots(), "all", "none", 0, 0)
    plan.compose(image.base + -(-image.size // 0x10000) * 0x10000, 0)
    assert time.process_time() - begin < SECONDS
    return {function.rva: function.status for function in plan.functions}


def with_pdata(entries: list[tuple[int, int, int]], unwind: bytes = b"", code: bytes = b"") -> Image:
    """An image of nops and rets with this exception directory, whose unwind data starts at 0x8000."""
    size = 0x10000 + -(-12 * len(entries) // 0x1000) * 0x1000
    data = bytearray(size)
    data[0x1000:0x8000] = (code or b"\x90" * 31 + b"\xc3").ljust(0x20, b"\xc3") * (
        0x7000 // max(len(code), 0x20)
    )
    data[0x8000 : 0x8000 + len(unwind)] = unwind
    table = b"".join(struct.pack("<III", *entry) for entry in entries)
    data[0x10000 : 0x10000 + len(table)] = table
    return Image(
        path="made.exe",
        base=images.BASE,
        data=bytes(data[:size]),
        timestamp=0,
        checksum=0,
        executable=[(0x1000, 0x8000)],
        pdata=(0x10000, len(table)),
        relocations=(0, 0),
    )


def test_overlapping_runtime_functions_are_refused_but_the_first() -> None:
    statuses = plan_of(with_pdata([(0x1000, 0x1040, 0x8000), (0x1020, 0x1060, 0x8000)], b"\1\0\0\0"))
    assert statuses == {0x1000: 0, 0x1020: OVERLAP}


def test_functions_outside_the_code_are_refused() -> None:
    entries = [(0x1000, 0x1040, 0x8000), (0x7FE0, 0x8040, 0x8000), (0x9000, 0x9010, 0x8000)]
    entries += [(0xFFFFFF00, 0xFFFFFFFF, 0x8000), (0x1060, 0x1060, 0x8000), (0x1090, 0x1080, 0x8000)]
    statuses = plan_of(with_pdata(entries, b"\1\0\0\0"))
    assert statuses.pop(0x1000) == 0
    assert set(statuses.values()) == {OVERLAP}
    assert len(statuses) == 5


def test_unsorted_directory_is_read_all_the_same() -> None:
    entries = [(0x1040, 0x1060, 0x8000), (0x1000, 0x1020, 0x8000), (0x1020, 0x1040, 0x8000)]
    statuses = plan_of(with_pdata(entries, b"\1\0\0\0"))
    assert {rva: statuses[rva] for rva in statuses if rva < 0x1060} == {0x1000: 0, 0x1020: 0, 0x1040: 0}


@pytest.mark.parametrize("length", [1, 2, 3, 40])
def test_cyclic_chains_are_refused(length: int) -> None:
    unwind = b""
    entries = [(0x1000 + 32 * i, 0x1020 + 32 * i, 0x8000 + 16 * i) for i in range(length)]
    for i in range(length):
        unwind += b"\x21\0\0\0" + struct.pack("<III", *entries[(i + 1) % length])
    assert set(plan_of(with_pdata(entries, unwind)).values()) == {UNWIND_BAD}


def test_many_functions_that_share_huge_tables() -> None:
    """Each of 800 functions names one scope table of 1500 entries, and so for each other kind of handler."""
    entries = [(0x1000 + 32 * i, 0x1020 + 32 * i, 0x8000) for i in range(0x380)]
    scopes = struct.pack("<I", 1500) + struct.pack("<IIII", 0x1000, 0x1020, 1, 0x1000) * 1500
    plan_of(with_pdata(entries, b"\x09\0\0\0" + struct.pack("<I", 0x1000) + scopes))


def test_huge_counts_in_function_information() -> None:
    entries = [(0x1000 + 32 * i, 0x1020 + 32 * i, 0x8000) for i in range(0x380)]
    for counts in [(0x7FFFFFFF,) * 3, (1600, 0, 0), (0, 1600, 0), (0, 0, 4000)]:
        info = struct.pack(
            "<10I", 0x19930522, counts[0], 0x8040, counts[1], 0x8040, counts[2], 0x8040, 0, 0, 1
        )
        unwind = b"\x09\0\0\0" + struct.pack("<II", 0x1000, 0x8010) + b"\0" * 4 + info
        plan_of(with_pdata(entries, unwind))


def test_action_chains_without_an_end() -> None:
    entries = [(0x1000 + 32 * i, 0x1020 + 32 * i, 0x8000) for i in range(0x380)]
    # call sites of no length with action 1, which leads back to itself
    calls = b"\0\1\0\1" * 7000
    length = len(calls)
    uleb = bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14])
    data = b"\xff\xff\1" + uleb + calls + b"\0\x7f"
    plan_of(with_pdata(entries, b"\x09\0\0\0" + struct.pack("<I", 0x1000) + data))


def test_exception_specifications_as_long_as_the_image() -> None:
    entries = [(0x1000 + 32 * i, 0x1020 + 32 * i, 0x8000) for i in range(0x380)]
    calls = b"\0\1\0\1" * 1000
    uleb = bytes([len(calls) & 127 | 128, len(calls) >> 7])
    body = b"\1" + uleb + calls + b"\x7f\0"  # filter -1: the specification at the type table's end
    distance = len(body)
    data = b"\xff\x9b" + bytes([distance & 127 | 128, distance >> 7]) + body + b"\1" * 0x6000
    plan_of(with_pdata(entries, b"\x09\0\0\0" + struct.pack("<I", 0x1000) + data))


def scattered(count: int, code_bytes: int) -> Image:
    """Functions of two far parts with an indirect jump: each wants an address map over all between."""
    image = with_pdata([], code=b"\x90" * 29 + b"\xff\xe0\xc3")
    data = bytearray(image.data[:0x1000]) + image.data[0x1000:0x1020] * (code_bytes // 32)
    chained = len(data) + 16
    table, unwind = b"", b"\1".ljust(16, b"\0")
    for i in range(count):
        primary = struct.pack("<III", 0x1000 + 32 * i, 0x1020 + 32 * i, len(data))
        far = len(data) - 32 * (i + 1)
        table += primary + struct.pack("<III", far, far + 32, chained + 16 * i)
        unwind += b"\x21\0\0\0" + primary
    pdata = len(data) + len(unwind), len(table)
    code = [(0x1000, len(data))]
    return dataclasses.replace(image, data=bytes(data) + unwind + table, pdata=pdata, executable=code)


@pytest.mark.parametrize(("count", "code_bytes"), [(0x100, 0x7000), (0x900, 0x30000)])
def test_address_maps_of_scattered_functions_are_in_proportion(count: int, code_bytes: int) -> None:
    image = scattered(count, code_bytes)
    statuses = plan_of(image)
    assert len(statuses) == count
    assert not any(statuses.values())
    assert ModulePlan(image).lay_out(Slots(), "all", "none", 0, 0) < 16 * image.size + (17 << 20)


def test_ids_that_no_trace_has_are_out_of_space() -> None:
    with pytest.raises(OutOfSpace, match=r"made\.exe: the copies of its functions need .* too many ids"):
        ModulePlan(scattered(1, 0x7000)).lay_out(Slots(), "all", "none", 0, 1 << 21)


def test_directory_of_nothing_but_one_byte_functions() -> None:
    entries = [(0x1000 + i, 0x1001 + i, 0x8000) for i in range(0x7000)]
    statuses = plan_of(with_pdata(entries, b"\1\0\0\0"))
    assert len(statuses) == 0x7000


def test_random_images_end_in_time() -> None:
    """In a process of its own: a crash is a failure, not the end of the tests."""
    script = """
import random, sys
sys.path[:0] = ["core", "tests"]
from calltrace.model import Source
from rig import images, emulator
from rig.generator import Generator
import contextlib
import dataclasses
from calltrace.plan import ModulePlan
for seed in range(150):
    chance = random.Random(seed)
    made = Generator(seed)
    image = images.build(made.code, made.data, seeds=[("f", Source.EXPORT)]).image
    data = bytearray(image.data)
    for _ in range(chance.randint(1, 60)):
        data[chance.randrange(0x1000, len(data))] = chance.choice([0, 1, 255, chance.randrange(256)])
    plan = ModulePlan(dataclasses.replace(image, data=bytes(data)))
    plan.lay_out(emulator.Slots(), "all", "tsc", 0, 0)
    plan.compose(image.base + 0x100000, 0)
"""
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_unwind_data_that_ends_with_the_image() -> None:
    image = with_pdata([(0x1000, 0x1020, 0x8000)], b"\1\0\0\0")
    last = image.size - 4
    for length in (4, 2, 1, 0):
        data = bytearray(image.data)
        data[0x10008:0x1000C] = (last & ~3).to_bytes(4, "little")
        data[last:] = b"\x09\0\xff\0"
        cut = dataclasses.replace(image, data=bytes(data[: last + length]))
        assert plan_of(cut)[0x1000] == UNWIND_BAD


def test_images_full_of_what_is_looked_for_end_in_time(tmp_path: Path) -> None:
    patterns = [b"\xff Go buildinf:", b"\xf1\xff\xff\xff\0\0\x01\x08", b"\0JNI_CreateJavaVM", b"luaJIT_BC_"]
    for pattern in patterns:
        data = pattern * ((32 << 20) // len(pattern))
        path = tmp_path / "made.exe"
        sections = [
            pefiles.Section(".text", b"\xc3", pefiles.CODE),
            pefiles.Section(".data", data, pefiles.DATA),
        ]
        at = pefiles.FIRST + pefiles.PAGE
        places = {name: (at, len(data)) for name in ("DEBUG", "EXCEPTION")}
        path.write_bytes(pefiles.build(sections, places))
        image = from_file(path)
        begin = time.process_time()
        preflight.of_module(image)
        assert time.process_time() - begin < 3 * SECONDS, pattern
