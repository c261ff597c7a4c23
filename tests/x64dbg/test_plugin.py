"""The plugin in x64dbg: loading, help, Python, errors, output, menu."""

from __future__ import annotations

import shutil
from pathlib import Path

from calltrace import wine
from calltrace.commands import COMMANDS
from rig import targets, tracewriter, tracing, windows, x64dbg
from rig.commands import READING, in_host, in_shell
from rig.tracewriter import TraceWriter, Units

pytestmark = x64dbg.both

HELP_OF_TREE = "Show the call tree, thread by thread."
OVERVIEW = "calltrace COMMAND ...\n"


def test_it_loads_and_lists_its_commands(debugger: str) -> None:
    here = [command for command in COMMANDS if not command.shell_only]
    asked = ["calltrace", "calltrace help", "calltrace -?"]
    each = [f"calltrace help, {command.verb}" for command in here]
    shown = x64dbg.run([*asked, *each], debugger)
    assert '[PLUGIN, calltrace] Command "calltrace" registered!' in shown.banner
    assert "[PLUGIN] calltrace v" in shown.banner
    [overview] = {shown.said(command) for command in asked}
    assert overview.startswith(OVERVIEW)
    for command, line in zip(here, each):
        assert f"  {command.verb} " in overview
        assert shown.said(line).startswith(f"usage: calltrace {command.verb}")


def test_mistakes_are_one_line_each_and_leave_the_session_usable(debugger: str, tmp_path: Path) -> None:
    nowhere = windows.path(tmp_path / "nowhere.calltrace")
    mistakes = {
        "calltrace nosuch": "calltrace: no command nosuch: `calltrace help` lists them",
        "calltrace callers": "calltrace: callers: the following arguments are required: FUNCTION; "
        "`calltrace help callers` tells more",
        "calltrace run -- x.exe": "calltrace: run makes a target of its own: use it in a shell",
    }
    missing = f"calltrace info, {nowhere}"
    program = targets.build("exit_code")
    shown = x64dbg.run([x64dbg.init(program, "0"), *mistakes, missing, 'log "still here"'], debugger)
    for command, line in mistakes.items():
        assert shown.said(command) == line + "\n"
    assert shown.said(missing).startswith("calltrace: ")
    assert shown.said(missing).count("\n") == 1
    assert "nowhere.calltrace" in shown.said(missing)
    assert shown.said('log "still here"') == "still here\n"
    assert shown.has_target


def test_commands_on_a_recorded_trace_log_what_they_print_in_a_shell(
    debugger: str, demo_trace: Path, demo_graph: Path, tmp_path: Path
) -> None:
    file, csv, page = windows.path(demo_trace), tmp_path / "demo.csv", tmp_path / "demo.html"
    expected = [in_shell(line, demo_trace, demo_graph) for line in READING]
    shown = x64dbg.run(
        [
            *(f"calltrace {in_host(line, demo_trace, demo_graph)}" for line in READING),
            f"calltrace top, {file}, --limit 7",
            f"calltrace export csv {file} -o {windows.path(csv)}",
            f"calltrace report {file} -o {windows.path(page)}",
        ],
        debugger,
    )
    *read, top, export, report = (text for _, text in shown.commands)
    assert read == expected
    assert " µs" in read[0]
    assert "→" in read[0]
    assert top == tracing.shell("top", demo_trace, "--limit", "7")
    assert export == ""
    assert csv.read_text(encoding="utf-8") == tracing.shell("export", "csv", demo_trace)
    assert report.startswith(f"calltrace: wrote {windows.path(page)} (")
    tracing.shell("report", demo_trace, "-o", tmp_path / "shell.html")
    assert page.read_bytes() == (tmp_path / "shell.html").read_bytes()


def test_long_output_is_logged_whole(debugger: str, long_trace: Path) -> None:
    command = f"calltrace tree {windows.path(long_trace)} --limit 3000"
    expected = tracing.shell("tree", long_trace, "--limit", "3000")
    assert len(expected) > 2 * 16_384  # the debugger logs no more than that at once
    assert x64dbg.run([command], debugger).said(command) == expected


