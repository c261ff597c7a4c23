"""What leads to copies is taken back, and copies go when nothing refers to them: on a fake target."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from calltrace import copies
from calltrace.patches import write_patches
from calltrace.ports import Protection, Registers, TargetModule
from calltrace.recorder import DLL, Code, CodeState
from contract.fake import FakePort

MODULE = TargetModule(0x1_4000_0000, 0x10000, r"C:\program.exe")
RECORDER = TargetModule(0x1_8000_0000, 0x10000, rf"C:\{DLL}")
CODE_SIZE, REGION_SIZE = 0x2000, 0x4000
STACK_SIZE, THREAD = 0x8000, 8
CURSOR = 0x1490  # gs offset
NOWHERE = 0x5550040

# In each region: behind a call rel32, behind a call [rax+8], behind the call of the slow path, elsewhere
BEHIND_CALL, BEHIND_INDIRECT, BEHIND_SLOW_PATH, PLAIN = 0x1005, 0x1103, 0x1205, 0x1300
CODE = bytearray(b"\x90" * CODE_SIZE)
CODE[0x1000:0x1005] = b"\xe8" + struct.pack("<i", 0x1F00 - 0x1005)  # call +1f00
CODE[0x1100:0x1103] = bytes.fromhex("ff 50 08")  # call [rax+8]
CODE[0x1200:0x1205] = b"\xe8" + struct.pack("<i", 0x400 - 0x1205)  # call +400


class Recorder:
    """The recorder's list, without a recorder."""

    nowhere = NOWHERE

    def __init__(self) -> None:
        self.listed: list[Code] = []

    def codes(self) -> list[Code]:
        return list(self.listed)

    def remove_code(self, code: Code) -> None:
        self.listed = [other for other in self.listed if other.region != code.region]


class Scene:
    """A stopped target with one thread, and copies of some recordings."""

    def __init__(self, count: int = 1, state: CodeState = CodeState.LEFT) -> None:
        self.port = FakePort()
        self.port.map(MODULE, b"MZ".ljust(0x1000, b"\xcc"))
        self.port.map(RECORDER, b"MZ")
        self.recorder = Recorder()
        self.regions = []
        for _ in range(count):
            region = self.port.allocate(REGION_SIZE, MODULE)
            self.port.write(region, bytes(CODE))
            self.port.protect(region, CODE_SIZE, Protection.EXECUTE_READ)
            self.regions.append(region)
            self.recorder.listed.append(
                Code(
                    base=MODULE.base,
                    region=region,
                    region_size=REGION_SIZE,
                    code_size=CODE_SIZE,
                    state=state,
                    cursor=CURSOR,
                )
            )
        self.stack = self.port.allocate(STACK_SIZE)
        self.rsp = self.stack + 0x4000
        self.port.add_thread(THREAD, Registers(MODULE.base + 0x500, self.rsp), self.stack, STACK_SIZE)

    def put(self, address: int, *words: int) -> None:
        self.port.write(address, struct.pack(f"<{len(words)}Q", *words))

    def stay(self) -> list[int]:
        """The regions that are kept."""
        copies.free_unused(self.port, self.recorder)  # type: ignore[arg-type]
        kept = [code.region for code in self.recorder.listed]
        for region in self.regions:
            assert (region in kept) == any(place.base == region for place in self.port._ranges)
        return kept


@pytest.mark.parametrize("state", [CodeState.LEFT, CodeState.UNLOADED])
def test_copies_that_nothing_refers_to_are_freed(state: CodeState) -> None:
    assert Scene(3, state).stay() == []


def test_copies_that_are_being_recorded_stay() -> None:
    scene = Scene(2, CodeState.ACTIVE)
    assert scene.stay() == scene.regions


# With a stack pointer there it would stand on no stack of its own: see below.
@pytest.mark.parametrize("name", [name for name in dataclasses.asdict(Registers(0, 0)) if name != "rsp"])
def test_a_register_keeps_what_it_points_to(name: str) -> None:
    scene = Scene(3)
    registers = scene.port.registers(THREAD)
    scene.port.set_registers(THREAD, dataclasses.replace(registers, **{name: scene.regions[1] + PLAIN}))
    assert scene.stay() == [scene.regions[1]]


@pytest.mark.parametrize("place", [0, 8, STACK_SIZE - 0x4000 - 8])
@pytest.mark.parametrize("target", [0, PLAIN, BEHIND_CALL, CODE_SIZE - 1])
def test_a_word_on_the_stack_keeps_what_it_points_to(place: int, target: int) -> None:
    scene = Scene(3)
    scene.put(scene.rsp + place, scene.regions[2] + target)
    assert scene.stay() == [scene.regions[2]]


def test_data_of_copies_and_the_dead_part_of_a_stack_keep_nothing() -> None:
    scene = Scene()
    scene.put(scene.rsp, scene.regions[0] + CODE_SIZE, scene.regions[0] - 1)
    scene.put(scene.rsp - 8, scene.regions[0] + BEHIND_CALL)
    assert scene.stay() == []


