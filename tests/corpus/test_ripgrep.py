"""ripgrep (Rust, MSVC linker, static runtime): searches a tree with several threads and SIMD code."""

from __future__ import annotations

from pathlib import Path

from rig import corpus, tracing

_WORDS = "trace call enter leave tail größer Функция 関数 stack frame unwind".split()
_PATTERN = r"(?i)\b(?:call|frame)s?\b.*?(\d{3})|\p{Greek}+|ФУНКЦИЯ\s(\w+)"


def _prepare(folder: Path) -> None:
    for number in range(120):
        place = folder / f"part{number % 7}" / f"deep{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        lines = (
            " ".join(f"{_WORDS[(i * j + number) % len(_WORDS)]} {i * number % 1000}" for j in range(1, 7))
            for i in range(number * 5)
        )
        (place / f"file{number}.{'txt' if number % 4 else 'log'}").write_text("\n".join(lines), "utf-8")
    (folder / "part0" / "binary.txt").write_bytes(b"call 123\0frame 456\n" * 100)
    (folder / "part1" / "wide.txt").write_text("call 789\nλ\n" * 50, "utf-16")
    (folder / ".ignore").write_text("part2/\n!part2/deep0/\n*.log\n")


def test_searches_a_tree_the_same_three_times_traced(tmp_path: Path) -> None:
    options = ["--threads=4", "--line-number", "--no-heading", "--column", "--replace=<$1$2>"]
    arguments = [*options, _PATTERN, "."]
    job = tracing.Job(corpus.program("ripgrep"), arguments, tmp_path / "work", _prepare, unordered=True)
    plain = tracing.runs_the_same_three_times_traced(job, tmp_path / "ripgrep.calltrace")
    assert plain.exit_code == 0
    assert b"part1\\wide.txt:1:1:<789>" in plain.stdout
    assert plain.stdout.count(b"\n") > 3000
