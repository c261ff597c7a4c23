"""What is followed of a function, and which places of it are found. Bytes carry their assembly."""

from __future__ import annotations

from calltrace.flow import CodeFlow, Flow, Place
from calltrace.pe.image import Image
from calltrace.plan import Extent

START = 0x1000


def flow_of(code: str, *extents: tuple[int, int, int]) -> CodeFlow:
    """The code lies at START; extents are (begin, end, function), relative to it."""
    image = Image("program.exe", 0x140000000, bytes(START) + bytes.fromhex(code), 0, 0, [], (0, 0), (0, 0))
    pieces = [Extent(START + begin, START + end, function) for begin, end, function in extents]
    entries: dict[int, int] = {}
    for piece in pieces:
        entries.setdefault(piece.function, piece.begin)
    return CodeFlow(image, pieces, [entries[function] for function in sorted(entries)])


def found(flow: CodeFlow, offset: int) -> dict[int, Flow]:
    """Places found from there, relative to START."""
    return {rva - START: flow.places[rva].flow for rva in flow.follow(START + offset)}


def test_a_function_is_followed_to_its_rets_past_its_conditions() -> None:
    # 00 test ecx,ecx; 02 je 07; 04 nop; 05 rep ret; 07 ret 8
    flow = flow_of("85 c9 74 03 90 f3 c3 c2 08 00", (0, 10, 0))
    assert found(flow, 0) == {5: Flow.RETURN, 7: Flow.RETURN}
    assert found(flow, 0) == {}  # nothing new


def test_nothing_is_followed_behind_a_call_before_it_has_returned() -> None:
    # 00 call 10; 05 (a table)
    flow = flow_of("e8 0b 00 00 00 c3 c3 c3 c3 c3", (0, 10, 0))
    assert found(flow, 0) == {0: Flow.CALL}
    assert flow.places[START] == Place(0, Flow.CALL, 5, START + 0x10)
    assert found(flow, 5) == {5: Flow.RETURN}


def test_nor_through_a_pointer() -> None:
    # 00 jmp rax; 02 ret; 03 notrack jmp [rip]
    flow = flow_of("ff e0 c3 3e ff 25 00 00 00 00", (0, 10, 0))
    assert found(flow, 0) == {0: Flow.POINTER_JUMP}
    assert found(flow, 3) == {3: Flow.POINTER_JUMP}


def test_jumps_inside_are_followed_and_jumps_out_are_places() -> None:
    # 00 jmp 04; 02 (another function); 04 je 02; 06 loop 00; 08 jrcxz 09; 0a ret
    flow = flow_of("eb 02 c3 cc 74 fc e2 f8 e3 ff 90 c3", (0, 2, 0), (2, 3, 1), (4, 12, 0))
    assert found(flow, 0) == {4: Flow.JUMP, 6: Flow.JUMP, 11: Flow.RETURN}


def test_running_on_into_another_function_is_a_place() -> None:
    # 00 nop; 01 nop | 02 ret
    flow = flow_of("90 90 c3", (0, 2, 0), (2, 3, 1))
    assert found(flow, 0) == {1: Flow.JUMP}


def test_pieces_of_a_function_that_lie_side_by_side_are_one() -> None:
    # 00 nop | 01 nop; 02 ret
    flow = flow_of("90 90 c3", (0, 1, 0), (1, 3, 0))
    assert found(flow, 0) == {2: Flow.RETURN}


def test_what_does_not_go_on_ends_what_is_followed() -> None:
    for stop in ("cc", "0f 0b", "f4", "cd 29"):  # int3; ud2; hlt; int 29h
        assert found(flow_of(stop + "c3", (0, 4, 0)), 0) == {}


def test_code_of_nobody_is_not_followed() -> None:
    assert found(flow_of("c3 c3", (0, 1, 0)), 1) == {}
