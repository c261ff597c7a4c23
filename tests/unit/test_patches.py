"""Patching a module: what is written where, what is refused, and who must move."""

from __future__ import annotations

import random

import pytest

from calltrace.errors import AccessRefused, EngineError
from calltrace.patches import Patch, around_threads, restore, write_patches
from calltrace.ports import TargetModule
from contract.fake import FakePort

MODULE = TargetModule(0x1_8000_0000, 0x100000, r"C:\program.exe")


class CountingPort(FakePort):
    """Counts writes, and refuses those that touch `guarded`."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.guarded: int | None = None

    def write(self, address: int, data: bytes) -> None:
        self.writes += 1
        if self.guarded is not None and address <= self.guarded < address + len(data):
            raise AccessRefused(f"{self.guarded:#x} is guarded")
        super().write(address, data)


def scene(count: int, seed: int = 1) -> tuple[CountingPort, bytes, list[Patch]]:
    """A module of random bytes, and patches of its functions, in random order."""
    chance = random.Random(seed)
    contents = chance.randbytes(MODULE.size)
    port = CountingPort()
    port.map(MODULE, contents)
    places = chance.sample(range(0x1000, MODULE.size - 16, 16), count)
    sizes = [chance.choice([1, 2, 5, 8]) for _ in places]
    patches = [(at, contents[at : at + n], bytes([0xE9] * n)) for at, n in zip(places, sizes)]
    return port, contents, patches


def patched(contents: bytes, patches: list[Patch]) -> bytes:
    result = bytearray(contents)
    for rva, _, new in patches:
        result[rva : rva + len(new)] = new
    return bytes(result)


def whole(port: FakePort) -> bytes:
    return port.read(MODULE.base, MODULE.size)


def test_exactly_the_patched_bytes_change_and_come_back() -> None:
    port, contents, patches = scene(3000)
    write_patches(port, MODULE, patches)
    assert whole(port) == patched(contents, patches)
    assert restore(port, MODULE, patches) == 0
    assert whole(port) == contents


def test_many_patches_take_few_writes() -> None:
    port, _, patches = scene(60000)
    write_patches(port, MODULE, patches)
    assert port.writes == 1


def test_what_lies_far_between_two_patches_is_not_written() -> None:
    port, contents, _ = scene(0)
    far = [(at, contents[at : at + 5], b"\xe9" * 5) for at in (0x1000, 0x90000)]
    port.guarded = MODULE.base + 0x50000
    write_patches(port, MODULE, far)
    assert whole(port) == patched(contents, far)


def test_nothing_is_written_if_one_place_holds_other_bytes() -> None:
    port, contents, patches = scene(100)
    rva, original, _ = patches[57]
    port.write(MODULE.base + rva, b"\xcc")
    expected = bytearray(contents)
    expected[rva] = 0xCC
    with pytest.raises(EngineError, match=rf"program\.exe\+{rva:#x} holds cc "):
        write_patches(port, MODULE, patches)
    assert whole(port) == expected
    assert original[0] != 0xCC


def test_everything_is_put_back_if_one_write_fails() -> None:
    port, contents, _ = scene(0)
    far = [(at, contents[at : at + 5], b"\xe9" * 5) for at in (0x1000, 0x40000, 0x90000)]

    def refuse_the_last(address: int, data: bytes) -> None:
        if data[:5] == b"\xe9" * 5 and address == MODULE.base + 0x90000:
            raise AccessRefused("refused")
        FakePort.write(port, address, data)

    port.write = refuse_the_last  # type: ignore[method-assign]
    with pytest.raises(AccessRefused):
        write_patches(port, MODULE, far)
    assert whole(port) == contents


def test_bytes_that_others_changed_since_are_left_to_them() -> None:
    port, contents, patches = scene(100)
    write_patches(port, MODULE, patches)
    rva = patches[3][0]
    port.write(MODULE.base + rva, b"\xcc")
    assert restore(port, MODULE, patches) == 1
    expected = bytearray(contents)
    expected[rva : rva + len(patches[3][2])] = b"\xcc" + patches[3][2][1:]
    assert whole(port) == expected


def test_a_thread_behind_a_patchs_first_byte_moves_into_the_copy() -> None:
    patches = [(0x1000, b"abcde", b"fghij"), (0x1010, b"ab", b"cd"), (0x1020, b"a", b"\xcc")]
    standing = {1: 0x1000, 2: 0x1001, 3: 0x1004, 4: 0x1005, 5: 0x1010, 6: 0x1011, 7: 0x1012, 8: 0xFFF, 9: -5}
    standing.update({10: 0x1020, 11: 0x1021})
    kept, moves = around_threads(patches, standing, lambda rva: 0x90000 + rva)
    assert kept == patches
    assert moves == {2: 0x91001, 3: 0x91004, 6: 0x91011}


def test_a_patch_under_a_thread_that_cannot_move_is_given_up() -> None:
    patches = [(0x1010, b"ab", b"cd"), (0x1000, b"abcde", b"fghij"), (0x1020, b"ab", b"cd")]
    kept, moves = around_threads(patches, {1: 0x1003, 2: 0x1021}, {0x1021: 0x5000}.get)
    assert kept == [(0x1010, b"ab", b"cd"), (0x1020, b"ab", b"cd")]
    assert moves == {2: 0x5000}
