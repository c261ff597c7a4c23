// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* TerminateProcess on itself, deep in a recursion.
 *
 * exit: 34
 * output:
 *     leaving
 * tree:
 *     main  open at process end
 *         descend  x6 deep  open at process end
 *             [TerminateProcess]  open at process end
 */
#include <stdio.h>
#include <windows.h>

static int descend(int depth)
{
    if (depth > 1)
        return descend(depth - 1) + 1;
    puts("leaving");
    fflush(stdout);
    TerminateProcess(GetCurrentProcess(), 34);
    return 0;
}

int main(void)
{
    return descend(6);
}
