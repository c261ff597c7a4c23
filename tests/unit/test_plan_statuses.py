"""Each reason not to instrument a function, provoked once: the function keeps its bytes, and the address
that the reason is about is told.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Iterable

import pytest

from calltrace import plan
from calltrace.model import Source
from calltrace.plan import Composition, ModulePlan, status_text
from rig import images
from rig.emulator import IMPORTED, Slots
from rig.images import Program


class Status(enum.IntEnum):
    """enum ct_status."""

    OK = 0
    TOO_SHORT = 1
    BRANCH_INTO_ENTRY = 2
    CALL_IN_ENTRY = 3
    UNDECODABLE = 4
    UNWIND_BAD = 5
    UNWIND_UNKNOWN = 6
    PROLOG_TOO_LONG = 7
    HANDLER_UNKNOWN = 8
    HANDLER_BAD = 9
    OVERLAP = 10
    POSITION_DEPENDENT = 11
    OUT_OF_RANGE = 12
    IDS_EXHAUSTED = 13
    THUNK = 14
    FILTERED = 15
    RUNTIME_CODE = 16
    READ_AS_DATA = 17


Change = Callable[[Program, bytearray], None]
FAR = "end\nfunction far\n .space 300, 0x90\n ret\n"
FRAME = """
function f
    push rbx
    %push rbx
    sub rsp, 0x20
    %alloc 0x20
    call far
    add rsp, 0x20
    pop rbx
    ret
"""


def put(at: str, offset: int, *values: int) -> Change:
    """Bytes over those at a label."""

    def change(program: Program, data: bytearray) -> None:
        start = program.symbols[at] + offset
        data[start : start + len(values)] = bytes(values)

    return change


def overlap(program: Program, data: bytearray) -> None:
    """The first RUNTIME_FUNCTION ends inside the second function."""
    at = program.symbols["pdata"] + 4
    data[at : at + 4] = (program.symbols["f"] + 2).to_bytes(4, "little")


def unchanged(_: Program, __: bytearray) -> None:
    pass


# A handler that compares RIP with two labels in its data.
COMPARES = """
function compares
    mov rax, qword ptr [r9 + 0x38]
    mov r10d, dword ptr [rax]
    add r10, qword ptr [r9 + 8]
    cmp qword ptr [r8 + 0xf8], r10
    jb before
    mov r10d, dword ptr [rax + 4]
before:
    mov eax, 1
    ret
