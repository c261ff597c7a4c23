"""What the standalone port does to real processes, and what they notice of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rig import targets, windows

MAIN = Path(__file__).parent / "port_main.py"
PAGE_EXECUTE_READ, PAGE_READWRITE = 0x20, 0x04


def play(*words: str | Path, **options: Any) -> tuple[Any, subprocess.CompletedProcess[bytes]]:
    """A scene's result, and how Windows Python ended."""
    done = windows.python(MAIN, *words, **options)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stderr.splitlines()[-1]), done


def test_a_started_program_notices_nothing() -> None:
    program = targets.build("port_child")
    line = r'"some name" 77 "a  b" c\"d ^&'
    options: dict[str, Any] = {"stdin": b"twelve bytes", "env": {"PORT_CHILD": "given"}}
    exit_code, done = play("run", program, line, **options)
    assert exit_code == 77
    assert done.stdout.decode().splitlines() == [
        f"command line: {line}",
        "heap variable: none",
        "given variable: given",
        "debugged: 0 0, global flags: 0",
        "input: 12 bytes",
    ]
    assert done.stderr.splitlines()[0] == b"to the error output"


def test_a_heap_variable_of_the_user_stays() -> None:
    _, done = play("run", targets.build("port_child"), "program", env={"_NO_DEBUG_HEAP": "mine"})
    assert b"heap variable: mine" in done.stdout


def test_a_large_exit_code_is_read_whole() -> None:
    exit_code, _ = play("run", targets.build("port_child"), "program 0xC0000005")
    assert exit_code == 0xC0000005


def test_a_running_program_finishes_right_after_being_stopped_often() -> None:
    found, _ = play("attach_and_leave", targets.build("port_threads"))
    assert [process_id for _, process_id in found["results"]] == [found["pid"]] * 3
    assert all(threads >= 6 for threads, _ in found["results"])  # main, four workers and the break-in thread
    assert found["output"].strip() == "rounds some, wrong 0, debugged 0"
    assert found["exit_code"] == 5


def test_the_debugged_flag_is_clear_after_detaching() -> None:
    found, _ = play("flag_after_detach", targets.build("port_threads"))
    assert found == [1, 0]


def test_writing_over_a_whole_module_leaves_its_protections_as_they_were() -> None:
    found, _ = play("protection_is_restored", targets.build("port_threads"))
    assert len(found["before"]) > 3
    assert found["after"] == found["before"]
    assert found["region"] == [PAGE_READWRITE, PAGE_EXECUTE_READ]


def test_a_call_that_needs_a_frozen_threads_lock_succeeds_after_the_thaw() -> None:
    found, _ = play("call_that_waits", targets.build("port_locks"), "2500", "15")
    assert found["result"] == 42
    assert found["seconds"] >= 0.5
    assert found["output"].strip() == "ended in order"
    assert found["exit_code"] == 6


def test_a_call_that_does_not_come_back_is_given_up_and_the_program_goes_on() -> None:
    found, _ = play("call_that_waits", targets.build("port_locks"), "5500", "3")
    assert found["result"].startswith("EngineError: a call of 0x")
    assert "did not come back within 3 s" in found["result"]
    assert found["output"].strip() == "ended in order"
    assert found["exit_code"] == 6


def test_a_dll_is_loaded_or_its_refusal_explained() -> None:
    refusing = targets.build("port_refuses")
    found, _ = play(
        "library", targets.build("port_threads"), r"C:\windows\system32\version.dll", refusing, "no.dll"
    )
    assert found[0] is True
    assert found[1].startswith("EngineError: process ")
    assert "port_refuses.dll" in found[1]
    assert "(error 1114)" in found[1]  # ERROR_DLL_INIT_FAILED
    assert "(error 126)" in found[2]  # ERROR_MOD_NOT_FOUND


def pe_file(folder: Path, machine: int) -> Path:
    """The beginning of a PE file for a machine."""
    head = b"MZ" + bytes(0x3A) + (0x40).to_bytes(4, "little") + b"PE\0\0" + machine.to_bytes(2, "little")
    path = folder / "made.exe"
    path.write_bytes(head + bytes(16) + b"\x22\0" + bytes(0x200))
    return path


@pytest.mark.parametrize(
    ("machine", "words"),
    [(0x14C, "a 32-bit program"), (0xAA64, "an ARM64 program"), (0x200, "for machine type 0x200")],
)
def test_a_program_for_another_machine_is_refused(tmp_path: Path, machine: int, words: str) -> None:
    found, _ = play("create_error", pe_file(tmp_path, machine))
    assert found.startswith("NotTraceable: ")
    assert "made.exe" in found
    assert words in found


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    text, batch = tmp_path / "text.exe", tmp_path / "batch.cmd"
    text.write_text("not a program")
    batch.write_text("exit")
    assert "is not a Windows program" in play("create_error", text)[0]
    assert "is a batch file" in play("create_error", batch)[0]
    assert "is a DLL" in play("create_error", targets.build("port_refuses"))[0]
    assert play("create_error", "no_such_program")[0] == "FileMissing: no such program: no_such_program"


def test_a_program_with_a_broken_body_is_refused(tmp_path: Path) -> None:
    found, _ = play("create_error", pe_file(tmp_path, 0x8664))
    assert found.startswith("NotTraceable: ")
    assert "made.exe is damaged" in found


def test_attaching_to_what_is_not_there_is_refused() -> None:
    assert play("attach_error", "999996")[0] == "TargetLost: there is no process 999996"
    assert play("attach_error", "self")[0] == "NotTraceable: calltrace cannot trace itself"
    assert "has ended (exit code 5)" in play("attach_to_ended", targets.build("port_threads"))[0]


def test_attaching_beside_another_debugger_is_refused() -> None:
    found, _ = play("attach_twice", targets.build("port_threads"))
    assert found.startswith("NotTraceable: process ")
    assert "is being debugged already" in found


def test_a_debugger_is_told_of_threads_and_modules() -> None:
    plugin = targets.build("session_plugin")
    told, done = play("debug_events", targets.build("session_loader"), windows.path(plugin), stdin=b"\n")
    assert done.stdout.split()[2:] == [b"10000"] * 2
    assert told[-1] == ["PROCESS_EXIT", 0, "", 9]
    about_plugin = [(kind, thread) for kind, thread, name, _ in told if name == plugin.name]
    assert [kind for kind, _ in about_plugin] == ["MODULE_LOAD", "MODULE_UNLOAD"] * 2
    [loader] = {thread for _, thread in about_plugin}
    kinds = [kind for kind, thread, _, _ in told if thread == loader and kind.startswith("THREAD")]
    assert kinds == ["THREAD_START", "THREAD_EXIT"]


def test_threads_that_meet_a_breakpoint_at_once_go_on_unharmed_when_it_is_gone() -> None:
    found, _ = play("shared_breakpoint", targets.build("port_threads"))
    assert found["threads"] == 4
    assert found["output"].strip() == "rounds some, wrong 0, debugged 0"
    assert found["exit_code"] == 5


def test_a_program_that_the_system_lets_nobody_change_is_ended_before_its_first_instruction() -> None:
    found, done = play("create_blocked", targets.build("port_child"))
    assert found.startswith("NotTraceable: ")
    assert "Arbitrary Code Guard" in found
    assert done.stdout == b""


def test_a_blocked_process_is_not_stopped() -> None:
    found, _ = play("attach_blocked", targets.build("watched"))
    assert found["said"].startswith("NotTraceable: process ")
    assert "Code Integrity Guard" in found["said"]
    assert found["output"].strip() == "threads 1, debugged 0, code same"
    assert found["exit_code"] == 4
