"""`calltrace plan`: what it says of files and processes is what tracing then does, and nothing is touched."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from calltrace import wine
from calltrace.export import plan as plan_report
from calltrace.preflight import Verdict
from rig import corpus, targets, tracing, windows

MAIN = Path(__file__).parent / "plan_main.py"
READ, QUERY, QUERY_LIMITED, SYNCHRONIZE = 0x10, 0x400, 0x1000, 0x100000
HARMLESS = {
    "CloseHandle",
    "GetExitCodeProcess",
    "GetProcessMitigationPolicy",
    "K32EnumProcessModulesEx",
    "K32GetModuleFileNameExW",
    "NtQueryInformationProcess",
    "OpenProcess",
    "ReadProcessMemory",
    "VirtualQueryEx",
    "WaitForMultipleObjects",
    "WaitForSingleObject",
}


def plan(*words: str | Path, exit_code: int = 0) -> Any:
    """What ``calltrace plan --json`` says."""
    done = tracing.calltrace("plan", *words, "--json")
    assert done.returncode == exit_code, done.stderr.decode()
    assert done.stderr == b""
    return json.loads(done.stdout)


@contextmanager
def running(program: Path, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that says a line with its process id, and runs until its input ends."""
    words = [windows.path(word) if isinstance(word, Path) else word for word in (program, *arguments)]
    with subprocess.Popen(
        ["wine", *words], env=windows.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.communicate(timeout=windows.HANGS)


def process_id(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout
    return process.stdout.readline().split()[-1].decode()


def by_key(findings: Sequence[dict[str, str]]) -> dict[str, str]:
    return {finding["key"]: finding["verdict"] for finding in findings}


def test_the_plan_of_a_file_is_what_a_recording_then_does(tmp_path: Path) -> None:
    program, trace = targets.build("throws"), tmp_path / "made.calltrace"
    options = ["--events", "all", "--clock", "tsc", "--exclude", "*!main"]
    planned = plan(program, *options)
    tracing.calltrace("run", "-o", trace, *options, "--", program, "1")
    [recorded] = tracing.info(trace)["modules"]
    [module] = planned["modules"]
    assert planned["verdict"] == "fine"
    for key in ("functions", "pdata_groups", "refusals", "call_sites", "timestamp", "base"):
        assert module[key] == recorded[key], key
    for key in ("executable_bytes", "copy_bytes", "data_bytes"):
        assert module["plan"][key] == recorded["plan"][key], key


def test_every_function_is_listed_with_how_or_why_not() -> None:
    planned = plan(corpus.program("ninja"))
    [module] = planned["modules"]
    records = module["records"]
    assert len(records) == module["functions"]["found"]
    assert all((each["entry"] is None) != (each["reason"] is None) for each in records)
    refused = {each["rva"] for refusal in module["refusals"] for each in refusal["functions"]}
    assert refused <= {each["rva"] for each in records if each["reason"]}
    for name, number in module["functions"]["by_entry"].items():
        assert sum(each["entry"] == name for each in records) == number
    sources = module["functions"]["by_source"]
    for name, number in sources.items():
        assert sum(name in each["sources"] for each in records) == number
    assert planned["memory"]["copies"] == module["region_bytes"]
    assert module["region_bytes"] >= module["plan"]["copy_bytes"] + module["plan"]["data_bytes"]


def test_the_json_has_the_keys_that_its_description_names() -> None:
    def keys(value: Any) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(keys, value))
        return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()

    named = set(re.findall(r"``(\w+)``", plan_report.__doc__ or ""))
    assert len(named) > 20
    assert named - {verdict.value for verdict in Verdict} <= keys(plan(targets.build("demo")))


def test_refused_functions_are_listed_on_request() -> None:
    program = targets.build("own_code")
    short, full = tracing.calltrace("plan", program), tracing.calltrace("plan", program, "--refused")
    lines = set(full.stdout.decode().splitlines()) - set(short.stdout.decode().splitlines())
    listed = [line.split() for line in lines if line.strip().startswith("0x14")]
    [module] = plan(program)["modules"]
    told = {each["address"] for refusal in module["refusals"] for each in refusal["functions"]}
    assert {words[0] for words in listed} == told != set()


def test_modules_beside_a_program_are_planned_and_missing_ones_named() -> None:
    planned = plan(corpus.program("dotnet"), "--modules", "nosuch*")
    assert planned["notes"] == ["no module beside dotnet.exe matches nosuch*"]
    folder = corpus.program("coreclr").parent
    planned = plan(folder / "clrjit.dll", "--modules", "coreclr", "--modules", "dbgshim*")
    assert [module["name"] for module in planned["modules"]] == ["clrjit.dll", "coreclr.dll", "dbgshim.dll"]
    assert [module["planned"] for module in planned["modules"]] == [True, False, True]
    assert by_key(planned["modules"][0]["findings"])["library"] == "limits"


def test_a_blocked_program_is_told_and_ends_with_its_code() -> None:
    planned = plan(corpus.program("task"), exit_code=65)
    assert planned["verdict"] == "blocks"
    [module] = planned["modules"]
    assert not module["planned"]
    assert by_key(module["findings"])["runtime"] == "blocks"
    text = tracing.calltrace("plan", corpus.program("task"))
    assert text.returncode == 65
    assert b"can be traced    no\n" in text.stdout


def test_a_process_is_read_and_nothing_else() -> None:
    with running(targets.build("watched")) as process:
        number = process_id(process)
        done = windows.python(MAIN, number)
        assert done.returncode == 0, done.stderr.decode()
        told = json.loads(done.stdout)
        ended = process.communicate(timeout=windows.HANGS)[0].decode().strip()
    assert set(told["called"]) <= HARMLESS
    assert told["rights"] == [READ | QUERY | SYNCHRONIZE]
    assert ended == "threads 1, debugged 0, code same"
    assert process.returncode == 4
    findings = by_key(told["plan"]["findings"])
    assert findings.pop("protected") in ("fine", "unknown")  # Wine does not tell
    assert set(findings.values()) == {"fine"}


def test_the_watching_target_notices_what_an_attach_does() -> None:
    """Else the test before this one could not fail."""
    with running(targets.build("watched")) as process:
        number = process_id(process)
        attached = tracing.calltrace("attach", number, "--seconds", "0.2", "-o", "/dev/null/x")
        assert attached.returncode != 0
        ended = process.communicate(timeout=windows.HANGS)[0].decode()
    assert "debugged 1" in ended
    assert "threads 1," not in ended


def test_the_plan_of_a_process_is_that_of_its_file() -> None:
    program = targets.build("port_threads")
    with running(program) as process:
        number = process_id(process)
        planned = plan(number)
        text = tracing.calltrace("plan", number).stdout.decode()
    of_file = plan(program)
    assert planned["process_id"] == int(number)
    for key in ("functions", "refusals", "breakpoints", "call_sites", "base"):
        assert planned["modules"][0][key] == of_file["modules"][0][key], key
    assert text.splitlines()[0].startswith(f"program          process {number}, ")


def test_modules_of_a_process_are_planned_where_they_are() -> None:
    with running(targets.build("port_threads")) as process:
        planned = plan(
            process_id(process), "--modules", "msvcrt", "--modules", "ntdll", "--modules", "no.dll"
        )
    program, library = planned["modules"]
    assert library["name"].lower() == "msvcrt.dll"
    assert library["functions"]["instrumented"] > 100
    assert library["base"] != program["base"]
    assert planned["notes"] == [
        f"no module loaded in process {planned['process_id']} matches no.dll",
        "ntdll.dll is left out: recording itself runs through it",
    ]


def test_a_process_with_code_made_at_run_time_is_limited() -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from lupa import luajit21\n"
        "lua = luajit21.LuaRuntime(); lua.execute('local s = 0 for i = 1, 1e5 do s = s + i end')\n"
        "print('ready', os.getpid(), flush=True); sys.stdin.read()"
    )
    library = corpus.program("luajit").parent.parent
    with running(wine.windows_python(), "-c", script, library) as process:
        planned = plan(process_id(process))
    told = {finding["key"]: finding for finding in planned["findings"]}
    assert told["loose-code"]["verdict"] == told["jit"]["verdict"] == planned["verdict"] == "limits"
    assert "LuaJIT" in told["jit"]["text"]


