"""The Win32 functions, structures and constants we use, declared once for ctypes.

Importable anywhere, so that the layouts can be tested; calling a function needs Windows.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from ctypes import c_byte, c_int, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p, c_wchar_p
from typing import Any

from calltrace.errors import EngineError

INVALID_HANDLE = (1 << 64) - 1
WAIT_OBJECT_0 = 0
WAIT_TIMEOUT = 0x102

# CreateProcessW
DEBUG_ONLY_THIS_PROCESS = 0x2
STARTF_USESTDHANDLES = 0x100
STD_HANDLES = (-10 & 0xFFFFFFFF, -11 & 0xFFFFFFFF, -12 & 0xFFFFFFFF)  # input, output, error
HANDLE_FLAG_INHERIT = 1

# Access rights
SYNCHRONIZE = 0x100000
DUPLICATE_SAME_ACCESS = 2
FSCTL_SET_SPARSE = 0x900C4
# terminate, create thread, memory operation/read/write, duplicate handles, query, suspend; SYNCHRONIZE
PROCESS_RIGHTS = 0x0001 | 0x0002 | 0x0008 | 0x0010 | 0x0020 | 0x0040 | 0x0400 | 0x0800 | SYNCHRONIZE
OBSERVER_RIGHTS = 0x0010 | 0x0400 | SYNCHRONIZE  # read memory, query; SYNCHRONIZE
LIMITED_RIGHTS = 0x1000  # query little: even a protected process grants it
THREAD_RIGHTS = 0x0002 | 0x0008 | 0x0010 | 0x0040 | SYNCHRONIZE  # suspend, get and set context, query

# Errors
ERROR_FILE_NOT_FOUND = 2
ERROR_PATH_NOT_FOUND = 3
ERROR_INVALID_PARAMETER = 87
ERROR_SEM_TIMEOUT = 121
ERROR_BAD_EXE_FORMAT = 193
ERROR_EXE_MACHINE_TYPE_MISMATCH = 216
ERROR_ELEVATION_REQUIRED = 740

# Memory
PAGE_READONLY = 0x02
PAGE_READWRITE = 0x04
PAGE_WRITECOPY = 0x08
PAGE_EXECUTE_READ = 0x20
PAGE_EXECUTE_READWRITE = 0x40
PAGE_EXECUTE_WRITECOPY = 0x80
PAGES_WRITABLE = PAGE_READWRITE | PAGE_WRITECOPY | PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY
MEM_COMMIT_RESERVE = 0x3000
MEM_RELEASE = 0x8000
MEM_COMMIT = 0x1000
MEM_FREE = 0x10000
MEM_PRIVATE = 0x20000
MEM_MAPPED = 0x40000
PAGE_GUARD = 0x100
PAGES_EXECUTABLE = 0xF0  # any of PAGE_EXECUTE*

# GetProcessMitigationPolicy
PROCESS_DYNAMIC_CODE_POLICY = 2
PROCESS_SIGNATURE_POLICY = 8
PROCESS_USER_SHADOW_STACK_POLICY = 15

# NtQueryInformationProcess
PROCESS_BASIC_INFORMATION = 0
PROCESS_DEBUG_PORT = 7
PROCESS_WOW64_INFORMATION = 26
PROCESS_PROTECTION_INFORMATION = 61

LIST_MODULES_ALL = 3

# Debug events
EXCEPTION_DEBUG_EVENT = 1
CREATE_THREAD_DEBUG_EVENT = 2
CREATE_PROCESS_DEBUG_EVENT = 3
EXIT_THREAD_DEBUG_EVENT = 4
EXIT_PROCESS_DEBUG_EVENT = 5
LOAD_DLL_DEBUG_EVENT = 6
UNLOAD_DLL_DEBUG_EVENT = 7
DBG_CONTINUE = 0x00010002
DBG_EXCEPTION_NOT_HANDLED = 0x80010001
EXCEPTION_BREAKPOINT = 0x80000003
EXCEPTION_SINGLE_STEP = 0x80000004
TRAP_FLAG = 0x100  # of EFlags

CONTEXT_CONTROL_INTEGER = 0x100003  # with CONTEXT_AMD64
CONTEXT_CONTROL_INTEGER_FLOAT = 0x10000B
CONTEXT_DEBUG_REGISTERS = 0x100010


class StartupInfo(ctypes.Structure):
    """STARTUPINFOW."""

    _fields_ = [
        ("cb", c_uint32),
        ("lpReserved", c_void_p),
        ("lpDesktop", c_void_p),
        ("lpTitle", c_void_p),
        ("dwX", c_uint32),
        ("dwY", c_uint32),
        ("dwXSize", c_uint32),
        ("dwYSize", c_uint32),
        ("dwXCountChars", c_uint32),
        ("dwYCountChars", c_uint32),
        ("dwFillAttribute", c_uint32),
        ("dwFlags", c_uint32),
        ("wShowWindow", c_uint16),
        ("cbReserved2", c_uint16),
        ("lpReserved2", c_void_p),
        ("hStdInput", c_void_p),
        ("hStdOutput", c_void_p),
        ("hStdError", c_void_p),
    ]


class ProcessInformation(ctypes.Structure):
    """PROCESS_INFORMATION."""

    _fields_ = [
        ("hProcess", c_void_p),
        ("hThread", c_void_p),
        ("dwProcessId", c_uint32),
        ("dwThreadId", c_uint32),
    ]


class MemoryBasicInformation(ctypes.Structure):
    """MEMORY_BASIC_INFORMATION, 64-bit."""

    _fields_ = [
        ("BaseAddress", c_uint64),
        ("AllocationBase", c_uint64),
        ("AllocationProtect", c_uint32),
        ("PartitionId", c_uint32),
        ("RegionSize", c_uint64),
        ("State", c_uint32),
        ("Protect", c_uint32),
        ("Type", c_uint32),
        ("_alignment", c_uint32),
    ]


class ProcessBasicInformation(ctypes.Structure):
    """PROCESS_BASIC_INFORMATION, 64-bit."""

    _fields_ = [
        ("ExitStatus", c_uint64),
        ("PebBaseAddress", c_uint64),
        ("AffinityMask", c_uint64),
        ("BasePriority", c_uint64),
        ("UniqueProcessId", c_uint64),
        ("InheritedFromUniqueProcessId", c_uint64),
    ]


class ThreadBasicInformation(ctypes.Structure):
    """THREAD_BASIC_INFORMATION, 64-bit."""

    _fields_ = [
        ("ExitStatus", c_uint64),
        ("TebBaseAddress", c_uint64),
        ("UniqueProcess", c_uint64),
        ("UniqueThread", c_uint64),
        ("AffinityMask", c_uint64),
        ("Priority", c_uint32),
        ("BasePriority", c_uint32),
    ]


class ExceptionRecord(ctypes.Structure):
    """EXCEPTION_RECORD, 64-bit."""

    _fields_ = [
        ("ExceptionCode", c_uint32),
        ("ExceptionFlags", c_uint32),
        ("ExceptionRecord", c_uint64),
        ("ExceptionAddress", c_uint64),
        ("NumberParameters", c_uint32),
        ("_alignment", c_uint32),
        ("ExceptionInformation", c_uint64 * 15),
    ]


class ExceptionInfo(ctypes.Structure):
    """EXCEPTION_DEBUG_INFO."""

    _fields_ = [("ExceptionRecord", ExceptionRecord), ("dwFirstChance", c_uint32)]


class CreateThreadInfo(ctypes.Structure):
    """CREATE_THREAD_DEBUG_INFO."""

    _fields_ = [("hThread", c_void_p), ("lpThreadLocalBase", c_uint64), ("lpStartAddress", c_uint64)]


class CreateProcessInfo(ctypes.Structure):
    """CREATE_PROCESS_DEBUG_INFO."""

    _fields_ = [
        ("hFile", c_void_p),
        ("hProcess", c_void_p),
        ("hThread", c_void_p),
        ("lpBaseOfImage", c_uint64),
        ("dwDebugInfoFileOffset", c_uint32),
        ("nDebugInfoSize", c_uint32),
        ("lpThreadLocalBase", c_uint64),
        ("lpStartAddress", c_uint64),
        ("lpImageName", c_uint64),
        ("fUnicode", c_uint16),
    ]


class LoadDllInfo(ctypes.Structure):
    """LOAD_DLL_DEBUG_INFO."""

    _fields_ = [
        ("hFile", c_void_p),
        ("lpBaseOfDll", c_uint64),
        ("dwDebugInfoFileOffset", c_uint32),
        ("nDebugInfoSize", c_uint32),
        ("lpImageName", c_uint64),
        ("fUnicode", c_uint16),
    ]


class _EventUnion(ctypes.Union):
    _fields_ = [
        ("Exception", ExceptionInfo),
        ("CreateThread", CreateThreadInfo),
        ("CreateProcessInfo", CreateProcessInfo),
        ("ExitCode", c_uint32),  # of EXIT_THREAD and EXIT_PROCESS
        ("LoadDll", LoadDllInfo),
        ("UnloadedDll", c_uint64),
    ]


class DebugEvent(ctypes.Structure):
    """DEBUG_EVENT."""

    _fields_ = [
        ("dwDebugEventCode", c_uint32),
        ("dwProcessId", c_uint32),
        ("dwThreadId", c_uint32),
        ("u", _EventUnion),
    ]


class Context(ctypes.Structure):
    """CONTEXT of AMD64. The system wants it on a 16-byte boundary: make it with `new_context`."""

    _fields_ = [
        ("_home", c_uint64 * 6),
        ("ContextFlags", c_uint32),
        ("MxCsr", c_uint32),
        ("SegCs", c_uint16),
        ("_data_segments", c_uint16 * 4),
        ("SegSs", c_uint16),
        ("EFlags", c_uint32),
        ("_debug", c_uint64 * 5),  # addresses and status
        ("Dr7", c_uint64),  # what is on
        ("Rax", c_uint64),
        ("Rcx", c_uint64),
        ("Rdx", c_uint64),
        ("Rbx", c_uint64),
        ("Rsp", c_uint64),
        ("Rbp", c_uint64),
        ("Rsi", c_uint64),
        ("Rdi", c_uint64),
        ("R8", c_uint64),
        ("R9", c_uint64),
        ("R10", c_uint64),
        ("R11", c_uint64),
        ("R12", c_uint64),
        ("R13", c_uint64),
        ("R14", c_uint64),
        ("R15", c_uint64),
        ("Rip", c_uint64),
        ("_float_save", c_uint8 * 160),  # what FXSAVE stores, up to the end
        ("XmmRegisters", c_uint8 * 256),
        ("_float_rest", c_uint8 * 96),
        ("_vector", c_uint8 * (26 * 16)),
        ("_control", c_uint64 * 6),
    ]


def new_context() -> Context:
    """A zeroed, 16-byte aligned CONTEXT that asks for control, integer and floating-point registers."""
    store = (c_byte * (ctypes.sizeof(Context) + 16))()
    context = Context.from_buffer(store, -ctypes.addressof(store) % 16)
    context.ContextFlags = CONTEXT_CONTROL_INTEGER_FLOAT
    return context


# name: (result, arguments). BOOL is c_int; handles and addresses of this process are c_void_p, those of the
# target c_uint64.
_KERNEL32: dict[str, tuple[Any, list[Any]]] = {
    "CloseHandle": (c_int, [c_void_p]),
    "ContinueDebugEvent": (c_int, [c_uint32, c_uint32, c_uint32]),
    "CreateEventW": (c_void_p, [c_void_p, c_int, c_int, c_wchar_p]),
    "CreateProcessW": (
        c_int,
        [c_wchar_p, c_wchar_p, c_void_p, c_void_p, c_int, c_uint32, c_void_p, c_wchar_p, c_void_p, c_void_p],
    ),
    "DebugActiveProcess": (c_int, [c_uint32]),
    "DebugActiveProcessStop": (c_int, [c_uint32]),
    "DebugBreakProcess": (c_int, [c_void_p]),
    "DebugSetProcessKillOnExit": (c_int, [c_int]),
    "DeviceIoControl": (
        c_int,
        [c_void_p, c_uint32, c_void_p, c_uint32, c_void_p, c_uint32, c_void_p, c_void_p],
    ),
    "DuplicateHandle": (
        c_int,
        [c_void_p, c_void_p, c_void_p, ctypes.POINTER(c_void_p), c_uint32, c_int, c_uint32],
    ),
    "FlushInstructionCache": (c_int, [c_void_p, c_uint64, c_size_t]),
    "GetCurrentProcess": (c_void_p, []),
    "GetExitCodeProcess": (c_int, [c_void_p, ctypes.POINTER(c_uint32)]),
    "GetExitCodeThread": (c_int, [c_void_p, ctypes.POINTER(c_uint32)]),
    "GetFinalPathNameByHandleW": (c_uint32, [c_void_p, c_wchar_p, c_uint32, c_uint32]),
    "GetProcessId": (c_uint32, [c_void_p]),
    "GetProcessMitigationPolicy": (c_int, [c_void_p, c_uint32, c_void_p, c_size_t]),
    "GetStdHandle": (c_void_p, [c_uint32]),
    "GetThreadContext": (c_int, [c_void_p, c_void_p]),
    "GetThreadId": (c_uint32, [c_void_p]),
    "K32EnumProcessModulesEx": (
        c_int,
        [c_void_p, c_void_p, c_uint32, ctypes.POINTER(c_uint32), c_uint32],
    ),
    "K32GetModuleFileNameExW": (c_uint32, [c_void_p, c_uint64, c_wchar_p, c_uint32]),
    "OpenProcess": (c_void_p, [c_uint32, c_int, c_uint32]),
    "OpenThread": (c_void_p, [c_uint32, c_int, c_uint32]),
    "ReadProcessMemory": (c_int, [c_void_p, c_uint64, c_void_p, c_size_t, ctypes.POINTER(c_size_t)]),
    "ResumeThread": (c_uint32, [c_void_p]),
    "SetEvent": (c_int, [c_void_p]),
    "SetHandleInformation": (c_int, [c_void_p, c_uint32, c_uint32]),
    "SetThreadContext": (c_int, [c_void_p, c_void_p]),
    "SuspendThread": (c_uint32, [c_void_p]),
    "TerminateProcess": (c_int, [c_void_p, c_uint32]),
    "VirtualAllocEx": (c_uint64, [c_void_p, c_uint64, c_size_t, c_uint32, c_uint32]),
    "VirtualFreeEx": (c_int, [c_void_p, c_uint64, c_size_t, c_uint32]),
    "VirtualProtectEx": (c_int, [c_void_p, c_uint64, c_size_t, c_uint32, ctypes.POINTER(c_uint32)]),
    "VirtualQueryEx": (c_size_t, [c_void_p, c_uint64, c_void_p, c_size_t]),
    "WaitForDebugEvent": (c_int, [c_void_p, c_uint32]),
    "WaitForMultipleObjects": (c_uint32, [c_uint32, c_void_p, c_int, c_uint32]),
    "WaitForSingleObject": (c_uint32, [c_void_p, c_uint32]),
    "WriteProcessMemory": (c_int, [c_void_p, c_uint64, c_void_p, c_size_t, ctypes.POINTER(c_size_t)]),
}
_NTDLL: dict[str, tuple[Any, list[Any]]] = {
    "NtQueryInformationProcess": (c_uint32, [c_void_p, c_uint32, c_void_p, c_uint32, c_void_p]),
    "NtQueryInformationThread": (c_uint32, [c_void_p, c_uint32, c_void_p, c_uint32, c_void_p]),
}


def load(name: str, functions: dict[str, tuple[Any, list[Any]]]) -> Any:
    """A system's library with these functions declared. EngineError off Windows, OSError if it is missing."""
    if sys.platform != "win32":
        raise EngineError("processes can be traced on Windows only (elsewhere in Wine: ./calltrace run)")
    library = ctypes.WinDLL(name, use_last_error=True)
    for function, (result, arguments) in functions.items():
        entry = getattr(library, function)
        entry.restype, entry.argtypes = result, arguments
    return library


@functools.cache
def kernel32() -> Any:
    """kernel32.dll with the functions declared above. EngineError off Windows."""
    return load("kernel32", _KERNEL32)


@functools.cache
def ntdll() -> Any:
    """ntdll.dll with the functions declared above. EngineError off Windows."""
    return load("ntdll", _NTDLL)


def last_error() -> int:
    """The Win32 error of this thread's last failed call."""
    if sys.platform != "win32":
        return 0
    return ctypes.get_last_error()


def error_text(code: int) -> str:
    """The system's words for a Win32 error, with its number."""
    if sys.platform != "win32":
        return f"error {code}"
    return f"{ctypes.FormatError(code).strip().rstrip('.')} (error {code})"
