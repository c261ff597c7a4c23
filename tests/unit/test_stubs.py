"""The assembled event code has the places that native code fills in.

That it changes no register and no flag is shown by test_relocation.py, which runs it.
"""

from __future__ import annotations

import pytest

from calltrace import stubs
from calltrace.errors import EngineError
from rig.emulator import Slots


@pytest.mark.parametrize("clock", ["none", "tsc", "coarse"])
def test_each_stub_has_one_place_for_each_thing_that_is_filled_in(clock: str) -> None:
    made = stubs.assemble(Slots(), clock)
    for name in ("event", "event_inline", "frame_rsp", "frame_rdx"):
        stub = getattr(made, name)
        code = bytes(stub.bytes)[: stub.size]
        assert code[stub.slow_at - 1] == 0xE8, "the slow path is called"
        assert stub.slow_at + 4 <= stub.size
        assert (stub.code_at == stubs._NONE) == name.startswith("frame")
        assert (stub.entry == 0) == (name != "event")
    jump = made.jump
    code = bytes(jump.bytes)[: jump.size]
    for place in (jump.start_at, jump.map_at, jump.region_at):
        assert code[place - 3 : place] == b"\x48\x8d\x05", "lea rax, [rip + disp32]"
        assert place >= jump.split
    assert code[jump.length_at - 3 : jump.length_at] == b"\x48\x81\xf9", "cmp rcx, imm32"


def test_of_first_entries_no_event_code_is_left() -> None:
    made = stubs.assemble(Slots(), "tsc", "hits")
    for name in ("event", "event_inline", "frame_rsp", "frame_rdx"):
        stub = getattr(made, name)
        assert (stub.size, stub.entry, stub.code_at, stub.slow_at) == (0, 0, stubs._NONE, stubs._NONE)
    assert (made.hits, made.jump.size > 0, made.slow_path) == (1, True, Slots().slow_path)


def test_slot_that_looks_like_a_placeholder_is_refused() -> None:
    slots = Slots(cursor=stubs._SLOW)
    with pytest.raises(EngineError, match="occurs twice"):
        stubs.assemble(slots, "none")
