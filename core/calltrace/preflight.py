"""What a module and a process allow, told before anything is touched.

Each fact is a finding: it blocks (tracing is refused), limits (tracing works, but the user should know), is
fine, or is unknown, where the system does not tell. Nothing here reads a process: `of_module` looks at an
image, `of_process` at what calltrace.win32.process was told by the system.

Formats: Microsoft, "PE Format" and IMAGE_LOAD_CONFIG_DIRECTORY64 (winnt.h); process mitigation policies:
Microsoft, PROCESS_MITIGATION_*_POLICY (winnt.h).
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from calltrace.errors import NotTraceable
from calltrace.model import printable
from calltrace.pe import runtimes
from calltrace.pe.debug import debug_data
from calltrace.pe.image import Image, from_file
from calltrace.ports import TargetModule


class Verdict(enum.Enum):
    """What a finding means for tracing."""

    BLOCKS = "blocks"
    LIMITS = "limits"
    UNKNOWN = "unknown"
    FINE = "fine"


@dataclass(frozen=True)
class Finding:
    """One fact about a module or process."""

    key: str  # names the kind of fact, for programs: "packed"
    verdict: Verdict
    text: str  # what follows the name of the module or process; with the way out where there is one


@dataclass(frozen=True)
class ProcessFacts:
    """What the system says of a process; None where it does not."""

    wow64: bool | None = None
    debugged: bool | None = None
    protection: int | None = None  # PS_PROTECTION: bits 0..2 type, 4..7 signer
    dynamic_code: int | None = None  # flags of PROCESS_MITIGATION_DYNAMIC_CODE_POLICY
    signatures: int | None = None  # of PROCESS_MITIGATION_BINARY_SIGNATURE_POLICY
    shadow_stack: int | None = None  # of PROCESS_MITIGATION_USER_SHADOW_STACK_POLICY
    recorder: bool | None = False  # calltrace.dll in it: None, recording: True
    loose_code: int = 0  # bytes of committed executable memory that belong to no file
    modules: tuple[TargetModule, ...] = field(default=())


_PROTECTED_TYPES = {1: "a protected process (light)", 2: "a protected process"}
_NO_DYNAMIC_CODE = 1  # ProhibitDynamicCode
_SIGNED_ONLY = 7  # MicrosoftSignedOnly, StoreSignedOnly, MitigationOptIn
_SHADOW_STACK, _STRICT = 1, 0x10  # EnableUserShadowStack, EnableUserShadowStackStrictMode
_CET_BINARIES_ONLY = 0x60  # BlockNonCetBinaries, BlockNonCetBinariesNonEhcont

# IMAGE_LOAD_CONFIG_DIRECTORY64: offsets, and the size up to the end of each
_GUARD_COUNT, _GUARD_FLAGS, _EH_COUNT = 0x88, 0x90, 0x110
_CF_TABLE, _EH_CONTINUATION, _XFG = 0x400, 0x400000, 0x800000  # IMAGE_GUARD_
_EX_DLL_CHARACTERISTICS, _CET_COMPAT = 20, 1  # IMAGE_DEBUG_TYPE_, IMAGE_DLLCHARACTERISTICS_EX_

_PACKER_SECTIONS = {
    "upx0": "UPX",
    "upx1": "UPX",
    ".aspack": "ASPack",
    ".adata": "ASPack",
    ".mpress1": "MPRESS",
    ".mpress2": "MPRESS",
    ".petite": "Petite",
    "pec1": "PECompact",
    "pec2": "PECompact",
    ".nsp0": "NsPack",
    ".nsp1": "NsPack",
    ".vmp0": "VMProtect",
    ".vmp1": "VMProtect",
    ".themida": "Themida",
    ".winlice": "WinLicense",
    ".enigma1": "Enigma",
    ".enigma2": "Enigma",
}
_PACKED_ENTROPY = 7.2  # bits a byte; machine code has 5 to 6.8, compressed data nearly 8
_LEAST_MEASURED = 0x1000  # bytes; fewer have no meaningful entropy
_MOST_MEASURED = 1 << 18
_PAGE = 0x1000
_FEW_IMPORTS = 10
_LARGE_IMAGE = 1 << 18  # so large a program calls more than a few functions of the system


def of_module(image: Image) -> list[Finding]:
    """What is to be said of a module, from its image."""
    return [
        Finding("machine", Verdict.FINE, "is x64"),
        *_of_runtimes(image),
        _of_packing(image),
        _of_unwind_data(image),
        _of_writable_code(image),
        *_of_guards(image),
    ]


def of_process(facts: ProcessFacts) -> list[Finding]:
    """What is to be said of a running process besides its modules' images."""
    return [
        _flag(
            "wow64",
            facts.wow64,
            Verdict.BLOCKS,
            "is 32-bit: only x64 processes can be traced",
            "is 64-bit",
        ),
        _flag(
            "debugger",
            facts.debugged,
            Verdict.BLOCKS,
            "is being debugged already: detach the other debugger first",
            "is not being debugged",
        ),
        _of_protection(facts.protection),
        _policy(
            "acg",
            facts.dynamic_code,
            _NO_DYNAMIC_CODE,
            "prohibits dynamic code (Arbitrary Code Guard), as copies are: turn that mitigation off for it",
            "dynamic code is allowed",
        ),
        _policy(
            "cig",
            facts.signatures,
            _SIGNED_ONLY,
            "loads no DLL that Microsoft has not signed (Code Integrity Guard), calltrace.dll among them: "
            "turn that mitigation off for it",
            "DLLs need no signature",
        ),
        _of_shadow_stack(facts.shadow_stack),
        _of_recorder(facts.recorder),
        *_of_code_made_at_run_time(facts),
    ]


