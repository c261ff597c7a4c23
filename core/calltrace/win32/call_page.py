"""Memory in the target on which a call begins and ends, whatever its thread was doing when it was stopped."""

from __future__ import annotations

from collections.abc import Mapping

from calltrace.ports import Protection
from calltrace.win32 import api
from calltrace.win32.engine import INTEGER_REGISTERS
from calltrace.win32.memory import ProcessMemory

# The host sets rbx = function, and rcx, rdi, r8, r9 = arguments. The code keeps what the host does not: the
# x87, SSE and AVX registers. Its unwind data have a handler, so that an exception let out by the function
# ends the call, short of the handlers of what the thread did before; the host then goes on at `restore`.
#
#   000  sub rsp, 28h
#   004  mov eax, 0e7h
#   009  xor edx, edx
#   00b  xsave64 [1000h]
#   013  mov rdx, rdi
#   016  call rbx
#   018  mov rsi, rax
#   01b  restore: mov eax, 0e7h
#   020  xor edx, edx
#   022  xrstor64 [1000h]
#   02a  int3                     the call has ended; rsi = result
#   02b  lea rcx, [1b00h]         nobody waits for it any more: go on where the thread was stopped
#   032  xor edx, edx
#   034  mov rax, NtContinue      (patched in)
#   03e  call rax
#   040  int3                     the handler: it raised
#   048  UNWIND_INFO: version 1 with handler 40h; prolog of 4 bytes: at 4, 28h bytes allocated
#   058  RUNTIME_FUNCTION: 00 to 40h, UNWIND_INFO at 48h
#  1000  save area: 2,688 bytes with AVX-512
#  1b00  CONTEXT
_CODE = bytes.fromhex(
    "48 83 ec 28  b8 e7 00 00 00  31 d2  48 0f ae 25 ed 0f 00 00  48 89 fa  ff d3  48 89 c6"
    "b8 e7 00 00 00  31 d2  48 0f ae 2d d6 0f 00 00  cc"
    "48 8d 0d ce 1a 00 00  31 d2  48 b8 00 00 00 00 00 00 00 00  ff d0  cc cc cc cc cc cc cc cc"
    "09 04 01 00  04 42 00 00  40 00 00 00  00 00 00 00"
    "00 00 00 00  40 00 00 00  48 00 00 00"
)
_PAGE = 0x1000
_RESTORE, _ENDED, _NT_CONTINUE, _RAISED, _TABLE, _CONTEXT = 0x1B, 0x2A, 0x36, 0x40, 0x58, 0x1B00
_NOP = b"\x90"
_FRAME = 0x28
_TRAP, _DIRECTION, _ALIGNMENT_CHECK = 0x100, 0x400, 0x40000

_USER_CS, _USER_SS = 0x33, 0x2B  # of 64-bit code


class CallPage:
    """The code, and where a call on it stands."""

    def __init__(self, memory: ProcessMemory, nt_continue: int) -> None:
        """Write it into a process; `nt_continue` is the VA of ntdll's NtContinue there."""
        code = bytearray(_CODE)
        code[_NT_CONTINUE : _NT_CONTINUE + 8] = nt_continue.to_bytes(8, "little")
        self._memory = memory
        self.address = memory.allocate(2 * _PAGE)
        memory.write(self.address, bytes(code))
        memory.protect(self.address, _PAGE, Protection.EXECUTE_READ)
        self.table = self.address + _TABLE  # VA of its function table, of one entry

    def begin(
        self, saved: Mapping[str, int], function: int, arguments: tuple[int, int, int, int]
    ) -> dict[str, int]:
        """The registers with which a thread that stands at `saved` calls `function`."""
        rcx, rdx, r8, r9 = arguments
        return {
            "rip": self.address,
            # Clear of anything kept below the stack pointer, and aligned so that the call finds the stack as
            # the calling convention wants it.
            "rsp": ((saved["rsp"] - 0x200) & ~0xF) - 8,
            "efl": saved["efl"] & ~(_TRAP | _DIRECTION | _ALIGNMENT_CHECK),
            **{"rbx": function, "rcx": rcx, "rdi": rdx, "r8": r8, "r9": r9},
        }

    def restore(self, saved: Mapping[str, int]) -> dict[str, int]:
        """The registers with which a thread whose call raised comes to its end."""
        begun = self.begin(saved, 0, (0, 0, 0, 0))
        return {"rip": self.address + _RESTORE, "rsp": begun["rsp"] - _FRAME, "efl": begun["efl"]}

    def has_ended(self, rip: int) -> bool:
        """Whether a thread that stopped at `rip` has come to the end of its call."""
        return rip in (self.address + _ENDED, self.address + _ENDED + 1)

    def has_raised(self, rip: int) -> bool:
        """Whether it stopped at `rip` because the function let an exception out."""
        return rip in (self.address + _RAISED, self.address + _RAISED + 1)

    def abandon(self, saved: Mapping[str, int]) -> None:
        """When the call ends after all, let the thread go on from `saved`. The page stays with it."""
        context = api.new_context()
        context.ContextFlags = api.CONTEXT_CONTROL_INTEGER
        context.SegCs, context.SegSs, context.EFlags = _USER_CS, _USER_SS, saved["efl"]
        for name in INTEGER_REGISTERS:
            setattr(context, name.capitalize(), saved[name])
        self._memory.write(self.address + _CONTEXT, bytes(context))
        self._memory.write(self.address + _ENDED, _NOP)
