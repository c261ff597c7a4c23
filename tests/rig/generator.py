"""Random small programs that end: arithmetic, flags, loops, calls, jump tables and tail jumps.

Functions call and jump only to those behind them and loops count down, so every run is short. No register is
kept for anybody: values flow through calls in all of them, and in the flags.
"""

from __future__ import annotations

import random

from rig.images import BASE

_WIDE = "rax rcx rdx rbx rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
_HALF = "eax ecx edx ebx ebp esi edi r8d r9d r10d r11d r12d r13d r14d r15d".split()
_WORD = "ax cx dx bx bp si di r8w r9w r10w r11w r12w r13w r14w r15w".split()
_BYTE = "al cl dl bl bpl sil dil r8b r9b r10b r11b r12b r13b r14b r15b".split()
_SIZES = [(_WIDE, "qword", 31), (_HALF, "dword", 31), (_WORD, "word", 15), (_BYTE, "byte", 7)]
_CONDITIONS = "o no b ae e ne be a s ns p np l ge le g".split()
_TWO = "add sub xor and or adc sbb cmp test mov".split()
_ONE = "inc dec not neg".split()
_SHIFTS = "shl shr sar rol ror rcl rcr".split()
_VECTOR = "paddd pxor psubb pshufb pmaxub pcmpeqw addps_".replace("addps_", "por").split()
_SHORT = [
    "ret",
    "nop\nret",
    "inc eax\nret",
    "stc\nret",
    "rep ret",
    "xor eax, eax\nret",
    "rol ecx, 3\nnop\nret",
]


