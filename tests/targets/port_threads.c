// build: -O2
/* Four threads that compute until the input ends, each checking its own result all the while; the first of them calls
 * two functions that the others do not. */
#include <stdio.h>
#include <windows.h>

static volatile LONG stop, wrong;
static volatile LONG64 rounds;

__declspec(noinline) static unsigned fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

__declspec(noinline) static unsigned inner(void)
{
    return fibonacci(5);
}

__declspec(noinline) static unsigned outer(void)
{
    return inner() + 1;
}

static DWORD WINAPI work(void *number)
{
    while (!stop) {
        if (!number && outer() != 6)
            InterlockedIncrement(&wrong);
        if (fibonacci(15) != 610)
            InterlockedIncrement(&wrong);
        if (InterlockedIncrement64(&rounds) % 4 == 0)
            Sleep(1);
    }
    return 0;
}

int main(void)
{
    HANDLE threads[4];
    for (INT_PTR i = 0; i < 4; i++)
        threads[i] = CreateThread(NULL, 0, work, (void *)i, 0, NULL);
    printf("ready %lu\n", GetCurrentProcessId());
    fflush(stdout);
    while (getchar() != EOF)
        ;
    stop = 1;
    WaitForMultipleObjects(4, threads, TRUE, INFINITE);
    printf("rounds %s, wrong %ld, debugged %d\n", rounds > 0 ? "some" : "none", wrong, IsDebuggerPresent());
    return 5;
}
