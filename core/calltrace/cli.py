"""The command line in a shell."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import TextIO, cast

from calltrace import dispatch, terminal
from calltrace.commands import Console
from calltrace.errors import CalltraceError
from calltrace.export.units import plain

_INTERRUPTED = 128 + signal.SIGINT
_CLOSED_PIPE = 141  # what a shell says of a program that wrote into a closed pipe


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line `words` (none: this process's); its exit code. Errors go to stderr, one line."""
    line = None
    if words is None:
        words, line = sys.argv[1:], _program_line()
    if sys.stdout is None:  # closed from the start
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        _take_all_characters(stream)
    meter = terminal.Meter(sys.stderr) if terminal.takes_codes(sys.stderr) else None
    on_terminal = terminal.takes_codes(sys.stdout)
    coloured = terminal.wants_colour(os.environ) and on_terminal

    def progress(line: str) -> None:
        if meter:
            meter.hide()
        _tell(line)

    console = Console(
        cast("TextIO", terminal.Output(sys.stdout, meter)) if meter and on_terminal else sys.stdout,
        progress,
        names=terminal.paint if coloured else plain,
        meter=meter.tell if meter else lambda what, done, whole: None,
    )
    try:
        with meter or contextlib.nullcontext():
            code = dispatch.run_words(words, console, line)
            sys.stdout.flush()
    except CalltraceError as error:
        _tell(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more; Python's own flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE
    except OSError as error:
        _tell(f"cannot write: {error.strerror or error}")
        return 74
    return code


def _take_all_characters(stream: TextIO) -> None:
    """Names may hold characters that the console's code page lacks; a file or a pipe need not lose them."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is None:
        return
    if os.name == "nt" and not stream.isatty() and "PYTHONIOENCODING" not in os.environ:
        reconfigure(encoding="utf-8")
    reconfigure(errors="replace")


def _tell(line: str) -> None:
    print(f"calltrace: {line}", file=sys.stderr, flush=True)


def _program_line() -> str | None:
    """What follows -- in this process's command line, to the letter, where the system keeps that."""
    if sys.platform != "win32":
        return None
    import ctypes

    get_command_line = ctypes.windll.kernel32.GetCommandLineW
    get_command_line.restype = ctypes.c_wchar_p
    return dispatch.split_program(get_command_line())[1]
