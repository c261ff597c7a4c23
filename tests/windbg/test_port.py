"""The port for WinDbg in the real debugger engine: the contract of ports, and what a debugger adds to it."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from pathlib import Path

import pytest

from calltrace import difference
from calltrace.tracefile import TraceFile
from contract.suite import CHECKS
from rig import targets, tracing, windbg

CONTRACT = targets.TREE / "tests" / "contract" / "windbg_main.py"
MAIN = Path(__file__).with_name("port_main.py")
KINDS = ("exports", "hosted pykd", "pykd")  # rig.dbgeng's
HOSTED = KINDS[:2]


@functools.cache
def contract(kind: str, mode: str) -> dict[str, str | None]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "results.json"
        done = windbg.python(
            CONTRACT, windbg.pykd_folder(), kind, mode, targets.build("port_threads"), output
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        found: dict[str, str | None] = json.loads(output.read_text())
    return found


@pytest.mark.parametrize("mode", ["create", "attach"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", CHECKS)
def test_the_port_keeps_the_contract(kind: str, mode: str, check: str) -> None:
    problem = contract(kind, mode)[check]
    assert problem is None, problem


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module", params=HOSTED)
def results(request: pytest.FixtureRequest, traces: Path) -> tuple[str, dict[str, str | None]]:
    """What tests/windbg/port_main.py found with a kind of engine."""
    for program in ("session_calls", "port_threads", "port_locks", "reference_threads", "seh"):
        targets.build(program)
    output = traces / f"{request.param}.json"
    done = windbg.python(MAIN, windbg.pykd_folder(), request.param, targets.BUILT, traces, output)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    print(done.stderr.decode())
    return request.param, json.loads(output.read_text())


def checks() -> list[str]:
    """The names of the checks, from the source: it can only be imported in Windows Python."""
    return re.findall(r"^    def ([a-z]\w+)\(self\)", MAIN.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("check", checks())
def test_the_port_in_a_session(results: tuple[str, dict[str, str | None]], check: str) -> None:
    problem = results[1][check]
    assert problem is None, problem


def test_a_recording_in_a_session_is_that_of_a_run_without_debugger(
    results: tuple[str, dict[str, str | None]], traces: Path
) -> None:
    kind, found = results
    assert found["a_recording_from_the_initial_break_is_that_of_a_whole_run"] is None
    alone = traces / "alone.calltrace"
    done = tracing.calltrace("run", "--quiet", "-o", alone, "--", targets.build("session_calls"), "1000")
    assert done.returncode == 11
    assert tree(traces / f"{kind}.calltrace") == tree(alone)


@pytest.mark.parametrize("name", ["leaf", "work"])
def test_a_breakpoint_takes_no_call_from_the_recording(
    results: tuple[str, dict[str, str | None]], traces: Path, name: str
) -> None:
    kind, found = results
    assert found["a_recording_leaves_the_user_s_breakpoints_on_traced_functions"] is None
    lines = tree(traces / f"{kind}-breakpoints.calltrace")
    recorded = [line for line in lines if line.split()[0] == f"session_calls!{name}"]
    assert recorded, lines
    if name == "leaf":  # recording was stopped as the fourth call of five was about to begin
        assert recorded[0].split()[1] == "\N{MULTIPLICATION SIGN}3"


@pytest.mark.parametrize(
    ("program", "kind"),
    [("reference_threads", "breakpoints"), ("seh", "breakpoints"), ("reference_threads", "steps")],
)
def test_the_exact_tracer_finds_in_a_session_what_it_finds_without_debugger(
    results: tuple[str, dict[str, str | None]], traces: Path, program: str, kind: str
) -> None:
    engine, found = results
    problem = found["a_reference_by_breakpoints" if kind == "breakpoints" else "a_reference_by_single_steps"]
    assert problem is None, problem
    alone = traces / f"{program}.calltrace"
    if not alone.exists():
        words = ("reference", "--quiet", "--events", "all", "-o", alone, "--", targets.build(program))
        tracing.calltrace(*words)
    with TraceFile(traces / f"{engine}-{program}-{kind}.calltrace") as first, TraceFile(alone) as second:
        compared = difference.compare(first, second, ("session", "alone"))
    assert compared.differences == []
    assert compared.frames > 200


def tree(trace: Path) -> list[str]:
    """The call tree's lines, without the system's thread ids."""
    done = tracing.calltrace("tree", trace)
    assert done.returncode == 0, done.stderr.decode()
    return re.sub(r" \(id \d+\)", "", done.stdout.decode()).splitlines()
