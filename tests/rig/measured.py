"""Real programs built from source with symbols, and how well discovery finds their functions without these.

What counts as a function is what the compiler said is one: a COFF symbol of function type, a procedure record
of a PDB, or a public of a PDB that is marked as a function. Besides these:

- A piece that gcc moved out of a function ("f.cold") has a symbol of function type but is no function:
  nothing calls it. Discovery is to join it to its function; reporting it on its own is a false find.
- A name without a type is a label: of assembly code whose author did not say what it is, a function as
  ___chkstk_ms or data as __CTOR_LIST__. It can neither be demanded nor be held against discovery, unless it
  stands at a jump through the import address table: that is an import thunk, and demanded.
- Code whose static functions have no names is not judged for false finds; what it exports is demanded all the
  same. That is the code of archives from which the distribution stripped local symbols, and in a PDB, which
  describes what was compiled with -gcodeview, all else.

gcc gives leaf functions a RUNTIME_FUNCTION; MSVC and clang do not, nor need they: without one a function is
unwound as by one without unwind codes (Microsoft, "x64 exception handling"). So each program of gcc's is
measured a second time with those entries withheld that have no codes and no handler.
"""

from __future__ import annotations

import bisect
import concurrent.futures
import fcntl
import functools
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pefile

from calltrace import wine
from calltrace.model import Source
from calltrace.pe.image import Image
from calltrace.plan import ModulePlan
from rig import pdb

_GCC, _CLANG = "x86_64-w64-mingw32-gcc-posix", "clang-14"
_SYMBOL = re.compile(r"\(sec +(\d+)\).*\(ty +(\w+)\)\(scl +(\d+)\) \(nx \d+\) 0x(\w+) (.+)")
_FUNCTION, _EXTERNAL = 0x20, 2  # symbol type and storage class
_PIECE = re.compile(r"\.cold(\.|$)")
_MAPPED = re.compile(r"^ \.text\S*\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (\S.*)$", re.MULTILINE)
_EMPTY_MAIN = "int main(void) { return 0; }\n"


@dataclass(frozen=True)
class Program:
    """Where a program's source is, in the cache's src folder."""

    folder: str
    files: str  # patterns
    flags: str = ""
    main: str = ""  # a source file of ours that is added
    header: str = ""  # one of ours that every file includes


_PROGRAMS = {
    "capstone": Program(
        "capstone",
        "*.c arch/X86/*.c",
        "-DCAPSTONE_HAS_X86 -DCAPSTONE_USE_SYS_DYN_MEM -I{folder} -I{folder}/include",
        _EMPTY_MAIN,
    ),
    "quickjs": Program(
        "quickjs", "*.c", '-D_GNU_SOURCE -DCONFIG_BIGNUM -DCONFIG_VERSION="1" -lpthread', _EMPTY_MAIN
    ),
    "zstd": Program("zstd", "*.c", "", _EMPTY_MAIN),
    "fasttext": Program(
        "fasttext",
        "*.cc",
        "-std=c++17 -lpthread",
        header="""#include <malloc.h>
        static inline int posix_memalign(void **memory, size_t alignment, size_t size)
        {
            *memory = _aligned_malloc(size, alignment);
            return *memory ? 0 : 12;
        }""",
    ),
}


@dataclass(frozen=True)
class Build:
    """One program by one compiler."""

    program: str
    compiler: str  # gcc or clang
    options: str

    def __str__(self) -> str:
        return f"{self.program}-{self.compiler}{self.options.replace(' ', '')}"


