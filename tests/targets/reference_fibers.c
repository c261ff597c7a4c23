// build: -O2 -fno-inline -fno-ipa-cp
/* Fibers that are left by a call and by a tail jump, each with frames of its own open meanwhile. */
#include <stdio.h>
#include <windows.h>

static void *main_fiber, *others[2];
static volatile int sum;

static void note(int value)
{
    sum += value;
}

static void pass_and_note(void *to)
{
    SwitchToFiber(to);
    note(1);
}

static void pass(void *to)
{
    SwitchToFiber(to); /* a tail jump */
}

static void WINAPI fiber(void *next)
{
    for (;;) {
        pass(next);
        note(10);
        pass_and_note(main_fiber);
    }
}

int main(void)
{
    main_fiber = ConvertThreadToFiber(NULL);
    others[1] = CreateFiber(0, fiber, main_fiber);
    others[0] = CreateFiber(0, fiber, others[1]);
    for (int i = 0; i < 6; i++) {
        pass(others[i & 1]);
        pass_and_note(others[i % 3 == 0]);
    }
    DeleteFiber(others[0]);
    DeleteFiber(others[1]);
    printf("%d\n", sum);
    return 0;
}
