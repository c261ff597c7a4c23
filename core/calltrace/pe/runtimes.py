"""Language runtimes that find the frames of a stack by tables of their own, recognised in a module's image.

A traced function's return addresses lie in its copy. Unwind data is registered for copies, so whoever walks a
stack as Windows does is served. A runtime that looks return addresses up in tables of its own does not find
them there, and ends the process or loses objects. What is said here of each was tried with real programs
where `Runtime.tried` says so, else it follows from the runtime's documentation.

Recognised by: Go, cmd/link (build information) and runtime/symtab.go (pclntab); ECMA-335 II.25.3.3 and
.NET's docs/design/coreclr/botr/readytorun-format.md; dotnet/runtime's apphost (bundle marker) and Native AOT
exports; V8's src/diagnostics/unwinding-info-win64.cc; the exported C API of the others.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from calltrace.pe.image import DOTNET_ONLY, Image

_BUILD_INFO = b"\xff Go buildinf:"
_BUILD_INFO_ALIGNMENT = 16
_PCLNTAB_MAGICS = (0xFB, 0xFA, 0xF0, 0xF1)  # first bytes of it: Go 1.2, 1.16, 1.18, 1.20
# the magic's other bytes, two zeros, instruction unit 1, pointer size 8
_PCLNTAB_REST = b"\xff\xff\xff\0\0\x01\x08"
_MOST_FUNCTIONS = 1 << 24
_MOST_PLACES = 1000  # looked at for each pattern: a made-up file cannot take for ever

_IL_ONLY = 1  # COMIMAGE_FLAGS_ILONLY
_COR20_FLAGS, _COR20_NATIVE_HEADER = 16, 64  # offsets in IMAGE_COR20_HEADER
_READY_TO_RUN = 0x00525452  # "RTR"

# SHA-256 of ".net core bundle", which an apphost holds; the 8 bytes before it are the bundle's offset, or 0
_BUNDLE_MARKER = bytes.fromhex("8b1202b96a612038727b930214d7a03213f5b9e6efae3318ee3b2dce24b36aae")

# UNWIND_INFO that V8 gives all its built-ins that keep a frame: version 1 with a handler, `push rbp` and
# `mov rbp, rsp` in a prolog of 4 bytes
_V8_UNWIND = bytes.fromhex("0904020504030150")
_V8_FEWEST_BUILTINS = 500
_V8_FLAGS = (b"interpreted_frames_native_stack", b"interpreted-frames-native-stack")


@dataclass(frozen=True)
class Runtime:
    """What a module's runtime means for tracing that module."""

    name: str
    reason: str  # what follows the module's name: "is a Go program ..."
    blocks: bool  # the module cannot be traced
    ranges: tuple[tuple[int, int], ...] = ()  # code to be left alone: RVAs, begin and end


def recognise(image: Image) -> list[Runtime]:
    """The runtimes that are part of a module, those first that keep it from being traced."""
    exported = _exported_names(image)
    found = [
        each
        for each in (
            _go(image),
            *_dotnet(image, exported),
            _v8(image),
            *(runtime for name, runtime in _BY_EXPORT if name in exported),
            *(runtime for text, runtime in _BY_TEXT if text in image.data),
        )
        if each
    ]
    return sorted(found, key=lambda runtime: not runtime.blocks)


def closed_code(image: Image) -> tuple[tuple[int, int], ...]:
    """Code of a traceable module that must be left alone: RVAs, begin and end of each range."""
    v8 = _v8(image)
    return v8.ranges if v8 else ()


def recognise_name(module_name: str) -> str | None:
    """The runtime whose library has this file name: what it makes at run time is code, too."""
    name = module_name.lower()
    return next((runtime for start, runtime in _BY_FILE_NAME if name.startswith(start)), None)


_BY_EXPORT = (
    (
        b"mono_jit_init",
        Runtime("Mono", "is the Mono runtime, which finds .NET frames by tables of its own", True),
    ),
    (
        b"graal_create_isolate",
        Runtime(
            "GraalVM",
            "is a GraalVM native image, whose runtime looks return addresses up in tables of its own",
            True,
        ),
    ),
    (
        b"Dart_Initialize",
        Runtime("Dart", "holds the Dart VM, which finds Dart frames by tables of its own", True),
    ),
    (
        b"JNI_CreateJavaVM",
        Runtime(
            "Java", "holds a Java VM: Java code is compiled or interpreted at run time and not traced", False
        ),
    ),
)
_BY_TEXT = (
    (
        "OCAMLRUNPARAM".encode("utf-16-le"),
        Runtime(
            "OCaml",
            "holds the OCaml runtime, whose garbage collector looks return addresses up in tables of its own",
            True,
        ),
    ),
    (
        b"luaJIT_BC_",
        Runtime(
            "LuaJIT",
            "holds LuaJIT: compiled Lua code is not traced, and since Lua errors and coroutines leave frames "
            "without a return, the tree of its own functions is not exact",
            False,
        ),
    ),
)
_BY_FILE_NAME = (
    ("coreclr.dll", ".NET"),
    ("clr.dll", ".NET Framework"),
    ("mscorwks.dll", ".NET Framework"),
    ("mono-2.0", "Mono"),
    ("monosgen-2.0", "Mono"),
    ("jvm.dll", "Java"),
    ("v8.dll", "V8"),
    ("libv8", "V8"),
    ("libnode.dll", "V8"),
    ("libcef.dll", "V8"),
    ("chakra.dll", "Chakra"),
    ("chakracore.dll", "Chakra"),
    ("mozjs", "SpiderMonkey"),
    ("luajit", "LuaJIT"),
)