#: What the tests measure; the benchmark measures more.
BUILDS = (
    Build("capstone", "gcc", "-O2"),
    Build("capstone", "clang", "-Os"),
    Build("fasttext", "gcc", "-O2"),
    Build("fasttext", "clang", "-O2"),
    Build("quickjs", "gcc", "-O2"),
    Build("quickjs", "clang", "-O0"),
    Build("zstd", "gcc", "-Os"),
    Build("zstd", "clang", "-Os"),
)
MORE_BUILDS = tuple(
    Build(program, compiler, options)
    for program in _PROGRAMS
    for compiler in ("gcc", "clang")
    for options in ("-O0", "-O2", "-Os")
    if Build(program, compiler, options) not in BUILDS
)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _command(build: Build, folder: Path, made: Path) -> list[str]:
    program = _PROGRAMS[build.program]
    cpp = program.files == "*.cc"
    gcc = _GCC.replace("gcc", "g++") if cpp else _GCC
    sources = [str(file) for pattern in program.files.split() for file in sorted(folder.glob(pattern))]
    flags = [flag.format(folder=folder) for flag in program.flags.split()]
    if program.main:
        sources.append(str(made / "main.c"))
    if program.header:
        flags = ["-include", str(made / "compat.h"), *flags]
    common = ["-w", *build.options.split(), *sources, *flags, "-o", str(made / "program.exe")]
    if build.compiler == "gcc":
        # the assembler takes names that begin with L for labels of the compiler's own, and drops them
        return [gcc, "-static", "-Wa,--keep-locals", *common, f"-Wl,-Map={made / 'program.map'}"]
    libraries = Path(_output(gcc, "-print-libgcc-file-name").strip()).parent
    command = [
        _CLANG.replace("clang", "clang++") if cpp else _CLANG,
        "--target=x86_64-w64-mingw32",
        "-g",
        "-gcodeview",
        *common,
    ]
    if cpp:
        # the library as a DLL: lld loses the unwind data of the archive's stripped objects
        include = libraries / "include" / "c++"
        command += ["-isystem", str(include), "-isystem", str(include / "x86_64-w64-mingw32")]
    return [*command, "-fuse-ld=lld-14", f"-L{libraries}", f"-Wl,--pdb={made / 'program.pdb'}"]


