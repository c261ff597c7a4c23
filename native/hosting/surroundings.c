/* What of its surroundings Python cannot start with. */
#include "hosting/hosting.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>

/* Of Python's C runtime, which has descriptors of its own: X(result, name, parameters) */
typedef void bad_parameter(const wchar_t *expression, const wchar_t *function, const wchar_t *file, unsigned line,
                           uintptr_t reserved);
#define RUNTIME_FUNCTIONS(X)                                                                                           \
    X(intptr_t, _get_osfhandle, (int descriptor))                                                                      \
    X(int, _open, (const char *path, int flags, ...))                                                                  \
    X(int, _dup2, (int descriptor, int other))                                                                         \
    X(int, _close, (int descriptor))                                                                                   \
    X(bad_parameter *, _set_thread_local_invalid_parameter_handler, (bad_parameter * handler))

enum { NO_STREAM = -2 }; /* of a descriptor without a handle, which Python knows */

static struct {
#define MEMBER(result, name, parameters) result(*name) parameters;
    RUNTIME_FUNCTIONS(MEMBER)
#undef MEMBER
} runtime;

/* In place of ending the process for a descriptor that is closed. */
static void ignore(const wchar_t *expression, const wchar_t *function, const wchar_t *file, unsigned line,
                   uintptr_t reserved)
{
    (void)expression, (void)function, (void)file, (void)line, (void)reserved;
}

/* Whether Python finds out what it is. */
static bool is_usable(HANDLE handle)
{
    BY_HANDLE_FILE_INFORMATION about;
    SetLastError(NO_ERROR);
    DWORD type = GetFileType(handle);
    if (type == FILE_TYPE_UNKNOWN)
        return GetLastError() == NO_ERROR;
    return type != FILE_TYPE_DISK || GetFileInformationByHandle(handle, &about);
}

/* Let a descriptor lead nowhere. The handle it had may be another object's by now, or in use: it stays open, and the
 * process's own if it was that.
 */
static void replace(int descriptor, HANDLE handle)
{
    static const DWORD streams[] = {STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE};
    DWORD flags = 0;
    HANDLE process_s = GetStdHandle(streams[descriptor]);
    int nowhere = runtime._open("NUL", _O_RDWR | _O_BINARY);
    bool open = GetHandleInformation(handle, &flags);
    if (open)
        SetHandleInformation(handle, HANDLE_FLAG_PROTECT_FROM_CLOSE, HANDLE_FLAG_PROTECT_FROM_CLOSE);
    if (nowhere >= 0) {
        runtime._dup2(nowhere, descriptor);
        runtime._close(nowhere);
    }
    if (open)
        SetHandleInformation(handle, HANDLE_FLAG_PROTECT_FROM_CLOSE, flags & HANDLE_FLAG_PROTECT_FROM_CLOSE);
    SetStdHandle(streams[descriptor], process_s);
}

void ct_mend_streams(void)
{
    HMODULE library = GetModuleHandleW(L"ucrtbase.dll");
    if (!library)
        return;
#define RESOLVE(result, name, parameters)                                                                              \
    runtime.name = (void *)(uintptr_t)GetProcAddress(library, #name);                                                  \
    if (!runtime.name)                                                                                                 \
        return;
    RUNTIME_FUNCTIONS(RESOLVE)
#undef RESOLVE
    bad_parameter *before = runtime._set_thread_local_invalid_parameter_handler(ignore);
    for (int descriptor = 0; descriptor < 3; ++descriptor) {
        intptr_t handle = runtime._get_osfhandle(descriptor);
        if (handle != -1 && handle != NO_STREAM && !is_usable((HANDLE)handle))
            replace(descriptor, (HANDLE)handle);
    }
    runtime._set_thread_local_invalid_parameter_handler(before);
}

bool ct_path_has_library(void)
{
    const wchar_t *paths = _wgetenv(L"PYTHONPATH");
    for (; paths && *paths; paths += *paths == ';') {
        wchar_t file[CT_PATH];
        int size = (int)wcscspn(paths, L";");
        if (size && _snwprintf(file, CT_PATH, L"%.*ls\\os.py", size, paths) > 0 &&
            GetFileAttributesW(file) != INVALID_FILE_ATTRIBUTES)
            return true;
        paths += size;
    }
    return false;
}
