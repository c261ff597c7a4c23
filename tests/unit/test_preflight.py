"""What a module's image and the system's answers mean for tracing, finding by finding."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from calltrace import preflight
from calltrace.errors import NotTraceable
from calltrace.pe import runtimes
from calltrace.pe.image import Image, from_file
from calltrace.plan import ModulePlan
from calltrace.ports import TargetModule
from calltrace.preflight import Finding, ProcessFacts, Verdict
from rig import pefiles
from rig.pefiles import CODE, DATA, FIRST, PAGE, RDATA, WRITABLE_CODE, Section

CODE_BYTES = (bytes.fromhex("4883ec28 4883c428 c3") + b"\xcc" * 7) * 256  # sub rsp,28h; add rsp,28h; ret
UNWIND = bytes.fromhex("01040100 04420000")  # sub rsp,28h
PDATA = struct.pack("<III", FIRST, FIRST + 9, FIRST + PAGE)
RDATA_AT, DATA_AT = FIRST + PAGE, FIRST + 2 * PAGE
EXCEPTION = {"EXCEPTION": (RDATA_AT + 0x10, len(PDATA))}


def made(
    tmp_path: Path,
    *more: Section,
    rdata: bytes = b"",
    data: bytes = b"data",
    directories: dict[str, tuple[int, int]] | None = None,
    code: bytes = CODE_BYTES,
    entry: int = FIRST,
) -> Image:
    """An ordinary program with `rdata` at RDATA_AT + 0x40, `data` at DATA_AT, and more sections."""
    constants = (UNWIND.ljust(16, b"\0") + PDATA).ljust(0x40, b"\0") + rdata
    sections = [
        Section(".text", code[:PAGE], CODE),
        Section(".rdata", constants, RDATA),
        Section(".data", data, DATA),
        *more,
    ]
    path = tmp_path / "made.exe"
    path.write_bytes(pefiles.build(sections, {**EXCEPTION, **(directories or {})}, entry=entry))
    return from_file(path)


def found(image: Image, key: str) -> list[Finding]:
    return [finding for finding in preflight.of_module(image) if finding.key == key]


def one(image: Image, key: str) -> Finding:
    [finding] = found(image, key)
    return finding


def exporting(tmp_path: Path, name: str) -> Image:
    table = pefiles.exports([name], RDATA_AT + 0x40)
    return made(tmp_path, rdata=table, directories={"EXPORT": (RDATA_AT + 0x40, len(table))})


def test_an_ordinary_program_is_fine(tmp_path: Path) -> None:
    findings = preflight.of_module(made(tmp_path))
    assert {finding.verdict for finding in findings} == {Verdict.FINE}
    assert [finding.key for finding in findings] == [
        "machine",
        "packed",
        "pdata",
        "writable-code",
        "cet",
        "guard-cf",
        "eh-continuation",
    ]


# Language runtimes

BUILD_INFO = b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16)


def test_go_is_known_by_its_build_information(tmp_path: Path) -> None:
    finding = one(made(tmp_path, data=bytes(64) + BUILD_INFO), "runtime")
    assert finding.verdict is Verdict.BLOCKS
    assert "Go" in finding.text


@pytest.mark.parametrize(
    ("rdata", "data"),
    [
        (BUILD_INFO, b""),  # text of a program that looks for it
        (b"", bytes(8) + BUILD_INFO),  # not aligned
        (b"", BUILD_INFO[:14] + b"\x07\x07" + bytes(16)),  # no pointer size, no flags
        (b"", BUILD_INFO[:14]),
    ],
)
def test_what_only_looks_like_build_information_is_no_go(tmp_path: Path, rdata: bytes, data: bytes) -> None:
    assert not found(made(tmp_path, rdata=rdata, data=data), "runtime")


@pytest.mark.parametrize("magic", [0xFB, 0xFA, 0xF0, 0xF1])
def test_go_without_build_information_is_known_by_its_function_table(tmp_path: Path, magic: int) -> None:
    table = bytes([magic]) + b"\xff\xff\xff\0\0\x01\x08" + struct.pack("<QQ", 3000, 200)
    assert one(made(tmp_path, rdata=table), "runtime").verdict is Verdict.BLOCKS


@pytest.mark.parametrize(
    "table",
    [
        b"\xf1\xff\xff\xff\0\0\x01\x08" + struct.pack("<QQ", 1 << 40, 1),
        b"\xf1\xff\xff\xff\0\0\x01\x08" + struct.pack("<QQ", 0, 0),
        b"\0\xf1\xff\xff\xff\0\0\x01\x08" + struct.pack("<QQ", 3000, 200),
        b"\xf2\xff\xff\xff\0\0\x01\x08" + struct.pack("<QQ", 3000, 200),
    ],
)
def test_what_only_looks_like_a_function_table_is_no_go(tmp_path: Path, table: bytes) -> None:
    assert not found(made(tmp_path, rdata=table), "runtime")


def managed(tmp_path: Path, flags: int, native: bytes = b"", pdata: bool = True) -> Image:
    """A program with an IMAGE_COR20_HEADER and, if given, a native header."""
    header, at = bytearray(72), RDATA_AT + 0x40
    struct.pack_into("<I", header, 0, 72)
    struct.pack_into("<I", header, 16, flags)
    if native:
        struct.pack_into("<II", header, 64, at + 72, len(native))
    directories = {"COM_DESCRIPTOR": (at, 72)}
    if not pdata:
        directories["EXCEPTION"] = (0, 0)
    return made(tmp_path, rdata=bytes(header) + native, directories=directories)


@pytest.mark.parametrize(
    ("flags", "native", "pdata", "verdict", "word"),
    [
        (1, b"", False, Verdict.BLOCKS, ".NET code only"),
        (0, b"", False, Verdict.BLOCKS, ".NET code only"),
        (1, b"", True, Verdict.BLOCKS, ".NET code only"),
        (4, b"RTR\0" + bytes(12), True, Verdict.BLOCKS, "compiled ahead of time"),
        (0, b"", True, Verdict.LIMITS, "beside native code"),
    ],
)
def test_dotnet_modules(
    tmp_path: Path, flags: int, native: bytes, pdata: bool, verdict: Verdict, word: str
) -> None:
    finding = one(managed(tmp_path, flags, native, pdata), "runtime")
    assert finding.verdict is verdict
    assert word in finding.text


MARKER = bytes.fromhex("8b1202b96a612038727b930214d7a03213f5b9e6efae3318ee3b2dce24b36aae")


@pytest.mark.parametrize(
    ("rdata", "word"),
    [
        (bytes(8) + MARKER, "is a host of .NET programs"),
        (struct.pack("<Q", 0x12345) + MARKER, "is a .NET program in a single file"),
        ("hostfxr.dll\0".encode("utf-16-le"), "is a host of .NET programs"),
    ],
)
def test_hosts_of_dotnet_programs_limit(tmp_path: Path, rdata: bytes, word: str) -> None:
    finding = one(made(tmp_path, rdata=rdata), "runtime")
    assert finding.verdict is Verdict.LIMITS
    assert word in finding.text


@pytest.mark.parametrize(
    ("name", "verdict", "word"),
    [
        ("DotNetRuntimeDebugHeader", Verdict.BLOCKS, "ahead of time"),
        ("coreclr_initialize", Verdict.BLOCKS, "the .NET runtime"),
        ("CLRJitAttachState", Verdict.BLOCKS, "the .NET runtime"),
        ("mono_jit_init", Verdict.BLOCKS, "Mono"),
        ("graal_create_isolate", Verdict.BLOCKS, "GraalVM"),
        ("Dart_Initialize", Verdict.BLOCKS, "Dart"),
        ("JNI_CreateJavaVM", Verdict.LIMITS, "Java"),
    ],
)
def test_runtimes_known_by_their_exports(tmp_path: Path, name: str, verdict: Verdict, word: str) -> None:
    finding = one(exporting(tmp_path, name), "runtime")
    assert finding.verdict is verdict
    assert word in finding.text
    assert not found(made(tmp_path, rdata=name.encode() + b"\0"), "runtime")


def test_native_aot_is_known_by_its_section_too(tmp_path: Path) -> None:
    assert one(made(tmp_path, Section(".managed", CODE_BYTES, CODE)), "runtime").verdict is Verdict.BLOCKS


def test_runtimes_known_by_their_texts(tmp_path: Path) -> None:
    ocaml = one(made(tmp_path, rdata="OCAMLRUNPARAM\0".encode("utf-16-le")), "runtime")
    assert (ocaml.verdict, "OCaml" in ocaml.text) == (Verdict.BLOCKS, True)
    lua = one(made(tmp_path, rdata=b"luaJIT_BC_%s\0"), "runtime")
    assert (lua.verdict, "LuaJIT" in lua.text) == (Verdict.LIMITS, True)
    assert not found(made(tmp_path, rdata=b"a wrapper around Lua and LuaJIT 2.1\0"), "runtime")


V8_FLAG = b"interpreted-frames-native-stack\0"
V8_UNWIND = bytes.fromhex("09040205040301 50") + struct.pack("<I", FIRST)
BUILTINS = 512


def with_builtins(
    tmp_path: Path, unwind: bytes = V8_UNWIND, flag: bytes = V8_FLAG, builtins: int = BUILTINS
) -> Image:
    """Functions of 16 bytes: 100 ordinary ones, `builtins` with one UNWIND_INFO in common, 100 ordinary ones.

    The built-ins have 64 bytes without unwind data before them and 128 behind.
    """
    code = (bytes.fromhex("554889e5 5d c3") + b"\xcc" * 10) * 1024  # push rbp; mov rbp,rsp; pop rbp; ret
    rdata = FIRST + len(code)
    own, shared, table = rdata, rdata + 16, rdata + 32
    first = 100 * 16 + 64
    second = first + builtins * 16 + 128
    entries = [(16 * i, own) for i in range(100)]
    entries += [(first + 16 * i, shared) for i in range(builtins)]
    entries += [(second + 16 * i, own) for i in range(100)]
    pdata = b"".join(struct.pack("<III", FIRST + at, FIRST + at + 6, info) for at, info in entries)
    constants = bytes.fromhex("01040205040301 50").ljust(16, b"\0") + unwind.ljust(16, b"\0") + pdata + flag
    path = tmp_path / "node.exe"
    sections = [Section(".text", code, CODE), Section(".rdata", constants, RDATA)]
    path.write_bytes(pefiles.build(sections, {"EXCEPTION": (table, len(pdata))}))
    return from_file(path)


def test_v8_is_traceable_but_for_its_builtins(tmp_path: Path) -> None:
    image = with_builtins(tmp_path)
    finding = one(image, "runtime")
    assert finding.verdict is Verdict.LIMITS
    assert "V8" in finding.text
    begin, end = FIRST + 99 * 16 + 6, FIRST + 100 * 16 + 64 + BUILTINS * 16 + 128
    assert runtimes.closed_code(image) == ((begin, end),)
    statuses = {function.rva: function.status for function in ModulePlan(image).functions}
    inside = {status for rva, status in statuses.items() if begin <= rva < end}
    outside = [status for rva, status in statuses.items() if not begin <= rva < end]
    assert inside == {16}  # CT_RUNTIME_CODE
    assert outside == [0] * 200


@pytest.mark.parametrize(
    ("unwind", "builtins"),
    [(bytes.fromhex("01040205040301 50"), BUILTINS), (UNWIND, BUILTINS), (V8_UNWIND, 300)],
)
def test_v8_whose_builtins_are_not_found_is_not_traceable(
    tmp_path: Path, unwind: bytes, builtins: int
) -> None:
    image = with_builtins(tmp_path, unwind, builtins=builtins)
    assert one(image, "runtime").verdict is Verdict.BLOCKS
    assert runtimes.closed_code(image) == ()


def test_shared_unwind_data_alone_is_no_v8(tmp_path: Path) -> None:
    image = with_builtins(tmp_path, flag=b"")
    assert not found(image, "runtime")
    assert runtimes.closed_code(image) == ()


# Packing


def noise(size: int) -> bytes:
    """Bytes like compressed ones, the same each time."""
    return b"".join(hashlib.sha256(bytes([i & 255, i >> 8])).digest() for i in range(size // 32))


@pytest.mark.parametrize(
    ("section", "word"),
    [
        (Section("UPX1", CODE_BYTES, CODE), "sections of UPX"),
        (Section(".vmp0", CODE_BYTES, CODE), "sections of VMProtect"),
        (Section(".more", noise(0x2000), CODE), "bits a byte"),
        (Section(".more", b"", CODE, 0x8000), "is filled at run time"),
    ],
)
def test_packed_programs(tmp_path: Path, section: Section, word: str) -> None:
    finding = one(made(tmp_path, section), "packed")
    assert finding.verdict is Verdict.LIMITS
    assert word in finding.text
    assert "attach" in finding.text


def test_one_weak_sign_is_not_packing_but_two_are(tmp_path: Path) -> None:
    weak = made(tmp_path, Section(".self", CODE_BYTES, WRITABLE_CODE))
    assert one(weak, "packed").verdict is Verdict.FINE
    assert one(weak, "writable-code").verdict is Verdict.LIMITS
    assert ".self" in one(weak, "writable-code").text
    assert one(made(tmp_path, entry=DATA_AT), "packed").verdict is Verdict.FINE
    both = made(tmp_path, Section(".self", CODE_BYTES, WRITABLE_CODE), entry=DATA_AT)
    assert one(both, "packed").verdict is Verdict.LIMITS


def test_compressed_data_is_not_packing(tmp_path: Path) -> None:
    assert one(made(tmp_path, Section(".rsrc", noise(0x8000), RDATA)), "packed").verdict is Verdict.FINE


def test_code_without_pdata_limits(tmp_path: Path) -> None:
    finding = one(made(tmp_path, directories={"EXCEPTION": (0, 0)}), "pdata")
    assert finding.verdict is Verdict.LIMITS
    assert one(made(tmp_path, directories={"EXCEPTION": (0, 0)}), "packed").verdict is Verdict.FINE


# Guards


def guarded(
    tmp_path: Path, *, cet: bool = False, size: int = 0x118, flags: int = 0, functions: int = 0, eh: int = 0
) -> Image:
    at = RDATA_AT + 0x40
    config = bytearray(0x140)
    struct.pack_into("<I", config, 0, size)
    struct.pack_into("<Q", config, 0x88, functions)  # GuardCFFunctionCount
    struct.pack_into("<I", config, 0x90, flags)  # GuardFlags
    struct.pack_into("<Q", config, 0x110, eh)  # GuardEHContinuationCount
    debug_at = at + len(config)
    debug = struct.pack("<IIHHIIII", 0, 0, 0, 0, 2, 4, at, 0)  # IMAGE_DEBUG_TYPE_CODEVIEW
    debug += struct.pack("<IIHHIIII", 0, 0, 0, 0, 20, 4, debug_at + 56, 0)
    return made(
        tmp_path,
        rdata=bytes(config) + debug + struct.pack("<I", 1 if cet else 0x40),
        directories={"LOAD_CONFIG": (at, 0x118), "DEBUG": (debug_at, 56)},
    )


CF_TABLE, EH_TABLE, XFG = 0x400, 0x400000, 0x800000


def test_cet_and_guard_cf_are_told_and_fine(tmp_path: Path) -> None:
    image = guarded(tmp_path, cet=True, flags=CF_TABLE | XFG, functions=1234)
    assert one(image, "cet") == Finding("cet", Verdict.FINE, "is compatible with shadow stacks (CET)")
    assert one(image, "guard-cf").verdict is one(image, "xfg").verdict is Verdict.FINE
    assert "1,234" in one(image, "guard-cf").text
    assert one(image, "eh-continuation").verdict is Verdict.FINE
    plain = guarded(tmp_path)
    assert one(plain, "cet").text != one(image, "cet").text
    assert one(plain, "guard-cf").text == "has no Guard CF"
    assert not found(plain, "xfg")


def test_eh_continuation_tables_limit_where_shadow_stacks_are(tmp_path: Path) -> None:
    both = one(guarded(tmp_path, cet=True, flags=EH_TABLE, eh=77), "eh-continuation")
    assert both.verdict is Verdict.LIMITS
    assert "77 addresses" in both.text
    assert one(guarded(tmp_path, flags=EH_TABLE, eh=77), "eh-continuation").verdict is Verdict.FINE
    assert one(guarded(tmp_path, cet=True, eh=77), "eh-continuation").verdict is Verdict.FINE


def test_fields_behind_the_end_of_an_older_load_configuration_are_not_read(tmp_path: Path) -> None:
    old = guarded(tmp_path, cet=True, size=0x94, flags=EH_TABLE | CF_TABLE, functions=5, eh=77)
    assert one(old, "eh-continuation").verdict is Verdict.FINE
    assert "5 targets" in one(old, "guard-cf").text
    assert one(guarded(tmp_path, size=0x70, flags=CF_TABLE), "guard-cf").text == "has no Guard CF"


# Files


def test_a_blocked_program_is_refused_by_its_name_and_reason(tmp_path: Path) -> None:
    image = made(tmp_path, data=BUILD_INFO)
    with pytest.raises(NotTraceable, match=r"made\.exe is a Go program: "):
        preflight.check_program(Path(image.path))


def test_limits_are_told_and_nothing_else(tmp_path: Path) -> None:
    path = Path(made(tmp_path, rdata=b"luaJIT_BC_").path)
    lines: list[str] = []
    preflight.tell_limits("x.exe", preflight.check_program(path), lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("x.exe holds LuaJIT: ")


@pytest.mark.parametrize("machine", [0x14C, 0xAA64])
def test_il_for_any_machine_is_said_to_be_dotnet(tmp_path: Path, machine: int) -> None:
    sections = [Section(".text", CODE_BYTES, CODE)]
    path = tmp_path / "any.exe"
    path.write_bytes(pefiles.build(sections, {"COM_DESCRIPTOR": (FIRST, 72)}, machine=machine))
    with pytest.raises(NotTraceable, match=r"any\.exe holds \.NET code only"):
        from_file(path)


# Processes

ALL_TOLD = ProcessFacts(
    wow64=False, debugged=False, protection=0, dynamic_code=0, signatures=0, shadow_stack=0
)


def of_process(**facts: object) -> dict[str, Finding]:
    return {
        finding.key: finding
        for finding in preflight.of_process(ProcessFacts(**{**vars(ALL_TOLD), **facts}))  # type: ignore[arg-type]
    }


def test_an_ordinary_process_is_fine() -> None:
    assert {finding.verdict for finding in of_process().values()} == {Verdict.FINE}


@pytest.mark.parametrize(
    "fact", ["wow64", "debugged", "protection", "dynamic_code", "signatures", "shadow_stack"]
)
def test_what_the_system_does_not_tell_is_unknown_and_not_fine(fact: str) -> None:
    key = {
        "debugged": "debugger",
        "protection": "protected",
        "dynamic_code": "acg",
        "signatures": "cig",
        "shadow_stack": "shadow-stack",
    }.get(fact, fact)
    findings = of_process(**{fact: None})
    assert findings.pop(key).verdict is Verdict.UNKNOWN
    assert {finding.verdict for finding in findings.values()} == {Verdict.FINE}


@pytest.mark.parametrize(
    ("fact", "value", "key", "verdict", "word"),
    [
        ("wow64", True, "wow64", Verdict.BLOCKS, "32-bit"),
        ("debugged", True, "debugger", Verdict.BLOCKS, "detach"),
        ("protection", 0x31, "protected", Verdict.BLOCKS, "(light)"),  # antimalware, light
        ("protection", 0x62, "protected", Verdict.BLOCKS, "protected process:"),
        ("protection", 0x60, "protected", Verdict.FINE, ""),  # a signer, but no protection
        ("dynamic_code", 1, "acg", Verdict.BLOCKS, "Arbitrary Code Guard"),
        ("dynamic_code", 8, "acg", Verdict.FINE, ""),  # audit only
        ("signatures", 1, "cig", Verdict.BLOCKS, "Code Integrity Guard"),
        ("signatures", 2, "cig", Verdict.BLOCKS, "Code Integrity Guard"),
        ("signatures", 8, "cig", Verdict.FINE, ""),  # audit only
        ("shadow_stack", 1, "shadow-stack", Verdict.FINE, "paired"),
        ("shadow_stack", 0x11, "shadow-stack", Verdict.LIMITS, "strict"),
        ("shadow_stack", 0x21, "shadow-stack", Verdict.BLOCKS, "calltrace.dll"),
        ("recorder", True, "recorder", Verdict.BLOCKS, "already"),
        ("recorder", None, "recorder", Verdict.FINE, "earlier"),
        ("loose_code", 0x5000, "loose-code", Verdict.LIMITS, "20 KB"),
        ("modules", (TargetModule(0, 1, r"C:\x\CoreCLR.dll"),), "jit", Verdict.LIMITS, "CoreCLR.dll"),
        ("modules", (TargetModule(0, 1, r"C:\x\jvm.dll"),), "jit", Verdict.LIMITS, "Java"),
    ],
)
def test_findings_of_processes(fact: str, value: object, key: str, verdict: Verdict, word: str) -> None:
    finding = of_process(**{fact: value})[key]
    assert finding.verdict is verdict
    assert word in finding.text


def test_no_finding_is_of_more_than_one_line() -> None:
    for findings in (
        of_process(),
        of_process(wow64=True, protection=1, dynamic_code=1, signatures=1, shadow_stack=32),
    ):
        for finding in findings.values():
            assert "\n" not in finding.text
            assert not finding.text.endswith(".")
