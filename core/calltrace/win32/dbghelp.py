"""Names of functions by dbghelp.dll, the system's or Wine's: from PDBs, and by Wine's also from DWARF.

What is read is the module's file, never the process. Microsoft, "Debug Help Library": a session needs a
handle that no other has, which need not be a process's; no two threads may be in the library at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_char, c_int, c_uint8, c_uint32, c_uint64, c_void_p, c_wchar, c_wchar_p
from pathlib import PureWindowsPath
from typing import Any

from calltrace.errors import FileMissing
from calltrace.ports import ModuleSymbols, TargetModule
from calltrace.win32 import api

# SYMOPT_: demangled names, of code that was moved after linking, too; no message boxes and no questions;
# publics only where there is nothing better; nothing but the path we give: the one that a module names may be
# on anybody's server.
_OPTIONS = 0x2 | 0x20 | 0x80 | 0x200 | 0x1000 | 0x10000 | 0x20000 | 0x80000
_FROM_DEBUG_INFORMATION = (2, 3, 6, 7)  # SYM_TYPE: SymCv, SymPdb, SymSym, SymDia
_NAME_ONLY = 0x1000  # UNDNAME_
_WINES_OWN = "EntryPoint"  # what Wine calls the start of a program of which it knows no more
_LONGEST = 4096  # characters of a name
_FIRST_HANDLE = 0xCA110001


class _ModuleInfo(ctypes.Structure):
    """IMAGEHLP_MODULEW64."""

    _fields_ = [
        ("SizeOfStruct", c_uint32),
        ("BaseOfImage", c_uint64),
        ("ImageSize", c_uint32),
        ("TimeDateStamp", c_uint32),
        ("CheckSum", c_uint32),
        ("NumSyms", c_uint32),
        ("SymType", c_uint32),
        ("ModuleName", c_wchar * 32),
        ("ImageName", c_wchar * 256),
        ("LoadedImageName", c_wchar * 256),
        ("LoadedPdbName", c_wchar * 256),
        ("CVSig", c_uint32),
        ("CVData", c_wchar * 780),
        ("PdbSig", c_uint32),
        ("PdbSig70", c_uint8 * 16),
        ("PdbAge", c_uint32),
        ("PdbUnmatched", c_int),
        ("DbgUnmatched", c_int),
        ("LineNumbers", c_int),
        ("GlobalSymbols", c_int),
        ("TypeInfo", c_int),
        ("SourceIndexed", c_int),
        ("Publics", c_int),
        ("MachineType", c_uint32),
        ("Reserved", c_uint32),
    ]


class _Symbol(ctypes.Structure):
    """SYMBOL_INFOW, with room for its name."""

    _fields_ = [
        ("SizeOfStruct", c_uint32),
        ("others", c_char * 72),
        ("NameLen", c_uint32),
        ("MaxNameLen", c_uint32),
        ("Name", c_wchar * _LONGEST),
    ]


_SYMBOL_SIZE = 88  # sizeof(SYMBOL_INFOW)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "SymSetOptions": (c_uint32, [c_uint32]),
    "SymInitializeW": (c_int, [c_void_p, c_wchar_p, c_int]),
    "SymLoadModuleExW": (
        c_uint64,
        [c_void_p, c_void_p, c_wchar_p, c_wchar_p, c_uint64, c_uint32, c_void_p, c_uint32],
    ),
    "SymGetModuleInfoW64": (c_int, [c_void_p, c_uint64, ctypes.POINTER(_ModuleInfo)]),
    "SymFromAddrW": (c_int, [c_void_p, c_uint64, ctypes.POINTER(c_uint64), ctypes.POINTER(_Symbol)]),
    "UnDecorateSymbolNameW": (c_uint32, [c_wchar_p, c_wchar_p, c_uint32, c_uint32]),
    "SymCleanup": (c_int, [c_void_p]),
}
_lock = threading.RLock()  # held inside the library
_handles = itertools.count(_FIRST_HANDLE)


@functools.cache
def _library() -> Any:
    library = api.load("dbghelp", _FUNCTIONS)
    library.SymSetOptions(_OPTIONS)
    return library


def search_path(text: str) -> str:
    """Where to look for symbols, as a user gives it: a file stands for its folder.

    FileMissing if a place is not there; symbol servers and caches, which have a * in them, are not looked at.
    """
    places = []
    for place in text.split(";"):
        if place and "*" not in place and not os.path.exists(place):
            raise FileMissing(f"--symbols: there is no {place}")
        places.append(os.path.dirname(place) or "." if os.path.isfile(place) else place)
    return ";".join(places)


class SymbolFiles:
    """Where to look for the symbols of modules."""

    def __init__(self, path: str, tell: Callable[[str], None]) -> None:
        """`path`: folders, and symbol servers if the user names them, as in _NT_SYMBOL_PATH; "": as there.

        `tell` is told, a line each, of symbols that cannot be used.
        """
        self._path = path or os.environ.get("_NT_SYMBOL_PATH", "")
        self._tell = tell

    def of_module(self, module: TargetModule) -> ModuleSymbols | None:
        """The symbols of a module, by its file; None if it has none but its exports."""
        file = PureWindowsPath(module.path)
        search = ";".join(part for part in (self._path, str(file.parent)) if part)
        try:
            loaded = _Loaded(module, search)
            source, wanted = loaded.source()
        except OSError as error:  # the library is missing, or has raised an exception
            self._tell(f"{file.name}: names are its own only: dbghelp.dll failed: {error}")
            return None
        if source:
            return ModuleSymbols(source, functools.partial(self._names, file.name, loaded))
        names = dict.fromkeys((file.with_suffix(".pdb").name, wanted or file.with_suffix(".pdb").name))
        for database in (PureWindowsPath(folder, name) for folder in search.split(";") for name in names):
            if os.path.exists(database):
                self._tell(f"{file.name}: names are its own only: {database} is damaged or of another build")
        return None

    def _names(self, module: str, loaded: _Loaded, rvas: Sequence[int]) -> Mapping[int, str]:
        found: dict[int, str] = {}
        try:
            loaded.find(rvas, found)
        except OSError as error:
            self._tell(f"{module}: some names are missing: dbghelp.dll failed: {error}")
        return found


class _Loaded:
    """A session of the library with one module in it, as long as somebody needs it."""

    def __init__(self, module: TargetModule, search: str) -> None:
        self._base = module.base
        self._handle = 0
        with _lock:
            handle = next(_handles)
            if _library().SymInitializeW(handle, search, 0):
                self._handle = handle
                _library().SymLoadModuleExW(
                    handle, None, module.path, None, module.base, module.size, None, 0
                )

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            with _lock, contextlib.suppress(OSError):  # a damaged PDB can do that
                _library().SymCleanup(self._handle)

    def source(self) -> tuple[str, str]:
        """The file that the names are in, "" if that is none but the module's export directory.

        And the name of the database that was written with the module, "" if that is not known.
        """
        about = _ModuleInfo()
        about.SizeOfStruct = ctypes.sizeof(about)
        with _lock:
            found = self._handle and _library().SymGetModuleInfoW64(
                self._handle, self._base, ctypes.byref(about)
            )
        if not found or about.SymType not in _FROM_DEBUG_INFORMATION:
            return "", PureWindowsPath(about.CVData).name
        return str(about.LoadedPdbName or about.LoadedImageName or about.ImageName), ""

    def find(self, rvas: Sequence[int], found: dict[int, str]) -> None:
        """Put the names of what begins at these RVAs into `found`. OSError if the library raises."""
        symbol, behind = _Symbol(), c_uint64()
        plain = ctypes.create_unicode_buffer(_LONGEST)
        ask, undecorate = _library().SymFromAddrW, _library().UnDecorateSymbolNameW
        with _lock:
            for rva in rvas:
                symbol.SizeOfStruct, symbol.MaxNameLen = _SYMBOL_SIZE, _LONGEST
                if not ask(self._handle, self._base + rva, behind, symbol) or behind.value or not symbol.Name:
                    continue
                name = symbol.Name
                if name == _WINES_OWN:
                    continue
                if name.startswith("?") and undecorate(name, plain, _LONGEST, _NAME_ONLY):
                    name = plain.value
                found[rva] = name