def _exported_names(image: Image) -> frozenset[bytes]:
    # All strings of the export directory: names of data, which Image.names leaves out, among them.
    rva, size = image.directory("EXPORT")
    return frozenset(image.data[rva : rva + size].split(b"\0"))


def _go(image: Image) -> Runtime | None:
    if not (_has_build_info(image) or _has_pclntab(image)):
        return None
    return Runtime(
        "Go",
        "is a Go program: Go's runtime finds frames by tables of its own and ends the process at a return "
        "address that is not in them",
        True,
    )


def _has_build_info(image: Image) -> bool:
    """Is there a build information blob? 14 bytes of magic, pointer size, flags; in writable data."""
    for section in image.sections:
        if section.executable or not section.writable:
            continue
        for at in _places(image, _BUILD_INFO, section.begin, section.end):
            pointer_size, flags = image.data[at + 14 : at + 16].ljust(2, b"\xff")
            if at % _BUILD_INFO_ALIGNMENT == 0 and (flags & 2 or pointer_size == 8) and flags < 4:
                return True
    return False


def _has_pclntab(image: Image) -> bool:
    """Is there a table of functions, also where the build information was taken out?"""
    for rest in _places(image, _PCLNTAB_REST, 1, image.size):
        start = rest - 1
        functions, files = image.u64(start + 8), image.u64(start + 16)
        plausible = 0 < functions < _MOST_FUNCTIONS and files < _MOST_FUNCTIONS
        if image.data[start] in _PCLNTAB_MAGICS and start % 8 == 0 and plausible:
            return True
    return False


def _places(image: Image, pattern: bytes, begin: int, end: int) -> Iterator[int]:
    """RVAs of the first occurrences of `pattern` between two RVAs."""
    for _ in range(_MOST_PLACES):
        at = image.data.find(pattern, begin, end)
        if at < 0:
            return
        yield at
        begin = at + 1


def _dotnet(image: Image, exported: frozenset[bytes]) -> list[Runtime]:
    header, size = image.directory("COM_DESCRIPTOR")
    if size:
        return [_managed(image, header)]
    if b"DotNetRuntimeDebugHeader" in exported or any(each.name == ".managed" for each in image.sections):
        return [
            Runtime(
                ".NET Native AOT",
                "is a .NET program compiled ahead of time, whose runtime finds frames by tables of its own",
                True,
            )
        ]
    if b"coreclr_initialize" in exported or b"CLRJitAttachState" in exported:
        return [
            Runtime(
                ".NET",
                "holds the .NET runtime, which copies parts of its own code at run time",
                True,
            )
        ]
    marker = image.data.find(_BUNDLE_MARKER)
    if marker >= 0 or "hostfxr.dll".encode("utf-16-le") in image.data:
        bundle = marker >= 8 and image.u64(marker - 8)
        kind = "a .NET program in a single file" if bundle else "a host of .NET programs"
        return [
            Runtime(
                ".NET host", f"is {kind}: only the host is native code, what it runs is not traced", False
            )
        ]
    return []


def _managed(image: Image, header: int) -> Runtime:
    native = image.u32(header + _COR20_NATIVE_HEADER)
    if native and image.u32(native) == _READY_TO_RUN:
        return Runtime(
            ".NET ReadyToRun",
            "holds .NET code compiled ahead of time, whose frames the runtime finds by tables of its own",
            True,
        )
    if image.u32(header + _COR20_FLAGS) & _IL_ONLY or not image.directory("EXCEPTION")[1]:
        return Runtime(".NET", DOTNET_ONLY, True)
    return Runtime(
        "C++/CLI", "holds .NET code beside native code: only the native functions are traced", False
    )


def _v8(image: Image) -> Runtime | None:
    """V8, traceable but for its built-ins where these are found."""
    if not any(flag in image.data for flag in _V8_FLAGS):
        return None
    builtins = _v8_builtins(image)
    if builtins is None:
        return Runtime(
            "V8",
            "holds V8, which looks up return addresses into its built-ins, and these were not found",
            True,
        )
    return Runtime(
        "V8",
        "holds V8: compiled JavaScript is not traced, nor V8's built-ins, whose return addresses it looks up",
        False,
        (builtins,),
    )


def _v8_builtins(image: Image) -> tuple[int, int] | None:
    """The code of V8's built-ins, known by the unwind data that they share.

    It reaches from behind the last function before them to the next one behind them: built-ins without a
    frame, the bytecode handlers among them, have no unwind data.
    """
    rva, size = image.directory("EXCEPTION")
    entries = sorted(struct.iter_unpack("<III", image.data[rva : rva + size // 12 * 12]))
    common = Counter(unwind for _, _, unwind in entries).most_common(1)
    if not common or common[0][1] < _V8_FEWEST_BUILTINS:
        return None
    unwind = common[0][0]
    if image.data[unwind : unwind + len(_V8_UNWIND)] != _V8_UNWIND:
        return None
    positions = [position for position, entry in enumerate(entries) if entry[2] == unwind]
    first, last = positions[0], positions[-1]
    begin = entries[first - 1][1] if first else entries[first][0]
    end = entries[last + 1][0] if last + 1 < len(entries) else image.size
    return begin, end