@pytest.mark.parametrize(
    ("inner", "kept"), [(0, False), (MODULE.base + 0x100, False), (RECORDER.base + 0x100, True)]
)
def test_a_slow_path_that_has_returned_keeps_nothing(inner: int, kept: bool) -> None:
    scene = Scene()
    scene.put(scene.rsp + 0x100, inner, scene.regions[0] + BEHIND_SLOW_PATH)
    assert scene.stay() == (scene.regions if kept else [])


def test_a_slow_path_that_is_just_being_entered_keeps_its_copies() -> None:
    scene = Scene()
    scene.put(scene.rsp, scene.regions[0] + BEHIND_SLOW_PATH)
    assert scene.stay() == scene.regions


@pytest.mark.parametrize(
    ("target", "kept"), [(BEHIND_CALL, True), (BEHIND_INDIRECT, True), (PLAIN, False), (0, False)]
)
def test_a_return_address_elsewhere_in_memory_keeps_its_copies(target: int, kept: bool) -> None:
    scene = Scene(2)
    fiber = scene.port.allocate(0x300000)  # more than is looked at in one go
    scene.put(fiber + 0x2FFFF8, scene.regions[0] + target)
    assert scene.stay() == (scene.regions[:1] if kept else [])


def test_a_thread_that_has_left_its_stack_keeps_what_lies_on_it() -> None:
    scene = Scene()
    elsewhere = scene.port.allocate(0x1000)
    scene.port.set_registers(THREAD, Registers(MODULE.base, elsewhere + 0x800))
    scene.put(scene.stack + 0x10, scene.regions[0] + BEHIND_CALL)
    assert scene.stay() == scene.regions


def test_everything_stays_if_a_thread_cannot_be_looked_at() -> None:
    scene = Scene(2)
    scene.port.tebs[THREAD] = 0x10
    assert scene.stay() == scene.regions


def withdraw(scene: Scene, patches: list[tuple[int, bytes, bytes]]) -> list[str]:
    """Write patches and the list of them, then take them back; what the user is told."""
    write_patches(scene.port, MODULE, patches)
    [code] = scene.recorder.listed
    code.patches, code.patch_count = code.region + CODE_SIZE - MODULE.base, len(patches)
    scene.port.write(code.region + CODE_SIZE, copies.pack_patches(patches))
    told: list[str] = []
    copies.withdraw(scene.port, scene.recorder, [code], told.append)  # type: ignore[arg-type]
    return told


def test_original_bytes_come_back_and_foreign_ones_stay() -> None:
    scene = Scene(state=CodeState.ACTIVE)
    before = scene.port.read(MODULE.base, MODULE.size)
    patches = [(0x100 * n, before[0x100 * n : 0x100 * n + 5], bytes([0xE9, n, 0, 0, 0])) for n in range(1, 9)]
    assert withdraw(scene, patches) == []
    assert scene.port.read(MODULE.base, MODULE.size) == before
    write_patches(scene.port, MODULE, patches)
    scene.port.write(MODULE.base + 0x300, b"other")
    scene.port.write(MODULE.base + 0x400, before[0x400:0x405])  # put back already
    [code] = scene.recorder.listed
    told: list[str] = []
    copies.withdraw(scene.port, scene.recorder, [code], told.append)  # type: ignore[arg-type]
    assert told == ["program.exe: 1 places, changed by others, stay so"]
    assert scene.port.read(MODULE.base, MODULE.size) == before[:0x300] + b"other" + before[0x305:]


@pytest.mark.parametrize(("standing", "goes_to"), [(0x200, None), (0x240, PLAIN), (0x300, None)])
def test_only_a_thread_in_padding_goes_on_to_the_copy(standing: int, goes_to: int | None) -> None:
    # At a short jump, at the one in padding that it leads to, at a jump at the start of another function.
    scene = Scene(state=CodeState.ACTIVE)
    jumps = [
        b"\xe9" + struct.pack("<i", scene.regions[0] + PLAIN - (MODULE.base + at + 5))
        for at in (0x240, 0x300)
    ]
    pad, other = ((at, b"\xcc" * 5, jump) for at, jump in zip((0x240, 0x300), jumps))
    short = (0x200, b"\xcc" * 2, b"\xeb\x3e")
    scene.port.set_registers(THREAD, Registers(MODULE.base + standing, scene.rsp, rcx=7))
    withdraw(scene, [pad, short, other])
    rip = MODULE.base + standing if goes_to is None else scene.regions[0] + goes_to
    assert scene.port.registers(THREAD) == Registers(rip, scene.rsp, rcx=7)


@pytest.mark.parametrize(
    ("offset", "rip", "moved"), [(0, PLAIN, True), (8, PLAIN, True), (9, PLAIN, False), (0, -1, False)]
)
def test_a_thread_in_the_middle_of_an_event_writes_it_nowhere(offset: int, rip: int, moved: bool) -> None:
    scene = Scene(state=CodeState.ACTIVE)
    unit = 0x7770140
    scene.put(scene.port.teb(THREAD) + CURSOR, unit)
    before = Registers(scene.regions[0] + rip, scene.rsp, rcx=unit + offset)
    scene.port.set_registers(THREAD, before)
    withdraw(scene, [])
    after = dataclasses.replace(before, rcx=NOWHERE) if moved else before
    assert scene.port.registers(THREAD) == after
