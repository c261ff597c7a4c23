"""Results where users of x64dbg look for them: the references view, comments and labels."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import c_bool, c_char_p, c_int, c_uint64

from calltrace.calltree import CallStat
from calltrace.model import NodeKind

_MOST_CALLERS = 4  # of a function in the references view
_TIMES = "\N{MULTIPLICATION SIGN}"


def show_functions(
    library: ctypes.CDLL,
    stats: Sequence[CallStat],
    callers: Mapping[str, Sequence[tuple[str, int]]],
    first_only: bool,
) -> None:
    """How often each function was called: all in the references view, and each at its first instruction.

    Left out is what is not where it was recorded. `callers` are those of a function by its name, the most
    frequent first. `first_only`: no more than first calls are known. `library` is the plugin:
    x64dbg_plugin/views.h.
    """
    library.ct_views_is_in.argtypes, library.ct_views_is_in.restype = (c_uint64, c_char_p), c_bool
    library.ct_views_annotate.argtypes = (c_uint64, c_char_p, c_char_p)
    library.ct_views_begin_table.argtypes = (c_char_p, c_char_p, c_char_p, c_char_p, c_int)
    library.ct_views_row.argtypes = (c_int, c_uint64, c_char_p, c_char_p, c_char_p)
    there = [
        (stat.address, stat)
        for stat in stats
        if stat.kind == NodeKind.FUNCTION
        and stat.address is not None
        and library.ct_views_is_in(stat.address, _module(stat.name).encode())
    ]
    library.ct_views_begin_table(b"calltrace: functions", b"Calls", b"Function", b"Callers", len(there))
    for row, (address, stat) in enumerate(there):
        # Cells are compared as text: figures of the same width are in order.
        cells = f"{stat.calls:>12}", stat.name, _text(callers.get(stat.name, ()))
        library.ct_views_row(row, address, *(cell.encode() for cell in cells))
        calls = "called" if first_only else f"{stat.calls:,} call{'' if stat.calls == 1 else 's'}"
        library.ct_views_annotate(address, f"calltrace: {calls}".encode(), f"sub_{address:x}".encode())
    library.ct_views_end_table()


def _text(callers: Sequence[tuple[str, int]]) -> str:
    shown = [f"{name} {_TIMES}{calls:,}" for name, calls in callers[:_MOST_CALLERS]]
    more = len(callers) - len(shown)
    return ", ".join([*shown, f"{more:,} more"] if more else shown)


def _module(name: str) -> str:
    """Of a function's name: module!function or module+0xRVA."""
    return name.partition("!")[0] if "!" in name else name.rpartition("+")[0]
