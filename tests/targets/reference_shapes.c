// build: -O2 -fno-inline -fno-ipa-cp -fno-ipa-sra
/* Ways to go through functions that are told apart by where a thread comes from: tail calls by name and by pointer, a
 * loop back to a function's first byte, a call that a function makes of itself, jump tables, callbacks, longjmp. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static volatile unsigned sink;

static unsigned add(unsigned n)
{
    return n + sink;
}

static unsigned twice(unsigned n)
{
    return add(n * 2); /* a tail call */
}

static unsigned (*volatile chosen)(unsigned) = twice;

static unsigned by_pointer(unsigned n)
{
    return chosen(n + 1); /* and one through memory */
}

/* Its loop begins with its first instruction. */
unsigned count_down(unsigned n);
__asm__(".text\n"
        ".def count_down; .scl 2; .type 32; .endef; .globl count_down\n"
        "count_down: subl $1, %ecx\n"
        "jnz count_down\n"
        "movl $7, %eax\n"
        "ret\n"
        ".p2align 4, 0xCC\n");

/* Goes to itself by a pointer until the count is used up: tail calls, not a loop. */
unsigned pass_round(unsigned n, void *itself);
__asm__(".text\n"
        ".def pass_round; .scl 2; .type 32; .endef; .globl pass_round\n"
        "pass_round: subl $1, %ecx\n"
        "jz 1f\n"
        "rex.W jmp *%rdx\n"
        "1: movl $9, %eax\n"
        "ret\n"
        ".p2align 4, 0xCC\n");

static unsigned table(unsigned n)
{
    switch (n) {
    case 0:
        return add(10);
    case 1:
        return twice(n) + 3;
    case 2:
        sink++;
        return 5;
    case 3:
        return add(n) ^ add(sink);
    case 4:
        return n * 77;
    case 5:
        sink += add(1);
        return sink;
    default:
        return by_pointer(n);
    }
}

static int compare(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

static jmp_buf back;

static void descend(unsigned depth)
{
    if (depth == 0)
        longjmp(back, 3);
    if (depth < 1000)
        descend(depth - 1);
    sink++;
}

static unsigned return_far(void)
{
    int came = setjmp(back);
    if (came == 0)
        descend(4);
    return add((unsigned)came);
}

static unsigned recursive(unsigned n)
{
    return n == 0 ? return_far() : recursive(n - 1) + add(n);
}

int main(void)
{
    int numbers[] = {5, 3, 9, 1};
    unsigned sum = twice(1) + by_pointer(2) + count_down(4) + pass_round(3, (void *)pass_round) + recursive(3);
    for (unsigned n = 0; n < 8; n++)
        sum += table(n);
    qsort(numbers, sizeof numbers / sizeof *numbers, sizeof *numbers, compare);
    printf("%u %d\n", sum, numbers[0]);
    return 0;
}
