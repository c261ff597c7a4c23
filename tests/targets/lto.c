// build: -O2 -flto -D__USE_MINGW_ANSI_STDIO=0 lto_callees.c
/* Link-time optimisation: gcc sees both files at once and passes arguments and results as it likes between functions
 * of different files.
 *
 * output:
 *     1000 3000 500500
 * tree:
 *     main
 *         work
 *             x1000
 *                 scaled
 *                 accumulate
 */
#include <stdio.h>

#include "lto_callees.h"

static APART void work(struct totals *totals, unsigned times)
{
    for (unsigned i = 1; i <= times; i++) {
        unsigned value = scaled(i, 3);
        accumulate(totals, value, i);
    }
}

int main(void)
{
    struct totals totals = {0, 0, 0};
    work(&totals, zero + 1000u);
    printf("%u %u %u\n", totals.count, totals.largest, totals.sum);
    return 0;
}
