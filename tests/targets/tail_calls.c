// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 tail_calls_asm.S
/* Functions that leave by a jump, in every form; and two that do so to each other a million times, each of which looks
 * at the stack pointer: it must not move.
 *
 * output:
 *     direct 1, memory 1, register 1, table 1, far 1
 *     taken 1, not taken 0, over two 1, own frame 9
 *     stack moved by 0
 * not traced: to_import -- it is a thunk: calls are recorded where they are made
 * tree:
 *     main
 *         direct  tail
 *         one
 *         through_memory  tail
 *         one
 *         through_register  tail
 *         one
 *         through_table  tail
 *         one
 *         short_jump  tail
 *         one
 *         conditional  tail
 *         one
 *         conditional
 *         over_two  tail
 *         direct  tail
 *         one
 *         with_frame  tail
 *         adds
 *             one
 *         [abs]
 *         ping  tail
 *         stack_pointer
 *         x500000
 *             ping  tail
 *             pong  tail
 *         ping  tail
 *         stack_pointer
 */
#include <stdio.h>
#include <stdlib.h>

int direct(void);
int through_memory(void);
int through_register(void);
int through_table(int which);
int short_jump(void);
int conditional(int condition);
int over_two(void);
int with_frame(int value);
int to_import(int value);
char *ping(unsigned steps);

int main(void)
{
    printf("direct %d,", direct());
    printf(" memory %d,", through_memory());
    printf(" register %d,", through_register());
    printf(" table %d,", through_table(1));
    printf(" far %d\n", short_jump());
    printf("taken %d,", conditional(1));
    printf(" not taken %d,", conditional(0));
    printf(" over two %d,", over_two());
    printf(" own frame %d\n", with_frame(-8));
    if (to_import(-5) != 5)
        return 1;
    /* The stack pointer at the end of a call without steps is that of any call from here. */
    char *before = ping(0);
    printf("stack moved by %d\n", (int)(ping(1000000) - before));
    return 0;
}
