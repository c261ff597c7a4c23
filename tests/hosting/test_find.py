"""Which Python a debugger's plugin hosts: each kind of place, and what is wrong with those passed over."""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path

import pytest

from calltrace import wine
from rig import pefiles, targets, windbg, windows

NATIVE = targets.TREE / "native"
PYTHON = wine.windows_python().parent
FOUND = f"found {windows.path(PYTHON / 'python39.dll')}|{windows.path(PYTHON)}|"


@functools.cache
def finder() -> Path:
    """tests/hosting/finder.c with the code of the plugins."""
    program = targets.BUILT.parent / "hosting" / "finder.exe"
    program.parent.mkdir(parents=True, exist_ok=True)
    sources = [Path(__file__).with_name("finder.c"), NATIVE / "hosting" / "find.c"]
    windbg.compile_program(program, sources, f"-I{NATIVE}")
    return program


def find(*words: str | Path, program: Path | None = None, **env: str | Path) -> list[str]:
    """The lines of the finder: what was found, and each that was tried before."""
    told = {name: windows.path(value) if isinstance(value, Path) else value for name, value in env.items()}
    done = windows.run([program or finder(), *words, "find"], env=told)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def names_in_use() -> list[str]:
    """The functions of Python's API that native/hosting calls."""
    return re.findall(r"X\([^,]+, (Py\w+),", (NATIVE / "hosting" / "hosting.h").read_text(encoding="utf-8"))


def library(names: list[str], machine: int = 0x8664) -> bytes:
    """A DLL that exports data of these names."""
    section = pefiles.exports(sorted(names), pefiles.FIRST)
    return pefiles.build(
        [pefiles.Section(".rdata", section, pefiles.RDATA)],
        {"EXPORT": (pefiles.FIRST, len(section))},
        entry=0,
        dll=True,
        machine=machine,
    )


def installation(folder: Path, name: str, data: bytes) -> Path:
    """A folder with a library of that name, and enough of the standard library to be taken for a Python."""
    for module in ("os.py", "encodings/__init__.py"):
        (folder / "Lib" / module).parent.mkdir(parents=True, exist_ok=True)
        (folder / "Lib" / module).touch()
    (folder / name).write_bytes(data)
    return folder


def environment_of(folder: Path, home: Path) -> Path:
    """A virtual environment as `python -m venv` leaves it on Windows."""
    (folder / "Scripts").mkdir(parents=True)
    (folder / "Scripts" / "python.exe").touch()
    config = f"home = {windows.path(home)}\ninclude-system-site-packages = false\nversion = 3.9.13\n"
    (folder / "pyvenv.cfg").write_text(config, encoding="utf-8")
    return folder


def test_names_in_use_are_found() -> None:
    assert {"Py_InitializeEx", "PyGILState_Ensure", "PyObject_CallMethod"} <= set(names_in_use())


@pytest.mark.parametrize("name", ["", "python.exe", "python39.dll"])
def test_a_setting_names_a_folder_an_exe_or_a_dll(name: str) -> None:
    assert find(CALLTRACE_PYTHON=PYTHON / name) == [FOUND]


def test_a_setting_is_final(tmp_path: Path) -> None:
    missing = windows.path(tmp_path / "no such folder")
    found = find("register", "3.9", PYTHON, CALLTRACE_PYTHON=missing)
    assert found == ["none", f"  CALLTRACE_PYTHON: {missing} does not exist"]


def test_nothing_anywhere_names_each_place() -> None:
    assert find() == ["none", "  registry: names no Python", "  PATH: leads to no Python"]


def test_a_python_in_the_process_comes_before_others(tmp_path: Path) -> None:
    environment = environment_of(tmp_path / "venv", PYTHON)
    assert find("load", PYTHON / "python39.dll", VIRTUAL_ENV=environment) == [FOUND]


def test_a_virtual_environment_comes_before_the_registry(tmp_path: Path) -> None:
    environment = environment_of(tmp_path / "venv é", PYTHON)
    packages = windows.path(environment / "Lib" / "site-packages")
    other = installation(tmp_path / "other", "python312.dll", library(names_in_use()))
    assert find("register", "3.12", other, VIRTUAL_ENV=environment) == [FOUND + packages]
    assert find(CALLTRACE_PYTHON=environment) == [FOUND + packages]
    assert find(CALLTRACE_PYTHON=environment / "Scripts" / "python.exe") == [FOUND + packages]


def test_a_virtual_environment_may_have_lost_its_python(tmp_path: Path) -> None:
    environment = environment_of(tmp_path / "venv", tmp_path / "gone")
    assert find("register", "3.9", PYTHON, VIRTUAL_ENV=environment) == [
        FOUND,
        f"  VIRTUAL_ENV: {windows.path(environment)} is a virtual environment whose Python is gone",
    ]


