// build: -O2 -fno-inline -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0 -luser32
/* Functions called from outside: by the C library, by the system, on this thread and on others.
 *
 * exit: 21
 * output:
 *     library 1 3, found 3
 *     enumerated 1
 *     window 3 8 11
 *     pool
 *     apcs 0xc0
 *     ticks 21
 * tree:
 *     main
 *         library
 *             [qsort]
 *                 compare_sorted
 *                     [qsort]
 *                         compare
 *                             step
 *             [bsearch]
 *                 compare  x2
 *                     step
 *         enumerations
 *             [EnumSystemLocalesA]
 *                 each_locale
 *                     step
 *             [EnumResourceTypesW]
 *                 each_type
 *                     step
 *             once
 *                 step
 *             [FlsFree]
 *                 forget
 *                     step
 *         windows
 *             tell
 *                 [SendMessageA]
 *                     window
 *                         step
 *             tell
 *                 [SendMessageA]
 *                     window
 *                         tell
 *                             [SendMessageA]
 *                                 window
 *                                     step
 *             [DispatchMessageA]
 *                 window
 *                     step
 *         pool
 *         apcs
 *             [SleepEx]
 *                 apc
 *                     step
 *                     [SleepEx]
 *                         inner_apc
 *                             step
 *         step
 *     first_at_exit
 *         step
 *     second_at_exit
 *         step
 * thread:
 *     submitted
 *         step
 *     worked  x3
 *         step
 *     timed
 *         step
 * thread:
 *     queued
 *         step
 */
#define _WIN32_WINNT 0x0602
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

static volatile long ticks;

static int step(int value)
{
    ticks++;
    return value;
}

/* ---- the C library ---- */

static int compare(const void *left, const void *right)
{
    int a = *(const int *)left, b = *(const int *)right;
    return step(a > b) - (a < b);
}

/* Sorts by inner sorts: a callback in a callback. */
static int compare_sorted(const void *left, const void *right)
{
    int pair[2] = {*(const int *)left, *(const int *)right};
    qsort(pair, 2, sizeof *pair, compare);
    return pair[0] == *(const int *)left ? -(pair[0] != pair[1]) : 1;
}

static void library(void)
{
    int numbers[] = {3, 1}, key = 3;
    qsort(numbers, 2, sizeof *numbers, compare_sorted);
    int *found = bsearch(&key, numbers, 2, sizeof *numbers, compare);
    printf("library %d %d, found %d\n", numbers[0], numbers[1], *found);
}

static void second_at_exit(void)
{
    step(0);
    printf("ticks %ld\n", ticks);
}

static void first_at_exit(void)
{
    step(0);
}

/* ---- enumerations, and what runs once ---- */

static BOOL CALLBACK each_locale(char *locale)
{
    step(locale[0]);
    return FALSE; /* one is enough */
}

static BOOL CALLBACK each_type(HMODULE module, wchar_t *type, LONG_PTR parameter)
{
    (void)module;
    (void)type;
    ++*(int *)parameter;
    return step(0); /* one is enough */
}

static BOOL CALLBACK once(INIT_ONCE *control, void *parameter, void **context)
{
    (void)control;
    (void)context;
    step(*(int *)parameter);
    return TRUE;
}

static void WINAPI forget(void *value)
{
    step(*(int *)value);
}

static void enumerations(void)
{
    static INIT_ONCE control = INIT_ONCE_STATIC_INIT;
    int types = 0, value = 5;
    EnumSystemLocalesA(each_locale, LCID_SUPPORTED);
    EnumResourceTypesW(GetModuleHandleW(L"user32"), each_type, (LONG_PTR)&types);
    InitOnceExecuteOnce(&control, once, &value, NULL);
    InitOnceExecuteOnce(&control, once, &value, NULL);
    DWORD slot = FlsAlloc(forget);
    FlsSetValue(slot, &value);
    FlsFree(slot);
    printf("enumerated %d\n", types);
}

/* ---- windows ---- */

enum { SUM = WM_USER, NEST };

static long tell(HWND handle, UINT message, int wide, int small)
{
    return (long)SendMessageA(handle, message, (WPARAM)wide, small);
}

static LRESULT CALLBACK window(HWND handle, UINT message, WPARAM wide, LPARAM small)
{
    if (message == SUM)
        return step((int)(wide + small));
    return tell(handle, SUM, (int)wide, (int)small) + 1;
}

