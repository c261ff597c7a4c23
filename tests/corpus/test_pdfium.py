"""pdfium (clang-cl, lld-link, static runtime), a DLL that Windows Python loads by and by."""

from __future__ import annotations

from pathlib import Path

from calltrace import wine
from rig import corpus, tracing, windows

_MAIN = Path(__file__).with_name("pdfium_main.py")


def test_draws_and_saves_a_document_the_same_three_times_traced(tmp_path: Path) -> None:
    library = corpus.program("pdfium")
    arguments = [windows.path(path) for path in (_MAIN, library.parent.parent)]
    job = tracing.Job(wine.windows_python(), arguments, tmp_path / "work")
    plain = tracing.runs_the_same_three_times_traced(
        job, tmp_path / "pdfium.calltrace", modules=[library.name]
    )
    assert plain.exit_code == 0, plain.stderr.decode()
    assert b"Page 4 of many: fi ffl (kerned)\r\r\n" in plain.stdout
    assert b"half of it: False 3\r\n" in plain.stdout  # FPDF_ERR_FORMAT
    pictures = {plain.files[f"page{number}.bgrx"] for number in range(4)}
    assert len(pictures) == 4
    assert all(len(set(picture)) > 200 for picture in pictures)
    assert plain.files["copy.pdf"].startswith(b"%PDF")
