// build: -O2 -fno-inline -Wno-array-bounds -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* A thread that does its work with 512 bytes left of its stack above the guard page: nothing that recording does on
 * that stack may need more, or the program overflows where untraced it does not.
 *
 * exit: 40
 * output:
 *     steps 40000
 * tree:
 *     main
 * thread:
 *     squeezed
 *         work
 *             x40000
 *                 step
 */
#include <stdio.h>
#include <windows.h>

enum { LEFT = 0x2200 }; /* the lowest page cannot be used, the next is the guard page */

static volatile long steps;

static void step(void)
{
    steps++;
}

/* Several blocks of events, with every clock. */
static void work(void)
{
    for (int i = 0; i < 40000; i++)
        step();
}

static DWORD WINAPI squeezed(void *unused)
{
    (void)unused;
    char *here = __builtin_frame_address(0);
    ULONG_PTR end = (ULONG_PTR)((void **)NtCurrentTeb())[0x1478 / sizeof(void *)]; /* DeallocationStack */
    volatile char *space = __builtin_alloca((size_t)((ULONG_PTR)here - end) - LEFT);
    space[0] = 1;
    work();
    return space[0];
}

int main(void)
{
    HANDLE thread = CreateThread(NULL, 0x10000, squeezed, NULL, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    WaitForSingleObject(thread, INFINITE);
    printf("steps %ld\n", steps);
    return 40;
}
