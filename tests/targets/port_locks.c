// build: -O2
/* One thread holds a lock for the number of milliseconds in the first argument, another way a call on some thread
 * can have to wait: `wait_for_lock` returns 42 once it got the lock. It prints that function's address. */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

static CRITICAL_SECTION lock;
static HANDLE locked;

__declspec(dllexport) int wait_for_lock(void)
{
    EnterCriticalSection(&lock);
    LeaveCriticalSection(&lock);
    return 42;
}

static DWORD WINAPI hold(void *milliseconds)
{
    EnterCriticalSection(&lock);
    SetEvent(locked);
    Sleep((DWORD)(ULONG_PTR)milliseconds);
    LeaveCriticalSection(&lock);
    return 0;
}

int main(int argc, char **argv)
{
    InitializeCriticalSection(&lock);
    locked = CreateEventW(NULL, FALSE, FALSE, NULL);
    HANDLE holder = CreateThread(NULL, 0, hold, (void *)(ULONG_PTR)(argc > 1 ? atoi(argv[1]) : 0), 0, NULL);
    WaitForSingleObject(locked, INFINITE);
    printf("%llu\n", (unsigned long long)(ULONG_PTR)wait_for_lock);
    fflush(stdout);
    while (getchar() != EOF)
        ;
    WaitForSingleObject(holder, INFINITE);
    printf("ended in order\n");
    return 6;
}
