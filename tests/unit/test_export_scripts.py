"""The scripts for disassemblers, run against stand-ins of the parts of their interfaces that they use.

The stand-ins follow the tools' documentation: they know a function at three of the addresses called, named by
the user at one; and make a function where they are asked to, but at one address. That what they stand in for
has the names which the scripts use is held against what the tools' own makers, or tools made of these, say.
"""

from __future__ import annotations

import ast
import builtins
import json
import ntpath
import re
import sys
import types
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from calltrace.export import FORMATS
from calltrace.tracefile import TraceFile
from rig import readers, tracewriter
from rig.tracewriter import TraceWriter, Units

NONE = tracewriter.NONE
BASE = 0x10000  # where the tools show the file: not where it was traced
KNOWN = {0x1000: "sub_1000", 0x2000: "sub_2000", 0x3000: "mine"}  # by RVA
BY_USER = {"mine"}
DATA = 0x5000  # no function can be made there
ONCE = 0xFFF4E0


class Shown(NamedTuple):
    """What a tool's database says of a function."""

    name: str
    comment: str
    colour: int  # 0xRRGGBB


def script_of(form: str, path: Path, calls: dict[int, int], main: str = "main") -> Path:
    """The script for a trace in which the functions at these RVAs were called so often."""
    functions = {0x1000: main, 0x2000: "", 0x3000: "theirs", 0x4000: "a b", DATA: "data", 0x6000: "never"}
    units = Units(8)
    for number, rva in enumerate(functions):
        for _ in range(calls.get(rva, 0)):
            units.event(tracewriter.ENTER, number)
            units.now += 2000
            units.event(tracewriter.LEAVE, number)
    writer = TraceWriter(8)
    names = [[rva, name] for rva, name in functions.items() if name]
    records = [(rva, 16, 1, 0, 0, NONE) for rva in functions]
    writer.module({"path": "C:\\made\\Demo.exe", "names": names}, records)
    writer.thread(units)
    script = path / "script.py"
    with TraceFile(writer.write(path / "t")) as trace, script.open("w", encoding="utf-8") as out:
        FORMATS[form].write(trace, out)
    return script


def invalid_in_ghidra(character: str) -> bool:
    """As its SymbolUtilities.isInvalidCodePoint has it: marks, spaces and what cannot be seen."""
    return unicodedata.category(character)[0] in "MZC"


class Function:
    """A function of any of the databases."""

    def __init__(self, rva: int, name: str) -> None:
        self.start_ea = BASE + rva
        self.name = name
        self.comment = ""
        self.color = 0
        self.basic_blocks = [self]
        self.symbol = types.SimpleNamespace(auto=name not in BY_USER)

    def shown(self) -> Shown:
        return Shown(self.name, self.comment, self.color)

    # Binary Ninja
    def set_user_highlight(self, highlight: tuple[int, int, int]) -> None:
        red, green, blue = highlight
        self.color = red << 16 | green << 8 | blue

    # Ghidra
    def getSymbol(self) -> Any:
        return types.SimpleNamespace(getSource=lambda: "user" if self.name in BY_USER else "default")

    def setName(self, name: str, source: str) -> None:
        assert source == "imported"
        assert len(name.encode("utf-16-le")) <= 2 * 2000
        assert not any(map(invalid_in_ghidra, name))
        self.name = name

    def setComment(self, comment: str) -> None:
        self.comment = comment


class Database:
    """The functions of a file, made on demand."""

    def __init__(self) -> None:
        self.functions = {BASE + rva: Function(rva, name) for rva, name in KNOWN.items()}

    def add(self, address: int) -> bool:
        if address != BASE + DATA:
            self.functions[address] = Function(address - BASE, f"sub_{address - BASE:x}")
        return address in self.functions

    def shown(self) -> dict[int, Shown]:
        return {address - BASE: function.shown() for address, function in self.functions.items()}


