"""Names from program databases, in a shell: whatever dbghelp.dll there is finds them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from rig import codeview, targets, tracing, windows

# As tests/targets/names.cpp calls them, from the outermost on.
CHAIN = [
    "names!main",
    "names!apply",
    "names!zoo::Cage<zoo::Lion>::feed",
    "names!zoo::Lion::eat",
    "names!zoo::operator!=",
    "names!`anonymous namespace'::bottom",
    "names!hidden",
]
FOLDER = b"codeview/names/"  # in what the program says of where its database is


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """The program without its database, and without a word of where that is."""
    raw = codeview.build("names").read_bytes()
    program = tmp_path / "bin" / "names.exe"
    program.parent.mkdir()
    assert raw.count(FOLDER) == 1
    program.write_bytes(raw.replace(FOLDER, b"nowhere/nowher/"))
    return program


def run(program: Path, *options: str | Path, folder: Path, **env: str) -> tuple[list[str], str]:
    """The lines of the call tree, and what was told."""
    trace = folder / "names.calltrace"
    done = tracing.calltrace("run", "-o", trace, *options, "--", program, "7", env=env)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == windows.run([program, "7"]).stdout
    shown = tracing.calltrace("tree", trace)
    assert shown.returncode == 0, shown.stderr.decode()
    return [line.strip() for line in shown.stdout.decode().splitlines()], done.stderr.decode()


def assert_chain(lines: list[str]) -> None:
    positions = [lines.index(name) for name in CHAIN]
    assert positions == sorted(positions)


def test_a_database_beside_the_program_names_its_functions(tmp_path: Path) -> None:
    lines, _ = run(codeview.build("names"), folder=tmp_path)
    assert_chain(lines)
    assert "names!zoo::Lion::operator bool" in lines
    [module] = tracing.info(tmp_path / "names.calltrace")["modules"]
    assert module["named_by"].endswith("names.pdb")
    assert module["pdb"]["path"].endswith("codeview/names/names.pdb")
    assert module["named"] >= len(CHAIN)


def test_a_database_is_found_where_the_user_says(alone: Path, tmp_path: Path) -> None:
    lines, _ = run(alone, folder=tmp_path)
    assert not any("zoo" in line for line in lines)
    folder = tmp_path / "symbols"
    folder.mkdir()
    (folder / "names.pdb").write_bytes(codeview.build("names").with_suffix(".pdb").read_bytes())
    lines, _ = run(alone, "--symbols", folder, folder=tmp_path)
    assert_chain(lines)
    lines, _ = run(alone, folder=tmp_path, _NT_SYMBOL_PATH=f"C:\\nowhere;Z:{folder}")
    assert_chain(lines)


@pytest.mark.parametrize("damage", ["cut", "zeros", "other"])
def test_a_damaged_database_is_told_and_harms_nothing(alone: Path, tmp_path: Path, damage: str) -> None:
    raw = codeview.build("names").with_suffix(".pdb").read_bytes()
    broken = {"cut": raw[:5000], "zeros": bytes(len(raw)), "other": b"not a database"}[damage]
    alone.with_suffix(".pdb").write_bytes(broken)
    lines, told = run(alone, folder=tmp_path)
    [line] = [line for line in told.splitlines() if "names.pdb" in line]
    assert re.fullmatch(
        r"calltrace: names\.exe: names are its own only: \S+ is damaged or of another build", line
    )
    assert any(line.startswith("names+0x") for line in lines)


def test_a_database_may_be_named_itself(alone: Path, tmp_path: Path) -> None:
    database = tmp_path / "some where" / "names.pdb"
    database.parent.mkdir()
    database.write_bytes(codeview.build("names").with_suffix(".pdb").read_bytes())
    lines, told = run(alone, "--symbols", f"srv*{tmp_path};{database}", folder=tmp_path)
    assert_chain(lines)
    assert "names.pdb" not in told


def test_a_database_of_another_build_is_told_wherever_it_is(alone: Path, tmp_path: Path) -> None:
    program = alone.read_bytes()
    at = program.index(b"RSDS") + 4
    guid, age = program[at : at + 16], program[at + 16 : at + 20]
    raw = codeview.build("names").with_suffix(".pdb").read_bytes()
    assert raw.count(age + guid) == 1  # of the PDB's information stream
    (tmp_path / "names.pdb").write_bytes(raw.replace(age + guid, age + bytes(16)))
    lines, told = run(alone, "--symbols", tmp_path, folder=tmp_path)
    assert not any("zoo" in line for line in lines)
    place = windows.path(tmp_path / "names.pdb")
    assert f"names.exe: names are its own only: {place} is damaged or of another build" in told
    elsewhere = tmp_path / "right"
    elsewhere.mkdir()
    (elsewhere / "names.pdb").write_bytes(raw)
    lines, told = run(alone, "--symbols", f"{tmp_path};{elsewhere}", folder=tmp_path)
    assert_chain(lines)
    assert "another build" not in told


@pytest.mark.parametrize("verb", [("run", "--"), ("plan",)])
def test_a_place_that_is_not_there_is_told_before_anything_is_done(
    alone: Path, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    name, *words = verb
    done = tracing.calltrace(name, "--symbols", f"{tmp_path};nowhere", *words, alone, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (66, b"")
    assert done.stderr.decode().splitlines() == ["calltrace: --symbols: there is no nowhere"]


def test_patterns_mean_names_of_the_database(tmp_path: Path) -> None:
    program = codeview.build("names")
    lines, _ = run(program, "--include", "zoo::operator!=", "--include", "names!zoo::Cage*", folder=tmp_path)
    assert set(lines[1:]) <= {CHAIN[2], CHAIN[4]} | {line for line in lines if line.startswith("call ")}
    assert {CHAIN[2], CHAIN[4]} <= set(lines)


def test_a_plan_shows_names_and_its_patterns_mean_them() -> None:
    program = codeview.build("names")
    folder = program.parent
    done = tracing.calltrace("plan", "--symbols", folder, "--json", "--include", "zoo::*", program)
    assert done.returncode == 0, done.stderr.decode()
    [module] = json.loads(done.stdout)["modules"]
    planned = {record["name"] for record in module["records"] if not record["status"]}
    assert planned == {*CHAIN[2:5], "names!zoo::Lion::operator bool"}


def test_names_of_the_modules_own_table_are_readable_and_can_be_meant(tmp_path: Path) -> None:
    program = targets.build("names")
    lines, _ = run(program, folder=tmp_path)
    wanted = [name.replace("`anonymous namespace'", "(anonymous namespace)") for name in CHAIN]
    positions = [lines.index(name) for name in wanted]
    assert positions == sorted(positions)
    lines, _ = run(program, "--include", "zoo::operator!=", folder=tmp_path)
    assert wanted[4] in lines
    assert wanted[3] not in lines


def test_names_of_the_modules_own_table_stay(tmp_path: Path) -> None:
    trace = tmp_path / "demo.calltrace"
    done = tracing.calltrace("run", "-o", trace, "--", targets.build("demo"), "1+2")
    assert done.returncode == 0, done.stderr.decode()
    assert "demo!parse_sum" in tracing.calltrace("tree", trace).stdout.decode()
    assert "EntryPoint" not in tracing.calltrace("tree", trace).stdout.decode()


def test_debug_information_in_the_program_names_what_its_table_names_less_well(tmp_path: Path) -> None:
    """Wine's dbghelp reads DWARF; gcc's symbol table has the same functions by their mangled names."""
    program = tmp_path / "names.exe"
    flags = [flag for flag in targets.flags_of("names") if not flag.startswith("-std")]
    command = ["x86_64-w64-mingw32-g++-posix", "-static", "-gdwarf-4", *flags]
    subprocess.run([*command, "-o", program, targets.source_of("names")], check=True)
    lines, _ = run(program, folder=tmp_path)
    wanted = [name for name in CHAIN if "anonymous" not in name]
    positions = [lines.index(name) for name in wanted]
    assert positions == sorted(positions)
