"""One module's image in its mapped layout, with what its headers say of it.

pefile reads the headers and the small directories (exports, imports, TLS, load configuration); the large
arrays (.pdata, relocations) are only located here and read in native code.
Format: Microsoft, "PE Format".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import pefile

from calltrace.errors import FileMissing, NotTraceable
from calltrace.model import Source

_DIRECTORIES = pefile.DIRECTORY_ENTRY
_EXECUTE = 0x20000000  # IMAGE_SCN_MEM_EXECUTE
_WRITE = 0x80000000  # IMAGE_SCN_MEM_WRITE
_DLL = 0x2000  # IMAGE_FILE_DLL
_AMD64 = 0x8664
_MACHINES = {
    0x014C: "a 32-bit program",
    0x01C0: "a 32-bit ARM program",
    0x01C4: "a 32-bit ARM program",
    0xAA64: "an ARM64 program",
}
DOTNET_ONLY = "holds .NET code only, which is compiled at run time and cannot be traced"
_MAX_IMAGE = 3 << 28  # larger ones leave little room for copies within reach of 32-bit displacements
_GUARD_ENTRIES_LIMIT = 1 << 22
_SLACK = 16 << 20  # bytes behind the last section that an image may have: far more than alignment takes


@dataclass(frozen=True)
class Section:
    """A section of a module. Addresses are RVAs."""

    name: str
    begin: int
    end: int
    filled: int  # bytes at its start that come from the file; the rest begins as zeros
    executable: bool
    writable: bool


@dataclass
class Image:
    """A mapped module. All addresses are RVAs but `base`."""

    path: str
    base: int  # VA
    data: bytes  # SizeOfImage bytes
    timestamp: int
    checksum: int
    executable: list[tuple[int, int]]  # sections that hold code: begin, end; ascending
    pdata: tuple[int, int]  # exception directory: RVA, bytes
    relocations: tuple[int, int]  # base relocation directory: RVA, bytes
    seeds: list[tuple[int, Source]] = field(default_factory=list)  # functions that headers name
    names: dict[int, str] = field(default_factory=dict)  # exported names
    imports: dict[int, str] = field(default_factory=dict)  # address table slot -> "KERNEL32.dll!CreateFileW"
    sections: list[Section] = field(default_factory=list)  # in the order of the headers
    directories: list[tuple[int, int]] = field(default_factory=list)  # RVA, bytes; by IMAGE_DIRECTORY_ENTRY
    entry: int = 0
    library: bool = False  # a DLL

    @property
    def size(self) -> int:
        """SizeOfImage, bytes."""
        return len(self.data)

    @property
    def name(self) -> str:
        """The file name without its folder."""
        return PureWindowsPath(self.path).name

    def directory(self, name: str) -> tuple[int, int]:
        """RVA and bytes of IMAGE_DIRECTORY_ENTRY_`name`; (0, 0) if there is none or it lies outside."""
        index = _DIRECTORIES[f"IMAGE_DIRECTORY_ENTRY_{name}"]
        rva, size = self.directories[index] if index < len(self.directories) else (0, 0)
        return (rva, size) if rva and size and rva + size <= self.size else (0, 0)

    def u32(self, rva: int) -> int:
        """The little-endian 32-bit value at `rva`; 0 outside the image."""
        return self._integer(rva, 4)

    def u64(self, rva: int) -> int:
        """The little-endian 64-bit value at `rva`; 0 outside the image."""
        return self._integer(rva, 8)

    def _integer(self, rva: int, size: int) -> int:
        inside = 0 <= rva <= self.size - size
        return int.from_bytes(self.data[rva : rva + size], "little") if inside else 0


def _check_machine(headers: pefile.PE, path: str) -> None:
    machine = headers.FILE_HEADER.Machine
    if machine == _AMD64:
        return
    optional = getattr(headers, "OPTIONAL_HEADER", None)
    if optional is not None and _directory(headers, "IMAGE_DIRECTORY_ENTRY_COM_DESCRIPTOR")[1]:
        raise NotTraceable(f"{path} {DOTNET_ONLY}")  # IL for any machine has the headers of a 32-bit one
    kind = _MACHINES.get(machine, f"for machine type {machine:#x}")
    raise NotTraceable(f"{path} is {kind}: only x64 programs can be traced")


def from_file(path: Path) -> Image:
    """Map a file as the loader would, at its preferred base.

    Raises FileMissing, or NotTraceable if it is no 64-bit Windows program that has code and is whole.
    """
    raw, headers = _open(path)
    _check_sections(raw, headers, path)
    size = headers.OPTIONAL_HEADER.SizeOfImage
    at = min(headers.OPTIONAL_HEADER.SizeOfHeaders, len(raw), size)
    pieces = [raw[:at]]  # joined at the end, so that no image is in memory twice
    for section in sorted(headers.sections, key=lambda section: int(section.VirtualAddress)):
        begin, end = section.VirtualAddress, section.VirtualAddress + _file_bytes(section)
        if end > at:
            first = max(begin, at)
            start = section.PointerToRawData - begin
            pieces += [bytes(first - at), raw[start + first : start + end]]
            at = end
    pieces.append(bytes(size - at))
    return _image(headers, str(path), headers.OPTIONAL_HEADER.ImageBase, b"".join(pieces))


def _open(path: Path) -> tuple[bytes, pefile.PE]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FileMissing(f"{path} cannot be read: {error.strerror or error}") from error
    return raw, _headers(raw, str(path))


def _file_bytes(section: pefile.SectionStructure) -> int:
    """How much of a section the file holds."""
    return int(min(section.SizeOfRawData, section.Misc_VirtualSize or section.SizeOfRawData))


def _check_sections(raw: bytes, headers: pefile.PE, path: Path) -> None:
    for section in headers.sections:
        count = _file_bytes(section)
        end = section.PointerToRawData + count
        if end > len(raw):
            raise NotTraceable(
                f"{path} is truncated: section {_section_name(section)} ends at byte {end:,} of "
                f"{len(raw):,}; get a complete copy of it"
            )
        if section.VirtualAddress + count > headers.OPTIONAL_HEADER.SizeOfImage:
            raise NotTraceable(f"{path} is damaged: section {_section_name(section)} lies outside the image")
    size = headers.OPTIONAL_HEADER.SizeOfImage
    needed = max(
        (section.VirtualAddress + section.Misc_VirtualSize for section in headers.sections), default=0
    )
    if size > needed + _SLACK:  # the loader takes no such file, and we not the memory for it
        raise NotTraceable(f"{path} is damaged: its image has {size:,} bytes, its sections only {needed:,}")


def _check_code(headers: pefile.PE, path: str) -> None:
    """There must be code, and what says where its functions are must be inside the image."""
    size = headers.OPTIONAL_HEADER.SizeOfImage
    rva, length = _directory(headers, "IMAGE_DIRECTORY_ENTRY_EXCEPTION")
    if rva + length > size:
        raise NotTraceable(
            f"{path} is damaged: its .pdata ({rva:#x} to {rva + length:#x}) lies outside the image "
            f"({size:#x} bytes)"
        )
    if not any(section.Characteristics & _EXECUTE for section in headers.sections):
        raise NotTraceable(f"{path} has no code")


def from_memory(read: Callable[[int, int], bytes], base: int, size: int, path: str) -> Image:
    """A module as it stands in a process. `read` takes a VA and a size.

    Raises NotTraceable as `from_file` does, and what `read` raises.
    """
    data = read(base, size)
    return _image(_headers(data, path), path, base, data)


def _section_name(section: pefile.SectionStructure) -> str:
    return str(section.Name.rstrip(b"\0").decode("ascii", "replace"))


def _headers(data: bytes, path: str) -> pefile.PE:
    """The headers, after the checks that need nothing else."""
    if data[:2] != b"MZ":
        raise NotTraceable(f"{path} is not a Windows program (no MZ header)")
    try:
        headers = pefile.PE(data=data, fast_load=True)
    except pefile.PEFormatError as error:
        reason = str(error).strip("'\"")
        raise NotTraceable(f"{path} is damaged or no 64-bit Windows program: {reason}") from error
    _check_machine(headers, path)
    if headers.OPTIONAL_HEADER.Magic != 0x20B:  # PE32+
        raise NotTraceable(f"{path} is damaged: its optional header is not that of a 64-bit program")
    size = headers.OPTIONAL_HEADER.SizeOfImage
    if not 0 < size <= _MAX_IMAGE:
        raise NotTraceable(f"{path} is damaged: its image size is {size:,} bytes")
    return headers


def _image(headers: pefile.PE, path: str, base: int, data: bytes) -> Image:
    sections = [
        Section(
            _section_name(section),
            section.VirtualAddress,
            min(section.VirtualAddress + section.Misc_VirtualSize, len(data)),
            _file_bytes(section),
            bool(section.Characteristics & _EXECUTE),
            bool(section.Characteristics & _WRITE),
        )
        for section in headers.sections
        if section.VirtualAddress < len(data)
    ]
    for section in headers.sections:  # from here on pefile reads `data`, which has no file layout any more
        section.PointerToRawData = section.VirtualAddress
        section.SizeOfRawData = max(section.Misc_VirtualSize, 1)
        # what pefile has derived from the old ones, if it has looked for something in this section
        section.PointerToRawData_adj = section.section_min_addr = section.section_max_addr = None
    headers.__data__ = data
    size = len(data)
    executable = sorted((section.begin, section.end) for section in sections if section.executable)
    _check_code(headers, path)
    relocations = _directory(headers, "IMAGE_DIRECTORY_ENTRY_BASERELOC")
    image = Image(
        path=path,
        base=base,
        data=data,
        timestamp=headers.FILE_HEADER.TimeDateStamp,
        checksum=headers.OPTIONAL_HEADER.CheckSum,
        executable=_disjoint(executable),
        pdata=_directory(headers, "IMAGE_DIRECTORY_ENTRY_EXCEPTION"),
        relocations=relocations if sum(relocations) <= size else (0, 0),
        sections=sections,
        directories=[(each.VirtualAddress, each.Size) for each in headers.OPTIONAL_HEADER.DATA_DIRECTORY],
        entry=headers.OPTIONAL_HEADER.AddressOfEntryPoint,
        library=bool(headers.FILE_HEADER.Characteristics & _DLL),
    )
    if image.entry:
        image.seeds.append((image.entry, Source.ENTRY))
    _read_names(headers, image)
    _read_tls(headers, image)
    _read_guard_table(headers, image)
    return image


def _directory(headers: pefile.PE, name: str) -> tuple[int, int]:
    index = _DIRECTORIES[name]
    directories = headers.OPTIONAL_HEADER.DATA_DIRECTORY
    if index >= len(directories):
        return 0, 0
    return directories[index].VirtualAddress, directories[index].Size


def _disjoint(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    for begin, end in ranges:
        free = max(begin, result[-1][1]) if result else begin
        if free < end:
            result.append((free, end))
    return result


def _read_names(headers: pefile.PE, image: Image) -> None:
    wanted = ("EXPORT", "IMPORT", "DELAY_IMPORT")
    # damaged directories give fewer names, never an error: names are for reading only
    headers.parse_data_directories([_DIRECTORIES[f"IMAGE_DIRECTORY_ENTRY_{name}"] for name in wanted])
    exports = getattr(headers, "DIRECTORY_ENTRY_EXPORT", None)
    for symbol in exports.symbols if exports else ():
        if symbol.forwarder is None and symbol.address and _is_code(image, symbol.address):
            image.seeds.append((symbol.address, Source.EXPORT))
            if symbol.name:
                image.names.setdefault(symbol.address, symbol.name.decode("utf-8", "replace"))
    preferred = headers.OPTIONAL_HEADER.ImageBase
    for directory in ("DIRECTORY_ENTRY_IMPORT", "DIRECTORY_ENTRY_DELAY_IMPORT"):
        for library in getattr(headers, directory, ()):
            dll = library.dll.decode("utf-8", "replace") if library.dll else "?"
            for entry in library.imports:
                name = entry.name.decode("utf-8", "replace") if entry.name else f"#{entry.ordinal}"
                image.imports[entry.address - preferred] = f"{dll}!{name}"


def _is_code(image: Image, rva: int) -> bool:
    return any(begin <= rva < end for begin, end in image.executable)


def _read_tls(headers: pefile.PE, image: Image) -> None:
    rva, size = _directory(headers, "IMAGE_DIRECTORY_ENTRY_TLS")
    if not size:
        return
    callbacks = image.u64(rva + 24) - image.base  # AddressOfCallBacks: a zero-terminated array of VAs
    for position in range(64):
        callback = image.u64(callbacks + 8 * position) - image.base
        if not _is_code(image, callback):
            return
        image.seeds.append((callback, Source.TLS))


def _read_guard_table(headers: pefile.PE, image: Image) -> None:
    """GuardCFFunctionTable of IMAGE_LOAD_CONFIG_DIRECTORY64: RVAs, each with some bytes of metadata."""
    rva, size = _directory(headers, "IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG")
    if size and image.u32(rva) < 0x94:
        return
    table = image.u64(rva + 0x80) - image.base
    count = image.u64(rva + 0x88)
    stride = 4 + (image.u32(rva + 0x90) >> 28)
    if not size or not 0 < table < image.size or count > _GUARD_ENTRIES_LIMIT:
        return
    for position in range(min(count, (image.size - table) // stride)):
        function = image.u32(table + position * stride)
        if _is_code(image, function):
            image.seeds.append((function, Source.GUARD))
