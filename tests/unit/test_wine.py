"""Handing a command line to Windows Python. Wine is a script here, which tells how it was called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calltrace import wine
from calltrace.errors import EngineError, FileMissing

CORE = Path(wine.__file__).parent.parent

FAKE_WINE = f"""#!{sys.executable}
import json, os, stat, sys
def kind(handle):
    try:
        return "device" if stat.S_ISCHR(os.fstat(handle).st_mode) else "other"
    except OSError:
        return "closed"
handles = [kind(number) for number in (0, 1, 2)]
brk = next((line.split("-")[0] for line in open("/proc/self/maps") if "[heap]" in line), "")
told = dict(argv=sys.argv[1:], cwd=os.getcwd(), environment=dict(os.environ), handles=handles, brk=brk)
open(os.environ["TELL"], "w").write(json.dumps(told))
sys.exit(77)
"""


def make_prefix(folder: Path) -> Path:
    (folder / "dosdevices").mkdir(parents=True)
    (folder / "drive_c").mkdir()
    (folder / "dosdevices" / "c:").symlink_to("../drive_c")
    (folder / "dosdevices" / "z:").symlink_to("/")
    (folder / "system.reg").write_text("")
    return folder


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return make_prefix(tmp_path / "prefix")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a prefix and a Windows Python, and a `wine` that tells how it was called."""
    cache = tmp_path / "cache"
    make_prefix(cache / "wine")
    (cache / "python-win").mkdir()
    (cache / "python-win" / "python.exe").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "wine").write_text(FAKE_WINE)
    (tmp_path / "bin" / "wine").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("CALLTRACE_CACHE", str(cache))
    monkeypatch.setenv("TELL", str(tmp_path / "told.json"))
    for name in ("WINEPREFIX", "WINEDEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def relay(home: Path, argv: list[str], prefix: Path | None = None, redirections: str = "") -> Any:
    """Relay `argv` in a process of its own and return what the Wine script was told."""
    script = f"""
import ctypes, sys
from pathlib import Path
ctypes.CDLL(None).personality(0)  # as in a shell, not as in our tests
sys.path.insert(0, {str(CORE)!r})
from calltrace import wine
wine.relay({argv!r}, {f"Path({str(prefix)!r})" if prefix else None})
"""
    shell = ["sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, script]
    done = subprocess.run(shell, cwd=home, env=dict(os.environ), check=False)
    assert done.returncode == 77
    return json.loads((home / "told.json").read_text())


def test_a_path_is_named_by_the_drive_that_shows_it_closest(prefix: Path) -> None:
    assert wine.windows_path("/usr/share/x y.txt", prefix) == "Z:\\usr\\share\\x y.txt"
    assert wine.windows_path(prefix / "drive_c" / "windows", prefix) == "C:\\windows"
    assert wine.windows_path("/", prefix).startswith("Z:\\")


def test_a_relative_path_is_taken_from_the_working_folder(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = "Z:" + str(tmp_path).replace("/", "\\") + "\\a\\b.exe"
    assert wine.windows_path("./x/../a/b.exe", prefix) == expected


@pytest.mark.parametrize("path", ["C:\\a\\b.exe", "d:/x", "\\\\server\\share\\x"])
def test_a_windows_path_stays_as_it_is(prefix: Path, path: str) -> None:
    assert wine.windows_path(path, prefix) == path


def test_a_place_that_no_drive_shows_is_an_error_naming_it(prefix: Path) -> None:
    (prefix / "dosdevices" / "z:").unlink()
    with pytest.raises(FileMissing, match="/usr/share/x"):
        wine.windows_path("/usr/share/x", prefix)


def test_the_program_becomes_a_windows_path_and_a_relative_trace_file_stays(home: Path) -> None:
    (home / "prog.exe").write_text("")
    theirs = ["-o", "x/y", "--prefix", "", 'q "']
    told = relay(home, ["run", "-o", "t.calltrace", "--include", "a/b", "--", "prog.exe", *theirs])
    here = "Z:" + str(home).replace("/", "\\")
    assert told["argv"][0] == str(home / "cache" / "python-win" / "python.exe")
    assert told["argv"][4:] == [
        *["run", "-o", "t.calltrace", "--include", "a/b"],
        *["--", here + "\\prog.exe", *theirs],
    ]
    assert told["cwd"] == str(home)


@pytest.mark.parametrize("option", [["-o", "/a/b"], ["-o/a/b"], ["--output", "/a/b"], ["--output=/a/b"]])
def test_a_trace_file_with_an_absolute_path_becomes_a_windows_path(home: Path, option: list[str]) -> None:
    expected = [word.replace("/a/b", "Z:\\a\\b") for word in option]
    assert relay(home, ["attach", *option, "1"])["argv"][4:] == ["attach", *expected, "1"]


@pytest.mark.parametrize("option", [["--symbols", "{}"], ["--symbols={}"]])
def test_folders_of_symbols_become_windows_paths(home: Path, option: list[str]) -> None:
    given, expected = "/a/b;c/d;srv*C:\\x*https://x/y", "Z:\\a\\b;c/d;srv*C:\\x*https://x/y"
    words = [word.format(given) for word in option]
    assert relay(home, ["attach", *words, "1"])["argv"][4:] == [
        "attach",
        *(word.format(expected) for word in option),
        "1",
    ]


def test_a_program_that_is_no_file_here_is_left_for_windows_to_find(home: Path) -> None:
    assert relay(home, ["run", "-ot", "--", "cmd", "/c"])["argv"][-3:] == ["--", "cmd", "/c"]


@pytest.mark.parametrize("given", [["--prefix", "elsewhere"], ["--prefix=elsewhere"]])
def test_the_prefix_given_is_used_and_not_passed_on(home: Path, given: list[str]) -> None:
    other = make_prefix(home / "other")
    told = relay(home, ["attach", *given, "123", "--seconds", "1"], prefix=other)
    assert told["environment"]["WINEPREFIX"] == str(other)
    assert told["argv"][4:] == ["attach", "123", "--seconds", "1"]


def test_wineprefix_comes_before_the_default_prefix(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert relay(home, ["attach", "1"])["environment"]["WINEPREFIX"] == str(home / "cache" / "wine")
    other = make_prefix(home / "other")
    monkeypatch.setenv("WINEPREFIX", str(other))
    assert relay(home, ["attach", "1"])["environment"]["WINEPREFIX"] == str(other)


def test_the_environment_is_passed_on_with_nothing_but_wines_own_variables_added(home: Path) -> None:
    environment = relay(home, ["attach", "1"])["environment"]
    wines = {"WINEPREFIX": str(home / "cache" / "wine"), "WINEDEBUG": "-all"}
    assert {name: value for name, value in environment.items() if name not in os.environ} == wines


def test_wines_messages_are_shown_to_who_wants_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINEDEBUG", "+relay")
    assert relay(home, ["attach", "1"])["environment"]["WINEDEBUG"] == "+relay"


def test_closed_standard_handles_are_replaced(home: Path) -> None:
    told = relay(home, ["attach", "1"], redirections="<&- >&- 2>&-")
    assert told["handles"] == ["device", "device", "device"]


def test_the_heap_of_what_is_started_lies_always_alike(home: Path) -> None:
    assert len({relay(home, ["attach", "1"])["brk"] for _ in range(4)}) == 1


def test_without_wine_or_windows_python_the_error_says_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(EngineError, match="apt-get install wine"):
        wine.relay(["attach", "1"], None)
    (home / "cache" / "python-win" / "python.exe").unlink()
    with pytest.raises(FileMissing, match="make setup"):
        wine.relay(["attach", "1"], None)
