"""calltrace driven by scripts: of x64dbgpy's Python 2.7, and of a Python 3 in the debugger."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rig import targets, tracing, windows, x64dbg

CLIENT = targets.TREE / "x64dbg_plugin" / "calltrace_client.py"
PYTHON_3 = Path(__file__).with_name("script_host.py")
LEAVES = 1234
RUN = Callable[[Sequence[str]], "tuple[x64dbg.Transcript, list[Any]]"]  # of a script; what it kept

# What scripts begin with; `keep` adds to what the test gets.
PRELUDE = """
import json, os, sys
import calltrace_client as calltrace
def keep(value):
    with open(os.environ["KEPT"], "a") as file:
        file.write(json.dumps(value) + "\\n")
def failure(function, *words):
    try:
        return function(*words)
    except calltrace.CalltraceError as error:
        return str(error)
"""


@pytest.fixture(
    params=[
        pytest.param((x64dbg.STAND_IN, 3), id="stand-in, Python 3"),
        pytest.param((x64dbg.REAL, 3), id="x64dbg, Python 3", marks=x64dbg.only_real),
        pytest.param((x64dbg.REAL, 2), id="x64dbgpy", marks=x64dbg.WITHOUT_SCRIPTING),
    ]
)
def scripting(request: pytest.FixtureRequest, tmp_path: Path) -> RUN:
    """Types lines; one that begins with `script` is the text of one, which is run."""
    debugger, python = request.param
    kept = tmp_path / "kept"
    environment = {"KEPT": windows.path(kept)}
    installed = None
    if python == 2:
        installed = with_x64dbgpy(tmp_path / "x64dbg")
        environment["PYTHONHOME"] = windows.path(installed)
        command = 'PyRunScript "{}"'
    else:
        environment.update(x64dbg.answering(tmp_path / "packages", PYTHON_3))
        shutil.copy(CLIENT, tmp_path / "packages")
        command = 'calltrace script "{}"'

    def run(script: Sequence[str]) -> tuple[x64dbg.Transcript, list[Any]]:
        lines = []
        for number, line in enumerate(script):
            if line.startswith("script\n"):
                file = tmp_path / f"{number}.py"
                file.write_text(PRELUDE + line.partition("\n")[2])
                lines.append(command.format(windows.path(file)))
            else:
                lines.append(line)
        shown = x64dbg.run(lines, debugger, env=environment, installed=installed)
        told = "".join(said for _, said in shown.commands)
        assert kept.is_file(), told
        assert "Traceback" not in told, told
        return shown, [json.loads(line) for line in kept.read_text().splitlines()]

    return run


def with_x64dbgpy(folder: Path) -> Path:
    """An x64dbg with x64dbgpy and its Python, and with our plugin as `x64dbg-install` puts it there."""
    real = x64dbg.real_scripting()
    assert real
    with x64dbg.installation(x64dbg.REAL) as program:
        shutil.copytree(program.parent, folder)
    (folder / "plugins" / x64dbg.PLUGIN.name).unlink()
    for name in ("python27.dll", "DLLs", "Lib"):
        (folder / name).symlink_to(real / name)
    shutil.copy(real / "plugins" / "x64dbgpy.dp64", folder / "plugins")
    shutil.copytree(real / "plugins" / "x64dbgpy", folder / "plugins" / "x64dbgpy")
    done = tracing.calltrace("x64dbg-install", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_script_records_and_gets_results_as_dictionaries(scripting: RUN, tmp_path: Path) -> None:
    trace, saved, text = tmp_path / "naïve p.calltrace", tmp_path / "saved.calltrace", tmp_path / "out.csv"
    shown, kept = scripting(
        [
            x64dbg.init(targets.build("session_calls"), str(LEAVES)),
            "script\n"
            "keep(sys.version_info[0])\n"
            "keep(calltrace.status())\n"
            f"keep(calltrace.start('-o', u{windows.path(trace)!a}, '--clock', 'tsc'))\n",
            "bp session_calls:depth",
            "run",
            "script\n"
            "keep(calltrace.stacks())\n"
            "keep(calltrace.tree('--function', 'session_calls!work', '--limit', 0))\n"
            "keep(calltrace.top('--limit', 0))\n"
            "keep(calltrace.callers('session_calls!leaf'))\n"
            "keep(calltrace.callees('session_calls!work'))\n"
            "calltrace.mark('in \"the\" middle, once')\n"
            f"calltrace.save({windows.path(saved)!r})\n"
            "keep(calltrace.pause()['recording']['paused'])\n"
            "keep(calltrace.resume()['recording'])\n",
            "script\n"
            "keep(calltrace.stop())\n"
            "keep(calltrace.info())\n"
            f"calltrace.export('csv', {windows.path(text)!r})\n",
            "bc session_calls:depth",
            "run",
        ]
    )
    version, before, started, stacks, tree, top, callers, callees, paused, resumed, stopped, info = kept
    assert version == (2 if any("PyRunScript" in line for line, _ in shown.commands) else 3)
    assert "Process stopped with exit code 0xB (11)" in shown.commands[-1][1]
    assert before == {"trace": None, "recording": None}
    assert started["trace"] == windows.path(trace)
    assert started["recording"]["modules"] == ["session_calls.exe"]
    assert not started["recording"]["paused"]
    [stack] = stacks
    assert [frame["name"] for frame in stack["frames"]][:2] == ["session_calls!work", "session_calls!main"]
    [thread] = tree
    assert [(line["depth"], line["name"], line["calls"]) for line in thread["lines"]] == [
        (0, "session_calls!work", 1),
        (1, "session_calls!leaf", LEAVES),
    ]
    work, leaf = thread["lines"]
    assert (work["ended"], leaf["ended"]) == ("running", "return")
    assert int(leaf["address"], 16) > int(started["recording"]["process_id"] > 0)
    calls = {function["name"]: function["calls"] for function in top}
    assert calls["session_calls!leaf"] == LEAVES
    assert calls["session_calls!work"] == 1
    assert "session_calls!depth" not in calls  # the breakpoint is at its entry
    assert [(one["name"], one["calls"]) for one in callers] == [("session_calls!leaf", LEAVES)]
    assert [(one["name"], one["calls"]) for one in callers[0]["callers"]] == [("session_calls!work", LEAVES)]
    assert {"session_calls!leaf": LEAVES}.items() <= {
        one["name"]: one["calls"] for one in callees[0]["callees"]
    }.items()
    assert paused
    assert resumed["marks"] == ['in "the" middle, once', "paused", "resumed"]
    assert stopped == {"trace": windows.path(trace), "recording": None}
    assert (info["state"], info["file"]) == ("stopped", windows.path(trace))
    # The same as in a shell:
    assert top == json.loads(tracing.shell("top", saved, "--json", "--limit", "0"))["functions"]
    assert text.read_text(encoding="utf-8") == tracing.shell("export", "csv", trace)


def test_a_failure_is_an_exception_of_one_line(scripting: RUN, tmp_path: Path) -> None:
    trace = windows.path(tmp_path / "t.calltrace")
    shown, kept = scripting(
        [
            "script\nkeep(failure(calltrace.start))\n",
            x64dbg.init(targets.build("session_calls"), "1"),
            "script\n"
            "keep(failure(calltrace.stop))\n"
            "keep(failure(calltrace.top))\n"
            "keep(failure(calltrace.run, 'nosuch'))\n"
            "keep(failure(calltrace.start, 'session_calls!nosuch'))\n"
            f"keep(failure(calltrace.start, '-o', {trace!r}) is not None)\n"
            "keep(failure(calltrace.start))\n"
            "keep(sys.version_info[0])\n"
            "import threading\n"
            "thread = threading.Thread(target=lambda: keep(failure(calltrace.mark, 'here')))\n"
            "thread.start()\n"
            "thread.join()\n",
            'log "still here"',
            "erun",
            "erun",
        ]
    )
    no_target, *others = kept
    nothing, no_trace, no_verb, no_function, started, second, version, in_thread = others
    assert no_target.startswith("there is no stopped target")
    assert nothing == "no recording is under way: start one first"
    assert no_trace.startswith("nothing has been recorded in this session")
    assert no_verb == "no command nosuch: `calltrace help` lists them"
    assert no_function.startswith("no function matches session_calls!nosuch")
    assert started is True
    assert second == f"a recording is under way, into {trace}: stop it first"
    # Our own host runs scripts inside of a command, x64dbgpy does not.
    assert (
        in_thread
        == {2: None, 3: "another command is still running: wait for it, or cancel it in the menu"}[version]
    )
    assert all("\n" not in line for line in kept if isinstance(line, str))
    assert shown.said('log "still here"') == "still here\n"
    logged = "".join(said for _, said in shown.commands)
    assert "nosuch" not in logged  # it is the script's to tell
    assert f"calltrace: recording into {trace}\n" in logged
    assert "Process stopped with exit code 0xB (11)" in logged


def test_the_module_has_nothing_that_only_python_3_knows() -> None:
    for node in ast.walk(ast.parse(CLIENT.read_text(encoding="ascii"))):
        assert not isinstance(node, (ast.JoinedStr, ast.AnnAssign, ast.Nonlocal, ast.NamedExpr))
        if isinstance(node, ast.FunctionDef):
            parts = [*node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            assert not node.returns
            assert not node.args.kwonlyargs
            assert not any(part and part.annotation for part in parts)
        if isinstance(node, ast.Raise):
            assert not node.cause


def test_without_the_plugin_a_script_is_told() -> None:
    program = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import calltrace_client\n"
        "try:\n"
        "    calltrace_client.start()\n"
        "except calltrace_client.CalltraceError as error:\n"
        "    print(error)\n"
    )
    done = windows.python("-c", program, CLIENT.parent)
    assert done.stdout.split(b":")[0] == b"calltrace.dp64 is not loaded in this process", done.stderr
