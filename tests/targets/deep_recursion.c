// build: -O2 -Wl,--stack,67108864 -D__USE_MINGW_ANSI_STDIO=0
/* A recursion of 100,000 levels.
 *
 * output:
 *     5000050000
 * tree:
 *     main
 *         sum_to  x100000 deep
 *             nothing
 */
#include <stdio.h>

#define APART __attribute__((noinline, noclone, noipa))

static APART long long nothing(void)
{
    return 0;
}

static APART long long sum_to(long long n)
{
    long long below = n == 1 ? nothing() : sum_to(n - 1);
    __asm__ volatile("" : "+r"(below)); /* or gcc makes a loop of it */
    return below + n;
}

int main(void)
{
    printf("%lld\n", sum_to(100000));
    return 0;
}