/* `window` gets none of the messages that come when a window is made or destroyed: which these are differs. */
static void windows(void)
{
    WNDCLASSA class = {.lpfnWndProc = DefWindowProcA, .lpszClassName = "calltrace callbacks"};
    RegisterClassA(&class);
    HWND handle = CreateWindowExA(0, class.lpszClassName, "", 0, 0, 0, 0, 0, HWND_MESSAGE, NULL, NULL, NULL);
    LONG_PTR before = SetWindowLongPtrA(handle, GWLP_WNDPROC, (LONG_PTR)window);
    long sent = tell(handle, SUM, 1, 2);
    long nested = tell(handle, NEST, 3, 4);
    PostMessageA(handle, SUM, 5, 6);
    MSG message;
    GetMessageA(&message, handle, SUM, SUM);
    long posted = (long)DispatchMessageA(&message);
    SetWindowLongPtrA(handle, GWLP_WNDPROC, before);
    DestroyWindow(handle);
    printf("window %ld %ld %ld\n", sent, nested, posted);
}

/* ---- other threads, one callback at a time ---- */

static HANDLE done;

static void CALLBACK submitted(TP_CALLBACK_INSTANCE *instance, void *context)
{
    (void)instance;
    step(*(int *)context);
    SetEvent(done);
}

static void CALLBACK worked(TP_CALLBACK_INSTANCE *instance, void *context, TP_WORK *work)
{
    (void)instance;
    (void)work;
    step(*(int *)context);
}

static void CALLBACK timed(TP_CALLBACK_INSTANCE *instance, void *context, TP_TIMER *timer)
{
    (void)instance;
    (void)timer;
    step(*(int *)context);
    SetEvent(done);
}

static void CALLBACK queued(void *context, BOOLEAN fired)
{
    step(*(int *)context + fired);
    SetEvent(done);
}

/* All in the pool's one thread, but for the last, which runs in its queue's thread. */
static void pool(void)
{
    int value = 1;
    TP_POOL *one = CreateThreadpool(NULL);
    SetThreadpoolThreadMaximum(one, 1);
    SetThreadpoolThreadMinimum(one, 1);
    TP_CALLBACK_ENVIRON where = {.Version = 1, .Pool = one};

    done = CreateEventA(NULL, FALSE, FALSE, NULL);
    TrySubmitThreadpoolCallback(submitted, &value, &where);
    WaitForSingleObject(done, INFINITE);

    TP_WORK *work = CreateThreadpoolWork(worked, &value, &where);
    for (int i = 0; i < 3; i++)
        SubmitThreadpoolWork(work);
    WaitForThreadpoolWorkCallbacks(work, FALSE);
    CloseThreadpoolWork(work);

    TP_TIMER *timer = CreateThreadpoolTimer(timed, &value, &where);
    FILETIME now = {0, 0};
    SetThreadpoolTimer(timer, &now, 0, 0);
    WaitForSingleObject(done, INFINITE);
    WaitForThreadpoolTimerCallbacks(timer, TRUE);
    CloseThreadpoolTimer(timer);
    CloseThreadpool(one);

    HANDLE queue;
    CreateTimerQueueTimer(&queue, NULL, queued, &value, 0, 0, WT_EXECUTEONLYONCE | WT_EXECUTEINTIMERTHREAD);
    WaitForSingleObject(done, INFINITE);
    DeleteTimerQueueTimer(NULL, queue, INVALID_HANDLE_VALUE);
    printf("pool\n");
}

/* ---- asynchronous procedure calls ---- */

static void CALLBACK inner_apc(ULONG_PTR value)
{
    step((int)value);
}

static void CALLBACK apc(ULONG_PTR value)
{
    step((int)value);
    QueueUserAPC(inner_apc, GetCurrentThread(), value);
    SleepEx(0, TRUE);
}

static void apcs(void)
{
    QueueUserAPC(apc, GetCurrentThread(), 1);
    DWORD woken = SleepEx(1000, TRUE);
    printf("apcs %#lx\n", woken);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    atexit(second_at_exit);
    atexit(first_at_exit);
    library();
    enumerations();
    windows();
    pool();
    apcs();
    return step(21);
}
