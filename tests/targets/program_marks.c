// build: -O2
/* Marks itself by the C API, with two threads that take turns: what each does before the first mark, between the two,
 * and behind them. */
#include <stdio.h>
#include <windows.h>

#include "calltrace.h"

static calltrace_mark_t *mark_recorder;
static HANDLE go, done;
static volatile unsigned sum;

#define DOES(name)                                                                                                     \
    __attribute__((noinline)) static void name(void)                                                                   \
    {                                                                                                                  \
        sum += __COUNTER__ + 1; /* each another code */                                                                \
    }
DOES(first_before)
DOES(first_between)
DOES(first_behind)
DOES(second_before)
DOES(second_between)
DOES(second_behind)

static DWORD WINAPI second(void *unused)
{
    static void (*const acts[])(void) = {second_before, second_between, second_behind};
    (void)unused;
    for (int i = 0; i < 3; i++) {
        WaitForSingleObject(go, INFINITE);
        for (int times = 0; times < 100; times++)
            acts[i]();
        SetEvent(done);
    }
    return 0;
}

static void let_second_act(void)
{
    SetEvent(go);
    WaitForSingleObject(done, INFINITE);
}

static void mark(void)
{
    if (mark_recorder)
        mark_recorder(7);
}

int main(void)
{
    HMODULE recorder = GetModuleHandleW(L"calltrace.dll");
    mark_recorder = recorder ? (calltrace_mark_t *)(void *)GetProcAddress(recorder, "calltrace_mark") : NULL;
    go = CreateEventW(NULL, FALSE, FALSE, NULL);
    done = CreateEventW(NULL, FALSE, FALSE, NULL);
    HANDLE thread = CreateThread(NULL, 0, second, NULL, 0, NULL);
    first_before();
    let_second_act();
    mark();
    first_between();
    let_second_act();
    mark();
    first_behind();
    let_second_act();
    WaitForSingleObject(thread, INFINITE);
    printf("%u\n", sum);
    return 0;
}
