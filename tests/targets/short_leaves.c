// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 short_leaves_asm.S
/* Functions of one byte and up, packed against each other, that no unwind data tells of: short_leaves_asm.S. They are
 * found through direct calls and pointers alone, since there is no symbol table.
 *
 * stripped: yes
 * output:
 *     0 0 6 6 7 10 42 43 9
 * tree:
 *     main
 *         only_ret  x3
 *         rep_ret
 *         zero
 *         short_jump  tail
 *         plus_one
 *         plus_one
 *         last_jump  tail
 *         plus_two
 *         plus_two
 *         pointed_at
 *         pointed_at_too
 *         swap
 */
#include <stdio.h>

void only_ret(void);
void rep_ret(void);
int zero(void);
int short_jump(int value);
int plus_one(int value);
int last_jump(int value);
int plus_two(int value);
extern int (*volatile pointers[])(void);
unsigned swap(unsigned value);

int main(void)
{
    for (int i = 0; i < 3; i++)
        only_ret();
    rep_ret();
    printf("%d %d", zero(), 0);
    printf(" %d", short_jump(5));
    printf(" %d", plus_one(5));
    printf(" %d", last_jump(5));
    printf(" %d", plus_two(8));
    printf(" %d", pointers[0]());
    printf(" %d", pointers[1]());
    printf(" %u\n", swap(0x09000000));
    return 0;
}
