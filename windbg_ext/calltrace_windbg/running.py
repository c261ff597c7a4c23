"""How dbgeng lets its target run from event to event within a command.

The engine's own breakpoints would be taken out of the code and put back at every event, all of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from calltrace import running
from calltrace.errors import AccessRefused, EngineError, TargetLost
from calltrace.ports import Capability, Protection
from calltrace.win32 import api
from calltrace.win32.engine import Stop
from calltrace_windbg.dbgeng import Dbgeng
from calltrace_windbg.export_engine import ExportEngine

_INT3 = b"\xcc"
_JUMP = bytes.fromhex("ff 25 00 00 00 00")  # jmp [rip], whose target follows
_JUMP_ROOM, _JUMPS_SIZE = 16, 0x10000  # bytes: of a jump with its target, of memory for them

# In what `bl` prints: the number and the VA of a breakpoint that is enabled and known to lie somewhere.
_ENABLED = re.compile(r"^ *(\d+) +e .*?([0-9a-f]{8})`([0-9a-f]{8})", re.MULTILINE)
_LAST_EVENT = re.compile(r"^Last event: \S+ (.*)")  # in what `.lastevent` prints


class RunningPort(running.RunningPort):
    """The process that a session stands at, and what debugs it for the length of a command."""

    def __init__(self, engine: Dbgeng, handle: int, process_id: int) -> None:
        """Use `engine`, which is ready, and `handle` with PROCESS_RIGHTS, which `close` closes."""
        super().__init__(engine, handle, process_id)
        self._dbgeng = engine
        self._exports: ExportEngine | None = None  # the runner
        self._jumps: dict[int, int] = {}  # VAs of int3s: a jump to each
        self._jump_block = 0  # VA where the newest of them lie

    def supports(self, capability: Capability) -> bool:
        """Whether it can debug; no command runs beside a running target."""
        return capability is Capability.DEBUG and self._dbgeng.runner() is not None

    def _begin_runs(self) -> ExportEngine:
        self._exports = self._dbgeng.runner()
        if self._exports is None:
            raise EngineError("breakpoints and steps are the debugger's own here: use bp, g and t")
        self._dbgeng.end()
        self._engine = self._exports
        return self._exports

    def _end_runs(self) -> None:
        assert self._exports
        self._exports.end_runs()
        self._exports, self._engine = None, self._dbgeng
        self._dbgeng.begin()

    def _first_stop(self, stop: Stop) -> None:
        context = self._standing(stop.thread)
        if stop.code == api.EXCEPTION_BREAKPOINT and self._read_plain(context.Rip, 1) == _INT3:
            context.Rip += 1  # where the session was stopped by an int3 the engine shows it before that
            self._changed.add(stop.thread)

    def _users_breakpoints(self) -> dict[int, str]:
        listed = self._execute("bl")
        return {int(high + low, 16): number for number, high, low in _ENABLED.findall(listed)}

    def _disable_users(self, name: str) -> None:
        self._execute(f"bd {name}")

    def _enable_users(self, names: Sequence[str]) -> None:
        self._execute(f"be {' '.join(names)}")

    def _why_stopped(self) -> str:
        told = _LAST_EVENT.match(self._execute(".lastevent"))
        return told[1] if told else "the session was stopped"

    def _execute(self, command: str) -> str:
        assert self._exports
        return self._exports.execute(command)

    def _before_run(self, thread: int) -> int:
        """If the thread of the last event stands at an int3, let it come there by a jump; its VA, else 0.

        The engine would go on behind it, even with a thread that is held.
        """
        with contextlib.suppress(AccessRefused, TargetLost):
            context = self._standing(thread)
            int3 = int(context.Rip)
            if thread in self._break_ins or not self._handled or self._read_plain(int3, 1) != _INT3:
                return 0
            if int3 not in self._jumps:
                self._jumps[int3] = self._make_jump(int3)
            context.Rip = self._jumps[int3]
            context.EFlags &= ~api.TRAP_FLAG  # the int3 raises an exception itself
            self._changed.add(thread)
            return int3
        return 0

    def _after_run(self, thread: int, known: int) -> None:
        if known and self._standing(thread).Rip == self._jumps[known]:
            self._standing(thread).Rip = known
            self._changed.add(thread)

    def _make_jump(self, target: int) -> int:
        """The VA of a jump to `target`; it stays, since a thread may be stopped on it."""
        used = len(self._jumps) * _JUMP_ROOM % _JUMPS_SIZE
        if used == 0:
            self._jump_block = self.allocate(_JUMPS_SIZE)
            self.protect(self._jump_block, _JUMPS_SIZE, Protection.EXECUTE_READ)
        jump = self._jump_block + used
        self.write(jump, _JUMP + target.to_bytes(8, "little"))
        return jump
