// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 conventions_asm.S
/* Calls that keep to no convention: everything a thread has in its registers and flags outlives calls of functions
 * that are known not to touch it, with the direction flag set and clear. So often that the recorder's buffer is
 * filled more than once in between, whatever is recorded.
 *
 * output:
 *     wrong: 0 0
 *     carry 1 0, zero 1 0, sum 55
 * tree:
 *     main
 *         check_state
 *             x10000
 *                 untouched
 *                 single_ret
 *                 untouched
 *         check_vectors
 *             x10000
 *                 untouched
 *                 single_ret
 *                 untouched
 *         x2
 *             carry_of
 *                 carry_if
 *         x2
 *             zero_of
 *                 zero_if  tail
 *                 compare_both
 *         sum_in_flags
 *             x10
 *                 count_down
 *             count_down
 */
#include <stdio.h>

unsigned check_state(unsigned times);
unsigned check_vectors(unsigned times, int avx);
int carry_of(int value);
int zero_of(int value);
unsigned sum_in_flags(unsigned count);

int main(void)
{
    /* Without AVX the upper halves of the vectors are left alone: the calls are the same. */
    unsigned state = check_state(10000), vectors = check_vectors(10000, __builtin_cpu_supports("avx") != 0);
    printf("wrong: %u %u\n", state, vectors);
    int carry = carry_of(1), none = carry_of(0);
    printf("carry %d %d,", carry, none);
    int zero = zero_of(0), other = zero_of(7);
    printf(" zero %d %d,", zero, other);
    printf(" sum %u\n", sum_in_flags(10));
    return 0;
}
