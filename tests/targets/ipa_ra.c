// build: -O2 -D__USE_MINGW_ANSI_STDIO=0
/* gcc knows which registers a callee of its own changes (-fipa-ra, part of -O2): `sums` keeps its
 * counters and half of its sums in rdx and r8 to r11 across the calls.
 *
 * output:
 *     sum 10300 15350 1030000 505000
 * tree:
 *     main
 *         sums
 *             x100
 *                 twice_plus
 *                 mixed
 */
#include <stdio.h>
#include <stdlib.h>

#define APART __attribute__((noinline, noclone))

static volatile int zero;

static APART unsigned long long twice_plus(unsigned long long value, unsigned long long more)
{
    return value * 2 + more;
}

static APART unsigned long long mixed(unsigned long long value)
{
    return value ^ 3;
}

static APART void sums(unsigned long long *results, unsigned times)
{
    unsigned long long first = 0, second = 0, third = 0, fourth = 0;
    for (unsigned i = 1; i <= times; i++) {
        unsigned long long doubled = twice_plus(i, 2);
        first += doubled;
        second += mixed(i) + doubled;
        third += doubled * 100;
        fourth += i * 100;
    }
    results[0] = first;
    results[1] = second;
    results[2] = third;
    results[3] = fourth;
}

int main(void)
{
    unsigned long long results[4];
    sums(results, 100 + (unsigned)zero);
    printf("sum %llu %llu %llu %llu\n", results[0], results[1], results[2], results[3]);
    return 0;
}
