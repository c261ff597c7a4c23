// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* Three hundred threads, thirty at a time, that end by returning and by ExitThread deep inside.
 *
 * exit: 38
 * output:
 *     ended 300
 * tree:
 *     main
 *         wave  x10
 * thread x150:
 *     work
 *         step
 * thread x150:
 *     work  open at thread exit
 *         step
 *         leave  open at thread exit
 *             [ExitThread]  open at thread exit
 */
#include <stdio.h>
#include <windows.h>

enum { WIDTH = 30 };

static volatile long ended;

static void step(void)
{
    InterlockedIncrement(&ended);
}

static void leave(void)
{
    ExitThread(0);
}

static DWORD WINAPI work(void *number)
{
    step();
    if ((INT_PTR)number % 2)
        leave();
    return 0;
}

static void wave(void)
{
    HANDLE threads[WIDTH];
    for (INT_PTR i = 0; i < WIDTH; i++)
        threads[i] = CreateThread(NULL, 0, work, (void *)i, 0, NULL);
    for (int i = 0; i < WIDTH; i++) {
        WaitForSingleObject(threads[i], INFINITE);
        CloseHandle(threads[i]);
    }
}

int main(void)
{
    for (int i = 0; i < 10; i++)
        wave();
    printf("ended %ld\n", ended);
    return 38;
}