def test_names_of_any_alphabet_reach_the_log(debugger: str, tmp_path: Path) -> None:
    name = "naïve→\N{SNOWMAN}<&>%s\N{MATHEMATICAL SCRIPT CAPITAL A}"
    writer = TraceWriter()
    writer.module({"name": "m.exe", "names": [[0, name]]}, [(0, 1, 1, 0, 0, tracewriter.NONE)])
    units = Units()
    units.event(tracewriter.ENTER, 0)
    writer.thread(units)
    command = f"calltrace tree {windows.path(writer.write(tmp_path / 'café.calltrace'))}"
    assert f"m!{name} " in x64dbg.run([command], debugger).said(command)


def test_a_menu_entry_is_the_command_it_stands_for(debugger: str) -> None:
    click = "!click Help"
    shown = x64dbg.run([click, "calltrace help"], debugger)
    assert shown.said(click) == shown.said("calltrace help")
    assert shown.said(click).startswith(OVERVIEW)


def test_a_menu_entry_ends_a_long_command(debugger: str, long_trace: Path) -> None:
    command = f"calltrace tree {windows.path(long_trace)} --limit 0"
    script = ["!click-on thread 0|Cancel the running command", command, "calltrace help tree"]
    shown = x64dbg.run(script, debugger)
    text = shown.said(command)
    assert text.startswith("thread 0")
    assert text.endswith("\ncalltrace: interrupted\n")
    assert text.count("\n") < 400_000
    assert HELP_OF_TREE in shown.said("calltrace help tree")


def test_without_a_python_it_loads_and_names_each_place(debugger: str) -> None:
    click = "!click Help"
    shown = x64dbg.run(["calltrace help", click, 'log "still here"'], debugger, env={"CALLTRACE_PYTHON": ""})
    assert "[PLUGIN] calltrace v" in shown.banner
    for command in ("calltrace help", click):
        first, *tried = shown.said(command).splitlines()
        assert first.startswith("calltrace: no 64-bit Python 3.9 or later to run in: ")
        assert [line.partition(":")[0].strip() for line in tried] == ["registry", "PATH"]
    assert shown.said('log "still here"') == "still here\n"


def test_without_its_package_or_a_python_each_menu_entry_says_what_to_do(
    debugger: str, tmp_path: Path
) -> None:
    program = x64dbg.init(targets.build("session_calls"), "1")
    nowhere = windows.path(tmp_path / "nowhere")
    reasons = {
        "CALLTRACE_PYTHON": f"calltrace: no 64-bit Python 3.9 or later to run in: install one, or name it in "
        f"the environment variable CALLTRACE_PYTHON (folder, python.exe or pythonXY.dll)\n"
        f"  CALLTRACE_PYTHON: {nowhere} does not exist\n",
        "CALLTRACE_PACKAGE": f"calltrace: the package calltrace is neither in {nowhere} nor installed for ",
    }
    clicks = [f"!click {title}" for title in ("Start on this module", "Stacks", "Help")]
    script = [program, "!select session_calls:leaf", *clicks, "!click Cancel the running command", "erun"]
    for variable, reason in reasons.items():
        shown = x64dbg.run([*script, "erun"], debugger, env={variable: nowhere})
        for click in clicks:
            assert shown.said(click).startswith(reason)
            assert shown.said(click).count("\n") == max(1, reason.count("\n"))
        assert "Process stopped with exit code 0xB (11)" in "".join(said for _, said in shown.commands)


def test_a_standard_stream_that_python_cannot_use_does_not_end_the_debugger(
    debugger: str, tmp_path: Path
) -> None:
    # Wine does not tell what kind of file is behind a handle that is for writing only.
    script = ["calltrace help", x64dbg.init(targets.build("session_calls"), "1"), "erun", "erun"]
    output = tmp_path / "output"
    shown = x64dbg.run(script, debugger, output=output)
    assert shown.said("calltrace help").startswith(OVERVIEW)
    assert "Process stopped with exit code 0xB (11)" in "".join(said for _, said in shown.commands)
    assert output.read_bytes() == b""  # the target has a console of its own


