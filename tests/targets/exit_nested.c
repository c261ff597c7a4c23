// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* ExitProcess from inside nested functions.
 *
 * exit: 31
 * output:
 *     leaving
 * tree:
 *     main  open at process end
 *         outer  open at process end
 *             inner  open at process end
 *                 [ExitProcess]  open at process end
 */
#include <stdio.h>
#include <windows.h>

static void inner(unsigned code)
{
    puts("leaving");
    fflush(stdout);
    ExitProcess(code);
}

static void outer(unsigned code)
{
    inner(code + 1);
    puts("not reached");
}

int main(void)
{
    outer(30);
    return 1;
}
