"""The extension in the real debugger engine: loading, help, Python, errors, output, interrupts."""

from __future__ import annotations

import html
import os
import shutil
from pathlib import Path

import pytest

from calltrace import __version__, wine
from calltrace.commands import COMMANDS
from rig import targets, tracewriter, tracing, windbg, windows
from rig.commands import READING, in_host, in_shell
from rig.tracewriter import TraceWriter, Units

CORE = targets.TREE / "core"
HELP_OF_TREE = "Show the call tree, thread by thread."


def answering(folder: Path, code: str) -> dict[str, str]:
    """An environment in which `code` answers `!calltrace` in place of our module: run(library, line)."""
    package = folder / "calltrace_windbg"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "host.py").write_text(code, encoding="utf-8")
    return {"CALLTRACE_PACKAGE": f"{windows.path(folder)};{windows.path(CORE)}"}


def with_command(folder: Path, body: str) -> dict[str, str]:
    """An environment in which there is a command `do`, that is, the lines of `body`."""
    env = answering(
        folder,
        "from calltrace import commands, hosted\n"
        "from calltrace_windbg.genuine import WinDbg\n"
        f"def do(request, console):\n    {body}\n    return 0\n"
        "commands.COMMANDS = (commands.Command('do', '', '', (), do), *commands.COMMANDS)\n"
        "def run(library, line):\n    hosted.run(line, WinDbg(library))\n",
    )
    package = targets.TREE / "windbg_ext" / "calltrace_windbg"
    shutil.copy(package / "host.py", folder / "calltrace_windbg" / "genuine.py")
    for module in package.glob("*.py"):
        if module.name not in ("__init__.py", "host.py"):
            shutil.copy(module, folder / "calltrace_windbg")
    return env


def test_it_loads_and_tells_of_itself_without_python() -> None:
    shown = windbg.run([windbg.LOAD, "!help", ".chain", "!help"], env={"CALLTRACE_PYTHON": "nowhere"})
    assert "Unable to" not in shown.commands[0][1]
    for _, text in (shown.commands[1], shown.commands[3]):
        assert text.startswith(f"calltrace {__version__}: ")
        assert "!calltrace help COMMAND" in text
    assert f"calltrace_windbg.dll: image {__version__}" in shown.said(".chain")


def test_help_lists_the_commands_and_tells_of_each() -> None:
    here = [command for command in COMMANDS if not command.shell_only]
    asked = ["!calltrace", "!calltrace help", "!calltrace -?", "!calltrace --help"]
    each = [f"!calltrace help {command.verb}" for command in here]
    also = [f"!calltrace {command.verb} -?" for command in here]
    shown = windbg.run([windbg.LOAD, *asked, *each, *also])
    [overview] = {shown.said(command) for command in asked}
    assert overview.startswith("!calltrace COMMAND ...\n")
    for command, help_line, same_line in zip(here, each, also):
        assert f"  {command.verb} " in overview
        assert command.help in overview
        text = shown.said(help_line)
        assert text == shown.said(same_line)
        assert text.startswith(f"usage: !calltrace {command.verb}")
        assert command.help.split()[-1] in text


def test_mistakes_are_one_line_each_and_leave_the_session_usable(tmp_path: Path) -> None:
    nowhere = windows.path(tmp_path / "nowhere.calltrace")
    mistakes = {
        "!calltrace nosuch": "calltrace: no command nosuch: `!calltrace help` lists them",
        "!calltrace help nosuch": "calltrace: no command nosuch: `!calltrace help` lists them",
        "!calltrace callers": "calltrace: callers: the following arguments are required: FUNCTION; "
        "`!calltrace help callers` tells more",
        "!calltrace tree": "calltrace: nothing has been recorded in this session: start a recording, or name "
        "a trace file",
        '!calltrace tree "x': 'calltrace: a double quote is not closed: "x',
        "!calltrace run -- x.exe": "calltrace: run makes a target of its own: use it in a shell",
    }
    missing = f"!calltrace info {nowhere}"
    shown = windbg.run([windbg.LOAD, *mistakes, missing, "!calltrace help tree", ".echo still here"])
    for command, line in mistakes.items():
        assert shown.said(command) == line + "\n"
    assert shown.said(missing).startswith("calltrace: ")
    assert shown.said(missing).count("\n") == 1
    assert "nowhere.calltrace" in shown.said(missing)
    assert HELP_OF_TREE in shown.said("!calltrace help tree")
    assert shown.said(".echo still here") == "still here\n"
    assert shown.has_target


