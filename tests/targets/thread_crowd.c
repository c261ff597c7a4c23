// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* A hundred threads alive at once: each is inside two functions while all the others are, too.
 *
 * exit: 36
 * output:
 *     steps 1000
 * tree:
 *     main
 *         start
 *         finish
 * thread x100:
 *     work
 *         step  x5
 *         meet
 *         step  x5
 */
#include <stdio.h>
#include <windows.h>

enum { CROWD = 100 };

static volatile long steps, present;
static HANDLE threads[CROWD], all_present;

static void step(void)
{
    InterlockedIncrement(&steps);
}

static void meet(void)
{
    if (InterlockedIncrement(&present) == CROWD)
        SetEvent(all_present);
    WaitForSingleObject(all_present, INFINITE);
}

static DWORD WINAPI work(void *unused)
{
    (void)unused;
    for (int i = 0; i < 5; i++)
        step();
    meet();
    for (int i = 0; i < 5; i++)
        step();
    return 0;
}

static void start(void)
{
    all_present = CreateEventA(NULL, TRUE, FALSE, NULL);
    for (int i = 0; i < CROWD; i++)
        threads[i] = CreateThread(NULL, 0, work, NULL, 0, NULL);
}

static void finish(void)
{
    for (int i = 0; i < CROWD; i++)
        WaitForSingleObject(threads[i], INFINITE);
}

int main(void)
{
    start();
    finish();
    printf("steps %ld\n", steps);
    return 36;
}
