"""What the loop tracer makes of a frame function in the real debugger engine."""

from __future__ import annotations

import re

from rig import targets, windbg
from rig.searched import symbols

API = "loop_receive!api_receive"


def test_a_breakpoint_a_label_and_a_recording_of_just_the_frame_function() -> None:
    loop = f"!calltrace loop {API} --break --label --start"
    place = 0x140000000 + symbols("loop_receive")["handle_message"]
    name = "ln api_receive_frame"
    lines = [windbg.LOAD, loop, name, "g", "r rip", "bc *", "p", "gu", "!calltrace stop", "!calltrace top"]
    shown = windbg.run([*lines, "g"], [targets.build("loop_receive"), "300"])
    told = shown.said(loop)
    assert "a breakpoint stands on loop_receive!handle_message" in told
    assert "4 of " in told  # functions are instrumented
    assert f"{place >> 32:08x}`{place & 0xFFFFFFFF:08x}" in shown.said(name)
    assert int(shown.said("r rip").partition("=")[2].split()[0], 16) == place
    recorded = {line.split("!")[1] for line in shown.said("!calltrace top").splitlines() if "!" in line}
    assert recorded == {"handle_message", "receive", "api_receive", "answer"}
    assert shown.stdout.startswith(b"300 2796094663 630437888")


def test_what_the_frame_function_leads_to_is_printed() -> None:
    loop = f"!calltrace loop {API} --include"
    shown = windbg.run([windbg.LOAD, loop], [targets.build("loop_receive"), "300"])
    known = symbols("loop_receive")
    places = {
        f"loop_receive+{known[each]:#x}" for each in ("handle_message", "receive", "api_receive", "answer")
    }
    assert set(re.findall(r"--include (\S+)", shown.said(loop))) == places


def test_a_second_recording_is_refused_before_the_target_runs() -> None:
    loop = f"!calltrace loop {API} --start"
    shown = windbg.run([windbg.LOAD, "r rip", "!calltrace start", loop], [targets.build("loop_receive"), "3"])
    assert "a recording is under way: stop it before" in shown.said(loop)
    assert shown.has_target


def test_floating_arguments_and_results_are_told() -> None:
    prototype = '"double api(float half, int count, double whole)"'
    loop = f"!calltrace loop loop_arguments!api --args {prototype}"
    shown = windbg.run([windbg.LOAD, loop], [targets.build("loop_arguments"), "20"])
    told = [line for line in shown.said(loop).splitlines() if line.startswith("arguments:")]
    assert told[:2] == [
        "arguments: half 0, count 0, whole 0.0, returns -1.0",
        "arguments: half 0.5, count 1, whole 1.25, returns -0.25",
    ]
