// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* Fibers that switch away and are gone on with inside nested calls, and the thread's own.
 *
 * exit: 27
 * output:
 *     sum 19
 * tree:
 *     main  left to another fiber
 *         pass  left to another fiber
 *     fiber  left to another fiber
 *         inner  left to another fiber
 *             pass  left to another fiber
 *     fiber  left to another fiber
 *         inner  left to another fiber
 *             pass  left to another fiber
 *     main (goes on)  left to another fiber
 *         pass (goes on)
 *             note
 *         pass  left to another fiber
 *     fiber (goes on)  left to another fiber
 *         inner (goes on)
 *             pass (goes on)
 *                 note
 *             note
 *         pass  left to another fiber
 *     main (goes on)  left to another fiber
 *         pass (goes on)
 *             note
 *         pass  left to another fiber
 *     fiber (goes on)  left to another fiber
 *         inner (goes on)
 *             pass (goes on)
 *                 note
 *             note
 *         pass  left to another fiber
 *     main (goes on)
 *         pass (goes on)
 *             note
 *         note
 */
#include <stdio.h>
#include <windows.h>

static void *main_fiber;
static volatile int sum;

static void note(int value)
{
    sum += value;
}

static void pass(void *to)
{
    SwitchToFiber(to);
    note(1);
}

static void inner(void *to)
{
    pass(to);
    note(2);
}

static void WINAPI fiber(void *next)
{
    inner(next);
    for (;;)
        pass(main_fiber);
}

int main(void)
{
    main_fiber = ConvertThreadToFiber(NULL);
    void *second = CreateFiber(0, fiber, main_fiber);
    void *first = CreateFiber(0, fiber, second);
    pass(first);
    pass(first);
    pass(second);
    DeleteFiber(first);
    DeleteFiber(second);
    ConvertFiberToThread();
    note(10);
    printf("sum %d\n", sum);
    return 27;
}
