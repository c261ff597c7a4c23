"""Drives calltrace from a script inside x64dbg: x64dbgpy's Python 2.7, or any other Python in that process.

    import calltrace_client as calltrace

    calltrace.start("demo!parse*", "--clock", "tsc")

Each function runs the command of its name, as typed after `calltrace`; its arguments are the words that
follow (`calltrace help COMMAND` lists them). What the command prints is returned, as dictionaries and lists;
what it says beside that is in the log. Needs nothing but ctypes and the plugin.
"""

from __future__ import print_function, unicode_literals

import ctypes
import json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # Python 2.7 has no such module
    from typing import Any, Dict, List

_PLUGIN = "calltrace.dp64"
_QUOTED = set(' \t,"')  # in a word: what else would end it, or be lost
_TAKE = ctypes.CFUNCTYPE(None, ctypes.c_bool, ctypes.c_char_p)


class CalltraceError(Exception):
    """Why a command failed, in one line."""


def run(*words):
    # type: (object) -> str
    """Run any command; what it prints. CalltraceError if it fails."""
    line = " ".join(_quoted(word) for word in words).encode("utf-8")
    output, errors = [], []  # type: List[bytes], List[bytes]

    def take(is_error, text):
        # type: (bool, bytes) -> None
        (errors if is_error else output).append(text)

    if not _function()(line, _TAKE(take)):
        raise CalltraceError("another command is still running: wait for it, or cancel it in the menu")
    if errors:
        raise CalltraceError(b"".join(errors).decode("utf-8").strip().replace("calltrace: ", "", 1))
    return b"".join(output).decode("utf-8")


def ask(*words):
    # type: (object) -> Dict[str, Any]
    """Run any command that has JSON, as "loop", "new" and "diff" have, too; what it says."""
    found = json.loads(run(*(words + ("--json",))))  # type: Dict[str, Any]
    return found


def start(*words):
    # type: (object) -> Dict[str, Any]
    """Begin to record, as `calltrace start WORDS`; the status."""
    run("start", *words)
    return status()


def stop():
    # type: () -> Dict[str, Any]
    """End the recording; the status, whose `trace` is the file that was recorded."""
    run("stop")
    return status()


def pause():
    # type: () -> Dict[str, Any]
    """Let the target run as if untraced, until `resume`; the status."""
    run("pause")
    return status()


def resume():
    # type: () -> Dict[str, Any]
    """Go on recording; the status."""
    run("resume")
    return status()


def status():
    # type: () -> Dict[str, Any]
    """`trace` (a path, or None) and `recording` (None, or process_id, paused, since, size, units, ...)."""
    return ask("status")


def mark(name):
    # type: (object) -> None
    """Give this moment a name, which the call tree shows in every thread."""
    run("mark", name)


def save(path):
    # type: (object) -> None
    """Write the trace as it is now into another file, which is complete."""
    run("save", path)


def info(*words):
    # type: (object) -> Dict[str, Any]
    """What the trace holds: modules, functions, threads, events, and what is missing."""
    return ask("info", *words)


def stacks(*words):
    # type: (object) -> List[Dict[str, Any]]
    """The call stack of each thread: `index`, `id`, `ended` and `frames` (innermost first)."""
    return _list(ask("stacks", *words), "threads")


def tree(*words):
    # type: (object) -> List[Dict[str, Any]]
    """The call tree of each thread: `index`, `id` and `lines`, each with `depth`, `type`, `name`, `calls`.

    At most 500 lines, unless ("--limit", N) says otherwise; 0: all.
    """
    return _list(ask("tree", *words), "threads")


def top(*words):
    # type: (object) -> List[Dict[str, Any]]
    """The functions called: `name`, `kind`, `calls`, `self` and `total` (ticks).

    At most 30, unless ("--limit", N) says otherwise; 0: all.
    """
    return _list(ask("top", *words), "functions")


def callers(*words):
    # type: (object) -> List[Dict[str, Any]]
    """The functions a pattern means: `name`, `calls`, `self`, `total` and `callers`, which have their own."""
    return _list(ask("callers", *words), "functions")


def callees(*words):
    # type: (object) -> List[Dict[str, Any]]
    """The same with `callees`."""
    return _list(ask("callees", *words), "functions")


def export(form, path, *words):
    # type: (object, object, object) -> None
    """Write the trace into the file `path` in the format `form` (`calltrace help export` lists them)."""
    run("export", form, "-o", path, *words)


def _list(found, key):
    # type: (Dict[str, Any], str) -> List[Dict[str, Any]]
    listed = found[key]  # type: List[Dict[str, Any]]
    return listed


def _quoted(word):
    # type: (object) -> str
    text = word.decode(sys.getfilesystemencoding()) if isinstance(word, bytes) else "%s" % (word,)
    return '"%s"' % text.replace('"', '""') if not text or _QUOTED & set(text) else text


def _function():
    # type: () -> Any
    """The plugin's ct_run. ctypes lets other threads run Python meanwhile: the debugger's call x64dbgpy."""
    find = ctypes.windll.kernel32.GetModuleHandleW
    find.argtypes, find.restype = [ctypes.c_wchar_p], ctypes.c_void_p
    handle = find(_PLUGIN)
    if not handle:
        raise CalltraceError("%s is not loaded in this process: put it into x64dbg's plugins" % _PLUGIN)
    function = getattr(ctypes.CDLL(_PLUGIN, handle=handle), "ct_run", None)
    if function is None:
        raise CalltraceError("%s is too old for this module: install both together" % _PLUGIN)
    function.argtypes, function.restype = [ctypes.c_char_p, _TAKE], ctypes.c_bool
    return function
