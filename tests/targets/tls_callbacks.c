// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* Callbacks that the loader makes at the start and the end of each thread.
 *
 * exit: 39
 * output:
 *     called 2
 * tree:
 *     main
 *         run
 * thread:
 *     on_thread
 *         step
 *     work
 *         step
 *     on_thread
 *         step
 */
#include <stdio.h>
#include <windows.h>

static volatile long called, worked;
static DWORD own_thread; /* calltrace adds threads of its own, which Wine announces, too */

static void step(volatile long *counter)
{
    InterlockedIncrement(counter);
}

static void NTAPI on_thread(void *module, DWORD reason, void *reserved)
{
    (void)module;
    (void)reserved;
    if (GetCurrentThreadId() == own_thread && (reason == DLL_THREAD_ATTACH || reason == DLL_THREAD_DETACH))
        step(&called);
}

__attribute__((section(".CRT$XLB"), used)) static PIMAGE_TLS_CALLBACK entry = on_thread;

static DWORD WINAPI work(void *unused)
{
    (void)unused;
    step(&worked);
    return 0;
}

static void run(void)
{
    HANDLE thread = CreateThread(NULL, 0, work, NULL, CREATE_SUSPENDED, &own_thread);
    ResumeThread(thread);
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}

int main(void)
{
    run();
    printf("called %ld\n", called);
    return 39;
}
