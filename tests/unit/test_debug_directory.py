"""Which PDB belongs to an image, by its debug directory, whole and damaged."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pefile
import pytest

from calltrace.pe.debug import pdb_of
from calltrace.pe.image import Image, from_file
from rig import codeview, pefiles

GUID = uuid.UUID("863D276C-DE92-3E6D-4C4C-44205044422E")
RECORD = b"RSDS" + GUID.bytes_le + struct.pack("<I", 7) + "C:\\größer\\names.pdb\0".encode()
TOLD = {"path": "C:\\größer\\names.pdb", "guid": str(GUID).upper(), "age": 7}
AT = pefiles.FIRST + pefiles.PAGE  # RVA of the debug directory
CODEVIEW, POGO = 2, 13


def image(folder: Path, *entries: tuple[int, int, int], record: bytes = RECORD, size: int = 0) -> Image:
    """With a debug directory of these entries: type, and bytes and RVA of the data; 0: where `record` is."""
    place = AT + 28 * len(entries)
    table = b"".join(
        struct.pack("<IIHHIIII", 0, 0, 0, 0, kind, length, at or place, 0) for kind, length, at in entries
    )
    sections = [
        pefiles.Section(".text", b"\xc3" * 16, pefiles.CODE),
        pefiles.Section(".rdata", table + record, pefiles.RDATA),
    ]
    path = folder / "program.exe"
    path.write_bytes(pefiles.build(sections, {"DEBUG": (AT, size or len(table))}))
    return from_file(path)


def test_the_database_is_named_with_its_identity(tmp_path: Path) -> None:
    assert pdb_of(image(tmp_path, (CODEVIEW, len(RECORD), 0))) == TOLD
    assert pdb_of(image(tmp_path, (POGO, 4, AT), (CODEVIEW, len(RECORD), 0))) == TOLD


@pytest.mark.parametrize(
    ("entry", "record", "size"),
    [
        ((POGO, len(RECORD), 0), RECORD, 0),
        ((CODEVIEW, 20, 0), RECORD, 0),
        ((CODEVIEW, len(RECORD), 0xFFFFF000), RECORD, 0),
        ((CODEVIEW, len(RECORD), 0), b"NB10" + RECORD[4:], 0),
        ((CODEVIEW, len(RECORD), 0), RECORD, 0x7FFFFFFF),
    ],
)
def test_an_image_that_names_none_has_none(
    tmp_path: Path, entry: tuple[int, int, int], record: bytes, size: int
) -> None:
    assert pdb_of(image(tmp_path, entry, record=record, size=size)) == {}


def test_a_path_without_an_end_ends_with_its_record(tmp_path: Path) -> None:
    assert pdb_of(image(tmp_path, (CODEVIEW, 27, 0))) == {**TOLD, "path": "C:\\"}


def test_it_is_what_another_reader_finds_in_a_linkers_program() -> None:
    program = codeview.build("names")
    with pefile.PE(str(program)) as headers:
        [found] = [each.entry for each in headers.DIRECTORY_ENTRY_DEBUG if each.struct.Type == CODEVIEW]
    told = pdb_of(from_file(program))
    assert told["guid"].replace("-", "") + f"{told['age']:X}" == found.Signature_String
    assert told["path"].encode() == found.PdbFileName.rstrip(b"\0")
