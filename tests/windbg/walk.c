/* Calls that a debugger's user looks at from inside: what they are about is chosen by the argument. Each place where he
 * stops calls MulDiv, which is not traced. Compiled for a program database by the test that uses it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

static volatile int sum;

static void stop(void)
{
    sum += MulDiv(sum, 2, 3);
}

/* A leaf: no stack, no unwind data. */
static int leaf(int a, int b)
{
    int c = a * 3 + b;
    if (c & 1)
        c ^= b << 2;
    return c - a;
}

static int inner(int depth, const char *word)
{
    char text[64];
    snprintf(text, sizeof text, "%s %d", word, depth);
    stop();
    return (int)strlen(text) + leaf(depth, (int)strlen(word));
}

static int (*volatile by_pointer)(int depth, const char *word) = inner;

static int middle(int depth)
{
    int local = leaf(depth, 7);
    int result = by_pointer(depth + local, "word");
    return result + local;
}

static int outer(int depth)
{
    return middle(depth + 1) * 2 + leaf(depth, depth);
}

static int deep(int level)
{
    volatile int here[4] = {level};
    if (level == 0)
        stop();
    else
        here[1] = deep(level - 1);
    return here[0] + here[1];
}

static int compare(const void *a, const void *b)
{
    static int calls;
    int one = *(const int *)a, other = *(const int *)b;
    if (calls++ == 3)
        stop();
    return (one > other) - (one < other);
}

static int sorted(void)
{
    int numbers[] = {5, 3, 9, 1, 7, 2};
    qsort(numbers, sizeof numbers / sizeof *numbers, sizeof *numbers, compare);
    return numbers[0] + numbers[5];
}

static HANDLE begun, never;

static int waits(int level)
{
    volatile int here = level;
    if (level > 0)
        return waits(level - 1) + here;
    SignalObjectAndWait(begun, never, INFINITE, FALSE);
    return here;
}

static DWORD WINAPI thread(void *levels)
{
    return (DWORD)waits((int)(INT_PTR)levels);
}

static int threads(void)
{
    begun = CreateEventA(NULL, FALSE, FALSE, NULL);
    never = CreateEventA(NULL, TRUE, FALSE, NULL);
    for (INT_PTR i = 1; i <= 3; i++) {
        CreateThread(NULL, 0, thread, (void *)(i * 2), 0, NULL);
        WaitForSingleObject(begun, INFINITE);
    }
    return outer(3);
}

static int wanted(EXCEPTION_POINTERS *pointers)
{
    stop();
    return pointers->ExceptionRecord->ExceptionCode == STATUS_ACCESS_VIOLATION;
}

static int load(volatile int *address)
{
    return *address + leaf(1, 2);
}

static int cleaned(volatile int *address)
{
    int result = 0;
    __try {
        result = load(address);
    } __finally {
        stop();
    }
    return result;
}

static int excepted(void)
{
    int result = 1;
    __try {
        result = cleaned(NULL);
    } __except (wanted(GetExceptionInformation())) {
        stop();
        result = 2;
    }
    return result;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    int result = 0;
    if (strcmp(what, "calls") == 0)
        result = outer(1);
    else if (strcmp(what, "deep") == 0)
        result = deep(60);
    else if (strcmp(what, "callback") == 0)
        result = sorted();
    else if (strcmp(what, "threads") == 0)
        result = threads();
    else if (strcmp(what, "exception") == 0)
        result = excepted();
    printf("%s %d\n", what, result);
    fflush(stdout);
    ExitProcess(7);
}