@pytest.mark.parametrize("as_environment", [False, True])
def test_the_python_the_plugin_is_installed_in_comes_before_the_registry(
    tmp_path: Path, as_environment: bool
) -> None:
    home = tmp_path / "home"
    if as_environment:
        environment_of(home, PYTHON)
    else:
        installation(home, "python39.dll", (PYTHON / "python39.dll").read_bytes())
        shutil.copy(PYTHON / "VCRUNTIME140.dll", home)
    inside = home / "Lib" / "site-packages" / "calltrace" / "_native" / "finder.exe"
    inside.parent.mkdir(parents=True)
    shutil.copy(finder(), inside)
    where = windows.path(home)
    installed = f"found {where}\\python39.dll|{where}|"
    assert find("register", "3.9", PYTHON, program=inside) == [
        FOUND + f"{where}\\Lib\\site-packages" if as_environment else installed
    ]


def test_the_newest_in_the_registry_is_tried_first(tmp_path: Path) -> None:
    useless = tmp_path / "useless"
    useless.mkdir()
    words = [word for tag in ("3.11", "3.8", "3.13", "3.10") for word in ("register", tag, str(useless))]
    found = find(
        *(windows.path(word) if word.startswith("/") else word for word in words), "register", "3.9", PYTHON
    )
    assert found[0] == FOUND
    assert found[1:] == [
        f"  registry, PythonCore\\{tag}: {windows.path(useless)} has no pythonXY.dll"
        for tag in ("3.13", "3.11", "3.10")
    ]


def test_path_comes_last(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "python.exe").touch()
    found = find(WINEPATH=f"{windows.path(tmp_path)};{windows.path(broken)};{windows.path(PYTHON)}")
    assert found[0] == FOUND
    assert found[1:] == [
        "  registry: names no Python",
        f"  PATH: {windows.path(broken)} has python.exe, but no pythonXY.dll",
    ]


@pytest.mark.parametrize(
    ("name", "machine", "missing", "reason"),
    [
        ("python27.dll", 0x8664, "", "is Python 2.7: 3.9 or later is needed"),
        ("python38.dll", 0x8664, "", "is Python 3.8: 3.9 or later is needed"),
        ("python310.dll", 0x14C, "", "is a 32-bit Python: a 64-bit debugger needs a 64-bit one"),
        ("python310.dll", 0xAA64, "", "is made for another processor than x64"),
        ("python310.dll", 0x8664, "PyGILState_Ensure", "lacks the function PyGILState_Ensure"),
    ],
)
def test_a_python_of_the_wrong_kind_is_passed_over_unloaded(
    tmp_path: Path, name: str, machine: int, missing: str, reason: str
) -> None:
    names = [each for each in names_in_use() if each != missing]
    folder = installation(tmp_path / "wrong", name, library(names, machine))
    found = find("register", "3.99", folder, "register", "3.9", PYTHON)
    path = windows.path(folder / name)
    assert found == [FOUND, f"  registry, PythonCore\\3.99: {path} {reason}"]


@pytest.mark.parametrize("size", [0, 0x3F, 0x60, 0x1000])
def test_a_damaged_library_is_passed_over(tmp_path: Path, size: int) -> None:
    whole = (PYTHON / "python39.dll").read_bytes()
    folder = installation(tmp_path / "damaged", "python39.dll", whole[:size])
    path = windows.path(folder / "python39.dll")
    assert find(CALLTRACE_PYTHON=folder) == [
        "none",
        f"  CALLTRACE_PYTHON: {path} is no Windows library, or damaged",
    ]


def test_a_python_without_its_library_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "python39.dll").write_bytes((PYTHON / "python39.dll").read_bytes())
    path = windows.path(tmp_path / "python39.dll")
    assert find(CALLTRACE_PYTHON=tmp_path) == [
        "none",
        f"  CALLTRACE_PYTHON: {path} has no standard library beside it (Lib\\os.py)",
    ]


def test_the_embeddable_package_needs_no_home(tmp_path: Path) -> None:
    for name in ("python39.dll", "VCRUNTIME140.dll"):
        shutil.copy(PYTHON / name, tmp_path)
    (tmp_path / "python39.zip").touch()
    assert find(CALLTRACE_PYTHON=tmp_path) == [f"found {windows.path(tmp_path / 'python39.dll')}||"]


def test_other_libraries_are_not_taken_for_python(tmp_path: Path) -> None:
    for name in ("python3.dll", "pythoncom39.dll", "python39_d.dll", "python.dll", "python39.dll.bak"):
        (tmp_path / name).touch()
    assert find(CALLTRACE_PYTHON=tmp_path)[1].endswith("has no pythonXY.dll")
    assert find(CALLTRACE_PYTHON=tmp_path / "pythoncom39.dll")[1].endswith("is no pythonXY.dll")
