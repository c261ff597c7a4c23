// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* abort(), with a handler for its signal.
 *
 * exit: 3
 * output:
 *     signal 22
 * tree:
 *     main  open at process end
 *         give_up  open at process end
 *             [abort]  open at process end
 *                 on_abort
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static void on_abort(int number)
{
    printf("signal %d\n", number);
    fflush(stdout);
}

static void give_up(void)
{
    abort();
}

int main(void)
{
    signal(SIGABRT, on_abort);
    give_up();
    return 1;
}
