"""Putting our plugin where a debugger looks for plugins."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from calltrace.errors import AccessRefused, FileMissing, NotTraceable

PLUGIN = Path(__file__).parent / "_native" / "calltrace.dp64"
CLIENT = PLUGIN.with_name("calltrace_client.py")

_BESIDE = ("", "x64", "release/x64")  # of the folder of a release, where the 64-bit debugger may be


def install_x64dbg(folder: Path) -> tuple[Path, Path | None]:
    """Copy the plugin into an x64dbg, and its module for scripts into x64dbgpy if that is there; where to.

    The copy knows where it is from, and so finds this package and its Python. FileMissing if there is no
    64-bit x64dbg in `folder`, NotTraceable if it is too old or damaged, AccessRefused if a file cannot be
    written.
    """
    for file in (PLUGIN, CLIENT):
        if not file.is_file():
            raise FileMissing(f"{file} is not there: build it, or install calltrace from a wheel")
    for name in _BESIDE:
        debugger = folder.absolute() / name
        if (debugger / "x64dbg.dll").is_file():
            break
    else:
        raise FileMissing(f"{folder} has no x64dbg.dll: name the folder that x64dbg was unpacked to")
    _check_version(debugger)
    plugins = debugger / "plugins"
    scripting = plugins / "x64dbgpy"  # where its scripts import from
    copy, client = plugins / PLUGIN.name, scripting / CLIENT.name if scripting.is_dir() else None
    try:
        plugins.mkdir(exist_ok=True)
        shutil.copyfile(PLUGIN, copy)
        copy.with_name(f"{copy.name}.origin").write_text(f"{PLUGIN.resolve()}\n", encoding="utf-8")
        if client:
            shutil.copyfile(CLIENT, client)
    except OSError as error:
        raise AccessRefused(
            f"{error.filename2 or error.filename} cannot be written: {error.strerror}; close x64dbg first"
        ) from None
    return copy, client


def _check_version(debugger: Path) -> None:
    """Has the debugger all that the plugin uses of it?"""
    import pefile

    with pefile.PE(str(PLUGIN)) as plugin:
        for library in plugin.DIRECTORY_ENTRY_IMPORT:
            file = debugger / os.fsdecode(library.dll)
            if not file.is_file():
                continue  # the system's
            try:
                with pefile.PE(str(file)) as theirs:
                    offered = {each.name for each in theirs.DIRECTORY_ENTRY_EXPORT.symbols}
            except (pefile.PEFormatError, AttributeError):
                raise NotTraceable(f"{file} is damaged: unpack x64dbg anew") from None
            missing = [each.name.decode() for each in library.imports if each.name not in offered]
            if missing:
                lacks = ", ".join(missing)
                raise NotTraceable(
                    f"this x64dbg is too old: its {file.name} has no {lacks}; take one of 2022 or later"
                )