def run_in_ida(
    script: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[int, Shown], list[str]]:
    database, said = Database(), []

    def set_name(address: int, name: str, _flags: int) -> None:
        database.functions[address].name = name.replace(" ", "_")

    def update(function: Function) -> None:
        # Blue comes first.
        colour = function.color.to_bytes(3, "little")
        function.color = int.from_bytes(colour, "big")

    def comment(function: Function, text: str, _repeatable: bool) -> None:
        function.comment = text

    parts: dict[str, dict[str, Any]] = {
        "ida_bytes": {
            "get_flags": lambda address: address,
            "has_user_name": lambda address: database.functions[address].name in BY_USER,
        },
        "ida_funcs": {
            "get_func": database.functions.get,
            "add_func": database.add,
            "set_func_cmt": comment,
            "update_func": update,
        },
        "ida_kernwin": {"warning": said.append},
        "ida_name": {"set_name": set_name, "SN_NOCHECK": 1, "SN_NOWARN": 256, "SN_FORCE": 2048},
        "ida_nalt": {"get_root_filename": lambda: file, "get_imagebase": lambda: BASE},
    }
    for name, members in parts.items():
        monkeypatch.setitem(sys.modules, name, module(name, members))
    execute(script, {})
    return database.shown(), said


def run_in_ghidra(
    script: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[int, Shown], list[str]]:
    database, said = Database(), []

    def create(address: int, name: None) -> Function | None:
        assert name is None
        return database.functions[address] if database.add(address) else None

    def colour(address: int, value: int) -> None:
        database.functions[address].color = value

    def replace_invalid(text: str, with_underscore: bool) -> str:
        other = "_" if with_underscore else ""
        return "".join(other if invalid_in_ghidra(each) else each for each in text)

    sources = types.SimpleNamespace(DEFAULT="default", IMPORTED="imported")
    utilities = types.SimpleNamespace(replaceInvalidChars=replace_invalid)
    modules = {
        "ghidra.program.model.symbol": {"SourceType": sources, "SymbolUtilities": utilities},
        "java.awt": {"Color": lambda colour: colour},
    }
    for name in ("ghidra", "ghidra.program", "ghidra.program.model", "java"):
        modules[name] = {"__path__": []}
    for name, members in modules.items():
        monkeypatch.setitem(sys.modules, name, module(name, members))
    base = types.SimpleNamespace(add=lambda rva: BASE + rva)
    execute(
        script,
        {
            "currentProgram": types.SimpleNamespace(
                getExecutablePath=lambda: f"/C:/made/{file}",
                getName=lambda: "renamed",
                getImageBase=lambda: base,
            ),
            "getSourceFile": lambda: types.SimpleNamespace(getAbsolutePath=lambda: str(script)),
            "getFunctionAt": database.functions.get,
            "createFunction": create,
            "isRunningHeadless": lambda: False,
            "setBackgroundColor": colour,
            "println": said.append,
        },
    )
    return database.shown(), said


def run_in_binary_ninja(
    script: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[int, Shown], list[str]]:
    database, said = Database(), []
    wanted: list[int] = []

    def analyse() -> None:
        for address in wanted:
            database.add(address)

    def highlight(*, red: int, green: int, blue: int) -> tuple[int, int, int]:
        return red, green, blue

    monkeypatch.setitem(sys.modules, "binaryninja", module("binaryninja", {"HighlightColor": highlight}))
    view = types.SimpleNamespace(
        start=BASE,
        file=types.SimpleNamespace(original_filename=f"C:\\made\\{file}"),
        get_function_at=database.functions.get,
        create_user_function=wanted.append,
        update_analysis_and_wait=analyse,
    )
    execute(script, {"bv": view, "print": said.append})
    return database.shown(), said


def module(name: str, members: dict[str, Any]) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update(members)
    return made


def execute(script: Path, names: dict[str, Any]) -> None:
    exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), names)


