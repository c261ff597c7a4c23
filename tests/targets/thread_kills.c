// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* Threads that are terminated in a loop of traced calls, wherever they happen to be: in event code, between a unit and
 * the cursor, in the slow path. Others are suspended there, looked at, and let go on.
 *
 * Prints, for each thread that was terminated, how often it had counted. Each count comes right after the entry of
 * `step`, so a thread has entered it that often, or once more.
 */
#include <stdio.h>
#include <windows.h>

enum { THREADS = 80 };

static volatile long counts[THREADS], quiet;

static void step(volatile long *counter)
{
    ++*counter;
}

static void spin(volatile long *counter)
{
    while (*counter >= 0) {
        step(counter);
        for (int i = 0; i < 8; i++)
            YieldProcessor(); /* or the trace grows large */
    }
}

static DWORD WINAPI work(void *counter)
{
    spin(counter);
    return 0;
}

static void look_at(HANDLE thread, volatile long *counter)
{
    CONTEXT context = {.ContextFlags = CONTEXT_FULL};
    SuspendThread(thread);
    GetThreadContext(thread, &context);
    long before = *counter;
    Sleep(0);
    quiet += *counter == before && context.Rip != 0;
    ResumeThread(thread);
}

int main(void)
{
    for (int i = 0; i < THREADS; i++) {
        HANDLE thread = CreateThread(NULL, 0, work, (void *)&counts[i], 0, NULL);
        for (long goal = 0; goal < 40; goal += 10) {
            while (counts[i] <= goal * i)
                Sleep(0);
            look_at(thread, &counts[i]);
        }
        TerminateThread(thread, 0);
        WaitForSingleObject(thread, INFINITE);
        CloseHandle(thread);
    }
    for (int i = 0; i < THREADS; i++)
        printf("%ld\n", counts[i]);
    printf("quiet %ld\n", quiet);
    return 43;
}
