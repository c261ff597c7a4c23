"""Every failure a user can meet: one class per kind, each with the exit code the command line ends with.

A message is one line that names the thing (file, process, module, address) and the way out. Ports turn the
errors of their host into these; nothing else crosses a port.
"""

from __future__ import annotations


class CalltraceError(Exception):
    """Base of all: a clear one-line message and an exit code of its own."""

    exit_code = 70


class UsageError(CalltraceError):
    """The command line cannot be understood."""

    exit_code = 64


class FileMissing(CalltraceError):
    """A file that was named does not exist or cannot be read."""

    exit_code = 66


class NotTraceable(CalltraceError):
    """The program cannot be traced: not a PE file, 32-bit, .NET-only, damaged."""

    exit_code = 65


class TargetLost(CalltraceError):
    """The target process is gone, or went away while it was being prepared."""

    exit_code = 69


class AccessRefused(CalltraceError):
    """The system does not let us open, read or write the process or file."""

    exit_code = 77


class BadTrace(CalltraceError):
    """The trace file is damaged, foreign, or of a later version."""

    exit_code = 76


class OutOfSpace(CalltraceError):
    """No room on the disk, or no free address range near a module."""

    exit_code = 74


class EngineError(CalltraceError):
    """The native engine is missing, of another version, or refused what it was asked."""

    exit_code = 71
