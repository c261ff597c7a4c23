// build: -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* A second thread ends the process, while the first waits inside a function and a third runs in a loop.
 *
 * exit: 32
 * output:
 *     leaving
 * tree:
 *     main  open at process end
 *         wait_for_ever  open at process end
 *             [WaitForSingleObject]  open at process end
 * thread:
 *     leave  open at process end
 *         [ExitProcess]  open at process end
 * thread:
 *     turn  open at process end
 */
#include <stdio.h>
#include <windows.h>

static volatile long turning, turns;

static DWORD WINAPI turn(void *unused)
{
    (void)unused;
    while (turns >= 0) {
        turning = 1;
        turns = (turns + 1) & 0xFFFF;
    }
    return 0;
}

static DWORD WINAPI leave(void *main_thread)
{
    (void)main_thread;
    while (!turning)
        Sleep(1);
    Sleep(20); /* until main waits */
    puts("leaving");
    fflush(stdout);
    ExitProcess(32);
    return 0;
}

static void wait_for_ever(HANDLE thread)
{
    WaitForSingleObject(thread, INFINITE);
    puts("not reached");
}

int main(void)
{
    HANDLE turner = CreateThread(NULL, 0, turn, NULL, 0, NULL);
    CreateThread(NULL, 0, leave, NULL, 0, NULL);
    wait_for_ever(turner);
    return 1;
}
