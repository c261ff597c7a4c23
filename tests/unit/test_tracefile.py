"""Opening trace files: layouts, names, and what is said of files that are damaged, foreign or cut off."""

from __future__ import annotations

import ctypes
import os
import random
import struct
import subprocess
from pathlib import Path

import pytest

from calltrace import calltree, edges, graph, model, profile, tracefile
from calltrace.calltree import Tree, TreeFilter, steps, summarize
from calltrace.errors import AccessRefused, BadTrace, CalltraceError, FileMissing
from calltrace.export import native
from calltrace.tracefile import TraceFile
from rig import tracewriter
from rig.tracewriter import TraceWriter, Units

ROOT = Path(__file__).resolve().parent.parent.parent
NONE = tracewriter.NONE

STRUCTURES: dict[str, type[ctypes.LittleEndianStructure]] = {
    "ct_file_header": tracefile.FileHeader,
    "ct_index": tracefile.Index,
    "ct_module_entry": tracefile.ModuleEntry,
    "ct_span": tracefile.Span,
    "ct_thread_entry": tracefile.ThreadEntry,
    "ct_tree_options": tracefile.TreeOptions,
    "ct_edge_options": tracefile.EdgeOptions,
    "ct_mark": tracefile.MarkEntry,
    "ct_totals": tracefile.Totals,
    "ct_stat": tracefile.Stat,
    "ct_graph_thread": tracefile.GraphThread,
    "ct_export_options": tracefile.ExportOptions,
    "ct_node": tracefile.Node,
    "ct_columns": tracefile.Columns,
}
# Tuples are read by format; their fields go by other names than in C where Python needs it.
TUPLES = {
    "ct_step": (tracefile.STEP, model.Step._fields, {"self_time": "self"}),
    "ct_line": (tracefile.LINE, model.Line._fields, {"calls": "count"}),
    "ct_stack": (tracefile.STACK, ("time", "thread", "depth", "cause", "incomplete"), {}),
    "ct_stack_frame": (tracefile.STACK_FRAME, ("begin", "id", "kind"), {}),
    "ct_edge": (tracefile.EDGE, ("calls", "self", "total", "parent", "id", "kind", "tail", "part"), {}),
    "ct_profile_stack": (profile.STACK, profile.Stack._fields, {"self_weight": "self"}),
    "ct_profile_cell": (profile.CELL, profile.Cell._fields, {}),
    "ct_profile_column": (profile.COLUMN, profile.Column._fields, {}),
    "ct_function_record": (tracefile.FUNCTION, model.FunctionRecord._fields, {}),
    "ct_site_record": (tracefile.SITE, model.SiteRecord._fields, {"imported": "import"}),
}
ENUMS = {
    "CT_": (model.Event,),
    "CT_EXT_": (model.Ext,),
    "CT_CLOCK_": (model.Clock,),
    "CT_POLICY_": (model.Policy,),
    "CT_STATE_": (model.State,),
    "CT_PAUSE_": (model.Pause,),
    "CT_SOURCE_": (model.Source,),
    "CT_FUNCTION_": (model.FunctionFlag,),
    "CT_ENTRY_": (model.Entry,),
    "CT_NODE_": (model.NodeKind,),
    "CT_CAUSE_": (model.Cause,),
    "CT_STEP_": (model.StepType,),
    "CT_LINE_": (model.LineType,),
    "CT_EXPORT_": (native.ExportFormat,),
    "CT_TEXT_": (native.TextKind,),
}


def compiled_output(folder: Path, statements: str) -> list[str]:
    """What a C program with these statements prints, words apart."""
    source = folder / "layout.c"
    source.write_text(
        '#include "trace_format.h"\n#include "reader.h"\n#include "profile.h"\n'
        "#include <stddef.h>\n#include <stdio.h>\n"
        f"int main(void)\n{{\n{statements}\n    return 0;\n}}\n"
    )
    program = folder / "layout"
    includes = [f"-I{ROOT / 'native' / 'include'}", f"-I{ROOT / 'native' / 'reader'}"]
    subprocess.run(["gcc", "-std=c11", *includes, str(source), "-o", str(program)], check=True)
    return subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split()