def check_program(path: Path) -> list[Finding]:
    """What is to be said of a program's file, before the system is asked to start it.

    Raises FileMissing, or NotTraceable if it is no 64-bit Windows program, damaged, a DLL, or blocked.
    """
    image = from_file(path)
    if image.library:
        raise NotTraceable(f"{path} is a DLL: trace a program that loads it, with --modules {path.name}")
    return refuse_blocked(str(path), of_module(image))


def refuse_blocked(name: str, findings: list[Finding]) -> list[Finding]:
    """`findings`, if none of them blocks. Raises NotTraceable with the first that does."""
    for finding in findings:
        if finding.verdict is Verdict.BLOCKS:
            raise NotTraceable(f"{name} {finding.text}")
    return findings


def tell_limits(name: str, findings: Iterable[Finding], tell: Callable[[str], None]) -> None:
    """One line for each finding that limits."""
    for finding in findings:
        if finding.verdict is Verdict.LIMITS:
            tell(f"{name} {finding.text}")


def _flag(key: str, value: bool | None, verdict: Verdict, text: str, otherwise: str) -> Finding:
    if value is None:
        return Finding(key, Verdict.UNKNOWN, f"does not tell whether it {text.partition(':')[0]}")
    return Finding(key, verdict, text) if value else Finding(key, Verdict.FINE, otherwise)


def _policy(key: str, flags: int | None, mask: int, text: str, otherwise: str) -> Finding:
    return _flag(key, None if flags is None else bool(flags & mask), Verdict.BLOCKS, text, otherwise)


# Modules


def _of_runtimes(image: Image) -> Iterator[Finding]:
    for runtime in runtimes.recognise(image):
        verdict = Verdict.BLOCKS if runtime.blocks else Verdict.LIMITS
        yield Finding("runtime", verdict, runtime.reason)


def _of_packing(image: Image) -> Finding:
    signs = list(_signs_of_packing(image))
    certain = [text for is_certain, text in signs if is_certain]
    if certain or len(signs) > 1:
        return Finding(
            "packed",
            Verdict.LIMITS,
            f"seems packed ({', '.join(text for _, text in signs)}): from its start only the unpacking code "
            "is seen; attach once it is running to trace what was unpacked",
        )
    return Finding("packed", Verdict.FINE, "shows no sign of packing")


def _signs_of_packing(image: Image) -> Iterator[tuple[bool, str]]:
    """Each sign with whether it suffices alone."""
    for packer in {_PACKER_SECTIONS.get(section.name.lower()) for section in image.sections}:
        if packer:
            yield True, f"sections of {packer}"
    for section in image.sections:
        if not section.executable:
            continue
        if section.filled == 0 and section.end - section.begin > _PAGE:
            yield True, f"section {printable(section.name)} is filled at run time"
        elif section.filled >= _LEAST_MEASURED:
            entropy = _entropy(image.data[section.begin : min(section.begin + section.filled, section.end)])
            if entropy > _PACKED_ENTROPY:
                yield True, f"section {printable(section.name)} has {entropy:.1f} bits a byte"
        if section.writable:
            yield False, f"section {printable(section.name)} is writable and executable"
    if image.entry and not any(begin <= image.entry < end for begin, end in image.executable):
        yield False, "its entry point is not in code"
    if not image.directory("EXCEPTION")[1]:
        yield False, "it has no .pdata"
    if len(image.imports) <= _FEW_IMPORTS and image.size >= _LARGE_IMAGE and not image.library:
        yield False, f"it imports only {len(image.imports)} functions"