def test_the_library_of_another_python_does_not_end_the_debugger(debugger: str, tmp_path: Path) -> None:
    older = tmp_path / "Python27" / "Lib"
    older.mkdir(parents=True)
    (older / "os.py").write_text("print 'This is Python 2.'\n")
    path = ";".join(windows.path(folder) for folder in (tmp_path, older))
    shown = x64dbg.run(["calltrace help", 'log "still here"'], debugger, env={"PYTHONPATH": path})
    assert shown.said("calltrace help").startswith(OVERVIEW)
    assert shown.said('log "still here"') == "still here\n"


def test_a_python_that_is_too_old_is_named(debugger: str, tmp_path: Path) -> None:
    shutil.copy(wine.windows_python().parent / "python39.dll", tmp_path / "python38.dll")
    env = {"CALLTRACE_PYTHON": windows.path(tmp_path)}
    said = x64dbg.run(["calltrace help"], debugger, env=env).said("calltrace help")
    assert "3.9 or later" in said
    assert "python38.dll" in said


def test_it_can_be_unloaded_and_loaded_again(debugger: str) -> None:
    cycle = ["plugunload calltrace", "calltrace", "plugload calltrace", "calltrace help"]
    shown = x64dbg.run(["calltrace", *cycle, *cycle], debugger)
    for at in (0, 4, 8):
        assert shown.commands[at][1].startswith(OVERVIEW)
    assert OVERVIEW not in shown.commands[2][1]


def test_a_virtual_environments_packages_are_found(debugger: str, tmp_path: Path) -> None:
    packages = tmp_path / "venv" / "Lib" / "site-packages"
    shutil.copytree(targets.TREE / "core" / "calltrace", packages / "calltrace")
    shutil.copytree(targets.TREE / "x64dbg_plugin" / "calltrace_x64dbg", packages / "calltrace_x64dbg")
    home = windows.path(wine.windows_python().parent)
    (tmp_path / "venv" / "pyvenv.cfg").write_text(f"home = {home}\n")
    env = {
        "CALLTRACE_PYTHON": "",
        "CALLTRACE_PACKAGE": "",
        "VIRTUAL_ENV": windows.path(tmp_path / "venv"),
    }
    assert x64dbg.run(["calltrace help"], debugger, env=env).said("calltrace help").startswith(OVERVIEW)


def test_the_installed_plugin_finds_its_package(debugger: str, tmp_path: Path) -> None:
    folder = tmp_path / "x64dbg"
    with x64dbg.installation(debugger) as program:
        shutil.copytree(program.parent, folder)
    plugin = folder / "plugins" / "calltrace.dp64"
    plugin.unlink()
    client = (
        folder / "plugins" / "x64dbgpy" / "calltrace_client.py"
    )  # x64dbgpy is there: its scripts get that
    client.parent.mkdir()
    done = tracing.calltrace("x64dbg-install", folder)
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.decode().splitlines()
    assert first == f"calltrace: installed {windows.path(plugin)}: type `calltrace` in x64dbg"
    assert second.startswith(f"calltrace: installed {windows.path(client)}: `import calltrace_client` ")
    assert client.read_bytes() == (targets.TREE / "x64dbg_plugin" / "calltrace_client.py").read_bytes()
    assert plugin.read_bytes() == x64dbg.PLUGIN.read_bytes()
    origin = plugin.with_name("calltrace.dp64.origin").read_text(encoding="utf-8")
    assert origin == windows.path(x64dbg.PLUGIN) + "\n"
    shown = x64dbg.run(["calltrace help"], debugger, env={"CALLTRACE_PACKAGE": ""}, installed=folder)
    assert shown.said("calltrace help").startswith(OVERVIEW)
