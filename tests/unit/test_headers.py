"""The region of copies as a debugger is shown it: a module with headers and unwind data of its own."""

from __future__ import annotations

import pefile
import pytest

from calltrace.pe import image as pe_image
from calltrace.plan import ModulePlan
from rig import corpus
from rig.emulator import Slots
from rig.unwinding import Entry, Tables

EXCEPTION_DIRECTORY = 3


@pytest.mark.parametrize("name", ["ninja", "clang-format"])
def test_headers_lead_to_the_same_unwind_data_as_the_system_s_table(name: str) -> None:
    image = pe_image.from_file(corpus.program(name))
    plan = ModulePlan(image)
    size = plan.lay_out(Slots(), "outward", "none", 0, 0)
    region = -(-image.size // 0x10000) * 0x10000 + 0x50000
    made = plan.compose(image.base + region, 0)

    headers = pefile.PE(data=made.code, fast_load=True)
    assert headers.OPTIONAL_HEADER.ImageBase == image.base + region
    assert headers.OPTIONAL_HEADER.SizeOfImage == size
    [section] = headers.sections
    assert section.VirtualAddress + section.Misc_VirtualSize == size
    directory = headers.OPTIONAL_HEADER.DATA_DIRECTORY[EXCEPTION_DIRECTORY]
    assert directory.VirtualAddress + directory.Size <= size

    def in_region(rva: int, length: int) -> bytes:
        assert rva + length <= len(made.code)
        return made.code[rva : rva + length]

    def in_module(rva: int, length: int) -> bytes:
        return in_region(rva - region, length)

    shown = Tables(in_region, [(directory.VirtualAddress, directory.Size // 12)])
    registered = Tables(in_module, [(made.table_rva, made.table_count)])
    assert len(shown.entries) == len(registered.entries) > 1000
    chained = 0
    for ours, theirs in zip(shown.entries, registered.entries):
        same(shown, ours, registered, theirs, region)
        chained += shown.info(ours[2]).chain is not None
    assert chained > 100


def same(shown: Tables, ours: Entry, registered: Tables, theirs: Entry, region: int) -> None:
    """One counts from the region, the other from the module; nothing else that unwinding needs differs."""
    assert ours[:2] == (theirs[0] - region, theirs[1] - region)
    one, other = shown.info(ours[2]), registered.info(theirs[2])
    assert (one.version, one.prolog, one.frame_register, one.frame_offset, one.codes) == (
        other.version,
        other.prolog,
        other.frame_register,
        other.frame_offset,
        other.codes,
    )
    assert (one.chain is None) == (other.chain is None)
    if one.chain and other.chain:
        same(shown, one.chain, registered, other.chain, region)
