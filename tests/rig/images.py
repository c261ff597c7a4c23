"""Small x64 images made in memory from assembly, for tests of the planner.

`build` takes the code of some functions and their data as text. Besides instructions (Keystone's Intel
syntax), it knows these lines in the code:

    function NAME           a function with a RUNTIME_FUNCTION; ends at the next of these lines or at `end`
    part NAME of PRIMARY    a further RUNTIME_FUNCTION of it, chained
    cold NAME of PRIMARY    one that is not chained, as gcc splits functions
    leaf NAME               a function without a RUNTIME_FUNCTION
    end                     ends the function; what follows is between functions
    %push rbx, %alloc 40, %setframe rbp 32, %save rsi 64, %savexmm 6 48, %machframe
                            the unwind code of the instruction above
    %epilogs SIZE LABEL ... makes it version 2: the epilogs' size and where they start; `end` as the first one
                            is the function's end
    %prolog                 the prolog ends here; without it, behind the last unwind code
    %handler NAME           the language handler; lines of `%data DIRECTIVE` give its data

The image: code from RVA CODE, then the read-only data that `data` describes with .pdata behind it, then 4 KB
of writable data whose start is called `scratch`. `image` is RVA 0 in differences: ``.long f - image``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import keystone

from calltrace.model import Source
from calltrace.pe.image import Image

BASE = 0x140000000
CODE = 0x1000
SCRATCH_BYTES = 0x1000

_REGISTERS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
_PUSH, _LARGE, _SMALL, _SETFRAME, _SAVE, _EPILOG, _SAVEXMM, _MACHFRAME = 0, 1, 2, 3, 4, 6, 8, 10
_KINDS = ("function", "part", "cold", "leaf")
_EHANDLER_UHANDLER, _CHAININFO = 3, 4


@dataclass(frozen=True)
class Function:
    """A function as it was written: RVAs of its parts, the primary one first."""

    name: str
    parts: tuple[tuple[int, int], ...]

    @property
    def start(self) -> int:
        """RVA of its entry."""
        return self.parts[0][0]


@dataclass(frozen=True)
class Program:
    """An image and what is in it."""

    image: Image
    symbols: dict[str, int]  # RVAs
    functions: tuple[Function, ...]

    def function_at(self, rva: int) -> Function | None:
        """The function whose code holds `rva`."""
        for function in self.functions:
            if any(begin <= rva < end for begin, end in function.parts):
                return function
        return None


@dataclass
class _Part:
    name: str
    primary: str
    kind: str  # the word it was introduced with
    codes: list[str] = field(default_factory=list)  # assembly, last code first
    slots: int = 0
    frame: int = 0
    epilogs: list[str] = field(default_factory=list)
    prolog: str = ""
    handler: str = ""
    data: list[str] = field(default_factory=list)

    def unwind_info(self) -> list[str]:
        """UNWIND_INFO, version 1."""
        flags = _CHAININFO if self.kind == "part" else _EHANDLER_UHANDLER if self.handler else 0
        prolog = f"{self.prolog} - {self.name}" if self.prolog else "0"
        lines = [".balign 4, 0", f"{self.name}.unwind:"]
        version, slots = 2 if self.epilogs else 1, self.slots + len(self.epilogs)
        lines.append(f".byte {version | flags << 3}, {prolog}, {slots}, {self.frame}")
        lines += [*self.epilogs, *self.codes]
        if slots % 2:
            lines.append(".short 0")
        if flags == _CHAININFO:
            lines += [f".long {address} - image" for address in _runtime_function(self.primary)]
        elif flags:
            lines += [f".long {self.handler} - image", *self.data]
        return lines


def build(
    code: str, data: str = "", seeds: Iterable[tuple[str, Source]] = (), name: str = "made.exe"
) -> Program:
    """Assemble an image. `seeds` are names of functions that headers would name. Raises keystone.KsError."""
    parts: list[_Part] = []
    lines = _code_lines(code, parts)
    labels = [line.strip()[:-1] for line in [*lines, *data.splitlines()] if line.strip().endswith(":")]
    with_pdata = [part for part in parts if part.kind != "leaf"]
    source = ["image_code:", f".set image, image_code - {CODE}", *lines, ".balign 4096, 0xcc", "code_end:"]
    source += [data, ".balign 4, 0", "pdata:"]
    source += [f".long {address} - image" for part in with_pdata for address in _runtime_function(part.name)]
    source.append("pdata_end:")
    source += [line for part in with_pdata for line in part.unwind_info()]
    source += [".balign 4096, 0", "scratch:", f".space {SCRATCH_BYTES}, 0"]
    labels += ["code_end", "pdata", "pdata_end", "scratch"]
    labels += [f"{part.name}.unwind" for part in with_pdata]
    source += ["symbols:", *(f".long {label} - image" for label in labels)]
    assembled = assemble("\n".join(source), BASE + CODE)
    table = len(assembled) - 4 * len(labels)
    symbols = {
        label: int.from_bytes(assembled[table + 4 * i : table + 4 * i + 4], "little")
        for i, label in enumerate(labels)
    }
    image = Image(
        path=name,
        base=BASE,
        data=bytes(CODE) + assembled[:table],
        timestamp=0,
        checksum=0,
        executable=[(CODE, symbols["code_end"])],
        pdata=(symbols["pdata"], symbols["pdata_end"] - symbols["pdata"]),
        relocations=(0, 0),
        seeds=[(symbols[label], source) for label, source in seeds],
    )
    functions = tuple(
        Function(
            primary.name,
            tuple(
                (symbols[part.name], symbols[f"{part.name}.end"])
                for part in parts
                if part.primary == primary.name
            ),
        )
        for primary in parts
        if primary.primary == primary.name
    )
    return Program(image, symbols, functions)


@functools.cache
def _assembler() -> keystone.Ks:
    return keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)


def assemble(source: str, address: int = 0) -> bytes:
    """Machine code for a VA. Raises keystone.KsError."""
    code, _ = _assembler().asm(source, address, as_bytes=True)
    return bytes(code or b"")


def _runtime_function(name: str) -> tuple[str, str, str]:
    return name, f"{name}.end", f"{name}.unwind"


def _code_lines(code: str, parts: list[_Part]) -> list[str]:
    """The code as Keystone takes it, with a label behind each instruction that has an unwind code."""
    lines: list[str] = []
    open_part: _Part | None = None

    def close() -> None:
        if open_part:
            lines.append(f"{open_part.name}.end:")

    for number, line in enumerate(code.splitlines()):
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] in (*_KINDS, "end"):
            close()
            open_part = None
        if words[0] in _KINDS:
            open_part = _Part(words[1], words[-1], words[0])
            parts.append(open_part)
            lines.append(f"{words[1]}:")
        elif words[0].startswith("%"):
            assert open_part
            if words[0] in ("%handler", "%data", "%epilogs"):
                _annotate(open_part, words)
                continue
            label = f"at.{number}"
            lines.append(f"{label}:")
            open_part.prolog = label
            if words[0] != "%prolog":
                slots = _unwind_code(open_part, words)
                offset = f".byte {label} - {open_part.name}, {slots[0]}"
                open_part.codes[:0] = [offset, *(f".short {slot}" for slot in slots[1:])]
                open_part.slots += len(slots)
        elif words[0] != "end":
            lines.append(line.split("#")[0])
    close()
    return lines


def _annotate(part: _Part, words: Sequence[str]) -> None:
    if words[0] == "%handler":
        part.handler = words[1]
    elif words[0] == "%epilogs":
        # bit 0 of the first one's info: there is an epilog at the very end; else the rest says where they are
        at_end = words[2] == "end"
        part.epilogs = [f".byte {words[1]}, {_EPILOG | at_end << 4}"]
        part.epilogs += [
            f".short {part.name}.end - {label} + {_EPILOG << 8}" for label in words[2 + at_end :]
        ]
    else:
        part.data.append(" ".join(words[1:]))


def _unwind_code(part: _Part, words: Sequence[str]) -> list[int]:
    """The code and its further slots: the second byte of the first, then 16-bit values."""
    what = words[0][1:]
    if what == "machframe":
        return [_MACHFRAME]
    if what == "alloc":
        size = int(words[1], 0)
        if size <= 128:
            return [_SMALL | (size - 8) // 8 << 4]
        if size < 0x80000:
            return [_LARGE, size // 8]
        return [_LARGE | 1 << 4, size & 0xFFFF, size >> 16]
    if what == "savexmm":
        return [_SAVEXMM | int(words[1]) << 4, int(words[2], 0) // 16]
    register = _REGISTERS.index(words[1])
    if what == "setframe":
        part.frame = register | int(words[2], 0) // 16 << 4
        return [_SETFRAME]
    if what == "save":
        return [_SAVE | register << 4, int(words[2], 0) // 8]
    assert what == "push", words
    return [_PUSH | register << 4]
