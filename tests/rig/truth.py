"""Which functions a program really has, by its symbols, and how well discovery finds them without these.

What counts as a function is what the compiler said is one: a COFF symbol of function type, a procedure record of a
PDB, or a public of a PDB that is marked as a function. Besides these:

- A piece that gcc moved out of a function ("f.cold") has a symbol of function type but is no function: nothing calls
  it. Discovery is to join it to its function; reporting it on its own is a false find.
- A name without a type is a label: of assembly code whose author did not say what it is, a function as
  ___chkstk_ms or data as __CTOR_LIST__. It can neither be demanded nor be held against discovery, unless it stands
  at a jump through the import address table: that is an import thunk, and demanded.
- A PDB describes the code of the modules that were compiled with it. The mingw archives bring only their public
  names: those that are functions are demanded, but what else is found in their code is not judged.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from calltrace.pe.image import Image
from rig import pdb

_OBJDUMP = "x86_64-w64-mingw32-objdump"
_SYMBOL = re.compile(r"\(sec +(\d+)\).*\(ty +(\w+)\)\(scl +(\d+)\) \(nx \d+\) 0x(\w+) (.+)")
_FUNCTION, _EXTERNAL = 0x20, 2  # symbol type and storage class
_PIECE = re.compile(r"\.cold(\.|$)")


@dataclass
class Truth:
    """Addresses are RVAs."""

    functions: dict[int, str]
    labels: set[int]  # names that may or may not be functions
    judged: list[tuple[int, int]]  # code about which the symbols say everything


@dataclass
class Score:
    """What discovery found, held against the truth."""

    functions: int
    missed: list[int]
    false: list[int]
    reported: int  # in the code that is judged

    @property
    def recall(self) -> float:
        """The part of the functions that was found."""
        return 1 - len(self.missed) / self.functions

    @property
    def precision(self) -> float:
        """The part of what was found that is a function."""
        return 1 - len(self.false) / self.reported


def of_program(image: Image, sections: list[int]) -> Truth:
    """The functions of a program by its PDB if there is one beside it, else by its COFF symbols.

    `sections` are the RVAs of its sections, in the file's order.
    """
    database = Path(image.path).with_suffix(".pdb")
    truth = _by_pdb(database, image, sections) if database.is_file() else _by_symbols(image, sections)
    for label in {label for label in truth.labels if _is_import_jump(image, label)}:
        truth.functions.setdefault(label, "import thunk")
    truth.labels -= truth.functions.keys()
    return truth


def _is_import_jump(image: Image, rva: int) -> bool:
    """jmp qword ptr [rip + an import address table slot]."""
    displacement = int.from_bytes(image.data[rva + 2 : rva + 6], "little", signed=True)
    return image.data[rva : rva + 2] == b"\xff\x25" and rva + 6 + displacement in image.imports


def _by_symbols(image: Image, sections: list[int]) -> Truth:
    shown = subprocess.run([_OBJDUMP, "-t", image.path], capture_output=True, text=True, check=True).stdout
    truth = Truth({}, set(), image.executable)
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


def _by_pdb(database: Path, image: Image, sections: list[int]) -> Truth:
    read = pdb.read(database)
    begins = [(sections[section - 1] + offset, size) for section, offset, size in read.described]
    judged = sorted((begin, begin + size) for begin, size in begins if _inside(begin, image.executable))
    truth = Truth({}, set(), judged)
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
    return any(begin <= rva < end for begin, end in ranges)


def score(truth: Truth, found: set[int]) -> Score:
    """How good it is to report `found`."""
    known = truth.functions.keys() | truth.labels
    judged = {rva for rva in found if rva not in truth.labels and _inside(rva, truth.judged)}
    return Score(
        len(truth.functions),
        sorted(truth.functions.keys() - found),
        sorted(judged - known),
        len(judged),
    )