"""

CASES: dict[str, tuple[Status, str, str, Change, str]] = {
    # what: status of `f`, code, data, change of the image, label of the address told
    "no room": (
        Status.TOO_SHORT,
        "leaf f\n ret\nleaf g\n xor ebx, ebx\n inc ecx\n ret\n",
        "",
        unchanged,
        "g",
    ),
    "a branch goes there": (
        Status.BRANCH_INTO_ENTRY,
        "function f\n inc eax\ninside:\n inc ecx\n jne inside\n ret\n",
        "",
        unchanged,
        "inside",
    ),
    "a call returns there": (
        Status.CALL_IN_ENTRY,
        "function f\n call rax\nbehind:\n inc ecx\n inc eax\n ret\n",
        "",
        unchanged,
        "behind",
    ),
    "no instruction": (Status.UNDECODABLE, "function f\n .byte 6, 6, 6, 6, 6, 6\n ret\n", "", unchanged, "f"),
    "unwind data outside": (
        Status.UNWIND_BAD,
        FRAME,
        "",
        put("pdata", 8, 0, 0, 0, 0x7F),
        "0x7f000000",
    ),
    "unwind data at an odd address": (Status.UNWIND_BAD, FRAME, "", put("pdata", 8, 1, 0x10, 0, 0), "0x1001"),
    "unwind data of version 3": (Status.UNWIND_BAD, FRAME, "", put("f.unwind", 0, 3), "f.unwind"),
    "a chain to nowhere": (
        Status.UNWIND_BAD,
        FRAME,
        "",
        put("f.unwind", 0, 1 | 4 << 3),
        "f.unwind",
    ),
    "an unknown unwind code": (Status.UNWIND_UNKNOWN, FRAME, "", put("f.unwind", 5, 0x07), "f.unwind"),
    "an unwind code that does not end": (
        Status.UNWIND_UNKNOWN,
        FRAME,
        "",
        put("f.unwind", 7, 0x11),
        "f.unwind",
    ),
    "a long prolog": (
        Status.PROLOG_TOO_LONG,
        "function f\n .space 240, 0x90\n jrcxz a\na:\n jrcxz b\nb:\n push rbx\n %push rbx\n pop rbx\n ret\n",
        "",
        unchanged,
        "f.unwind",
    ),
    "an unknown handler": (
        Status.HANDLER_UNKNOWN,
        FRAME + "%handler far\n%data .long 0x7fffffff\n",
        "",
        unchanged,
        "far",
    ),
    "a handler that is told addresses of its function and does not read them": (
        Status.HANDLER_UNKNOWN,
        FRAME + "%handler far\n%data .long f - image, f.end - image\n",
        "",
        unchanged,
        "far",
    ),
    "a handler that is told addresses of another function": (
        Status.HANDLER_UNKNOWN,
        FRAME + "%handler compares\n%data .long f - image, before - image\n" + COMPARES,
        "",
        unchanged,
        "compares",
    ),
    "a handler that is told an address inside an instruction": (
        Status.HANDLER_UNKNOWN,
        FRAME + "%handler compares\n%data .long f - image, f - image + 3\n" + COMPARES,
        "",
        unchanged,
        "compares",
    ),
    "a handler that has addresses in itself": (
        Status.HANDLER_UNKNOWN,
        FRAME
        + "%handler knows\n%data .long 8\nfunction knows\n mov rbx, qword ptr [r8 + 0xf8]\n"
        + " lea r10, [rip + f]\n cmp rbx, r10\n mov eax, 1\n ret\n",
        "",
        unchanged,
        "knows",
    ),
    "scopes that contradict themselves": (
        Status.HANDLER_BAD,
        "".join(
            FRAME.replace("function f", f"function {name}")
            + f"%handler far\n%data .long {count}, {name} - image, {name}.end - image, 1, {name} - image\n"
            for name, count in [("f0", 1), ("f", 2), *((f"f{number}", 1) for number in range(1, 80))]
        ),
        "",
        unchanged,
        "f.unwind+12",
    ),
    "overlapping functions": (
        Status.OVERLAP,
        "function a\n .space 64, 0x90\n ret\n" + FRAME,
        "",
        overlap,
        "f",
    ),
    "reads its own address": (
        Status.POSITION_DEPENDENT,
        "function f\n nop\nhere:\n call behind\nbehind:\n pop rax\n ret\n",
        "",
        unchanged,
        "here",
    ),
    "a call over data": (
        Status.POSITION_DEPENDENT,
        "function f\n nop\nhere:\n call behind\n .long 0x90909090\nbehind:\n pop r9\n ret\n",
        "",
        unchanged,
        "here",
    ),
    "its bytes are read": (
        Status.READ_AS_DATA,
        "function f\n mov eax, 1\n ret\nend\nfunction reader\n lea rdx, [rip + f]\n xor ecx, ecx\n"
        " movzx eax, byte ptr [rdx + rcx + 4]\n ret\n",
        "",
        unchanged,
        "f",
    ),
    "its bytes are written": (
        Status.READ_AS_DATA,
        "function f\n mov eax, 1\n ret\nend\nfunction writer\n mov dword ptr [rip + f + 1], ecx\n ret\n",
        "",
        unchanged,
        "f",
    ),
    "an address out of reach": (
        Status.OUT_OF_RANGE,
        "function f\n nop\nhere:\n .byte 0x48, 0x8d, 0x05, 0, 0, 0, 0x60 # lea rax, [rip + ...]\n ret\n",
        "",
        unchanged,
        "here",
    ),
    "import thunk": (
        Status.THUNK,
        "leaf f\n jmp qword ptr [rip + import]\n",
        f"import:\n.quad {IMPORTED:#x}\n",
        unchanged,
        "0",
    ),
}


def planned(program: Program, change: Change, exclude: Iterable[str] = (), first: int = 0) -> Composition:
    data = bytearray(program.image.data)
    change(program, data)
    image = dataclasses.replace(program.image, data=bytes(data))
    if "import" in program.symbols:
        image.imports[program.symbols["import"]] = "a.dll!b"
    plan = ModulePlan(image, exclude=list(exclude))
    plan.lay_out(Slots(), "all", "none", first, 0, breakpoints=False)
    return plan.compose(image.base + 0x100000, 0)


def refusals(made: Composition) -> tuple[dict[int, tuple[int, int]], dict[str, str]]:
    """What the trace's MODULE chunk says: RVA -> status and address, and the texts."""
    about = json.loads(made.module_chunk[80 + 16 * (made.function_count + made.site_count) :].rstrip(b"\0"))
    return {rva: (status, at) for rva, status, at in about["refusals"]}, about["statuses"]


