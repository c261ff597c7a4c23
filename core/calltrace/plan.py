"""The plan of a module: its functions, and their instrumented copies; the work itself is native/planner's."""

from __future__ import annotations

import collections
import ctypes
import functools
import json
import struct
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from ctypes import POINTER, c_bool, c_char_p, c_uint8, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any, NamedTuple

from calltrace import native, preflight, stubs
from calltrace.errors import EngineError, OutOfSpace
from calltrace.model import NONE_ID, FunctionFlag, FunctionRecord, Module, SiteRecord, Source
from calltrace.patterns import Pattern, matches_any, reaches
from calltrace.pe.debug import pdb_of
from calltrace.pe.demangle import readable
from calltrace.pe.image import Image, from_memory
from calltrace.pe.known import known_functions
from calltrace.pe.rtti import virtual_functions
from calltrace.pe.runtimes import closed_code
from calltrace.pe.symbols import add_symbols
from calltrace.places import COPIED, PIECE, Copied
from calltrace.ports import ModuleSymbols, TargetModule
from calltrace.tracefile import FUNCTION, SITE, Chunk, ChunkKind

DETAILS = {"functions": 0, "outward": 1, "all": 2}  # enum ct_detail
STATUS_THUNK, STATUS_FILTERED = 14, 15  # enum ct_status; no refusals
_LEAVE, _WANT, _RUNTIME = 0, 1, 2  # enum ct_choice
_MODULE = struct.Struct("<QIIIIIIIIQ")
_FUNCTION = struct.Struct("<IIIIIHH")  # struct ct_function
_EXTENT = struct.Struct("<III")  # struct ct_extent
_PATCH = struct.Struct("<II8s8s")  # struct ct_patch


class _Range(ctypes.LittleEndianStructure):
    _fields_ = [("begin", c_uint32), ("end", c_uint32)]


class _Seed(ctypes.LittleEndianStructure):
    _fields_ = [("rva", c_uint32), ("source", c_uint32)]


class _Known(ctypes.LittleEndianStructure):
    _fields_ = [("rva", c_uint32), ("trait", c_uint32)]


class _Image(ctypes.LittleEndianStructure):
    """struct ct_image."""

    _fields_ = [
        ("bytes", c_char_p),
        ("base", c_uint64),
        ("size", c_uint32),
        ("pdata", c_uint32),
        ("pdata_size", c_uint32),
        ("relocs", c_uint32),
        ("relocs_size", c_uint32),
        ("exec_count", c_uint32),
        ("exec", POINTER(_Range)),
        ("seeds", POINTER(_Seed)),
        ("imports", POINTER(c_uint32)),
        ("known", POINTER(_Known)),
        ("seed_count", c_uint32),
        ("import_count", c_uint32),
        ("known_count", c_uint32),
        ("reserved", c_uint32),
    ]


class Function(NamedTuple):
    """struct ct_function: what the planner knows of one function. Addresses are RVAs."""

    rva: int
    size: int
    status: int
    status_at: int
    parent: int
    sources: int
    flags: int


class Extent(NamedTuple):
    """struct ct_extent: a contiguous piece of a function's code. Addresses are RVAs."""

    begin: int
    end: int
    function: int  # position among the functions


class _Layout(ctypes.LittleEndianStructure):
    """struct ct_layout."""

    _fields_ = [
        ("region_size", c_uint32),
        ("code_size", c_uint32),
        ("copy_bytes", c_uint32),
        ("data_bytes", c_uint32),
        ("site_count", c_uint32),
        ("instrumented", c_uint32),
        ("breakpoints", c_uint32),
    ]


class _Region(ctypes.LittleEndianStructure):
    """struct ct_region."""

    _fields_ = [
        ("bytes", POINTER(c_uint8)),
        ("table", c_uint32),
        ("table_count", c_uint32),
        ("patches", c_void_p),
        ("patch_count", c_uint32),
        ("breakpoints", c_uint32),
        ("breakpoint_count", c_uint32),
    ]