def build(wanted: Build) -> Path:
    """The program, compiled unless the cache has it as the same compiler makes it of the same source.

    Beside it is its PDB, or the linker's map. Raises AssertionError with the compiler's words.
    """
    folder = wine.cache_folder() / "src" / _PROGRAMS[wanted.program].folder
    home = wine.cache_folder() / "measured"
    home.mkdir(exist_ok=True)
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(file.read_bytes())
    for compiler in (_GCC, _CLANG):
        digest.update(_output(compiler, "--version").encode())
    made = home / f"{wanted}-{digest.hexdigest()[:16]}"
    with open(home / f"{wanted}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            for old in home.glob(f"{wanted}-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(dir=home) as work:
                fresh = Path(work, "made")
                fresh.mkdir()
                (fresh / "main.c").write_text(_PROGRAMS[wanted.program].main)
                (fresh / "compat.h").write_text(_PROGRAMS[wanted.program].header)
                done = subprocess.run(
                    _command(wanted, folder, fresh), capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stderr
                fresh.rename(made)
    return made / "program.exe"


def build_all(wanted: Sequence[Build]) -> list[Path]:
    """The programs, compiled side by side."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(build, wanted))


@dataclass
class Truth:
    """What the symbols say. Addresses are RVAs."""

    functions: dict[int, str]
    labels: set[int]  # names that may or may not be functions
    judged: list[tuple[int, int]]  # code about which the symbols say everything; ascending


@dataclass
class Score:
    """What discovery found, held against the truth."""

    truth: Truth
    leaves: int  # functions without RUNTIME_FUNCTION
    reported: int  # in code that is judged
    missed: list[int]
    false: list[int]

    @property
    def recall(self) -> float:
        """The part of the functions that was found."""
        return 1 - len(self.missed) / len(self.truth.functions)

    @property
    def precision(self) -> float:
        """The part of what was found that is a function."""
        return 1 - len(self.false) / self.reported


def truth_of(program: Path, image: Image) -> Truth:
    """The functions of a program: by the PDB beside it if there is one, else by its COFF symbols and map."""
    sections = [section.VirtualAddress for section in pefile.PE(str(program), fast_load=True).sections]
    database = program.with_suffix(".pdb")
    truth = (
        _by_pdb(database, image, sections) if database.is_file() else _by_symbols(program, image, sections)
    )
    for label in {label for label in truth.labels if _is_import_jump(image, label)}:
        truth.functions.setdefault(label, "import thunk")
    truth.labels -= truth.functions.keys()
    return truth


def _is_import_jump(image: Image, rva: int) -> bool:
    """jmp qword ptr [rip + an import address table slot]"""
    displacement = int.from_bytes(image.data[rva + 2 : rva + 6], "little", signed=True)
    return image.data[rva : rva + 2] == b"\xff\x25" and rva + 6 + displacement in image.imports


def _by_symbols(program: Path, image: Image, sections: list[int]) -> Truth:
    truth = Truth({}, set(), _named_code(program.with_suffix(".map").read_text(), image.base))
    shown = _output("x86_64-w64-mingw32-objdump", "-t", str(program))
    for section, kind, storage, value, name in _SYMBOL.findall(shown):
        if not 0 < int(section) <= len(sections):
            continue
        rva = sections[int(section) - 1] + int(value, 16)
        if not _inside(rva, image.executable):
            continue
        if int(kind, 16) == _FUNCTION:
            if not _PIECE.search(name):
                truth.functions[rva] = name
        elif int(storage) == _EXTERNAL:
            truth.labels.add(rva)
    return truth


@functools.cache
def _has_local_symbols(archive: str) -> bool:
    """Has it the symbol called .file, which stripping takes away with the local ones?"""
    return b".file\0\0\0" in Path(archive).read_bytes()


def _named_code(linker_map: str, base: int) -> list[tuple[int, int]]:
    """The code of object files that have their local symbols."""
    ranges = []
    for begin, size, file in _MAPPED.findall(linker_map):
        archive = file.partition("(")[0]
        if int(size, 16) and (not archive.endswith(".a") or _has_local_symbols(archive)):
            ranges.append((int(begin, 16) - base, int(begin, 16) - base + int(size, 16)))
    return sorted(ranges)


def _by_pdb(database: Path, image: Image, sections: list[int]) -> Truth:
    read = pdb.read(database)
    described = [(sections[section - 1] + offset, size) for section, offset, size in read.described]
    judged = ((begin, begin + size) for begin, size in described if size and _inside(begin, image.executable))
    truth = Truth({}, set(), sorted(judged))
    for (section, offset), (name, function) in read.publics.items():
        rva = sections[section - 1] + offset if 0 < section <= len(sections) else 0
        if _inside(rva, image.executable):
            if function:
                truth.functions[rva] = name
            else:
                truth.labels.add(rva)
    for (section, offset), name in read.procedures.items():
        truth.functions[sections[section - 1] + offset] = name
    return truth


def _inside(rva: int, ranges: list[tuple[int, int]]) -> bool:
    """Is it in one of these ascending ranges?"""
    at = bisect.bisect_right(ranges, (rva, sys.maxsize)) - 1
    return at >= 0 and rva < ranges[at][1]


def without_leaf_entries(image: Image) -> Image:
    """The same program, with no RUNTIME_FUNCTION that has neither unwind codes nor a handler."""
    begin, size = image.pdata
    kept = [entry for entry in _entries(image) if image.u32(entry[2]) & 0xFF00FF != 0x000001]
    table = b"".join(struct.pack("<III", *entry) for entry in kept)
    data = image.data[:begin] + table.ljust(size, b"\0") + image.data[begin + size :]
    return replace(image, data=data, pdata=(begin, len(table)))


def _entries(image: Image) -> list[tuple[int, int, int]]:
    begin, size = image.pdata
    return list(struct.iter_unpack("<III", image.data[begin : begin + size]))


def measure(truth: Truth, image: Image) -> Score:
    """Discover the functions of an image, which comes without its symbols."""
    assert not any(source & Source.SYMBOL for _, source in image.seeds)
    found = {function.rva for function in ModulePlan(image).functions}
    known = truth.functions.keys() | truth.labels
    judged = {rva for rva in found - truth.labels if _inside(rva, truth.judged)}
    begins = {entry[0] for entry in _entries(image)}
    return Score(
        truth,
        len(truth.functions.keys() - begins),
        len(judged),
        sorted(truth.functions.keys() - found),
        sorted(judged - known),
    )
