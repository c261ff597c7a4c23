"""The fast tracer held against the slow, exact one: the same call trees, and the same ends of all frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from calltrace import difference
from calltrace.tracefile import TraceFile
from rig import corpus, targets, tracing, windows

EVENTS = ("functions", "outward", "all")


@dataclass(frozen=True)
class Run:
    """A program that does the same each time."""

    target: str
    arguments: Sequence[str] = ()
    options: Sequence[str] = ()
    least_frames: int = 20  # with --events functions
    exit_code: int = 0

    def __str__(self) -> str:
        return " ".join((self.target, *self.arguments))


# A further target is one more line here. Its trees must not depend on time, addresses, or who comes first.
RUNS = (
    Run("demo", ("1+2", "3 * (4 - 1)"), least_frames=80),
    Run("session_calls", ("20",), least_frames=100, exit_code=11),
    Run("session_calls", ("20", "hard"), least_frames=100, exit_code=77),
    Run("exit_code", ("7",), exit_code=7),
    Run("throws", ("1", "4"), least_frames=600),
    Run("reference_shapes", least_frames=60),
    Run("reference_threads", least_frames=200),
    Run("reference_fibers", least_frames=150),
    Run(
        "session_loader",
        ("session_plugin.dll", "2"),
        ("--modules", "session_plugin", "--include", "session_plugin!*"),
        least_frames=250,
        exit_code=9,
    ),
)
STEPPED = [
    run for run in RUNS if run.target in ("demo", "exit_code", "reference_shapes", "reference_threads")
]


def verdict(run: Run, events: str, *options: str) -> str:
    """What diff-reference says last of a run whose trees are equal."""
    program = targets.build(run.target)
    if run.target == "session_loader":
        targets.build("session_plugin")
    done = tracing.calltrace(
        "diff-reference", "--events", events, *run.options, *options, "--", program, *run.arguments,
        cwd=program.parent, stdin=b"\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stderr.decode().splitlines()
    assert lines[-1].startswith("calltrace: equal: "), lines
    return lines[-1]


def frames(said: str) -> int:
    return int(said.split()[-2].replace(",", ""))


@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("run", RUNS, ids=str)
def test_both_tracers_tell_the_same_tree(run: Run, events: str) -> None:
    assert frames(verdict(run, events)) >= run.least_frames


@pytest.mark.parametrize("run", STEPPED, ids=str)
def test_single_steps_tell_the_same_tree(run: Run) -> None:
    assert frames(verdict(run, "all", "--single-step")) >= run.least_frames


def test_a_real_program_has_the_same_tree(tmp_path: Path) -> None:
    done = tracing.calltrace(
        "diff-reference", "--events", "all", "--", corpus.program("ninja"), "--version", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"1.13.2")
    half = len(done.stdout) // 2
    assert done.stdout[:half] == done.stdout[half:]
    assert frames(done.stderr.decode()) > 3000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", [run for run in RUNS if not run.options], ids=str)
def test_the_program_runs_under_the_reference_as_it_does_alone(run: Run, tmp_path: Path) -> None:
    program, trace = targets.build(run.target), tmp_path / "made.calltrace"
    plain = windows.run([program, *run.arguments])
    done = tracing.calltrace("reference", "--quiet", "-o", trace, "--", program, *run.arguments)
    assert done.returncode == plain.returncode == run.exit_code
    assert (done.stdout, done.stderr) == (plain.stdout, plain.stderr)
    report = tracing.info(trace)
    assert report["state"] == ("killed" if "hard" in run.arguments else "exited")
    assert report["exit_code"] == run.exit_code
    assert report["frames"]["orphans"] == 0
    assert not any(report["health"].values()), report["health"]


def test_both_runs_get_the_same_input(tmp_path: Path) -> None:
    # port_child copies its input's length to its output; what it does with it is the same in both runs.
    done = tracing.calltrace(
        "diff-reference", "--", targets.build("port_child"), cwd=tmp_path, stdin=b"12345\n" * 3
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"input: 18 bytes") == 2


def traced(program: str, trace: Path, *arguments: str, options: Sequence[str] = ()) -> Path:
    done = tracing.calltrace(
        "reference", "--quiet", "-o", trace, *options, "--", targets.build(program), *arguments
    )
    assert done.returncode in (0, 11), done.stderr.decode()
    return trace


def compared(first: Path, second: Path) -> difference.Comparison:
    with TraceFile(first) as one, TraceFile(second) as other:
        return difference.compare(one, other, ("one", "other"))


def parts(text: str) -> dict[str, list[str]]:
    """The lines about a difference, by heading: what was open, what came before, what comes in each."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines()[1:]:
        words = line.strip()
        if words.startswith("inside "):
            lines = found["before"] = []
            found["inside"] = words[len("inside ") :].split(" > ")
        elif words in ("one:", "other:"):
            lines = found[words[:-1]] = []
        else:
            lines.append(words)
    return found


def test_another_run_is_found_to_differ_where_it_does(tmp_path: Path) -> None:
    first = traced("session_calls", tmp_path / "1", "20")
    second = traced("session_calls", tmp_path / "2", "21")
    found = compared(first, second)
    assert (found.threads, found.frames) == (0, 0)
    [text] = found.differences
    told = parts(text)
    assert told["inside"][-2:] == ["session_calls!main", "session_calls!work"]
    assert told["before"] == ["session_calls!leaf", "end of session_calls!leaf: return"] * 3
    assert "leaf" not in " ".join(told["one"])
    assert told["other"][:2] == ["session_calls!leaf", "end of session_calls!leaf: return"]
    assert compared(first, traced("session_calls", tmp_path / "3", "20")).differences == []


def test_a_function_left_out_of_one_trace_is_found_missing(tmp_path: Path) -> None:
    first = traced("demo", tmp_path / "1", "1+2")
    second = traced("demo", tmp_path / "2", "1+2", options=("--exclude", "demo!take"))
    [text] = compared(first, second).differences
    told = parts(text)
    assert told["inside"][-1] == "demo!parse_factor"
    assert told["one"][0] == "demo!take"
    assert "demo!take" not in told["other"]


def test_the_traces_are_kept_if_asked_for(tmp_path: Path) -> None:
    done = tracing.calltrace(
        "diff-reference", "--quiet", "-o", tmp_path, "--", targets.build("exit_code"), "3"
    )
    assert done.returncode == 0, done.stderr.decode()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "exit_code.fast.calltrace",
        "exit_code.reference.calltrace",
    ]
    text = tracing.calltrace("tree", tmp_path / "exit_code.reference.calltrace").stdout
    assert (
        text.split(b"\n", 1)[1]
        == (tracing.calltrace("tree", tmp_path / "exit_code.fast.calltrace").stdout.split(b"\n", 1)[1])
    )
