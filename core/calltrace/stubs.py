"""The machine code of an event, as readable assembly, assembled once per session.

Inline event code keeps its state in four TLS slots of the thread (native/include/recorder.h): CURSOR is where
the next unit goes, its low 16 bits are zero exactly when there is no room; the scratch slots hold saved
registers. It must change no register and no flag, and does not touch the stack: so it saves to the TEB, moves
pointers with lea and tests with jrcxz.
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint8, c_uint32, c_uint64
from typing import Protocol

import keystone

from calltrace.errors import EngineError

_STUB_MAX = 224
_NONE = 0xFFFFFFFF

# Values that the assembler sees in place of what native code fills in for each event; each occurs once.
_CODE = 0x5AC0DE5A
_SLOW = 0x5A510A5A
_LENGTH = 0x5A1E425A
_START, _MAP, _REGION = 0x5A57A25A, 0x5A3A9A5A, 0x5A2E615A


class Slots(Protocol):
    """Where the recorder in the target keeps its state: `StartRequest` after ct_start."""

    @property
    def cursor(self) -> int: ...
    @property
    def scratch(self) -> ctypes.Array[c_uint32]: ...
    @property
    def coarse_clock(self) -> int: ...
    @property
    def slow_path(self) -> int: ...


class Stub(ctypes.LittleEndianStructure):
    """struct ct_stub."""

    _fields_ = [
        ("bytes", c_uint8 * _STUB_MAX),
        ("size", c_uint32),
        ("entry", c_uint32),
        ("code_at", c_uint32),
        ("slow_at", c_uint32),
    ]


class JumpStub(ctypes.LittleEndianStructure):
    """struct ct_jump_stub."""

    _fields_ = [
        ("bytes", c_uint8 * _STUB_MAX),
        ("size", c_uint32),
        ("split", c_uint32),
        ("start_at", c_uint32),
        ("length_at", c_uint32),
        ("map_at", c_uint32),
        ("region_at", c_uint32),
    ]


class Codegen(ctypes.LittleEndianStructure):
    """struct ct_codegen."""

    _fields_ = [
        ("event", Stub),
        ("event_inline", Stub),
        ("frame_rsp", Stub),
        ("frame_rdx", Stub),
        ("jump", JumpStub),
        ("slow_path", c_uint64),
        ("detail", c_uint32),
        ("first_function", c_uint32),
        ("first_site", c_uint32),
        ("whole", c_uint32),
        ("breakpoints", c_uint32),
        ("hits", c_uint32),
    ]


# "riz*1" (no index) makes the assembler encode an absolute address instead of a RIP-relative one.
# {unit} stores one unit at [rcx] and may use rax and rdx if {save} and {restore} keep them.
_EVENT = """
    mov qword ptr gs:[riz*1 + {s0}], rcx
again:
    movzx ecx, word ptr gs:[riz*1 + {cursor}]
    jrcxz slow
    mov rcx, qword ptr gs:[riz*1 + {cursor}]
    {save}
    {unit}
    lea rcx, [rcx + {size}]
    mov qword ptr gs:[riz*1 + {cursor}], rcx
    {restore}
    mov rcx, qword ptr gs:[riz*1 + {s0}]
"""
_SLOW_CALL = ".byte 0xe8, 0x5a, 0x0a, 0x51, 0x5a"  # call rel32

# Entered by a jump: the rare part stands in front, and nothing has to jump over it.
_JUMPED = "slow:\n" + _SLOW_CALL + "\njmp again\nentry:\n" + _EVENT
_INLINE = _EVENT + "jmp done\nslow:\n" + _SLOW_CALL + "\njmp again\ndone:\n"

# clock -> (save, unit, restore) of an ordinary event
_UNITS = {
    "none": ("", f"mov dword ptr [rcx], {_CODE}", ""),
    # 24 bits of code, then the low 40 bits of the counter: eax goes to bytes 3..6 and dl to byte 7
    "tsc": (
        "mov qword ptr gs:[riz*1 + {s1}], rax\nmov qword ptr gs:[riz*1 + {s2}], rdx\nrdtsc",
        f"mov dword ptr [rcx], {_CODE}\nmov dword ptr [rcx + 3], eax\nmov byte ptr [rcx + 7], dl",
        "mov rax, qword ptr gs:[riz*1 + {s1}]\nmov rdx, qword ptr gs:[riz*1 + {s2}]",
    ),
    # the clock word holds the counter shifted left by 24: the code fits below it
    "coarse": (
        "mov qword ptr gs:[riz*1 + {s1}], rax\nmovabs rax, {clock}\nmov rax, qword ptr [rax]",
        f"lea rax, [rax + {_CODE}]\nmov qword ptr [rcx], rax",
        "mov rax, qword ptr gs:[riz*1 + {s1}]",
    ),
}

# An indirect jump: between head and tail stands mov rcx, target. The flags are kept in S2 as lahf and seto
# leave them in ax.
_JUMP_HEAD = "mov qword ptr gs:[riz*1 + {s0}], rcx"
_JUMP_TAIL = f"""
    mov qword ptr gs:[riz*1 + {{s1}}], rax
    lahf
    seto al
    mov qword ptr gs:[riz*1 + {{s2}}], rax
    .byte 0x48, 0x8d, 0x05, 0x5a, 0xa2, 0x57, 0x5a
    sub rcx, rax
    cmp rcx, {_LENGTH}
    jae outside
    .byte 0x48, 0x8d, 0x05, 0x5a, 0x9a, 0x3a, 0x5a
    mov ecx, dword ptr [rax + rcx*4]
    test ecx, ecx
    je outside
    .byte 0x48, 0x8d, 0x05, 0x5a, 0x61, 0x2e, 0x5a
    add rcx, rax
    mov rax, qword ptr gs:[riz*1 + {{s2}}]
    mov qword ptr gs:[riz*1 + {{s2}}], rcx
    add al, 0x7f
    sahf
    mov rax, qword ptr gs:[riz*1 + {{s1}}]
    mov rcx, qword ptr gs:[riz*1 + {{s0}}]
    jmp qword ptr gs:[riz*1 + {{s2}}]
