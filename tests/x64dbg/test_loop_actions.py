"""The loop tracer in x64dbg: what a recording under way tells of a loop, and what is made of that."""

from __future__ import annotations

import re

from rig import targets, x64dbg
from rig.searched import symbols

LOOP = "calltrace loop loop_receive!api_receive --from-trace"


@x64dbg.both
def test_the_loop_in_a_recording_gets_a_breakpoint_and_a_label(debugger: str) -> None:
    known = symbols("loop_receive")
    frame = 0x140000000 + known["handle_message"]
    shown = x64dbg.run(
        [
            x64dbg.init(targets.build("loop_receive"), "300"),
            "calltrace start",
            f"bp {0x140000000 + known['answer']:#x}",
            "run",
            "run",
            "run",
            "run",
            "run",
            "run",
            f"bc {0x140000000 + known['answer']:#x}",
            f"{LOOP} --break --label",
            "calltrace stop",
            f"!notes {frame:x}",
            "erun",
        ],
        debugger,
    )
    told = shown.said(f"{LOOP} --break --label")
    assert "a breakpoint stands on loop_receive!handle_message" in told
    assert "loop_receive!handle_message is called api_receive_frame" in told
    assert re.search(r"loop_receive!handle_message .*once per turn, leads to the API", told)
    assert shown.said(f"!notes {frame:x}").endswith("|api_receive_frame\n")
    assert f"({frame:016X})" in shown.said("erun").upper()  # where its breakpoint stops
