// build: -O2 -fno-inline -fno-optimize-sibling-calls -finstrument-functions -D__USE_MINGW_ANSI_STDIO=0
/* Calls of every kind that C has, on four threads, whose entries and exits the compiler's hooks write down too.
 *
 * output:
 *     sorted 1 2 3 5 8 13 21 34
 *     found 13
 *     variadic 42, pair 7 and 35, large 3000, real 2.50
 *     fibonacci 610
 *     threads 10 11 12 13
 *     depth 2001
 */
#include "hooks.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct pair {
    int first, second;
};

struct large {
    int values[300];
};

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static int sum_of(int count, ...)
{
    va_list list;
    int sum = 0;
    va_start(list, count);
    while (count--)
        sum += va_arg(list, int);
    va_end(list);
    return sum;
}

static struct pair make_pair(int first, int second)
{
    return (struct pair){first, second};
}

static struct large make_large(int value)
{
    struct large made;
    for (int i = 0; i < 300; i++)
        made.values[i] = value;
    return made;
}

static double mean(const double *values, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += values[i];
    return sum / count;
}

static int fibonacci(int n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static int is_odd(unsigned n);

static int is_even(unsigned n)
{
    return n == 0 ? 1 : is_odd(n - 1);
}

static int is_odd(unsigned n)
{
    return n == 0 ? 0 : is_even(n - 1);
}

static int twice(int value)
{
    return value * 2;
}

static int thrice(int value)
{
    return value * 3;
}

static int (*const operations[])(int) = {twice, thrice, abs};

static int apply(int which, int value)
{
    return operations[which](value);
}

/* A jump table, and a different callee in each case. */
static int choose(int which, int value)
{
    switch (which) {
    case 0:
        return twice(value);
    case 1:
        return thrice(value) + 1;
    case 2:
        return apply(0, value);
    case 3:
        return apply(1, value) - 1;
    case 4:
        return fibonacci(value % 5);
    case 5:
        return is_even((unsigned)value) + 3;
    default:
        return value;
    }
}

static unsigned descend(unsigned depth)
{
    volatile char space[64];
    space[0] = (char)depth;
    return depth == 0 ? 1 : descend(depth - 1) + (space[0] == (char)depth);
}

static DWORD WINAPI work(void *number)
{
    int sum = 0;
    for (int i = 0; i < 200; i++)
        sum += choose(i % 7, i) + choose((i * 5) % 7, (int)(INT_PTR)number);
    return sum ? (DWORD)(10 + (INT_PTR)number) : 0;
}

int main(void)
{
    int values[] = {21, 3, 34, 1, 13, 2, 8, 5}, wanted = 13;
    qsort(values, 8, sizeof *values, compare);
    printf("sorted");
    for (int i = 0; i < 8; i++)
        printf(" %d", values[i]);
    printf("\nfound %d\n", *(int *)bsearch(&wanted, values, 8, sizeof *values, compare));

    struct pair pair = make_pair(7, 35);
    struct large large = make_large(10);
    int sum = 0;
    for (int i = 0; i < 300; i++)
        sum += large.values[i];
    const double numbers[] = {1, 2, 3, 4};
    printf("variadic %d, pair %d and %d, large %d, real %.2f\n", sum_of(4, 1, 2, 4, 35), pair.first, pair.second, sum,
           mean(numbers, 4));
    printf("fibonacci %d\n", fibonacci(15));

    HANDLE threads[4];
    printf("threads");
    for (int i = 0; i < 4; i++)
        threads[i] = CreateThread(NULL, 0, work, (void *)(INT_PTR)i, 0, NULL);
    for (int i = 0; i < 4; i++) {
        DWORD result;
        WaitForSingleObject(threads[i], INFINITE);
        GetExitCodeThread(threads[i], &result);
        CloseHandle(threads[i]);
        printf(" %lu", result);
    }
    printf("\ndepth %u\n", descend(2000));
    return 0;
}