def test_commands_on_a_recorded_trace_print_what_they_print_in_a_shell(
    demo_trace: Path, demo_graph: Path, tmp_path: Path
) -> None:
    file, csv, page = windows.path(demo_trace), tmp_path / "demo.csv", tmp_path / "demo.html"
    expected = [in_shell(line, demo_trace, demo_graph) for line in READING]
    shown = windbg.run(
        [
            windbg.LOAD,
            *(f"!calltrace {in_host(line, demo_trace, demo_graph)}" for line in READING),
            f"!calltrace info {file} --json",
            f"!calltrace export csv {file} -o {windows.path(csv)}",
            f"!calltrace report {file} -o {windows.path(page)}",
        ]
    )
    *read, info, export, report = (text for _, text in shown.commands[1:])
    assert read == expected
    assert " µs" in read[0]
    assert "→" in read[0]
    assert info == tracing.shell("info", demo_trace, "--json").replace(
        f'"{demo_trace}"', f'"{file}"'.replace("\\", "\\\\")
    )
    assert export == ""
    assert csv.read_text(encoding="utf-8") == tracing.shell("export", "csv", demo_trace)
    assert report.startswith(f"calltrace: wrote {windows.path(page)} (")
    tracing.shell("report", demo_trace, "-o", tmp_path / "shell.html")
    assert page.read_bytes() == (tmp_path / "shell.html").read_bytes()


def test_long_output_is_printed_whole(long_trace: Path) -> None:
    command = f"!calltrace tree {windows.path(long_trace)} --limit 3000"
    shown = windbg.run([windbg.LOAD, command, ".prefer_dml 1", command])
    expected = tracing.shell("tree", long_trace, "--limit", "3000")
    assert len(expected) > 2 * 16_384  # the engine prints no more than that at once
    assert [shown.commands[1][1], shown.commands[3][1]] == [expected, expected]


def test_commands_work_when_the_target_has_ended(demo_trace: Path) -> None:
    top = f"!calltrace top {windows.path(demo_trace)}"
    # The engine unloads all extensions with the last target.
    shown = windbg.run([windbg.LOAD, "!calltrace help tree", "g", windbg.LOAD, top])
    assert not shown.has_target
    assert shown.said(top).endswith(
        "\n" + tracing.shell("top", demo_trace)
    )  # behind the engine's own warnings


def test_links_come_where_the_user_prefers_dml(demo_trace: Path) -> None:
    tree = f"!calltrace tree {windows.path(demo_trace)}"
    script = [windbg.LOAD, "!calltrace help", ".prefer_dml 1", "!calltrace", tree, "!calltrace <b>"]
    dml = windbg.run(script, env={"SHOW_DML": "1"})
    plain = windbg.run(script)
    link = '  <exec cmd="!calltrace help tree">tree</exec> '
    assert link not in dml.said("!calltrace help")
    assert link in dml.said("!calltrace")
    # A debugger without links has the engine take them out of the same output.
    assert plain.said("!calltrace") == plain.said("!calltrace help")
    assert plain.said("!calltrace") == html.unescape(dml.said("!calltrace help"))
    assert dml.said("!calltrace <b>") == "calltrace: no command &lt;b&gt;: `!calltrace help` lists them\n"
    assert plain.said("!calltrace <b>") == "calltrace: no command <b>: `!calltrace help` lists them\n"
    assert plain.said(tree) == tracing.shell("tree", demo_trace)


def test_names_of_any_alphabet_reach_the_window(tmp_path: Path) -> None:
    name = "naïve→\N{SNOWMAN}<&>%s\N{MATHEMATICAL SCRIPT CAPITAL A}"
    writer = TraceWriter()
    writer.module({"name": "m.exe", "names": [[0, name]]}, [(0, 1, 1, 0, 0, tracewriter.NONE)])
    units = Units()
    units.event(tracewriter.ENTER, 0)
    writer.thread(units)
    trace = writer.write(tmp_path / "café.calltrace")
    command = f"!calltrace tree {windows.path(trace)}"
    shown = windbg.run([windbg.LOAD, command, ".prefer_dml 1", command])
    for at in (1, 3):
        assert f"m!{name} " in shown.commands[at][1]


def counting(folder: Path) -> dict[str, str]:
    """An environment in which `!calltrace` tells how often it was called in this Python."""
    return answering(
        folder,
        "import ctypes\n"
        "count = 0\n"
        "def run(library, line):\n"
        "    global count\n"
        "    count += 1\n"
        "    ctypes.CDLL('x', handle=library).ct_print(1, ctypes.c_wchar_p(f'{count}\\n'), 0)\n",
    )


def test_it_can_be_unloaded_and_loaded_again(tmp_path: Path) -> None:
    unload = f".unload {windows.path(windbg.EXTENSION)}"
    cycle = [windbg.LOAD, "!calltrace", unload, "!calltrace"]
    shown = windbg.run([*cycle, *cycle, *cycle], env=counting(tmp_path))
    for number in range(3):
        loaded, answer, unloaded, unknown = (text for _, text in shown.commands[4 * number : 4 * number + 4])
        assert "rror" not in loaded.replace("*** ERROR: Symbol file", "")
        assert answer == f"{number + 1}\n"
        assert "Unloading" in unloaded
        assert "No export calltrace found" in unknown
    assert shown.has_target


