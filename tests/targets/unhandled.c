// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* An access violation that nobody handles: the filter of last resort lets it end the process, and the exit code is the
 * exception's.
 *
 * exit: 5
 * output:
 *     leaving
 * tree:
 *     main  open at process end
 *         outer  open at process end
 *             inner  open at process end
 *                 last_resort
 */
#include <stdio.h>
#include <windows.h>

static volatile int *volatile nowhere;

static int inner(void)
{
    puts("leaving");
    fflush(stdout);
    return *nowhere;
}

static int outer(void)
{
    return inner() + 1;
}

static LONG WINAPI last_resort(EXCEPTION_POINTERS *about)
{
    (void)about;
    return EXCEPTION_EXECUTE_HANDLER;
}

int main(void)
{
    SetUnhandledExceptionFilter(last_resort);
    return outer();
}
