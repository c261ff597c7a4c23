// build: -O2 -fno-optimize-sibling-calls
/* A loop that turns until the input ends: owner serve, on a thread of its own; frame function turn, which calls first,
 * second and, in there, api. Beside them serve calls idle. Each turn checks what it computed. */
#include <stdio.h>
#include <windows.h>

#define APART __attribute__((noinline))

static volatile LONG stop;
static volatile unsigned state, turns, wrong;

APART void api(unsigned add)
{
    state += add;
}

static APART void first(void)
{
    state += 1;
}

static APART void second(void)
{
    api(2);
    state += 3;
}

static APART void idle(void)
{
    Sleep(turns % 16 == 0);
}

static APART void turn(void)
{
    unsigned before = state;
    first();
    second();
    wrong += state != before + 6;
    turns++;
}

static APART DWORD WINAPI serve(void *unused)
{
    (void)unused;
    while (!stop) {
        idle();
        turn();
    }
    return 0;
}

int main(void)
{
    HANDLE thread = CreateThread(NULL, 0, serve, NULL, 0, NULL);
    printf("ready %lu\n", GetCurrentProcessId());
    fflush(stdout);
    while (getchar() != EOF)
        ;
    stop = 1;
    WaitForSingleObject(thread, INFINITE);
    printf("turns %s, wrong %u, debugged %d\n", turns ? "some" : "none", wrong, IsDebuggerPresent());
    return 7;
}