def _entropy(data: bytes) -> float:
    """Bits a byte, of an even sample of the bytes."""
    sample = data[:: max(1, len(data) // _MOST_MEASURED)]
    total = len(sample)
    return -sum(number / total * math.log2(number / total) for number in Counter(sample).values())


def _of_unwind_data(image: Image) -> Finding:
    if image.directory("EXCEPTION")[1]:
        return Finding("pdata", Verdict.FINE, "has unwind data")
    return Finding(
        "pdata",
        Verdict.LIMITS,
        "has no .pdata: functions are found by calls, exports and symbols only",
    )


def _of_writable_code(image: Image) -> Finding:
    names = [printable(each.name) for each in image.sections if each.executable and each.writable]
    if not names:
        return Finding("writable-code", Verdict.FINE, "has no code it could change")
    return Finding(
        "writable-code",
        Verdict.LIMITS,
        f"can change its own code (section {', '.join(names)}): what changes later still runs as it was",
    )


def _of_guards(image: Image) -> Iterator[Finding]:
    cet, flags = _is_cet_compatible(image), _load_config(image, _GUARD_FLAGS, 4)
    yield Finding(
        "cet",
        Verdict.FINE,
        "is compatible with shadow stacks (CET)" if cet else "does not ask for shadow stacks (CET)",
    )
    guarded = bool(flags & _CF_TABLE)
    count = _load_config(image, _GUARD_COUNT, 8)
    text = f"has Guard CF with {count:,} targets, which stay valid" if guarded else "has no Guard CF"
    yield Finding("guard-cf", Verdict.FINE, text)
    if flags & _XFG:
        yield Finding("xfg", Verdict.FINE, "has Guard XFG, whose type hashes stay in place")
    targets = _load_config(image, _EH_COUNT, 8) if flags & _EH_CONTINUATION else 0
    if cet and targets:
        yield Finding(
            "eh-continuation",
            Verdict.LIMITS,
            f"has an EH continuation table ({targets:,} addresses): with shadow stacks on, an exception "
            "caught in a traced function may end it; turn hardware-enforced stack protection off for it",
        )
    else:
        text = f"has {targets:,} EH continuation addresses but no shadow stacks" if targets else "has none"
        yield Finding("eh-continuation", Verdict.FINE, text if targets else "has no EH continuation table")


def _load_config(image: Image, offset: int, size: int) -> int:
    """A field of the load configuration; 0 if that is absent or ends before it."""
    rva, _ = image.directory("LOAD_CONFIG")
    if not rva or image.u32(rva) < offset + size:
        return 0
    return image.u32(rva + offset) if size == 4 else image.u64(rva + offset)


def _is_cet_compatible(image: Image) -> bool:
    rva, _ = debug_data(image, _EX_DLL_CHARACTERISTICS)
    return bool(rva and image.u32(rva) & _CET_COMPAT)


# Processes


def _of_protection(protection: int | None) -> Finding:
    if protection is None:
        return Finding("protected", Verdict.UNKNOWN, "does not tell whether it is a protected process")
    if protection & 7:
        kind = _PROTECTED_TYPES.get(protection & 7, "a protected process")
        return Finding("protected", Verdict.BLOCKS, f"is {kind}: the system lets nobody change it")
    return Finding("protected", Verdict.FINE, "is not protected")


def _of_shadow_stack(flags: int | None) -> Finding:
    if flags is None:
        return Finding("shadow-stack", Verdict.UNKNOWN, "does not tell whether its shadow stacks are on")
    if flags & _CET_BINARIES_ONLY:
        return Finding(
            "shadow-stack",
            Verdict.BLOCKS,
            "loads only DLLs that are marked for shadow stacks, which calltrace.dll is not: turn "
            "hardware-enforced stack protection off for it",
        )
    if flags & _SHADOW_STACK and flags & _STRICT:
        return Finding(
            "shadow-stack",
            Verdict.LIMITS,
            "has shadow stacks in strict mode: an exception caught in a traced function may end it; turn "
            "hardware-enforced stack protection off for it",
        )
    if flags & _SHADOW_STACK:
        return Finding("shadow-stack", Verdict.FINE, "has shadow stacks on: calls and returns stay paired")
    return Finding("shadow-stack", Verdict.FINE, "has shadow stacks off")


def _of_recorder(recorder: bool | None) -> Finding:
    if recorder:
        return Finding(
            "recorder",
            Verdict.BLOCKS,
            "is being recorded already: end that recording first",
        )
    if recorder is None:
        return Finding("recorder", Verdict.FINE, "holds calltrace.dll of an earlier recording")
    return Finding("recorder", Verdict.FINE, "was not recorded before")


def _of_code_made_at_run_time(facts: ProcessFacts) -> Iterator[Finding]:
    for module in facts.modules:
        runtime = runtimes.recognise_name(module.name)
        if runtime:
            yield Finding(
                "jit",
                Verdict.LIMITS,
                f"has {module.name} loaded: code that {runtime} makes at run time is not traced",
            )
    if facts.loose_code:
        copies = "" if facts.recorder is False else " but for copies made by calltrace"
        yield Finding(
            "loose-code",
            Verdict.LIMITS,
            f"has {facts.loose_code / 1024:,.0f} KB of code outside its modules, which is not traced{copies}",
        )
    else:
        yield Finding("loose-code", Verdict.FINE, "has no code outside its modules")