class _Copies(ctypes.LittleEndianStructure):
    """struct ct_copies."""

    _fields_ = [
        ("pieces", c_void_p),
        ("copied", c_void_p),
        ("piece_count", c_uint32),
        ("copied_count", c_uint32),
    ]


@functools.cache
def _engine() -> ctypes.CDLL:
    library = native.library()
    prototypes: dict[str, tuple[object, list[object]]] = {
        "ct_tsc": (c_uint64, []),
        "ct_status_text": (c_char_p, [c_uint32]),
        "ct_plan_open": (c_void_p, [POINTER(_Image)]),
        "ct_plan_close": (None, [c_void_p]),
        "ct_plan_functions": (c_void_p, [c_void_p, POINTER(c_uint32)]),
        "ct_plan_extents": (c_void_p, [c_void_p, POINTER(c_uint32)]),
        "ct_plan_select": (None, [c_void_p, c_char_p]),
        "ct_plan_layout": (c_bool, [c_void_p, POINTER(stubs.Codegen), POINTER(_Layout)]),
        "ct_plan_sites": (c_void_p, [c_void_p, POINTER(c_uint32)]),
        "ct_plan_emit": (c_bool, [c_void_p, c_uint32, POINTER(_Region)]),
        "ct_plan_copies": (c_bool, [c_void_p, POINTER(_Copies)]),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@dataclass(frozen=True)
class Composition:
    """The copies of a module's functions, made for one address."""

    code: bytes  # the whole region
    executable_size: int  # bytes at its start to be made executable; the rest is to be read only
    table_rva: int  # RUNTIME_FUNCTION array of the copies; RVA from the module's base
    table_count: int
    breakpoints_rva: int  # struct ct_breakpoint array: functions that start with an int3; RVA from the base
    breakpoint_count: int
    patches: list[tuple[int, bytes, bytes]]  # RVA, original bytes, new bytes, in the order to write them
    module_chunk: bytes  # for the trace file
    function_count: int
    site_count: int
    refused: dict[str, int]  # functions that cannot be instrumented, by reason
    copies: Copied


def read_image(read: Callable[[int, int], bytes], module: TargetModule) -> Image:
    """The image of a module in a process, with the symbols its file may have.

    Raises NotTraceable if it is damaged or blocked (calltrace.preflight), and what `read` raises.
    """
    image = from_memory(read, module.base, module.size, module.path)
    preflight.refuse_blocked(module.name, preflight.of_module(image))
    add_symbols(image)
    return image


class ModulePlan:
    """Everything decided for a module before anything is written.

    Discovery happens here, then `lay_out`, then `compose`.
    """

    def __init__(
        self,
        image: Image,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        symbols: ModuleSymbols | None = None,
    ) -> None:
        """Find the functions of `image` and choose those that the patterns mean.

        `symbols` name functions rather than the image does. Raises UsageError for a malformed pattern,
        EngineError if memory runs out.
        """
        self._seconds = 0.0  # spent here, without what the host does in between
        started = time.perf_counter()
        self.image = image
        self._layout = _Layout()
        self._laid_out: tuple[object, ...] = ()
        self._copies: weakref.WeakSet[Copied] = weakref.WeakSet()  # that what is laid out is the map of
        self._detail = ""
        self._imports = sorted(image.imports)
        self._described = _describe(image, self._imports)
        self._handle = _engine().ct_plan_open(ctypes.byref(self._described))
        if not self._handle:
            raise EngineError(f"{image.name}: not enough memory to plan its functions")
        self._seconds += time.perf_counter() - started
        self._named_by = ""
        names = symbols.names([function.rva for function in self.functions]) if symbols else {}
        if symbols and names:
            self._named_by = symbols.source
            image.names.update(names)
        started = time.perf_counter()
        own = {rva: readable(name) for rva, name in image.names.items()}
        image.names = {**virtual_functions(image), **own}
        self.chosen = self.functions_found  # how many of them the patterns mean
        self._select(include, exclude)
        self._seconds += time.perf_counter() - started

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            _engine().ct_plan_close(self._handle)

    def is_of(self, read: Callable[[int, int], bytes]) -> bool:
        """Whether the code in a process is still what was planned. Raises what `read` raises."""
        image = self.image
        return all(
            read(image.base + begin, end - begin) == image.data[begin:end] for begin, end in image.executable
        )

    @property
    def most_patches(self) -> int:
        """No more patches than this will be made; after `lay_out`."""
        return 2 * int(self._layout.instrumented)

    @property
    def functions(self) -> Sequence[Function]:
        """All functions found; statuses are final after `lay_out`."""
        count = c_uint32()
        found = _engine().ct_plan_functions(self._handle, ctypes.byref(count))
        return [Function._make(record) for record in _records(_FUNCTION, found, count.value)]

    @property
    def extents(self) -> Sequence[Extent]:
        """All pieces of all functions, ascending and disjoint."""
        count = c_uint32()
        found = _engine().ct_plan_extents(self._handle, ctypes.byref(count))
        return [Extent._make(record) for record in _records(_EXTENT, found, count.value)]

    @property
    def sites(self) -> Sequence[SiteRecord]:
        """Call sites that are recorded, and jumps out of functions, in the order of ids; after `lay_out`."""
        count = c_uint32()
        found = _engine().ct_plan_sites(self._handle, ctypes.byref(count))
        return [SiteRecord._make(record) for record in _records(SITE, found, count.value)]

    @property
    def functions_found(self) -> int:
        """How many functions were found."""
        count = c_uint32()
        _engine().ct_plan_functions(self._handle, ctypes.byref(count))
        return count.value

    @property
    def copy_bytes(self) -> int:
        """Bytes of code in the copies; after `lay_out`."""
        return int(self._layout.copy_bytes)

    @property
    def data_bytes(self) -> int:
        """Bytes of unwind data and address maps beside the copies; after `lay_out`."""
        return int(self._layout.data_bytes)

    @property
    def executable_bytes(self) -> int:
        """Bytes of the module's own executable sections."""
        return sum(end - begin for begin, end in self.image.executable)

    def lay_out(
        self,
        slots: stubs.Slots,
        events: str,
        clock: str,
        first_function_id: int,
        first_site_id: int,
        breakpoints: bool = True,
        mode: str = "trace",
    ) -> int:
        """Decide where every copy will lie, and return the size of the region they need, in bytes.

        `events` is a key of DETAILS, `mode` as in TraceOptions. Without `breakpoints`, functions whose start
        has no room for a jump are refused. Raises OutOfSpace if the copies would not fit into 1 GB, or the
        ids not into a trace, and EngineError if memory for the map of earlier copies runs out.
        """
        wanted = (slots.cursor, *slots.scratch, slots.slow_path, slots.coarse_clock)
        wanted += (events, clock, mode, first_function_id, first_site_id)
        if wanted == self._laid_out:
            return int(self._layout.region_size)
        self._laid_out = ()
        for copies in self._copies:
            copies.settle()
        self._copies.clear()
        started = time.perf_counter()
        codegen = stubs.assemble(slots, clock, mode)
        codegen.detail, codegen.breakpoints = DETAILS[events], breakpoints
        codegen.first_function, codegen.first_site = first_function_id, first_site_id
        self._detail = events
        self._first_function, self._first_site = first_function_id, first_site_id
        if not _engine().ct_plan_layout(self._handle, ctypes.byref(codegen), ctypes.byref(self._layout)):
            raise OutOfSpace(
                f"{self.image.name}: the copies of its functions need too much memory or too many ids; "
                "narrow them down with --include or --exclude, or use --events functions"
            )
        self._seconds += time.perf_counter() - started
        self._laid_out = wanted
        return int(self._layout.region_size)

    def compose(self, region: int, index: int) -> Composition:
        """Write the copies for a region at VA `region`, of the size that `lay_out` gave.

        `index` numbers the module in the trace. Raises OutOfSpace if the region is out of reach.
        """
        started = time.perf_counter()
        made = _Region()
        if not _engine().ct_plan_emit(self._handle, region - self.image.base, ctypes.byref(made)):
            raise OutOfSpace(f"{self.image.name}: its copies at {region:#x} are out of reach of its data")
        functions = self.functions
        patches = [
            (rva, original[:size], new[:size])
            for rva, size, original, new in _records(_PATCH, made.patches, made.patch_count)
        ]
        copies = Copied(
            self.image.base, self.image.size, region, self._layout.region_size, self._map_of_copies
        )
        self._copies.add(copies)
        self._seconds += time.perf_counter() - started
        return Composition(
            code=ctypes.string_at(made.bytes, self._layout.region_size),
            executable_size=self._layout.code_size,
            table_rva=made.table,
            table_count=made.table_count,
            breakpoints_rva=made.breakpoints,
            breakpoint_count=made.breakpoint_count,
            patches=patches,
            module_chunk=self.module_chunk(index),
            function_count=len(functions),
            site_count=self._layout.site_count,
            refused=_count_refusals(functions),
            copies=copies,
        )

    def module(self) -> Module:
        """What a trace would say of the module; after `lay_out`."""
        image, functions = self.image, self.functions
        return Module(
            index=0,
            base=image.base,
            size=image.size,
            path=image.path,
            name=image.name,
            load_tsc=0,
            first_function=self._first_function,
            function_count=len(functions),
            first_site=self._first_site,
            site_count=self._layout.site_count,
            timestamp=image.timestamp,
            checksum=image.checksum,
            names=image.names,
            imports=tuple(self._import_names()),
            statuses={status: status_text(status) for status in {each.status for each in functions} - {0}},
            refusals={function.rva: function.status_at for function in functions if function.status},
            plan=self._figures(),
            events=self._detail,
            pdb=pdb_of(image),
            named_by=self._named_by,
        )

    def records(self) -> list[FunctionRecord]:
        """What a trace would say of each function; after `lay_out`."""
        return [
            FunctionRecord(each.rva, each.size, each.sources, each.flags, each.status, self._parent(each))
            for each in self.functions
        ]

    def _import_names(self) -> list[str]:
        names = (self.image.imports[slot].partition("!") for slot in self._imports)
        return [f"{library}{bang}{readable(name)}" for library, bang, name in names]

    def _parent(self, function: Function) -> int:
        parent = function.parent
        return parent if parent == NONE_ID else parent + self._first_function

    def _figures(self) -> dict[str, Any]:
        return {
            "milliseconds": round(self._seconds * 1000, 1),
            "executable_bytes": self.executable_bytes,
            "copy_bytes": self.copy_bytes,
            "data_bytes": self.data_bytes,
        }

    def _map_of_copies(self) -> tuple[bytes, bytes]:
        """Arrays of struct ct_piece and struct ct_copied; after `compose`.

        Raises EngineError if memory runs out.
        """
        made = _Copies()
        if not _engine().ct_plan_copies(self._handle, ctypes.byref(made)):
            raise EngineError(f"{self.image.name}: not enough memory for the map of its copies")
        return (
            ctypes.string_at(made.pieces or 0, PIECE.size * made.piece_count),
            ctypes.string_at(made.copied or 0, COPIED.size * made.copied_count),
        )

    def _select(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        closed = closed_code(self.image)
        if not include and not exclude and not closed:
            return
        included = [Pattern.parse(text) for text in include]
        self.chosen = 0
        excluded = [Pattern.parse(text) for text in exclude]
        image = self.image
        choices = bytearray()
        functions = self.functions
        sizes = reaches([(function.rva, function.size) for function in functions])
        for function, size in zip(functions, sizes):
            name = image.names.get(function.rva)
            about = (image.name, name, function.rva, image.base, size)
            wanted = not included or matches_any(included, *about)
            if not wanted or matches_any(excluded, *about):
                choices.append(_LEAVE)
            else:
                self.chosen += 1
                inside = any(begin <= function.rva < end for begin, end in closed)
                choices.append(_RUNTIME if inside else _WANT)
        _engine().ct_plan_select(self._handle, bytes(choices))

    def module_chunk(self, index: int) -> bytes:
        """The MODULE chunk of the trace: struct ct_module, functions, sites, JSON; whole blocks.

        After `lay_out`. `index` numbers the module in the trace.
        """
        image, functions = self.image, self.functions
        records = bytearray()
        for function in functions:
            records += FUNCTION.pack(
                function.rva,
                function.size,
                function.sources,
                function.flags,
                function.status,
                self._parent(function),
            )
        count = c_uint32()
        sites = _engine().ct_plan_sites(self._handle, ctypes.byref(count))
        site_records = ctypes.string_at(sites, count.value * SITE.size) if count.value else b""
        refused = [function for function in functions if function.status]
        statuses = sorted({function.status for function in refused})
        about = {
            "path": image.path,
            "name": image.name,
            "timestamp": image.timestamp,
            "checksum": image.checksum,
            "names": sorted(image.names.items()),
            "imports": self._import_names(),
            "statuses": {str(status): status_text(status) for status in statuses},
            "refusals": [(function.rva, function.status, function.status_at) for function in refused],
            "plan": self._figures(),
            "events": self._detail,
            "pdb": pdb_of(image),
            "named_by": self._named_by,
        }
        text = json.dumps(about, separators=(",", ":")).encode()
        payload = _MODULE.size + len(records) + len(site_records) + len(text)
        header = Chunk.before(ChunkKind.MODULE, payload)
        module = _MODULE.pack(
            image.base,
            image.size,
            index,
            self._first_function,
            len(functions),
            self._first_site,
            count.value,
            len(text),
            0,
            _engine().ct_tsc(),
        )
        return b"".join((bytes(header), module, records, site_records, text)).ljust(header.length, b"\0")


def _records(layout: struct.Struct, address: int | None, count: int) -> Iterator[tuple[Any, ...]]:
    """An array of native structs, copied."""
    return layout.iter_unpack(ctypes.string_at(address or 0, count * layout.size) if count else b"")


def status_text(status: int) -> str:
    """Why a function has this status (enum ct_status)."""
    return str(_engine().ct_status_text(status).decode())


def _count_refusals(functions: Sequence[Function]) -> dict[str, int]:
    counts = collections.Counter(
        function.status
        for function in functions
        if function.status not in (0, STATUS_THUNK) and not function.flags & FunctionFlag.FILTERED
    )
    return {status_text(status): count for status, count in counts.items()}


def _describe(image: Image, imports: Sequence[int]) -> _Image:
    seeds: dict[int, Source] = collections.defaultdict(lambda: Source(0))
    for rva, source in image.seeds:
        seeds[rva] |= source
    known = sorted(known_functions(image).items())
    described = _Image(
        bytes=image.data,
        base=image.base,
        size=image.size,
        pdata=image.pdata[0],
        pdata_size=image.pdata[1],
        relocs=image.relocations[0],
        relocs_size=image.relocations[1],
        exec_count=len(image.executable),
        seed_count=len(seeds),
        import_count=len(imports),
        known_count=len(known),
    )
    described.exec = (_Range * len(image.executable))(*(_Range(*section) for section in image.executable))
    described.seeds = (_Seed * len(seeds))(*(_Seed(rva, int(source)) for rva, source in seeds.items()))
    described.imports = (c_uint32 * len(imports))(*imports)
    described.known = (_Known * len(known))(*(_Known(rva, int(trait)) for rva, trait in known))
    return described
