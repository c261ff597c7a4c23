"""The plugin's menus, clicked: each entry is the command it stands for."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rig import targets, tracing, windows, x64dbg

pytestmark = x64dbg.both

PLUGIN_MENU, DISASSEMBLY_MENU = 0, 1
EVERYWHERE = [
    "Start on this module",
    "Trace this function",
    "Callers of this",
    "Callees of this",
    "Loop from here",
]
NOTHING_SELECTED = "calltrace: nothing is selected in the disassembly that this could be done with\n"
LEAVES = 1234


def session(debugger: str, script: Sequence[str]) -> x64dbg.Transcript:
    return x64dbg.run([x64dbg.init(targets.build("session_calls"), str(LEAVES)), *script], debugger)


def calls() -> dict[str, int]:
    """The VA of a call of each function or import in session_calls, which is loaded where it wants to be."""
    command = ["x86_64-w64-mingw32-objdump", "-d", str(targets.build("session_calls"))]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^ +([0-9a-f]+):\t.*\tcall\b.*<(?:__imp_)?(\w+)>$", listed, re.MULTILINE)
    return {name: int(address, 16) for address, name in found}


def test_they_have_an_entry_for_everything(debugger: str) -> None:
    shown = x64dbg.run(["!menus"], debugger)
    found = [line.split(" ", 1) for line in shown.said("!menus").splitlines()]
    assert [title for menu, title in found if int(menu) == PLUGIN_MENU] == [
        "Start on this module",
        "Trace this function",
        "Start with options...",
        "Start as last time",
        "Stop",
        "Stacks",
        "Tree",
        "Top",
        "Callers of this",
        "Callees of this",
        "Loop from here",
        "Loop from selected API...",
        "Export...",
        "Settings...",
        "Cancel the running command",
        "Help",
    ]
    assert [title for menu, title in found if int(menu) == DISASSEMBLY_MENU] == EVERYWHERE


def test_each_does_what_its_command_does(debugger: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.calltrace", tmp_path / "second.calltrace"
    csv = tmp_path / "first.csv"
    same = {
        "!click Help": "calltrace help",
        "!click Stacks": "calltrace stacks",
        "!click Tree": "calltrace tree",
        "!click Top": "calltrace top",
        "!click Callers of this": f"calltrace callers {leaf():#x}",
        "!click Callees of this": f"calltrace callees {leaf():#x}",
    }
    shown = session(
        debugger,
        [
            "!select session_calls:leaf",
            f"!answer -o {windows.path(first)}",
            "!click Settings...",
            "!click Start on this module",
            "bp session_calls:depth",
            "run",
            *(line for pair in same.items() for line in pair),
            f"!answer csv -o {windows.path(csv)}",
            "!click Export...",
            "!click Stop",
            f"!answer session_calls!leaf -o {windows.path(second)}",
            "!click Start with options...",
            "!asked",
            "calltrace stop",
            "bc session_calls:depth",
            "run",
        ],
    )
    started = shown.said("!click Start on this module")
    assert started.endswith(f"calltrace: recording into {windows.path(first)}\n")
    for click, command in same.items():
        assert shown.said(click) == shown.said(command)
        assert shown.said(click).count("\n") > 1
    assert f"{LEAVES:,}" in shown.said("!click Callers of this")
    assert csv.read_text(encoding="utf-8").count("session_calls!leaf") == 2 * LEAVES
    assert tracing.shell("export", "csv", first).count("session_calls!leaf") == 2 * LEAVES
    assert shown.said("!click Stop").startswith(f"calltrace: recorded {windows.path(first)} (")
    assert "session_calls.exe: 1 of " in shown.said("!click Start with options...")
    assert shown.said("!asked") == "calltrace start \n"
    assert shown.said("calltrace stop").startswith(f"calltrace: recorded {windows.path(second)} (")
    assert "Process stopped with exit code 0xB (11)" in shown.commands[-1][1]


def test_a_loop_is_looked_for_from_the_selection_or_what_it_calls(debugger: str) -> None:
    call = calls()
    ask = ["!answer --nosuch", "!click Loop from selected API...", "!asked"]
    middle = f"{leaf() + 1:x}"
    shown = session(
        debugger,
        [
            *(f"!select {call['leaf']:x}", *ask),
            *(f"!select {call['TerminateProcess']:x}", *ask),
            *("!select session_calls:leaf", *ask),
            "!value kernel32:TerminateProcess",
            f"!select {middle}",
            "!click Loop from here",
            f"calltrace loop 0x{middle}",
            "!click Loop from selected API...",
            'log "still here"',
        ],
    )
    imported = int(shown.said("!value kernel32:TerminateProcess"))
    asked = [said for given, said in shown.commands if given == "!asked"]
    assert asked == [f"calltrace loop {place:#x} \n" for place in (leaf(), imported, leaf())]
    *clicked, cancelled = (said for given, said in shown.commands if given == ask[1])
    assert (
        clicked
        == ["calltrace: loop: unrecognized arguments: --nosuch; `calltrace help loop` tells more\n"] * 3
    )
    assert cancelled == ""
    assert shown.said("!click Loop from here") == shown.said(f"calltrace loop 0x{middle}")
    assert shown.said("!click Loop from here").startswith("calltrace: ")
    assert shown.said('log "still here"') == "still here\n"
    assert shown.has_target


def test_without_a_selection_or_target_they_say_so(debugger: str) -> None:
    about_selection = [f"!click {title}" for title in EVERYWHERE]
    asking = ["!answer x", "!click Loop from selected API..."]
    others = {"!click Stop": "calltrace stop", "!click Stacks": "calltrace stacks"}
    shown = x64dbg.run(
        [*about_selection, *asking, *(line for pair in others.items() for line in pair)], debugger
    )
    for click in (*about_selection, asking[1]):
        assert shown.said(click) == NOTHING_SELECTED
    for click, command in others.items():
        assert shown.said(click) == shown.said(command)
        assert shown.said(click).startswith("calltrace: no")
        assert shown.said(click).count("\n") == 1


def test_what_is_too_long_for_a_command_is_not_cut_off(debugger: str) -> None:
    click = "!click Export..."
    shown = x64dbg.run([f"!answer csv -o C:\\{'x' * 1100}", click, 'log "still here"'], debugger)
    assert shown.said(click) == "calltrace: that is longer than a command of the debugger may be\n"
    assert shown.said('log "still here"') == "still here\n"


def leaf() -> int:
    """The VA of session_calls!leaf."""
    return targets.symbols("session_calls")["leaf"]
