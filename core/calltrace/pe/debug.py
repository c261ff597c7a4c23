"""What an image's debug directory says: among others which PDB was written with it.

Formats: Microsoft, "PE Format", The .debug Section; the RSDS record is what dbghelp and symbol servers go by.
"""

from __future__ import annotations

import uuid
from typing import Any

from calltrace.pe.image import Image

_ENTRY_BYTES = 28  # IMAGE_DEBUG_DIRECTORY
_MOST_ENTRIES = 64
_CODEVIEW = 2  # IMAGE_DEBUG_TYPE_
_RSDS = b"RSDS"


def debug_data(image: Image, kind: int) -> tuple[int, int]:
    """RVA and bytes of the data of IMAGE_DEBUG_TYPE_ `kind`; (0, 0) if there are none."""
    rva, size = image.directory("DEBUG")
    for position in range(min(size // _ENTRY_BYTES, _MOST_ENTRIES)):
        entry = rva + position * _ENTRY_BYTES
        if image.u32(entry + 12) == kind and image.u32(entry + 20):
            return image.u32(entry + 20), image.u32(entry + 16)
    return 0, 0


def pdb_of(image: Image) -> dict[str, Any]:
    """The PDB that belongs to an image, ready for JSON: ``path`` as the linker wrote it, ``guid``, ``age``.

    Empty if the image names none.
    """
    rva, size = debug_data(image, _CODEVIEW)
    record = image.data[rva : rva + size]
    if len(record) < 24 or not record.startswith(_RSDS):
        return {}
    return {
        "path": record[24:].partition(b"\0")[0].decode("utf-8", "replace"),
        "guid": str(uuid.UUID(bytes_le=record[4:20])).upper(),
        "age": int.from_bytes(record[20:24], "little"),
    }