class Generator:
    """One program; `code` and `data` are what images.build takes, `f` is its entry."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.label = 0
        self.tables: list[str] = []
        count = self.chance.randint(3, 9)
        self.names = ["f", *(f"g{number}" for number in range(1, count))]
        self.shorts = {f"s{number}" for number in range(self.chance.randint(0, 4))}
        bodies = [self._function(number) for number in range(count)]
        self.chance.shuffle(bodies)
        bodies += [self._short(name) for name in sorted(self.shorts)]
        # everything is called by somebody, so that functions without a RUNTIME_FUNCTION are found
        callers = "".join(f" call {name}\n" for name in (*self.names, *sorted(self.shorts)))
        self.code = "".join(bodies) + f"function callers\n{callers} ret\n"
        self.data = "".join(self.tables)

    def _pick(self, *choices: str) -> str:
        return self.chance.choice(choices)

    def _new_label(self) -> str:
        self.label += 1
        return f"l{self.label}"

    def _function(self, number: int) -> str:
        chance, name = self.chance, self.names[number]
        callees = [*self.names[number + 1 :], *sorted(self.shorts)]
        pushes = chance.sample(_WIDE, chance.randint(0, 3)) if chance.random() < 0.7 else []
        locals_ = chance.choice([0, 40, 0x88]) if pushes else chance.choice([0, 40])
        framed = bool(pushes or locals_)
        lines = [f"function {name}" if framed or chance.random() < 0.5 else f"leaf {name}"]
        for register in pushes:
            lines += [f"push {register}", f"%push {register}"]
        if locals_:
            lines += [f"lea rsp, [rsp - {locals_}]", f"%alloc {locals_}"]
        lines += self._block(callees, locals_, depth=0)
        if locals_:
            lines.append(f"lea rsp, [rsp + {locals_}]")
        lines += [f"pop {register}" for register in reversed(pushes)]
        lines += self._end(callees)
        return "\n".join([*lines, "end", self._padding()]) + "\n"

    def _end(self, callees: list[str]) -> list[str]:
        lines = []
        if callees and self.chance.random() < 0.3:
            lines.append(f"j{self.chance.choice(_CONDITIONS)} {self.chance.choice(callees)}")
        if callees and self.chance.random() < 0.3:
            callee = self.chance.choice(callees)
            lines += self.chance.choice(
                [
                    [f"jmp {callee}"],
                    [f"lea rax, [rip + {callee}]", self._pick("jmp rax", "rex64 jmp rax")],
                    [f"jmp qword ptr [rip + {self._pointer(callee)}]"],
                ]
            )
        else:
            lines.append(self._pick("ret", "ret", "rep ret"))
        return lines

    def _short(self, name: str) -> str:
        return f"leaf {name}\n{self.chance.choice(_SHORT)}\nend\n{self._padding()}\n"

    def _padding(self) -> str:
        size = self.chance.choice([0, 0, 1, 3, 8, 15])
        return f".space {size}, {self._pick('0xcc', '0x90')}" if size else ""

    def _pointer(self, target: str) -> str:
        label = self._new_label()
        self.tables.append(f"{label}:\n.quad {target} - image + {BASE:#x}\n")
        return label

    def _block(self, callees: list[str], locals_: int, depth: int) -> list[str]:
        lines: list[str] = []
        for _ in range(self.chance.randint(1, 5)):
            choice = self.chance.random()
            if choice < 0.5 or depth > 2:
                lines += [self._instruction() for _ in range(self.chance.randint(1, 4))]
            elif choice < 0.68:
                lines += self._branch(callees, locals_, depth)
            elif choice < 0.76:
                lines += self._loop(callees, locals_, depth)
            elif choice < 0.84:
                lines += self._switch(callees, locals_, depth)
            elif callees and depth < 2:
                lines += self._call(callees)
        return lines

    def _branch(self, callees: list[str], locals_: int, depth: int) -> list[str]:
        over = self._new_label()
        gap = [f".space {self.chance.choice([1, 130])}, 0x90"] if self.chance.random() < 0.2 else []
        if self.chance.random() < 0.15:
            return [f"jrcxz {over}", *[self._instruction() for _ in range(3)], f"{over}:"]
        body = self._block(callees, locals_, depth + 1)
        return [f"j{self.chance.choice(_CONDITIONS)} {over}", *gap, *body, f"{over}:"]

    def _loop(self, callees: list[str], locals_: int, depth: int) -> list[str]:
        again = self._new_label()
        turns = self.chance.randint(1, 3)
        if locals_:  # the counter is in the frame, where nobody else writes
            at = 8 * depth
            body = self._block(callees if depth == 0 and turns < 3 else [], locals_, depth + 1)
            return [
                f"mov dword ptr [rsp + {at}], {turns}",
                f"{again}:",
                *body,
                f"dec dword ptr [rsp + {at}]",
                f"jne {again}",
            ]
        body = [self._instruction(without="rcx") for _ in range(3)]
        branch = self._pick("loop", "loope", "loopne")
        return [f"mov ecx, {turns}", f"{again}:", *body, f"{branch} {again}"]

    def _switch(self, callees: list[str], locals_: int, depth: int) -> list[str]:
        table, out, after = self._new_label(), self._new_label(), self._new_label()
        cases = [self._new_label() for _ in range(4)]
        # the planner does not look for a table of distances or addresses behind or in the cases of another
        kind = self._pick("rva", "distance", "address")
        index, base, target = self.chance.sample(range(8), 3)
        if kind == "rva":
            entries = ", ".join(f"{case} - image" for case in cases)
            jump = [
                f"and {_HALF[1]}, 3",
                f".byte 0x48, 0x8d, 0x15\n.long image - {after}\n{after}:",
                f".byte 0x8b, 0x84, 0x8a\n.long {table} - image",  # mov eax, [rdx + rcx*4 + table's RVA]
                "add rax, rdx",
                "jmp rax",
            ]
            self.tables.append(f"{table}:\n.long {entries}\n")
        elif kind == "distance":
            entries = ", ".join(f"{case} - {table}" for case in cases)
            jump = [
                f"and {_HALF[index]}, 3",
                f"lea {_WIDE[base]}, [rip + {table}]",
                f"movsxd {_WIDE[target]}, dword ptr [{_WIDE[base]} + {_WIDE[index]}*4]",
                f"add {_WIDE[target]}, {_WIDE[base]}",
                f"jmp {_WIDE[target]}",
            ]
            self.tables.append(f"{table}:\n.long {entries}\n")
        else:
            entries = ", ".join(f"{case} - image + {BASE:#x}" for case in cases)
            jump = [
                f"and {_HALF[index]}, 3",
                f"lea {_WIDE[base]}, [rip + {table}]",
                f"jmp qword ptr [{_WIDE[base]} + {_WIDE[index]}*8]",
            ]
            self.tables.append(f"{table}:\n.quad {entries}\n")
        for case in cases:
            jump += [f"{case}:", *self._block([], locals_, depth + 1)]
            jump += [f"jmp {out}"] if self.chance.random() < 0.7 else []
        return [*jump, f"{out}:"]

    def _call(self, callees: list[str]) -> list[str]:
        callee = self.chance.choice(callees)
        register = self.chance.choice(_WIDE)
        return self.chance.choice(
            [
                [f"call {callee}"],
                [f"call {callee}"],
                [f"lea {register}, [rip + {callee}]", f"call {register}"],
                [f"call qword ptr [rip + {self._pointer(callee)}]"],
            ]
        )

    def _instruction(self, without: str = "") -> str:
        chance = self.chance
        names, size, bits = chance.choice(_SIZES)
        usable = [number for number, name in enumerate(_WIDE) if name != without]
        first, second = names[chance.choice(usable)], names[chance.choice(usable)]
        scratch = f"[rip + scratch + {chance.randrange(0, 2000)}]"
        memory = f"{size} ptr {scratch}"
        immediate = chance.choice([1, -1, 5, chance.randint(-(1 << bits), (1 << bits) - 1)])
        vector, other = f"xmm{chance.randrange(16)}", f"xmm{chance.randrange(16)}"
        condition = chance.choice(_CONDITIONS)
        wide = [number for number in usable if names is not _BYTE]
        return chance.choice(
            [
                f"{chance.choice(_TWO)} {first}, {second}",
                f"{chance.choice(_TWO)} {first}, {immediate}",
                f"{chance.choice(_TWO[:-2])} {first}, {memory}",
                f"{chance.choice(_TWO)} {memory}, {second}",
                f"{chance.choice(_TWO)} {memory}, {immediate}",
                f"{chance.choice(_ONE)} {chance.choice([first, memory])}",
                f"{chance.choice(_SHIFTS)} {chance.choice([first, memory])}, {chance.randint(1, 7)}",
                f"set{condition} {_BYTE[chance.choice(usable)]}",
                f"set{condition} byte ptr {scratch}",
                f"lea {_WIDE[usable[0]]}, {scratch}",
                f"mov {first}, {memory}",
                f"xchg {first}, {memory}",
                f"movups {vector}, xmmword ptr {scratch}",
                f"movups xmmword ptr {scratch}, {vector}",
                f"{chance.choice(_VECTOR)} {vector}, {other}",
                f"pshufd {vector}, {other}, {chance.randrange(256)}",
                self._pick("stc", "clc", "cmc", "sahf", "lahf") if without != "rax" else "nop",
                f"cmov{condition} {_WIDE[chance.choice(wide or usable)]}, qword ptr {scratch}",
                f"imul {_HALF[chance.choice(usable)]}, dword ptr {scratch}, {chance.randint(-99999, 99999)}",
            ]
        )
