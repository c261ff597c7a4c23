// build: -O2 -fno-inline -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* Fibers: two that take turns from inside nested calls, one that ends by switching away for good, and a thread's own.
 *
 * exit: 27
 * output:
 *     main 0
 *     first 0 1 2
 *     main 1
 *     second 0 1 2
 *     sum 42
 */
#include <stdio.h>
#include <windows.h>

static void *main_fiber, *fibers[2];
static volatile int sum;

static void note(int value)
{
    sum += value;
}

/* Another fiber runs inside this call. */
static void pass(void *to)
{
    note(1);
    SwitchToFiber(to);
    note(1);
}

static void turns(int own, int depth)
{
    note(2);
    if (depth > 0)
        turns(own, depth - 1);
    pass(own == 0 ? fibers[1] : main_fiber);
}

static void WINAPI fiber(void *own)
{
    turns((int)(INT_PTR)own, 2);
    for (;;)
        pass(main_fiber);
}

int main(void)
{
    main_fiber = ConvertThreadToFiber(NULL);
    fibers[0] = CreateFiber(0, fiber, (void *)0);
    fibers[1] = CreateFiber(0, fiber, (void *)1);
    for (int round = 0; round < 4; round++) {
        pass(fibers[0]);
        printf("round %d sum %d\n", round, sum);
    }
    DeleteFiber(fibers[1]);
    DeleteFiber(fibers[0]);
    ConvertFiberToThread();
    note(3);
    printf("sum %d\n", sum);
    return 27;
}