def test_a_python_that_runs_already_is_shared(tmp_path: Path) -> None:
    home = windows.path(wine.windows_python().parent)
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").write_text(f"home = {home}\n")
    env = {"CALLTRACE_PYTHON": "", "VIRTUAL_ENV": windows.path(tmp_path / "venv")}
    # To the second extension the first is a stranger who has started Python.
    second = tmp_path / "second.dll"
    shutil.copy(windbg.EXTENSION, second)
    load = f".load {windows.path(second)}"
    script = [
        windbg.LOAD,
        "!calltrace_windbg.calltrace",
        load,
        "!second.calltrace",
        "!calltrace_windbg.calltrace",
    ]
    shown = windbg.run(script, env={**counting(tmp_path), **env})
    assert [shown.commands[at][1] for at in (1, 3, 4)] == ["1\n", "2\n", "3\n"]


def test_a_listener_that_fails_is_told_nothing_more_and_the_engine_nothing_at_all(tmp_path: Path) -> None:
    listens = """import ctypes
    from calltrace_windbg import host, notifications
    from calltrace_windbg.listener import Listener
    class Fails(Listener):
        def accessible(self):
            raise ValueError("it broke")
    class Speaks(Listener):
        def accessible(self):
            host.WinDbg(library._handle).show("heard\\n")
    library = ctypes.CDLL("calltrace_windbg.dll")
    notifications.add(library, Fails())
    notifications.add(library, Speaks())"""
    env = with_command(tmp_path, listens)
    shown = windbg.run([windbg.LOAD, "!calltrace do", "t", "p", "r rip"], env=env)
    assert shown.said("!calltrace do") == ""
    assert "calltrace: internal error: ValueError: it broke" in shown.said("t")
    assert [shown.said(step).count("heard") for step in "tp"] == [1, 1]
    assert "calltrace" not in shown.said("p")
    assert shown.said("r rip").startswith("rip=")


def test_one_command_may_follow_another_on_the_same_line() -> None:
    line = "!calltrace help tree; .echo between; !calltrace nosuch"
    text = windbg.run([windbg.LOAD, line]).said(line)
    assert text.index(HELP_OF_TREE) < text.index("between\n") < text.index("no command nosuch")


def test_ctrl_break_ends_a_long_command(long_trace: Path) -> None:
    command = f"!calltrace tree {windows.path(long_trace)} --limit 0"
    shown = windbg.run([windbg.LOAD, "!break-on thread 0", command, "!calltrace help tree"])
    text = shown.said(command)
    assert text.startswith("thread 0")
    assert text.endswith("\ncalltrace: interrupted\n")
    assert text.count("\n") < 400_000
    assert HELP_OF_TREE in shown.said("!calltrace help tree")
    assert shown.has_target


def test_ctrl_break_ends_work_that_prints_nothing(tmp_path: Path) -> None:
    env = with_command(tmp_path, "console.progress('working')\n    while True:\n        pass")
    shown = windbg.run([windbg.LOAD, "!break-on working", "!calltrace do", "!calltrace help tree"], env=env)
    assert shown.said("!calltrace do") == "calltrace: working\ncalltrace: interrupted\n"
    assert HELP_OF_TREE in shown.said("!calltrace help tree")


def test_what_python_prints_goes_to_the_window_and_not_to_the_target(tmp_path: Path) -> None:
    env = with_command(tmp_path, "print('spoken')\n    import sys\n    sys.stderr.write('cried')")
    program = [targets.build("demo"), "2 * 3"]
    shown = windbg.run([windbg.LOAD, "!calltrace do", "g"], program, env=env)
    assert shown.said("!calltrace do") == "spoken\ncried\n"
    plain = windows.run(program)
    assert plain.stdout
    assert (shown.stdout, shown.stderr) == (plain.stdout, plain.stderr)


def test_a_module_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    env = answering(tmp_path, "raise RuntimeError('not today\\nnor tomorrow')\n")
    assert windbg.run([windbg.LOAD, "!calltrace"], env=env).said("!calltrace") == (
        "calltrace: the package cannot be used: RuntimeError: not today nor tomorrow\n"
    )


