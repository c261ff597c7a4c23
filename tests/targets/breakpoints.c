// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 breakpoints_asm.S
/* Three phases that all do the same, with a call of `phase` before each and behind the last. In each of them
 *
 *     straight     is called 3 times, and its loop makes 4 turns each time; it calls `callee` once
 *     turns        is called twice, and begins 5 turns each time with its first instruction
 *     short_one    is called 4 times, next_to_it 4 times
 *     serve        each thread in it makes 3 turns. One thread is in it from before the first phase to the end, another
 *                  from the beginning of the second: so 3 turns in the first phase, and 6 in each of the others
 *     written      is written 3 times, by straight
 *
 * The second phase ends with an exception that nobody handles if the argument is "crash", and with exit code 5 if it is
 * "exit". Otherwise the exit code is 7. */
#include <stdio.h>
#include <string.h>
#include <windows.h>

struct worker {
    HANDLE go, done;
};

unsigned straight(unsigned turns);
unsigned turns(unsigned turns, unsigned sum);
unsigned short_one(void);
unsigned next_to_it(unsigned number);
DWORD WINAPI serve(void *worker);

volatile unsigned written;

__attribute__((noinline)) void phase(unsigned number)
{
    __asm__ volatile("" : : "r"(number));
}

__attribute__((noinline)) void callee(void)
{
    __asm__ volatile("");
}

/* Tell that there is nothing to do, and wait until a turn is to be made. */
BOOL wait_turn(struct worker *worker)
{
    SetEvent(worker->done);
    WaitForSingleObject(worker->go, INFINITE);
    return TRUE;
}

static void begin(struct worker *worker)
{
    worker->go = CreateEventA(NULL, FALSE, FALSE, NULL);
    worker->done = CreateEventA(NULL, FALSE, FALSE, NULL);
    CreateThread(NULL, 0, serve, worker, 0, NULL);
    WaitForSingleObject(worker->done, INFINITE);
}

static void make_turns(struct worker *worker)
{
    for (int i = 0; i < 3; i++) {
        SetEvent(worker->go);
        WaitForSingleObject(worker->done, INFINITE);
    }
}

__attribute__((noinline)) unsigned do_phase(void)
{
    unsigned sum = 0;
    for (int i = 0; i < 3; i++)
        sum += straight(4);
    for (int i = 0; i < 2; i++)
        sum += turns(5, 0);
    for (int i = 0; i < 4; i++)
        sum += short_one() + next_to_it(7);
    return sum;
}

int main(int argc, char **argv)
{
    struct worker workers[2] = {0};
    unsigned sum = 0;
    begin(&workers[0]);
    for (unsigned i = 1; i <= 3; i++) {
        phase(i);
        sum += do_phase();
        if (i == 2)
            begin(&workers[1]);
        make_turns(&workers[0]);
        if (i >= 2)
            make_turns(&workers[1]);
        if (argc > 1 && i == 2 && strcmp(argv[1], "crash") == 0)
            RaiseException(EXCEPTION_NONCONTINUABLE_EXCEPTION, EXCEPTION_NONCONTINUABLE, 0, NULL);
        if (argc > 1 && i == 2 && strcmp(argv[1], "exit") == 0)
            ExitProcess(5);
    }
    phase(4);
    printf("%u %u\n", sum, written);
    return 7;
}
