// build: -O2 -fno-optimize-sibling-calls
/* C++ exceptions through traced frames, on several threads at once.
 *
 * throws THREADS TURNS: each thread runs `turn` for n = 0 .. TURNS-1. What a turn must look like in a trace is said
 * by turn's source alone:
 *
 *   n % 4 == 0   turn > middle > thrower                        nothing thrown
 *   n % 4 == 1   turn > middle > thrower, throws int            caught in turn, which calls recover
 *   n % 4 == 2   the same, rethrown by middle, which first calls note
 *   n % 4 == 3   turn > descend, 8 deep, the deepest throws     caught in turn
 *
 * middle and descend hold a Guard, whose destructor runs during unwinding. The sum printed at the end counts every
 * function's runs, so a lost or doubled one shows.
 */
#include <cstdio>
#include <cstdlib>

#include <windows.h>

struct Tally {
    unsigned long long sum = 0;
};

struct Guard {
    Tally *tally;
    ~Guard();
};

extern "C" {
__attribute__((noinline, noclone)) void release(Tally *tally)
{
    tally->sum += 1;
}
__attribute__((noinline, noclone)) void recover(Tally *tally, int value)
{
    tally->sum += 100 + value;
}
__attribute__((noinline, noclone)) void note(Tally *tally)
{
    tally->sum += 10000;
}

__attribute__((noinline, noclone)) void thrower(Tally *tally, unsigned n)
{
    tally->sum += 7;
    if (n % 4 != 0) {
        throw int(n % 5);
    }
}

__attribute__((noinline, noclone)) void middle(Tally *tally, unsigned n)
{
    Guard guard{tally};
    if (n % 4 == 2) {
        try {
            thrower(tally, n);
        } catch (...) {
            note(tally);
            throw;
        }
    } else {
        thrower(tally, n);
    }
    tally->sum += 3;
}

__attribute__((noinline, noclone)) void descend(Tally *tally, unsigned depth)
{
    Guard guard{tally};
    if (depth == 0) {
        throw int(1);
    }
    descend(tally, depth - 1);
    tally->sum += 1000000;
}

__attribute__((noinline, noclone)) void turn(Tally *tally, unsigned n)
{
    try {
        if (n % 4 == 3) {
            descend(tally, 7);
        } else {
            middle(tally, n);
        }
    } catch (int value) {
        recover(tally, value);
    }
}

__attribute__((noinline, noclone)) void turns(Tally *tally, unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        turn(tally, n);
    }
}
}

Guard::~Guard()
{
    release(tally);
}

enum { MOST_THREADS = 16 };

struct Job {
    Tally tally;
    unsigned count;
};

static DWORD WINAPI work(void *job)
{
    turns(&static_cast<Job *>(job)->tally, static_cast<Job *>(job)->count);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned threads = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 2;
    static Job jobs[MOST_THREADS];
    HANDLE running[MOST_THREADS];
    if (threads > MOST_THREADS) {
        return 1;
    }
    for (unsigned i = 0; i < threads; i++) {
        jobs[i].count = argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 100;
        running[i] = CreateThread(nullptr, 0, work, &jobs[i], 0, nullptr);
    }
    for (unsigned i = 0; i < threads; i++) {
        WaitForSingleObject(running[i], INFINITE);
        std::printf("%llu\n", jobs[i].tally.sum);
    }
    return 0;
}
