// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 short_procedures_asm.S
/* As short_leaves.c, but each function has its .pdata entry, down to the one that is a single ret.
 *
 * stripped: yes
 * output:
 *     0 6 7 12 8
 * tree:
 *     main
 *         only_ret  x1000
 *         rep_ret
 *         zero
 *         short_jump  tail
 *         plus_one
 *         calls_two
 *             plus_one
 *             only_ret
 *         saves
 *             zero
 *         chosen
 */
#include <stdio.h>

void only_ret(void);
void rep_ret(void);
int zero(void);
int short_jump(int value);
int calls_two(int value);
int saves(int value);
int chosen(int value);

int main(void)
{
    for (int i = 0; i < 1000; i++)
        only_ret();
    rep_ret();
    printf("%d", zero());
    printf(" %d", short_jump(5));
    printf(" %d", calls_two(6));
    printf(" %d", saves(12));
    printf(" %d\n", chosen(8));
    return 0;
}