TOOLS = {"ida": run_in_ida, "ghidra": run_in_ghidra, "binja": run_in_binary_ninja}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_script_shows_what_was_called(tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = script_of(tool, tmp_path, {0x1000: 1, 0x2000: 1000, 0x3000: 1, 0x4000: 2, DATA: 1})
    shown, said = TOOLS[tool](script, "demo.EXE", monkeypatch)
    assert not said
    assert sorted(shown) == [0x1000, 0x2000, 0x3000, 0x4000]
    assert shown[0x1000] == Shown("main", "calltrace: 1 call, self 2.00 µs, total 2.00 µs", ONCE)
    assert shown[0x3000] == Shown("mine", "calltrace: 1 call, self 2.00 µs, total 2.00 µs", ONCE)
    assert shown[0x2000].name == "sub_2000"
    assert shown[0x2000].comment == "calltrace: 1,000 calls, self 2.000 ms, total 2.000 ms"
    # Half of the way to the colour of a million calls.
    assert shown[0x2000].colour == 0xFFBA88
    assert shown[0x4000].name.replace(" ", "_") == "a_b"


@pytest.mark.parametrize("tool", TOOLS)
def test_a_script_leaves_another_file_alone(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = script_of(tool, tmp_path, {0x1000: 1})
    shown, said = TOOLS[tool](script, "other.exe", monkeypatch)
    assert said == ["calltrace: nothing was called in a module named other.exe"]
    assert shown == Database().shown()


@pytest.mark.parametrize("tool", TOOLS)
def test_a_name_cannot_break_out_of_a_script(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = '"]\n]\')\\"""; raise SystemExit #\u2028\U0001f600'
    units = Units(8)
    units.event(tracewriter.ENTER, 0)
    writer = TraceWriter(8)
    writer.module({"path": "C:\\Demo.exe", "names": [[0x1000, evil]]}, [(0x1000, 16, 1, 0, 0, NONE)])
    writer.thread(units)
    script = tmp_path / "script.py"
    with TraceFile(writer.write(tmp_path / "t")) as trace, script.open("w", encoding="utf-8") as out:
        FORMATS[tool].write(trace, out)
    shown, _ = TOOLS[tool](script, "Demo.exe", monkeypatch)
    expected = '"]\ufffd]\')\\"""; raise SystemExit #\ufffd\U0001f600'
    assert shown[0x1000].name.replace("_", " ") == expected


@pytest.mark.parametrize("tool", TOOLS)
def test_a_long_name_of_odd_characters_is_no_end(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = "e\u0301\u0bbe\u20dd" + "\U0001f600" * 1500 + "<long>" * 1000
    script = script_of(tool, tmp_path, {0x1000: 1, 0x2000: 1}, main=odd)
    shown, _ = TOOLS[tool](script, "Demo.exe", monkeypatch)
    assert shown[0x1000].name.startswith("e")
    assert shown[0x2000].comment  # it went on behind


def test_ida_has_the_names_that_its_script_uses(tmp_path: Path) -> None:
    script = script_of("ida", tmp_path, {0x1000: 1}).read_text(encoding="utf-8")
    used = set(re.findall(r"\bida_\w+\.\w+", script))
    assert len(used) > 10
    assert not used - readers.ida_names()


def test_ghidra_has_the_names_that_its_script_uses(tmp_path: Path) -> None:
    script = script_of("ghidra", tmp_path, {0x1000: 1}).read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(script)))
    imported = {
        (node.module, name.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
    }
    symbols = readers.ghidra_names("ghidra.program.model.symbol")
    assert imported - {("java.awt", "Color")} == {
        ("ghidra.program.model.symbol", name) for name in symbols & {"SourceType", "SymbolUtilities"}
    }
    named = {node.id for node in nodes if isinstance(node, ast.Name)}
    made = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own = made | {"io", "json", "ntpath", "len"} | {name for _, name in imported}
    free = {name for name in named - own if name not in dir(builtins)}
    assert len(free) > 6
    assert not free - readers.ghidra_names("ghidra.ghidra_builtins")
    members = readers.ghidra_names("ghidra.program.model.listing", "Program", "Function")
    members |= readers.ghidra_names(
        "ghidra.program.model.symbol", "Namespace", "Symbol", "SourceType", "SymbolUtilities"
    )
    members |= readers.ghidra_names("ghidra.program.model.address", "Address")
    members |= readers.ghidra_names("generic.jar", "ResourceFile")
    python = {*dir(str), *dir(ntpath), *dir(json), "open"}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)} - python
    assert len(attributes) > 9
    assert attributes - members == set()