def test_a_process_that_is_being_recorded_or_was_before_is_told(tmp_path: Path) -> None:
    with running(targets.build("port_threads")) as process:
        number = process_id(process)
        recording = subprocess.Popen(
            [tracing.CALLTRACE, "attach", number, "-o", tmp_path / "a.calltrace", "--seconds", "20"],
            env=windows.environment(),
            stderr=subprocess.PIPE,
        )
        with recording:
            assert recording.stderr
            while b"Ctrl+C ends the recording" not in recording.stderr.readline():
                assert recording.poll() is None
            meanwhile = plan(number, exit_code=65)
            again = tracing.calltrace("attach", number, "-o", tmp_path / "b.calltrace", "--seconds", "1")
            recording.send_signal(2)
            recording.communicate(timeout=windows.HANGS)
        afterwards = plan(number)
        ended = process.communicate(timeout=windows.HANGS)[0].decode().strip()
    assert by_key(meanwhile["findings"])["recorder"] == "blocks"
    assert not meanwhile["modules"][0]["planned"]
    assert again.returncode == 65
    assert f"process {number} is being recorded already" in again.stderr.decode()
    assert by_key(afterwards["findings"])["recorder"] == "fine"
    assert afterwards["modules"][0]["functions"]["instrumented"] > 50
    assert ended == "rounds some, wrong 0, debugged 0"


