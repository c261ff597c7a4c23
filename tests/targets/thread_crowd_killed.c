// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* A hundred threads alive at once when the process is terminated: what each has recorded is in the trace.
 *
 * exit: 37
 * output:
 *     all present
 * tree:
 *     main  open at process end
 *         start
 *         finish  open at process end
 * thread x100:
 *     work  open at process end
 *         step  x5
 *         meet  open at process end
 */
#include <stdio.h>
#include <windows.h>

enum { CROWD = 100 };

static volatile long steps;
static HANDLE present, never;

static void step(void)
{
    InterlockedIncrement(&steps);
}

static void meet(void)
{
    /* At once: whoever is counted has recorded this call. */
    SignalObjectAndWait(present, never, INFINITE, FALSE);
}

static DWORD WINAPI work(void *unused)
{
    (void)unused;
    for (int i = 0; i < 5; i++)
        step();
    meet();
    return 0;
}

static void start(void)
{
    present = CreateSemaphoreA(NULL, 0, CROWD, NULL);
    never = CreateEventA(NULL, TRUE, FALSE, NULL);
    for (int i = 0; i < CROWD; i++)
        CreateThread(NULL, 0, work, NULL, 0, NULL);
}

static void finish(void)
{
    for (int i = 0; i < CROWD; i++)
        WaitForSingleObject(present, INFINITE);
    puts("all present");
    fflush(stdout);
    TerminateProcess(GetCurrentProcess(), 37);
}

int main(void)
{
    start();
    finish();
    return 1;
}
