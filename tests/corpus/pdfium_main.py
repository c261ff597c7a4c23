"""Run by Windows Python: makes a PDF file, and has pdfium draw it, tell its text and save it again.

The file has what makes pdfium work: fonts, curves, dashes, clipping, a shading, transparency, images (one
damaged), forms, compressed streams, and no table of its objects, which pdfium must find by itself.
"""

from __future__ import annotations

import ctypes
import re
import sys
import zlib
from pathlib import Path

sys.path.insert(0, sys.argv[1])  # where the package is unpacked

import pypdfium2_raw as pdfium

PAGES = 4
SIZE = 300  # pixels

CONTENT = b"""
q 0.9 0.2 0.1 rg 0.1 0.3 0.8 RG 3 w [9 4 2 4] 0 d
40 40 m 200 360 260 20 360 300 c 300 380 l h B* Q
q 60 60 240 200 re W n /Shade sh Q
q /Half gs 0 0.6 0.3 rg %d 100 150 150 re f Q
q 120 0 0 80 30 300 cm /Picture Do Q
q 60 0 0 60 300 20 cm /Photo Do Q
q 1 0 0.2 1 %d 30 cm /Form Do Q
BT /Serif 24 Tf 30 250 Td (Page %d of many: fi ffl \\(kerned\\)) Tj 0 -30 Td /Sans 14 Tf 2 Tr
[(T) 80 (racing) -250 (call) 120 (s)] TJ ET
"""
FORM = b"0.4 g 0 0 m 30 60 l 60 0 l f BT /Serif 9 Tf 0 G 1 0 0 1 5 5 Tm (form) Tj ET"
RESOURCES = b"""
/Font<</Serif 4 0 R/Sans<</Type/Font/Subtype/Type1/BaseFont/Helvetica-BoldOblique>>>>
/XObject<</Picture 5 0 R/Photo 6 0 R/Form 7 0 R>>/ExtGState<</Half<</ca 0.5/BM/Multiply>>>>
/Shading<</Shade<</ShadingType 3/ColorSpace/DeviceRGB/Coords[150 150 10 200 180 160]/Extend[true true]
/Function<</FunctionType 2/Domain[0 1]/C0[1 1 0]/C1[0 0 1]/N 1.7>>>>>>
"""
PICTURE = b"/Subtype/Image/Width 32/Height 48/BitsPerComponent 8/ColorSpace/DeviceRGB/Filter/FlateDecode"
PREDICTED = b"/DecodeParms<</Predictor 15/Colors 3/Columns 32>>"
PHOTO = b"/Subtype/Image/Width 32/Height 32/BitsPerComponent 8/ColorSpace/DeviceGray/Filter/DCTDecode"
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffdb004300") + bytes(range(1, 65))
JPEG += bytes.fromhex(
    "ffc0000b080020002001011100ffc4001400010000000000000000000000000000000300"
)  # and no more


def stream(about: bytes, data: bytes) -> bytes:
    """A stream object."""
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (about, len(data), data)


def document() -> bytes:
    """The PDF file."""
    rows = b"".join(b"\2" + bytes(x * y & 255 for x in range(96)) for y in range(48))
    kids = b" ".join(b"%d 0 R" % (8 + 2 * page) for page in range(PAGES))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (PAGES, kids),
        b"<<%s>>" % RESOURCES,
        b"<</Type/Font/Subtype/Type1/BaseFont/Times-Roman/Encoding/WinAnsiEncoding>>",
        stream(PICTURE + PREDICTED, zlib.compress(rows)),
        stream(PHOTO, JPEG),
        stream(b"/Subtype/Form/BBox[0 0 60 60]/Group<</S/Transparency>>/Resources 3 0 R", FORM),
    ]
    for page in range(PAGES):
        about = b"/MediaBox[0 0 400 400]/Rotate %d/Resources 3 0 R" % (page * 90 % 360)
        objects += [
            b"<</Type/Page/Parent 2 0 R%s/Contents %d 0 R>>" % (about, 9 + 2 * page),
            stream(b"/Filter/FlateDecode", zlib.compress(CONTENT % (page * 60, page * 50, page + 1))),
        ]
    numbered = (b"%d 0 obj\n%s\nendobj\n" % (i, text) for i, text in enumerate(objects, 1))
    return b"%PDF-1.7\n" + b"".join(numbered) + b"trailer<</Root 1 0 R>>\nstartxref\n7\n%%EOF\n"


def draw(opened: object, number: int) -> None:
    """Write a page's pixels to a file, and print its text."""
    page = pdfium.FPDF_LoadPage(opened, number)
    bitmap = pdfium.FPDFBitmap_Create(SIZE, SIZE, 0)
    pdfium.FPDFBitmap_FillRect(bitmap, 0, 0, SIZE, SIZE, 0xFFFFFFFF)
    pdfium.FPDF_RenderPageBitmap(bitmap, page, 0, 0, SIZE, SIZE, 0, pdfium.FPDF_ANNOT)
    pixels = ctypes.string_at(pdfium.FPDFBitmap_GetBuffer(bitmap), 4 * SIZE * SIZE)
    Path(f"page{number}.bgrx").write_bytes(pixels)
    text = pdfium.FPDFText_LoadPage(page)
    characters = (ctypes.c_ushort * 200)()
    pdfium.FPDFText_GetText(text, 0, len(characters) - 1, characters)
    print(bytes(characters).decode("utf-16-le").rstrip("\0"))
    pdfium.FPDFText_ClosePage(text)
    pdfium.FPDFBitmap_Destroy(bitmap)
    pdfium.FPDF_ClosePage(page)


def save(opened: object) -> bytes:
    """The document as pdfium writes it, through a callback."""
    saved = bytearray()

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(pdfium.FPDF_FILEWRITE), ctypes.c_void_p, ctypes.c_ulong)
    def write(_: object, data: int, size: int) -> int:
        saved.extend(ctypes.string_at(data, size))
        return 1

    assert pdfium.FPDF_SaveAsCopy(opened, pdfium.FPDF_FILEWRITE(version=1, WriteBlock=write), 0)
    return re.sub(rb"/ID ?\[.*?\]", b"", saved)  # made from the time


pdfium.FPDF_InitLibrary()
data = document()
opened = pdfium.FPDF_LoadMemDocument64(data, len(data), None)
for number in range(pdfium.FPDF_GetPageCount(opened)):
    draw(opened, number)
Path("copy.pdf").write_bytes(save(opened))
pdfium.FPDF_CloseDocument(opened)
print("half of it:", bool(pdfium.FPDF_LoadMemDocument64(data, 900, None)), pdfium.FPDF_GetLastError())
pdfium.FPDF_DestroyLibrary()