def test_structures_lie_as_the_headers_declare_them(tmp_path: Path) -> None:
    expected, statements = [], []
    for name, structure in STRUCTURES.items():
        expected.append(ctypes.sizeof(structure))
        statements.append(f"sizeof(struct {name})")
        for field in structure._fields_:
            expected += [getattr(structure, field[0]).offset, getattr(structure, field[0]).size]
            statements.append(f"offsetof(struct {name}, {field[0]})")
            statements.append(f"sizeof(((struct {name} *)0)->{field[0]})")
    found = compiled_output(tmp_path, "".join(f'    printf("%zu ", {text});\n' for text in statements))
    assert list(map(int, found)) == expected


def test_records_read_as_tuples_lie_as_the_headers_declare_them(tmp_path: Path) -> None:
    expected, statements = [], []
    for name, (form, fields, others) in TUPLES.items():
        expected.append(form.size)
        statements.append(f"sizeof(struct {name})")
        for field, offset in zip(fields, offsets(form.format, len(fields))):
            expected.append(offset)
            statements.append(f"offsetof(struct {name}, {others.get(field, field)})")
    found = compiled_output(tmp_path, "".join(f'    printf("%zu ", {text});\n' for text in statements))
    assert list(map(int, found)) == expected


def offsets(form: str, count: int) -> list[int]:
    """Where each value of a struct format lies, found out by unpacking bytes that tell their own place."""
    size = struct.calcsize(form)
    values = struct.unpack(form, bytes(range(size)))
    assert len(values) == count
    return [value & 0xFF for value in values]


def test_numbers_of_enumerations_are_those_of_the_headers(tmp_path: Path) -> None:
    expected, statements = [], []
    for prefix, enums in ENUMS.items():
        for enum in enums:
            for member in enum:
                expected.append(int(member))
                statements.append(f"{prefix}{member.name}")
    statements += ["CT_STEP_TAIL_CALLEE", "CT_STEP_OUTERMOST", "CT_LINE_TAIL_CALLEE", "CT_LINE_TAIL_KNOWN"]
    expected += [
        model.STEP_TAIL_CALLEE,
        model.STEP_OUTERMOST,
        model.LINE_TAIL_CALLEE,
        model.LINE_TAIL_KNOWN,
    ]
    statements += ["CT_VERSION", "CT_BLOCK", "CT_NONE", "CT_READER_ABI", "CT_NODE_NOBODY", "CT_EDGE_LEVELS"]
    expected += [tracefile.VERSION, tracefile.BLOCK, model.NONE_ID, tracefile.READER_ABI]
    expected += [model.NOBODY, edges.LEVELS]
    statements += ["CT_EDGES_ALL", "CT_EDGES_BY_STACK", "CT_GRAPH_BY_JUMPS", "CT_GRAPH_BY_STACK"]
    expected += [edges.ALL, edges.BY_STACK, graph.BY_JUMPS, graph.BY_STACK]
    statements += ["CT_GRAPH_SITE", "CT_CHUNK_GRAPH", "sizeof(struct ct_graph_row)"]
    expected += [tracefile.GRAPH_SITE, tracefile.ChunkKind.GRAPH, tracefile.GRAPH_ROW.size]
    pulls = ("MORE", "END", "LIMIT", "NO_MEMORY", "TEXT", "SPLIT")
    statements += [f"CT_PULL_{name}" for name in pulls]
    expected += [calltree.MORE, calltree.END, calltree.LIMIT, calltree.NO_MEMORY]
    expected += [calltree.WANTS_TEXT, calltree.SPLIT]
    found = compiled_output(
        tmp_path, "".join(f'    printf("%u ", (unsigned){text});\n' for text in statements)
    )
    assert list(map(int, found)) == expected