@pytest.mark.parametrize("case", CASES)
def test_status_names_the_function_and_the_address(case: str) -> None:
    status, code, data, change, where = CASES[case]
    program = images.build(code + FAR, data, seeds=[("f", Source.EXPORT)])
    made = planned(program, change)
    told, texts = refusals(made)
    start = program.symbols["f"]
    label, _, offset = where.partition("+")
    at = int(label, 0) if label[0].isdigit() else program.symbols[label] + int(offset or "0")
    assert told[start] == (status, at)
    assert texts[str(int(status))] == status_text(status)
    if status != Status.THUNK:
        assert made.refused[status_text(status)] >= 1
    assert not any(rva - 5 < start < rva + 5 for rva, _, _ in made.patches)


def test_functions_beyond_the_last_id_are_refused() -> None:
    program = images.build("function a\n .space 8, 0x90\n ret\nfunction f\n .space 8, 0x90\n ret\n")
    made = planned(program, unchanged, first=(1 << 21) - 1)
    start = program.symbols["f"]
    assert refusals(made)[0] == {start: (Status.IDS_EXHAUSTED, start)}
    assert [rva for rva, _, _ in made.patches] == [program.symbols["a"]]


def test_filtered_functions_are_left_alone_and_are_no_refusals() -> None:
    program = images.build("function a\n .space 8, 0x90\n ret\nfunction f\n .space 8, 0x90\n ret\n")
    made = planned(program, unchanged, exclude=[f"made+{program.symbols['f']:#x}"])
    assert refusals(made)[0] == {program.symbols["f"]: (Status.FILTERED, 0)}
    assert not made.refused
    assert [rva for rva, _, _ in made.patches] == [program.symbols["a"]]


def test_code_of_a_runtime_is_left_alone_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = images.build("function a\n .space 8, 0x90\n ret\nfunction f\n .space 8, 0x90\n ret\n")
    start = program.symbols["f"]
    monkeypatch.setattr(plan, "closed_code", lambda image: ((start, start + 1),))
    made = planned(program, unchanged)
    assert refusals(made)[0] == {start: (Status.RUNTIME_CODE, 0)}
    assert made.refused == {status_text(Status.RUNTIME_CODE): 1}
    assert [rva for rva, _, _ in made.patches] == [program.symbols["a"]]


def test_every_status_is_provoked_and_has_a_text() -> None:
    texts = [status_text(status) for status in Status]
    assert len(set(texts)) == len(Status)
    assert status_text(len(Status)) == "unknown"
    provoked = {case[0] for case in CASES.values()}
    provoked |= {Status.OK, Status.IDS_EXHAUSTED, Status.FILTERED, Status.RUNTIME_CODE}
    assert provoked == set(Status)
