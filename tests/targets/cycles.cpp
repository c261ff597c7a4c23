// build: -O2 -fno-optimize-sibling-calls
/* A busy program to be recorded, left alone and recorded again, many times over, while every thread checks its own
 * answers. cycles [DLL]...: an exported plugin_work of each DLL is called, too.
 *
 * It says its process id, then obeys a line of input each: "block" lets a thread enter a function and wait there for
 * "unblock"; "fiber" lets one leave a fiber suspended inside a function, to be returned to at "resume"; "wash" lets
 * every thread overwrite what earlier calls have left below its stack pointer and in freed memory; "quit" ends it. Each
 * is answered by a line, after it has happened. The last line says how many answers were wrong: none.
 */
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <windows.h>

enum { THREADS = 10 };

static volatile LONG begun, ends, wrong, washes, washed;
static volatile LONG64 rounds;

static void check(bool right)
{
    if (!right) {
        InterlockedIncrement(&wrong);
    }
}

struct Guard {
    unsigned *count;
    ~Guard()
    {
        ++*count;
    }
};

extern "C" {
__attribute__((noinline, noclone)) unsigned fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

/* Throws from `depth` frames down; each counts once on the way out. */
__attribute__((noinline, noclone)) void descend(unsigned depth, unsigned *count)
{
    Guard guard{count};
    if (depth == 0) {
        throw 7;
    }
    descend(depth - 1, count);
}

__attribute__((noinline, noclone)) unsigned catcher(unsigned depth)
{
    unsigned count = 0;
    try {
        descend(depth, &count);
    } catch (int value) {
        return count * 10 + static_cast<unsigned>(value);
    }
    return 0;
}

__attribute__((noinline, noclone)) int compare(const void *left, const void *right)
{
    int a = *static_cast<const int *>(left), b = *static_cast<const int *>(right);
    return (a > b) - (a < b);
}

__attribute__((noinline, noclone)) bool sorts(unsigned seed)
{
    int numbers[50];
    for (int &number : numbers) {
        seed = seed * 1103515245 + 12345;
        number = static_cast<int>(seed >> 16);
    }
    std::qsort(numbers, 50, sizeof *numbers, compare);
    for (int i = 1; i < 50; i++) {
        if (numbers[i - 1] > numbers[i]) {
            return false;
        }
    }
    return true;
}

__attribute__((noinline, noclone)) void wash()
{
    volatile char bytes[0x20000];
    for (volatile char &byte : bytes) {
        byte = 0;
    }
    void *blocks[200];
    for (size_t i = 0; i < 200; i++) {
        blocks[i] = std::calloc(1, 16 + 4 * i);
    }
    for (void *block : blocks) {
        std::free(block);
    }
    InterlockedIncrement(&washed);
}

/* A deep stack, which sleeps at its end now and then. */
__attribute__((noinline, noclone)) unsigned deep(unsigned n, bool sleeps)
{
    if (n == 0) {
        if (sleeps) {
            Sleep(5);
        }
        return 0;
    }
    return 1 + deep(n - 1, sleeps);
}

__attribute__((noinline, noclone)) DWORD short_life(void *argument)
{
    return fibonacci(static_cast<unsigned>(reinterpret_cast<size_t>(argument)));
}

__attribute__((noinline, noclone)) void wait_inside(HANDLE entered, HANDLE gate)
{
    SetEvent(entered);
    WaitForSingleObject(gate, INFINITE);
}

__attribute__((noinline, noclone)) void switch_inside(void *other)
{
    SwitchToFiber(other);
}
}

static unsigned (*plugins[8])(unsigned);
static unsigned plugin_count;

static void wash_if_told(LONG *seen)
{
    if (*seen != washes) {
        *seen = washes;
        wash();
    }
}

static DWORD WINAPI work(void *argument)
{
    LONG seen = 0;
    unsigned kind = static_cast<unsigned>(reinterpret_cast<size_t>(argument));
    InterlockedIncrement(&begun);
    for (unsigned n = 0; !ends; n++) {
        switch (kind % 4) {
        case 0:
            check(fibonacci(12) == 144);
            break;
        case 1:
            check(catcher(n % 9) == (n % 9 + 1) * 10 + 7);
            break;
        case 2:
            check(sorts(n));
            for (unsigned i = 0; i < plugin_count; i++) {
                check(plugins[i](10) == 100);
            }
            break;
        default:
            check(deep(300 + n % 50, n % 4 == 0) == 300 + n % 50);
        }
        wash_if_told(&seen);
        if (InterlockedIncrement64(&rounds) % 16 == 0) {
            Sleep(1);
        }
    }
    return 0;
}

