// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 entry_loops_asm.S
/* Loops back to a function's first byte, and into the four behind it: they are no entries, and no calls.
 *
 * output:
 *     first byte 55 55
 *     byte 1: 110, byte 2: 55, byte 3: 55, byte 4: 10
 *     loop 45, from far 55, with a call 30
 * tree:
 *     main
 *         to_first_byte  x2
 *         to_byte_1
 *         to_byte_2
 *         to_byte_3
 *         to_byte_4
 *         by_loop
 *         from_far
 *         with_call
 *             three  x10
 */
#include <stdio.h>

/* Each but with_call runs ten turns; rdx is 0 and gathers what is returned. */
unsigned to_first_byte(unsigned turns, unsigned sum);
unsigned to_byte_1(unsigned turns, unsigned sum);
unsigned to_byte_2(unsigned turns, unsigned sum);
unsigned to_byte_3(unsigned turns, unsigned sum);
unsigned to_byte_4(unsigned turns, unsigned sum);
unsigned by_loop(unsigned turns, unsigned sum);
unsigned from_far(unsigned turns, unsigned sum);
unsigned with_call(unsigned turns, unsigned sum);

int main(void)
{
    printf("first byte %u", to_first_byte(10, 0));
    printf(" %u\n", to_first_byte(10, 0));
    printf("byte 1: %u,", to_byte_1(10, 0));
    printf(" byte 2: %u,", to_byte_2(10, 0));
    printf(" byte 3: %u,", to_byte_3(10, 0));
    printf(" byte 4: %u\n", to_byte_4(10, 0));
    printf("loop %u,", by_loop(10, 0));
    printf(" from far %u,", from_far(10, 0));
    printf(" with a call %u\n", with_call(10, 0));
    return 0;
}
