"""Python scripts for IDA, Ghidra and Binary Ninja that show a trace in their database.

Each called function gets a comment with its calls and times and a colour, the stronger the more often it was
called; and its name, where the trace knows one and the database has only made one up. A script holds every
traced module and takes the one that is called like the file the tool shows. It adds RVAs to the tool's image
base, so the file may lie anywhere there.
"""

from __future__ import annotations

import json
import math
from typing import TextIO

from calltrace.calltree import FunctionStat, function_stats
from calltrace.export import units
from calltrace.model import Clock
from calltrace.tracefile import TraceFile

_ONCE, _OFTEN = (255, 244, 224), (255, 128, 48)  # red, green, blue
_OFTEN_LOG = 6  # a million calls and more are all the same colour

_LITERALS = """\
# coding: utf-8
# Made by calltrace: {tool}, run this script to show what was called.
MODULES = {{}}  # by name: [RVA, name or "", comment, 0xRRGGBB in decimal]
"""

_IDA = """
import ida_bytes
import ida_funcs
import ida_kernwin
import ida_name
import ida_nalt

file = ida_nalt.get_root_filename()
base = ida_nalt.get_imagebase()
if file.lower() not in MODULES:
    ida_kernwin.warning("calltrace: nothing was called in a module named " + file)
for rva, name, comment, colour in MODULES.get(file.lower(), []):
    address = base + rva
    function = ida_funcs.get_func(address)
    if function is None or function.start_ea != address:
        if not ida_funcs.add_func(address):
            continue
        function = ida_funcs.get_func(address)
    if name and not ida_bytes.has_user_name(ida_bytes.get_flags(address)):
        ida_name.set_name(address, name, ida_name.SN_NOCHECK | ida_name.SN_NOWARN | ida_name.SN_FORCE)
    ida_funcs.set_func_cmt(function, comment, True)
    function.color = (colour & 0xFF) << 16 | colour & 0xFF00 | colour >> 16  # blue comes first there
    ida_funcs.update_func(function)
"""

_BINARY_NINJA = """
import ntpath

from binaryninja import HighlightColor

file = ntpath.basename(bv.file.original_filename.replace("/", "\\\\"))
rows = MODULES.get(file.lower(), [])
if not rows:
    print("calltrace: nothing was called in a module named " + file)
for row in rows:
    if bv.get_function_at(bv.start + row[0]) is None:
        bv.create_user_function(bv.start + row[0])
bv.update_analysis_and_wait()
for rva, name, comment, colour in rows:
    function = bv.get_function_at(bv.start + rva)
    if function is None:
        continue
    if name and function.symbol.auto:
        function.name = name
    function.comment = comment
    highlight = HighlightColor(red=colour >> 16, green=colour >> 8 & 0xFF, blue=colour & 0xFF)
    for block in function.basic_blocks:
        block.set_user_highlight(highlight)
"""

# Jython compiles no large literals, so the rows are comments that the script reads from itself.
_GHIDRA = """\
# coding: utf-8
# Made by calltrace: Ghidra, run this script to show what was called.
# @category calltrace
import io
import json
import ntpath

from ghidra.program.model.symbol import SourceType, SymbolUtilities
from java.awt import Color

file = ntpath.basename((currentProgram.getExecutablePath() or currentProgram.getName()).replace("/", "\\\\"))
base = currentProgram.getImageBase()
found = False
rows = False
with io.open(getSourceFile().getAbsolutePath(), encoding="utf-8") as lines:
    for line in lines:
        if line.startswith("#module "):
            rows = json.loads(line[8:]) == file.lower()
            found = found or rows
        elif rows and line.startswith("#row "):
            rva, name, comment, colour = json.loads(line[5:])
            address = base.add(rva)
            function = getFunctionAt(address) or createFunction(address, None)
            if function is None:
                continue
            if name and function.getSymbol().getSource() == SourceType.DEFAULT:
                # A name may have 2,000 of Java's characters, of which some of ours are two.
                name = SymbolUtilities.replaceInvalidChars(name[:1000], True)
                function.setName(name, SourceType.IMPORTED)
            function.setComment(comment)
            if not isRunningHeadless():
                setBackgroundColor(address, Color(colour))
if not found:
    println("calltrace: nothing was called in a module named " + file)

# Here "#module" lines have a name, "#row" lines [RVA, name or "", comment, 0xRRGGBB in decimal].
"""


def write_ida(trace: TraceFile, out: TextIO) -> None:
    """Write a script for IDA 7.0 and later."""
    _write_literals(trace, out, "IDA")
    out.write(_IDA)


def write_binary_ninja(trace: TraceFile, out: TextIO) -> None:
    """Write a script for Binary Ninja 3.0 and later."""
    _write_literals(trace, out, "Binary Ninja")
    out.write(_BINARY_NINJA)


def write_ghidra(trace: TraceFile, out: TextIO) -> None:
    """Write a script for Ghidra, be its Python Jython or PyGhidra."""
    out.write(_GHIDRA)
    module = None
    for stat in function_stats(trace):
        if stat.module is not module:
            module = stat.module
            out.write(f"#module {_json(module.name.lower())}\n")
        out.write(f"#row {_row(trace, stat)}\n")


def _write_literals(trace: TraceFile, out: TextIO, tool: str) -> None:
    out.write(_LITERALS.format(tool=tool))
    module = None
    for stat in function_stats(trace):
        if stat.module is not module:
            if module:
                out.write("])\n")
            module = stat.module
            out.write(f"MODULES.setdefault({_json(module.name.lower())}, []).extend([\n")
        out.write(_row(trace, stat) + ",\n")
    if module:
        out.write("])\n")


def _row(trace: TraceFile, stat: FunctionStat) -> str:
    name = stat.module.names.get(stat.record.rva, "")
    comment = f"calltrace: {units.count(stat.calls, 'call')}"
    if trace.clock is not Clock.NONE:
        own, total = units.duration(trace, stat.self_time), units.duration(trace, stat.total_time)
        comment += f", self {own}, total {total}"
    return _json([stat.record.rva, name, comment, _colour(stat.calls)])


def _colour(calls: int) -> int:
    share = min(math.log10(calls) / _OFTEN_LOG, 1)
    red, green, blue = (round(once + share * (often - once)) for once, often in zip(_ONCE, _OFTEN))
    return red << 16 | green << 8 | blue


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
