// build: -O1 -fno-inline -fno-optimize-sibling-calls -fno-ipa-sra -fno-ipa-cp
/* Threads that wait in known places while others keep calling, until the standard input ends.
 *
 * Three wait below 1, 2 and 3 levels of descend, called by keep_waiting. One waits in a fiber: inside, called by
 * fiber_body, while its first fiber is in to_fiber, called by with_fiber. Two run churn, which calls itself 8 levels
 * deep and returns, for ever. Prints "process ID" when all are about to wait.
 */
#include <stdio.h>
#include <windows.h>

#define WAITERS 3
#define LEVELS 8

static HANDLE end, waiting;
static volatile LONG stop;
static volatile LONG sink;

static void wait_for_end(void)
{
    ReleaseSemaphore(waiting, 1, NULL);
    WaitForSingleObject(end, INFINITE);
    sink++;
}

static void descend(int levels)
{
    if (levels > 1)
        descend(levels - 1);
    else
        wait_for_end();
    sink++;
}

static DWORD WINAPI keep_waiting(void *levels)
{
    descend((int)(INT_PTR)levels);
    sink++;
    return 0;
}

static void inside(void)
{
    wait_for_end();
    sink++;
}

static VOID CALLBACK fiber_body(void *first)
{
    inside();
    SwitchToFiber(first);
}

static void to_fiber(void *first)
{
    SwitchToFiber(CreateFiber(0, fiber_body, first));
    sink++;
}

static DWORD WINAPI with_fiber(void *unused)
{
    to_fiber(ConvertThreadToFiber(unused));
    sink++;
    return 0;
}

static void churn(int levels)
{
    if (levels)
        churn(levels - 1);
    sink = levels;
}

static DWORD WINAPI busy(void *unused)
{
    (void)unused;
    while (!stop)
        churn(LEVELS);
    return 0;
}

int main(void)
{
    HANDLE threads[WAITERS + 3];
    int count = 0;
    end = CreateEventA(NULL, TRUE, FALSE, NULL);
    waiting = CreateSemaphoreA(NULL, 0, WAITERS + 1, NULL);
    for (int i = 1; i <= WAITERS; i++)
        threads[count++] = CreateThread(NULL, 0, keep_waiting, (void *)(INT_PTR)i, 0, NULL);
    threads[count++] = CreateThread(NULL, 0, with_fiber, NULL, 0, NULL);
    for (int i = 0; i <= WAITERS; i++)
        WaitForSingleObject(waiting, INFINITE);
    for (int i = 0; i < 2; i++)
        threads[count++] = CreateThread(NULL, 0, busy, NULL, 0, NULL);
    printf("process %lu\n", GetCurrentProcessId());
    fflush(stdout);
    while (getchar() != EOF)
        ;
    stop = 1;
    SetEvent(end);
    WaitForMultipleObjects(count, threads, TRUE, INFINITE);
    return 5;
}
