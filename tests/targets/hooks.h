/* The compiler's own account of a program's calls: included once by a target that is built with
 * -finstrument-functions, it writes down which function each thread entered and left, and in what order.
 *
 * gcc puts a call of __cyg_profile_func_enter behind the prolog of every function, and one of
 * __cyg_profile_func_exit before each epilog and, in C++, where an exception passes through. Both are given the
 * function's address, inlined functions theirs. So:
 *
 *   -fno-inline                      or functions would be entered that are never called
 *   -fno-optimize-sibling-calls      or functions are left by the jump to the exit hook
 *
 * Everything in this file has a name that begins with hook_ but those two: leave it out of the trace.
 *
 * The log is a mapped file, named by the variable HOOK_LOG, so that it is whole however the process ends: a struct
 * hook_thread for each thread, in the order of their first calls, up to one whose id is 0.
 */
#ifndef HOOKS_H
#define HOOKS_H

#include <stdint.h>
#include <stdlib.h>
#include <windows.h>

#define HOOK __attribute__((no_instrument_function, used))
#ifdef __cplusplus
#define HOOK_C extern "C"
#else
#define HOOK_C
#endif

enum { HOOK_MOST_EVENTS = (1 << 18) - 3, HOOK_MOST_THREADS = 64 };

struct hook_thread {
    uint64_t id, base, count;          /* the system's number, where the program lies, events */
    uint64_t events[HOOK_MOST_EVENTS]; /* the function's address * 2, + 1 when it was left */
};

static struct hook_thread *hook_threads;
static volatile LONG hook_thread_count;
static DWORD hook_slot;

/* A TLS callback: it runs before anything else of the program. */
HOOK static void NTAPI hook_process(void *module, DWORD reason, void *reserved)
{
    const uint64_t size = HOOK_MOST_THREADS * sizeof *hook_threads;
    char path[MAX_PATH];
    HANDLE file = INVALID_HANDLE_VALUE; /* none: the log is memory that nobody sees */
    (void)module;
    (void)reserved;
    if (reason != DLL_PROCESS_ATTACH)
        return;
    if (GetEnvironmentVariableA("HOOK_LOG", path, sizeof path))
        file = CreateFileA(path, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ, NULL, CREATE_ALWAYS, 0, NULL);
    HANDLE mapping = CreateFileMappingW(file, NULL, PAGE_READWRITE, (DWORD)(size >> 32), (DWORD)size, NULL);
    hook_threads = (struct hook_thread *)MapViewOfFile(mapping, FILE_MAP_WRITE, 0, 0, 0);
    hook_slot = TlsAlloc();
}

__attribute__((section(".CRT$XLB"), used)) static const PIMAGE_TLS_CALLBACK hook_callback = hook_process;

HOOK static struct hook_thread *hook_this_thread(void)
{
    struct hook_thread *thread = (struct hook_thread *)TlsGetValue(hook_slot);
    if (!thread) {
        thread = &hook_threads[InterlockedIncrement(&hook_thread_count) - 1];
        thread->id = GetCurrentThreadId();
        thread->base = (uint64_t)(uintptr_t)GetModuleHandleW(NULL);
        TlsSetValue(hook_slot, thread);
    }
    return thread;
}

HOOK static void hook_note(uint64_t event)
{
    DWORD error = GetLastError(); /* TlsGetValue changes it */
    struct hook_thread *thread = hook_this_thread();
    if (thread->count == HOOK_MOST_EVENTS)
        abort();
    thread->events[thread->count++] = event;
    SetLastError(error);
}

HOOK_C HOOK void __cyg_profile_func_enter(void *function, void *caller)
{
    (void)caller;
    hook_note((uint64_t)(uintptr_t)function * 2);
}

HOOK_C HOOK void __cyg_profile_func_exit(void *function, void *caller)
{
    (void)caller;
    hook_note((uint64_t)(uintptr_t)function * 2 + 1);
}

#endif