def small_trace() -> TraceWriter:
    """Two modules, one thread, and a slot in use."""
    writer = TraceWriter()
    writer.info({"command_line": "demo.exe 1+2", "events": "outward"})
    functions = [(0x1000, 16, 1, 0, 0, NONE), (0x2000, 32, 3, 0, 0, NONE), (0x3000, 4, 1, 0, 1, NONE)]
    sites = [(0x1008, 0, 0, 0), (0x100C, 0, 0x2000, NONE), (0x2004, 1, 0x2500, NONE), (0x2008, 1, 0, NONE)]
    told = {
        "path": "C:\\work\\demo.exe",
        "name": "demo.exe",
        "timestamp": 5,
        "checksum": 6,
        "names": [[0x1000, "main"], [0x2000, "f"]],
        "imports": ["KERNEL32.dll!CreateFileW"],
        "statuses": {"1": "too short for a jump"},
        "refusals": [[0x3000, 1, 0x3002]],
        "plan": {"milliseconds": 3},
        "events": "outward",
    }
    writer.module(told, functions, sites)
    second = {"path": "C:\\work\\lib.dll", "names": [[0x10, "g"]]}
    writer.module(
        second, [(0x10, 1, 1, 0, 0, NONE)], [(0x11, 3, 0, NONE)], base=0x180000000, size=0x1000, index=1,
        first_function=3, first_site=4,
    )  # fmt: skip
    units = Units()
    for function in (0, 1, 3):
        units.event(tracewriter.ENTER, function)
    writer.thread(units)
    later = Units()
    for function in (3, 1, 0):
        later.event(tracewriter.LEAVE, function)
    writer.live([writer.events_block(bytes(later.data), first_unit=3, closed=False)])
    return writer


def test_modules_functions_and_sites_are_named(tmp_path: Path) -> None:
    with TraceFile(small_trace().write(tmp_path / "t")) as trace:
        assert trace.info == {"command_line": "demo.exe 1+2", "events": "outward"}
        demo, library = trace.modules
        assert (demo.name, demo.path, demo.timestamp, demo.checksum) == (
            "demo.exe",
            "C:\\work\\demo.exe",
            5,
            6,
        )
        assert library.name == "lib.dll"
        names = [trace.node_name(model.NodeKind.FUNCTION, number) for number in range(5)]
        assert names == ["demo!main", "demo!f", "demo+0x3000", "lib!g", "function #4"]
        names = [trace.node_name(model.NodeKind.CALL, number) for number in range(6)]
        assert names == [
            "KERNEL32.dll!CreateFileW",
            "call demo!f",
            "call demo+0x2500",
            "call at demo+0x2008",
            "call at lib+0x11",
            "call #5",
        ]
        assert trace.address_name(0x180000010) == "lib!g"
        assert trace.address_name(0x180000011) == "lib+0x11"
        assert trace.address_name(0x7000) == "0x7000"
        assert [record.rva for record in trace.functions(demo)] == [0x1000, 0x2000, 0x3000]
        assert [record.rva for record in trace.sites(library)] == [0x11]
        assert demo.refusals == {0x3000: 0x3002}


def test_later_info_chunks_know_better(tmp_path: Path) -> None:
    writer = TraceWriter()
    writer.info({"a": 1, "b": 1})
    writer.info({"b": 2})
    with TraceFile(writer.write(tmp_path / "t")) as trace:
        assert trace.info == {"a": 1, "b": 2}


