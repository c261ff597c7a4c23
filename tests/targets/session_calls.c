// build: -O2 -fno-optimize-sibling-calls
/* Calls whose numbers are known: `leaf` ARGUMENT times, `depth` once per level of a recursion of 50. With a second
 * argument it then ends itself the hard way. */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

static volatile unsigned sum;

__declspec(dllexport) __attribute__((noinline)) void leaf(unsigned n)
{
    sum += n;
}

__declspec(dllexport) __attribute__((noinline)) unsigned depth(unsigned level)
{
    return level == 0 ? sum : depth(level - 1) * 3 + level;
}

__declspec(dllexport) __attribute__((noinline)) int work(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        leaf(i);
    printf("%u %u\n", sum, depth(49));
    return fflush(stdout);
}

int main(int argc, char **argv)
{
    work(argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0);
    if (argc > 2)
        TerminateProcess(GetCurrentProcess(), 77);
    return 11;
}
