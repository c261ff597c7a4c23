"""The bindings lay their structures out as the C headers do."""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
from pathlib import Path

import pytest

from calltrace import plan, stubs, tracefile

NATIVE = Path(__file__).resolve().parent.parent.parent / "native"
STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "ct_range": plan._Range,
    "ct_seed": plan._Seed,
    "ct_image": plan._Image,
    "ct_layout": plan._Layout,
    "ct_region": plan._Region,
    "ct_stub": stubs.Stub,
    "ct_jump_stub": stubs.JumpStub,
    "ct_codegen": stubs.Codegen,
}
# Arrays of these are read record by record: their fields, in order, and how they are unpacked.
UNPACKED: dict[str, tuple[tuple[str, ...], struct.Struct]] = {
    "ct_function": (plan.Function._fields, plan._FUNCTION),
    "ct_extent": (plan.Extent._fields, plan._EXTENT),
    "ct_site": (("rva", "function", "target", "import"), tracefile.SITE),
    "ct_patch": (("rva", "size", "original", "bytes"), plan._PATCH),
}
CHOICES = ("CT_CHOICE_LEAVE", "CT_CHOICE_WANT", "CT_CHOICE_RUNTIME")
CHUNK_KINDS = [f"CT_CHUNK_{kind.name}" for kind in tracefile.ChunkKind]
RECORDS = {
    "ct_chunk": ctypes.sizeof(tracefile.Chunk),
    "ct_function_record": tracefile.FUNCTION.size,
    "ct_site_record": tracefile.SITE.size,
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    """Offset and size of each structure and field, as the compiler has them."""
    lines = []
    for name, structure in STRUCTURES.items():
        lines.append(f'printf("{name} 0 %zu\\n", sizeof(struct {name}));')
        for field, *_ in structure._fields_:
            lines.append(
                f'printf("{name}.{field} %zu %zu\\n", offsetof(struct {name}, {field}),'
                f" sizeof ((struct {name} *)0)->{field});"
            )
    for name, (fields, _) in UNPACKED.items():
        lines.append(f'printf("{name} 0 %zu\\n", sizeof(struct {name}));')
        lines += [
            f'printf("{name}.{field} %zu %zu\\n", offsetof(struct {name}, {field}),'
            f" sizeof ((struct {name} *)0)->{field});"
            for field in fields
        ]
    lines += [f'printf("{name} 0 %zu\\n", sizeof(struct {name}));' for name in RECORDS if "record" in name]
    lines.append('printf("ct_chunk 0 %zu\\n", sizeof(struct ct_chunk));')
    lines.append('printf("ct_module 0 %zu\\n", sizeof(struct ct_module));')
    for constant in ("CT_STUB_MAX", "CT_THUNK", "CT_FILTERED", "CT_NONE", *CHOICES, *CHUNK_KINDS, "CT_BLOCK"):
        lines.append(f'printf("{constant} 0 %zu\\n", (size_t){constant});')
    lines += [f'printf("{name} 0 %zu\\n", (size_t)CT_EVENTS_{name.upper()});' for name in plan.DETAILS]
    folder = tmp_path_factory.mktemp("layout")
    source, program = folder / "layout.c", folder / "layout"
    source.write_text(
        "#include <stdio.h>\n#include <trace_format.h>\n#include <plan.h>\n"
        f"int main(void) {{ {''.join(lines)} return 0; }}\n"
    )
    include = [f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'planner'}"]
    subprocess.run(["gcc", "-std=c11", "-Wall", "-Werror", *include, "-o", program, source], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    words = (line.split() for line in printed.splitlines())
    return {name: (int(offset), int(size)) for name, offset, size in words}


@pytest.mark.parametrize("name", UNPACKED)
def test_record_is_unpacked_as_the_header_lays_it_out(
    name: str, compiled: dict[str, tuple[int, int]]
) -> None:
    fields, layout = UNPACKED[name]
    formats = re.findall(r"\d*[a-zA-Z]", layout.format)
    ours, offset = {name: (0, layout.size)}, 0
    for field, code in zip(fields, formats):
        ours[f"{name}.{field}"] = offset, struct.calcsize("<" + code)
        offset += struct.calcsize("<" + code)
    assert ours == {key: value for key, value in compiled.items() if key.split(".")[0] == name}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_is_laid_out_as_in_the_header(name: str, compiled: dict[str, tuple[int, int]]) -> None:
    structure = STRUCTURES[name]
    ours = {name: (0, ctypes.sizeof(structure))}
    for field, *_ in structure._fields_:
        described = getattr(structure, field)
        ours[f"{name}.{field}"] = described.offset, described.size
    assert ours == {key: value for key, value in compiled.items() if key.split(".")[0] == name}


def test_trace_records_have_the_size_the_header_gives_them(compiled: dict[str, tuple[int, int]]) -> None:
    assert {name: (0, size) for name, size in RECORDS.items()} == {name: compiled[name] for name in RECORDS}
    assert ctypes.sizeof(tracefile.Chunk) + plan._MODULE.size == compiled["ct_module"][1]


def test_constants_are_the_header_s(compiled: dict[str, tuple[int, int]]) -> None:
    ours = {
        "CT_STUB_MAX": stubs._STUB_MAX,
        "CT_THUNK": plan.STATUS_THUNK,
        "CT_FILTERED": plan.STATUS_FILTERED,
        "CT_NONE": stubs._NONE,
        **dict(zip(CHOICES, (plan._LEAVE, plan._WANT, plan._RUNTIME))),
        **{f"CT_CHUNK_{kind.name}": kind.value for kind in tracefile.ChunkKind},
        "CT_BLOCK": tracefile.BLOCK,
        **plan.DETAILS,
    }
    assert ours == {name: compiled[name][1] for name in ours}