def refused(path: Path) -> str:
    """The one line with which opening fails as a bad trace."""
    with pytest.raises(BadTrace) as caught:
        TraceFile(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_traces_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for content in (b"", b"MZ", b"MZ" * 5000):
        path.write_bytes(content)
        assert refused(path) == f"{path} is not a calltrace trace"


def test_a_later_version_is_refused_by_its_number(tmp_path: Path) -> None:
    assert "trace version 2, this calltrace reads version 1" in refused(
        TraceWriter(version=2).write(tmp_path / "t")
    )


@pytest.mark.parametrize("length", [3, 8, 100, tracewriter.HEADER.size - 1])
def test_a_header_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "t"
    path.write_bytes(TraceWriter().bytes()[:length])
    assert "cut off within its header" in refused(path)


@pytest.mark.parametrize("field", ["header_size", "block_size", "unit_size", "clock"])
def test_a_header_with_senseless_sizes_is_refused(tmp_path: Path, field: str) -> None:
    assert "sizes in its header" in refused(TraceWriter(**{field: 3}).write(tmp_path / "t"))


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no such file"):
        TraceFile(tmp_path / "nothing")
    with pytest.raises(FileMissing, match="is a folder"):
        TraceFile(tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = small_trace().write(tmp_path / "t")
    path.chmod(0)
    with pytest.raises(AccessRefused, match="permission denied"):
        TraceFile(path)


def test_holes_and_unknown_chunks_are_stepped_over(tmp_path: Path) -> None:
    writer = small_trace()
    writer.chunks.insert(0, bytes(2 * tracewriter.BLOCK))
    writer.chunk(77, bytes(3 * tracewriter.BLOCK))
    writer.thread(Units(), thread=1)
    units = Units()
    units.event(tracewriter.ENTER, 0)
    writer.thread(units, thread=2)
    with TraceFile(writer.write(tmp_path / "t")) as trace:
        assert trace.index.hole_blocks == 2
        assert trace.index.unknown_chunks == 1
        assert [thread.index for thread in trace.threads] == [0, 2]
        assert trace.index.damaged_chunks == 0


@pytest.mark.parametrize("length", [0, 1, tracewriter.BLOCK - 1, tracewriter.BLOCK + 1])
def test_a_chunk_of_senseless_length_is_damage_and_reading_goes_on(tmp_path: Path, length: int) -> None:
    writer = TraceWriter()
    writer.chunk(77, b"", length=length)
    units = Units()
    units.event(tracewriter.ENTER, 0)
    writer.thread(units)
    with TraceFile(writer.write(tmp_path / "t")) as trace:
        assert trace.index.damaged_chunks == 1
        assert trace.threads[0].units == 1


@pytest.mark.parametrize("field", range(4))
def test_a_module_that_claims_more_than_its_chunk_holds_is_damage(tmp_path: Path, field: int) -> None:
    writer = small_trace()
    chunk = bytearray(writer.chunks[1])
    # function_count, site_count, json_size; first_function
    struct.pack_into("<I", chunk, [52, 60, 64, 48][field], [1 << 20, 1 << 20, 0xFFFFFFFF, 1 << 21][field])
    writer.chunks[1] = bytes(chunk)
    with TraceFile(writer.write(tmp_path / "t")) as trace:
        assert [module.name for module in trace.modules] == ["lib.dll"]
        assert trace.index.damaged_chunks == 1


def test_a_module_whose_ids_another_has_is_damage(tmp_path: Path) -> None:
    writer = small_trace()
    writer.module({"name": "twin.dll"}, [(0x10, 1, 1, 0, 0, NONE)], index=2, first_function=1)
    with TraceFile(writer.write(tmp_path / "t")) as trace:
        assert [module.name for module in trace.modules] == ["demo.exe", "lib.dll"]
        assert trace.index.damaged_chunks == 1


@pytest.mark.parametrize("text", [b"\xff{}", b"[]", b"{", b"[" * 100_000])
def test_a_module_without_readable_description_is_a_problem_not_an_end(tmp_path: Path, text: bytes) -> None:
    writer = TraceWriter()
    head = struct.pack("<QIIIIIIIIQ", 0x1000, 0x1000, 0, 0, 1, 0, 0, len(text), 0, 0)
    writer.chunk(tracewriter.MODULE, head + struct.pack("<IIHBBI", 0x20, 1, 1, 0, 0, NONE) + text)
    with TraceFile(writer.write(tmp_path / "t")) as trace:
        assert trace.problems == ["the description of module 0 is damaged"]
        assert trace.node_name(model.NodeKind.FUNCTION, 0) == "module0+0x20"


@pytest.mark.parametrize(
    "told",
    [
        {"names": 5, "imports": {}, "statuses": [], "refusals": "x", "plan": 1, "path": 7, "name": []},
        {
            "names": [1, [2], ["x", 3], [{}, []]],
            "imports": [1, None],
            "statuses": {"x": 1},
            "refusals": [[1, 2]],
        },
    ],
)
def test_descriptions_of_other_shapes_are_taken_for_nothing(tmp_path: Path, told: dict[str, object]) -> None:
    writer = TraceWriter()
    writer.module(told, [(0x20, 1, 1, 0, 0, NONE)], [(0x21, 0, 0, 0)])
    with TraceFile(writer.write(tmp_path / "t")) as trace:
        assert trace.node_name(model.NodeKind.FUNCTION, 0) == "module0+0x20"
        assert trace.node_name(model.NodeKind.CALL, 0) in ("", "call at module0+0x21")


def test_names_that_would_steer_a_terminal_are_defused(tmp_path: Path) -> None:
    writer = TraceWriter()
    told = {"name": "a\x1b[2J.exe", "names": [[0x20, "f\r\ng\ud800"]]}
    writer.module(told, [(0x20, 1, 1, 0, 0, NONE)])
    with TraceFile(writer.write(tmp_path / "t")) as trace:
        odd = "\N{REPLACEMENT CHARACTER}"
        assert trace.node_name(model.NodeKind.FUNCTION, 0) == f"a{odd}[2J!f{odd}{odd}g{odd}"


def read_all(path: Path) -> None:
    """Read a file in every way; whatever is in it, nothing but our errors may come of it."""
    try:
        with TraceFile(path) as trace:
            for step in steps(trace):
                if step.type == model.StepType.OPEN:
                    trace.node_name(step.kind, step.id)
            list(Tree(trace, TreeFilter(limit=50)))
            summarize(trace)
            for module in trace.modules:
                list(trace.functions(module))
                list(trace.sites(module))
    except CalltraceError:
        pass


def test_a_file_may_end_anywhere(tmp_path: Path) -> None:
    whole = small_trace().bytes()
    path = tmp_path / "t"
    places = {
        at + offset for at in range(0, len(whole), tracewriter.BLOCK) for offset in (0, 1, 31, 33, 63, 70, 90)
    }
    for length in sorted(places):
        path.write_bytes(whole[:length])
        read_all(path)
        if length > tracewriter.BLOCK:
            with TraceFile(path) as trace:
                assert trace.index.truncated


def test_units_before_the_end_of_a_truncated_file_are_read(tmp_path: Path) -> None:
    units = Units()
    for _ in range(10):
        units.event(tracewriter.ENTER, 0)
    writer = TraceWriter()
    writer.thread(units)
    path = tmp_path / "t"
    path.write_bytes(writer.bytes()[: tracewriter.BLOCK + 64 + 4 * 6 + 3])
    with TraceFile(path) as trace:
        assert trace.threads[0].units == 6
        assert trace.index.truncated


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_ends_in_anything_but_our_errors(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    whole = bytearray(small_trace().bytes())
    # Where there is something: headers and the first bytes of each block.
    for _ in range(30):
        at = rng.randrange(0, len(whole), tracewriter.BLOCK) + rng.randrange(200)
        whole[at] = rng.choice([0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    whole[:32] = small_trace().bytes()[:32]
    path = tmp_path / "t"
    path.write_bytes(whole)
    read_all(path)