def assert_one_line(done: subprocess.CompletedProcess[bytes], exit_code: int, *words: str) -> None:
    said = done.stderr.decode()
    assert said.startswith("calltrace: ")
    assert said.count("\n") == 1
    for word in words:
        assert word in said
    assert (done.stdout, done.returncode) == (b"", exit_code)


def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    text, cut, batch = tmp_path / "text.exe", tmp_path / "cut.exe", tmp_path / "batch.cmd"
    text.write_bytes(b"no program at all\n" * 100)
    cut.write_bytes(corpus.program("ninja").read_bytes()[:200_000])
    batch.write_text("exit")
    assert_one_line(tracing.calltrace("plan", "no_such.exe"), 66, "no_such.exe")
    assert_one_line(tracing.calltrace("plan", text), 65, "text.exe", "not a Windows program")
    assert_one_line(tracing.calltrace("plan", cut), 65, "cut.exe", "truncated")
    assert_one_line(tracing.calltrace("plan", batch), 65, "batch.cmd", "batch file")
    assert_one_line(tracing.calltrace("plan", tmp_path), 66, str(tmp_path))
    assert_one_line(tracing.calltrace("plan", "999996"), 69, "there is no process 999996")


def test_a_file_named_by_a_number_comes_before_the_process(tmp_path: Path) -> None:
    (tmp_path / "999996").write_bytes(targets.build("demo").read_bytes())
    done = tracing.calltrace("plan", "999996", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()


def test_a_process_we_have_no_rights_to_is_one_clear_line() -> None:
    with running(targets.build("protected")) as process:
        number = process_id(process)
        assert_one_line(tracing.calltrace("plan", number), 77, number, "administrator")


@pytest.mark.parametrize("damage", ["exception", "load-config", "debug", "com"])
def test_directories_that_lie_outside_are_never_followed(tmp_path: Path, damage: str) -> None:
    data = bytearray(corpus.program("ninja").read_bytes())
    index = {"exception": 3, "debug": 6, "load-config": 10, "com": 14}[damage]
    at = int.from_bytes(data[0x3C:0x40], "little") + 24 + 112 + 8 * index
    data[at : at + 8] = b"\xf0\xff\xff\xff\xf0\xff\xff\x7f"
    made = tmp_path / "made.exe"
    made.write_bytes(data)
    done = tracing.calltrace("plan", made)
    assert done.returncode in (0, 65)
    assert b"Traceback" not in done.stderr