/* Threads that begin and end all the while. */
static DWORD WINAPI breed(void *)
{
    LONG seen = 0;
    InterlockedIncrement(&begun);
    while (!ends) {
        DWORD answer = 0;
        wash_if_told(&seen);
        HANDLE thread = CreateThread(nullptr, 0x10000, short_life, reinterpret_cast<void *>(10), 0, nullptr);
        WaitForSingleObject(thread, INFINITE);
        GetExitCodeThread(thread, &answer);
        CloseHandle(thread);
        check(answer == 55);
        Sleep(2);
    }
    return 0;
}

static HANDLE entered, gate, done, resumes;
static void *main_fiber;
static volatile LONG switched_back;

static DWORD WINAPI blocked(void *)
{
    wait_inside(entered, gate);
    check(fibonacci(10) == 55);
    SetEvent(done);
    return 0;
}

static void WINAPI fiber(void *)
{
    switch_inside(main_fiber);
    switched_back = 1;
    SwitchToFiber(main_fiber);
}

static DWORD WINAPI fibers(void *)
{
    main_fiber = ConvertThreadToFiber(nullptr);
    void *other = CreateFiber(0, fiber, nullptr);
    SwitchToFiber(other);
    SetEvent(entered);
    WaitForSingleObject(resumes, INFINITE);
    SwitchToFiber(other);
    check(switched_back == 1);
    DeleteFiber(other);
    SetEvent(done);
    return 0;
}

static bool obey(const char *order)
{
    if (!std::strcmp(order, "block\n") || !std::strcmp(order, "fiber\n")) {
        CloseHandle(CreateThread(nullptr, 0, *order == 'b' ? blocked : fibers, nullptr, 0, nullptr));
        WaitForSingleObject(entered, INFINITE);
    } else if (!std::strcmp(order, "unblock\n") || !std::strcmp(order, "resume\n")) {
        SetEvent(*order == 'u' ? gate : resumes);
        WaitForSingleObject(done, INFINITE);
    } else if (!std::strcmp(order, "wash\n")) {
        washed = 0;
        InterlockedIncrement(&washes);
        while (washed < THREADS) {
            Sleep(1);
        }
        wash();
    } else {
        return false;
    }
    std::printf("%s", order);
    std::fflush(stdout);
    return true;
}

int main(int argc, char **argv)
{
    HANDLE threads[THREADS];
    for (int i = 1; i < argc; i++) {
        HMODULE plugin = LoadLibraryA(argv[i]);
        plugins[plugin_count++] =
            reinterpret_cast<unsigned (*)(unsigned)>(reinterpret_cast<void *>(GetProcAddress(plugin, "plugin_work")));
    }
    entered = CreateEventA(nullptr, FALSE, FALSE, nullptr);
    gate = CreateEventA(nullptr, FALSE, FALSE, nullptr);
    done = CreateEventA(nullptr, FALSE, FALSE, nullptr);
    resumes = CreateEventA(nullptr, FALSE, FALSE, nullptr);
    for (size_t i = 0; i < THREADS; i++) {
        threads[i] = CreateThread(nullptr, 0, i < THREADS - 1 ? work : breed, reinterpret_cast<void *>(i), 0, nullptr);
    }
    while (begun < THREADS) { // what is begun later would stay in a copy to its end
        Sleep(1);
    }
    std::printf("process %lu\n", GetCurrentProcessId());
    std::fflush(stdout);
    char order[64];
    while (std::fgets(order, sizeof order, stdin) && obey(order)) {
    }
    ends = 1;
    WaitForMultipleObjects(THREADS, threads, TRUE, INFINITE);
    std::printf("rounds %s, wrong %ld, debugged %d\n", rounds > 0 ? "some" : "none", wrong, IsDebuggerPresent());
    return 6;
}