outside:
    mov rax, qword ptr gs:[riz*1 + {{s2}}]
    add al, 0x7f
    sahf
    mov rax, qword ptr gs:[riz*1 + {{s1}}]
    mov rcx, qword ptr gs:[riz*1 + {{s0}}]
"""


def assemble(slots: Slots, clock: str, mode: str = "trace") -> Codegen:
    """All stubs for one recording. `detail`, `breakpoints` and the first ids are left for the planner to set.

    In mode "hits" only indirect jumps need one: a copy tells of its entry through a struct ct_hook.
    Raises EngineError if the assembler does not produce what native code expects.
    """
    words = {
        "s0": hex(slots.scratch[0]),
        "s1": hex(slots.scratch[1]),
        "s2": hex(slots.scratch[2]),
        "cursor": hex(slots.cursor),
        "clock": hex(slots.coarse_clock),
        "size": 4 if clock == "none" else 8,
    }
    jump = _jump_stub(_JUMP_HEAD.format(**words), _JUMP_TAIL.format(**words))
    if mode == "hits":
        nothing = [Stub(code_at=_NONE, slow_at=_NONE) for _ in range(4)]
        return Codegen(*nothing, jump=jump, slow_path=slots.slow_path, hits=1)
    save, unit, restore = (part.format(**words) for part in _UNITS[clock])
    event = {**words, "save": save, "unit": unit, "restore": restore}

    def frame(register: str) -> dict[str, object]:
        narrow = {"rsp": "esp", "rdx": "edx"}[register]
        store = f"dword ptr [rcx], {narrow}" if clock == "none" else f"qword ptr [rcx], {register}"
        return {**words, "save": "", "unit": f"mov {store}", "restore": ""}

    return Codegen(
        event=_stub(_JUMPED.format(**event)),
        event_inline=_stub(_INLINE.format(**event)),
        frame_rsp=_stub(_INLINE.format(**frame("rsp"))),
        frame_rdx=_stub(_INLINE.format(**frame("rdx"))),
        jump=jump,
        slow_path=slots.slow_path,
        whole=clock == "none",
    )


def _machine_code(source: str) -> bytes:
    try:
        engine = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
        code, _ = engine.asm(source, as_bytes=True)
    except keystone.KsError as error:
        raise EngineError(f"the event stubs cannot be assembled: {error}") from error
    if not code or len(code) > _STUB_MAX:
        raise EngineError(f"an event stub has {len(code or b'')} bytes instead of 1 to {_STUB_MAX}")
    return bytes(code)


def _place(code: bytes, value: int) -> int:
    """The offset of a placeholder, _NONE if the stub has none of this kind."""
    wanted = value.to_bytes(4, "little")
    at = code.find(wanted)
    if at >= 0 and code.find(wanted, at + 1) >= 0:
        raise EngineError(f"the placeholder {value:#x} occurs twice in an event stub")
    return at if at >= 0 else _NONE


def _stub(source: str) -> Stub:
    code = _machine_code(source)
    # in front of `entry` stand a call (5 bytes) and a short jump (2)
    entry = 7 if code[:1] == b"\xe8" else 0
    stub = Stub(size=len(code), entry=entry, code_at=_place(code, _CODE), slow_at=_place(code, _SLOW))
    stub.bytes[: len(code)] = code
    return stub


def _jump_stub(head: str, tail: str) -> JumpStub:
    first, rest = _machine_code(head), _machine_code(tail)
    code = first + rest
    stub = JumpStub(
        size=len(code),
        split=len(first),
        start_at=_place(code, _START),
        length_at=_place(code, _LENGTH),
        map_at=_place(code, _MAP),
        region_at=_place(code, _REGION),
    )
    stub.bytes[: len(code)] = code
    return stub
