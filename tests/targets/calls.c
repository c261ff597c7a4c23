// build: -O2
/* What a call costs: each line printed is a kind of call and its nanoseconds per call, best of five rounds.
 *
 * calls CALLS: that many calls in each round.
 */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

#define APART __attribute__((noinline, noclone))

static volatile unsigned sink;
static unsigned calls;

APART unsigned leaf(unsigned value)
{
    return value * 3 + 1;
}

APART static void leaf_in_a_loop(void)
{
    unsigned value = 0;
    for (unsigned i = 0; i < calls; i++) {
        value = leaf(value);
    }
    sink = value;
}

/* Unlike leaf it could fault: entry and exit are two events of it, whatever the clock. */
APART unsigned reading_leaf(const unsigned *value)
{
    return *value * 3 + 1;
}

APART static void reading_leaf_in_a_loop(void)
{
    unsigned value = 0;
    for (unsigned i = 0; i < calls; i++) {
        value = reading_leaf(&value);
    }
    sink = value;
}

static unsigned (*volatile chosen)(unsigned) = leaf;

APART static void indirect(void)
{
    unsigned value = 0;
    for (unsigned i = 0; i < calls; i++) {
        value = chosen(value);
    }
    sink = value;
}

APART unsigned descend(unsigned depth)
{
    unsigned below = depth == 0 ? 1 : descend(depth - 1);
    __asm__ volatile("" : "+r"(below)); /* or gcc makes a loop of it */
    return below + depth;
}

APART static void recursion(void)
{
    for (unsigned i = 0; i < calls / 100; i++) {
        sink = descend(99);
    }
}

static unsigned compared;

APART int compare(const void *left, const void *right)
{
    compared++;
    return *(const int *)left - *(const int *)right;
}

APART static void qsort_callback(void)
{
    enum { COUNT = 1000 };
    static int numbers[COUNT];
    compared = 0;
    unsigned seed = 1;
    while (compared < calls) {
        for (unsigned i = 0; i < COUNT; i++) {
            seed = seed * 1103515245 + 12345;
            numbers[i] = (int)(seed >> 8 & 0xFFFF);
        }
        qsort(numbers, COUNT, sizeof numbers[0], compare);
    }
}

APART static double nanoseconds(void (*work)(void))
{
    LARGE_INTEGER frequency, start, end;
    QueryPerformanceFrequency(&frequency);
    double best = 1e18;
    for (unsigned round = 0; round < 5; round++) {
        QueryPerformanceCounter(&start);
        work();
        QueryPerformanceCounter(&end);
        double taken = (double)(end.QuadPart - start.QuadPart) * 1e9 / (double)frequency.QuadPart;
        best = taken < best ? taken : best;
    }
    return best / calls;
}

int main(int argc, char **argv)
{
    calls = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000000;
    printf("leaf in a loop: %.2f\n", nanoseconds(leaf_in_a_loop));
    printf("leaf that reads: %.2f\n", nanoseconds(reading_leaf_in_a_loop));
    printf("indirect call: %.2f\n", nanoseconds(indirect));
    printf("recursion: %.2f\n", nanoseconds(recursion));
    printf("qsort callback: %.2f\n", nanoseconds(qsort_callback));
    return 0;
}
