// build: -O2 -fno-optimize-sibling-calls
/* Four threads run the same functions at the same time, so that each is being entered by one while another is inside:
 * a breakpoint taken away for one thread must hold the others. */
#include <stdio.h>
#include <windows.h>

enum { THREADS = 4 };

static HANDLE start;

__attribute__((noinline)) static unsigned leaf(unsigned n)
{
    return n ^ 1;
}

__attribute__((noinline)) static unsigned fibonacci(unsigned n)
{
    return n < 2 ? leaf(n) : fibonacci(n - 1) + fibonacci(n - 2);
}

static DWORD WINAPI work(void *result)
{
    WaitForSingleObject(start, INFINITE);
    *(unsigned *)result = fibonacci(6);
    return 0;
}

int main(void)
{
    HANDLE threads[THREADS];
    unsigned results[THREADS];
    start = CreateEventW(NULL, TRUE, FALSE, NULL);
    for (int i = 0; i < THREADS; i++)
        threads[i] = CreateThread(NULL, 0, work, &results[i], 0, NULL);
    SetEvent(start);
    for (int i = 0; i < THREADS; i++) {
        WaitForSingleObject(threads[i], INFINITE);
        printf("%u\n", results[i]);
    }
    return 0;
}