def test_without_a_python_each_place_is_named() -> None:
    shown = windbg.run([windbg.LOAD, "!calltrace", "!help"], env={"CALLTRACE_PYTHON": ""})
    first, *tried = shown.said("!calltrace").splitlines()
    assert first.startswith("calltrace: no 64-bit Python 3.9 or later to run in: ")
    assert "CALLTRACE_PYTHON" in first
    assert [line.partition(":")[0].strip() for line in tried] == ["registry", "PATH"]
    assert shown.said("!help").startswith("calltrace ")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("python38.dll", "is Python 3.8: 3.9 or later is needed"),
        ("python39.dll", "is a 32-bit Python: a 64-bit debugger needs a 64-bit one"),
    ],
)
def test_a_python_of_the_wrong_kind_is_named(tmp_path: Path, name: str, reason: str) -> None:
    library = bytearray((wine.windows_python().parent / "python39.dll").read_bytes())
    headers = int.from_bytes(library[0x3C:0x40], "little")
    if name == "python39.dll":
        library[headers + 4 : headers + 6] = (0x14C).to_bytes(2, "little")
    (tmp_path / name).write_bytes(library)
    shown = windbg.run([windbg.LOAD, "!calltrace"], env={"CALLTRACE_PYTHON": windows.path(tmp_path)})
    first, line = shown.said("!calltrace").splitlines()
    assert first.startswith("calltrace: no 64-bit Python")
    assert line == f"  CALLTRACE_PYTHON: {windows.path(tmp_path / name)} {reason}"


@pytest.mark.parametrize("missing", ["calltrace", "calltrace_windbg"])
def test_a_python_without_our_package_is_told_where_it_should_be(tmp_path: Path, missing: str) -> None:
    native = tmp_path / "installed" / "calltrace" / "_native"
    native.mkdir(parents=True)
    shutil.copy(windbg.EXTENSION, native)
    env = {}
    if missing == "calltrace_windbg":
        (native.parent / "__init__.py").write_text(f'__version__ = "{__version__}"\n')
    else:
        (tmp_path / "empty").mkdir()
        env = {"CALLTRACE_PACKAGE": windows.path(tmp_path / "empty")}
    load = f".load {windows.path(native / windbg.EXTENSION.name)}"
    shown = windbg.run([load, "!calltrace", "!calltrace"], env=env)
    for _, text in shown.commands[1:]:
        assert text.startswith(f"calltrace: the package {missing} is neither in ")
        assert env.get("CALLTRACE_PACKAGE", windows.path(tmp_path / "installed")) in text
        assert "python39.dll" in text
        assert text.count("\n") == 1


def test_a_package_of_another_version_is_not_used(tmp_path: Path) -> None:
    env = answering(tmp_path, "def run(library, line):\n    raise AssertionError\n")
    (tmp_path / "calltrace").mkdir()
    (tmp_path / "calltrace" / "__init__.py").write_text('__version__ = "99.1"\n')
    text = windbg.run([windbg.LOAD, "!calltrace"], env=env).said("!calltrace")
    assert text == (
        f"calltrace: {windows.path(windbg.EXTENSION)} is version {__version__}, but the Python package "
        f"{windows.path(tmp_path / 'calltrace')} is version 99.1: use both of one installation\n"
    )


def test_a_package_without_what_it_depends_on_says_which(tmp_path: Path, demo_trace: Path) -> None:
    # A module of that name that is found first.
    (tmp_path / "pefile.py").write_text("raise ModuleNotFoundError(\"No module named 'pefile'\")\n")
    env = {"PYTHONPATH": windows.path(tmp_path)}
    plan = f"!calltrace plan {windows.path(targets.build('exit_code'))}"
    top = f"!calltrace top {windows.path(demo_trace)}"
    shown = windbg.run([windbg.LOAD, plan, top], env=env)
    assert shown.said(plan) == (
        "calltrace: plan: No module named 'pefile': this Python "
        f"({windows.path(wine.windows_python().parent)}) lacks a package that calltrace needs; "
        "`pip install capstone keystone-engine pefile` in it\n"
    )
    assert shown.said(top) == tracing.shell("top", demo_trace)  # needs none of them


def test_a_virtual_environments_packages_are_found(tmp_path: Path) -> None:
    packages = tmp_path / "venv" / "Lib" / "site-packages"
    shutil.copytree(CORE / "calltrace", packages / "calltrace")
    shutil.copytree(targets.TREE / "windbg_ext" / "calltrace_windbg", packages / "calltrace_windbg")
    home = windows.path(wine.windows_python().parent)
    (tmp_path / "venv" / "pyvenv.cfg").write_text(f"home = {home}\n")
    installed = packages / "calltrace" / "_native" / windbg.EXTENSION.name
    # As `pip install` leaves it, and no word of where Python is.
    shown = windbg.run(
        [f".load {windows.path(installed)}", "!calltrace help tree"], env={"CALLTRACE_PYTHON": ""}
    )
    assert HELP_OF_TREE in shown.said("!calltrace help tree")
    assert os.listdir(packages / "calltrace" / "__pycache__")
