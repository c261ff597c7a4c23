"""What the debugger's database keeps of each program: x64dbg_plugin/state.h."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p
from pathlib import Path

_ROOM = 4096  # CT_STATE_TEXT


def remember(library: ctypes.CDLL, words: str, trace: Path) -> None:
    """The target was recorded into `trace`, with `words` behind `start`. `library` is the plugin."""
    library.ct_state_recorded.argtypes = (c_char_p, c_char_p)
    library.ct_state_recorded(words.encode(), str(trace).encode())


def last_trace(library: ctypes.CDLL) -> Path | None:
    """The trace of the target's last recording, in whichever session; None if there is none any more."""
    words, trace = ctypes.create_string_buffer(_ROOM), ctypes.create_string_buffer(_ROOM)
    library.ct_state_last.argtypes, library.ct_state_last.restype = (c_char_p, c_char_p), c_bool
    if not library.ct_state_last(words, trace):
        return None
    path = Path(trace.value.decode())
    return path if path.is_file() else None
