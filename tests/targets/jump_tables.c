// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 jump_tables_asm.S
/* Jumps through tables: gcc's in .rdata, and in jump_tables_asm.S those of other compilers and worse.
 *
 * output:
 *     compiled 10 21 32 43 54 65 76 99
 *     absolute 100 101 102 103
 *     image-relative 100 101 102 103
 *     inside 100 101 102 103
 *     bytes 100 101 102 103
 *     to functions 2 3 2 3
 * tree:
 *     main
 *         compiled
 *             by_ones
 *         compiled
 *             by_tens
 *             by_ones
 *         compiled
 *             by_ones
 *             by_tens
 *         compiled
 *             by_tens
 *             by_tens
 *         compiled
 *             by_ones
 *             by_ones
 *         compiled
 *             by_tens
 *             by_ones
 *             by_ones
 *         compiled
 *             by_ones
 *             by_tens
 *             by_tens
 *         compiled
 *         absolute_table  x4
 *         image_relative_table  x4
 *         table_inside  x4
 *         byte_table  x4
 *         to_functions  tail
 *         two
 *         to_functions  tail
 *         three
 *         to_functions  tail
 *         two
 *         to_functions  tail
 *         three
 */
#include <stdio.h>

#define APART __attribute__((noinline, noclone, noipa))

int absolute_table(unsigned which);
int image_relative_table(unsigned which);
int table_inside(unsigned which);
int byte_table(unsigned which);
int to_functions(unsigned which);

static int sum;

static APART void by_ones(int n)
{
    sum += n;
}

static APART void by_tens(int n)
{
    sum += 10 * n;
}

static APART int compiled(unsigned which)
{
    sum = 0;
    switch (which) {
    case 0:
        by_ones(10);
        break;
    case 1:
        by_tens(2);
        by_ones(1);
        break;
    case 2:
        by_ones(2);
        by_tens(3);
        break;
    case 3:
        by_tens(4);
        sum += 3;
        by_tens(0);
        break;
    case 4:
        by_ones(50);
        by_ones(4);
        break;
    case 5:
        by_tens(6);
        by_ones(2);
        by_ones(3);
        break;
    case 6:
        by_ones(6);
        by_tens(3);
        by_tens(4);
        break;
    default:
        sum = 99;
    }
    return sum;
}

static inline __attribute__((always_inline)) void each(const char *name, int (*function)(unsigned), unsigned count)
{
    printf("%s", name);
    for (unsigned i = 0; i < count; i++)
        printf(" %d", function(i));
    printf("\n");
}

int main(void)
{
    each("compiled", compiled, 8);
    each("absolute", absolute_table, 4);
    each("image-relative", image_relative_table, 4);
    each("inside", table_inside, 4);
    each("bytes", byte_table, 4);
    each("to functions", to_functions, 4);
    return 0;
}
