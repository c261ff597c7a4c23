"""ninja (MSVC, static runtime): reads a large graph and runs a part of its commands, one of which fails."""

from __future__ import annotations

from pathlib import Path

from rig import corpus, tracing

_COPIES = 12
_EDGES = 4000


def prepare(folder: Path) -> None:
    lines = [
        "rule copy",
        "  command = cmd /c copy $in $out > nul",
        "  description = copying $in",
        "rule fail",
        "  command = cmd /c exit 3",
    ]
    for number in range(_EDGES):
        folder_name = f"part{number % 40}"
        lines += [f"build {folder_name}\\copy{number}.txt: copy source{number}.txt | source{number // 2}.txt"]
    wanted = " ".join(f"part{number % 40}\\copy{number}.txt" for number in range(_COPIES))
    lines += ["build never: fail", f"build some: phony {wanted} never", "default some"]
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")
    for number in range(_COPIES):
        (folder / f"source{number}.txt").write_text(f"content {number}\n" * number)


def test_builds_a_graph_the_same_three_times_traced(tmp_path: Path) -> None:
    job = tracing.Job(
        corpus.program("ninja"),
        ["-j1", "-k0", "-d", "explain"],
        tmp_path / "work",
        prepare,
        ignored_files=[".ninja_log"],
    )
    plain = tracing.runs_the_same_three_times_traced(job, tmp_path / "ninja.calltrace")
    assert b"FAILED: " in plain.stdout
    assert plain.exit_code != 0
    assert plain.files["part11/copy11.txt"] == plain.files["source11.txt"] != b""
