// build: -O2 -fno-optimize-sibling-calls
/* An API called by several ways in a loop: the first ARGUMENT chooses the loop, the second how many turns it makes.
 *
 *     ways    owner ways_owner, which calls ways_frame; that calls first_way, and second_way in even turns: both call
 *             common, which calls the API once and, by another instruction, once more in every third turn
 *     sort    owner sort_owner, which calls sort_frame; that calls qsort, in another module, which calls compare for
 *             each two it looks at, and compare the API
 *
 * Two loops at once for `ways`: on a second thread the same with half as many turns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#define APART __attribute__((noinline))

static volatile unsigned sum;

APART void api(unsigned number)
{
    sum ^= number;
}

static APART void work(void)
{
    sum ^= 5;
}

static APART void common(unsigned turn)
{
    api(turn);
    work();
    if (turn % 3 == 0)
        api(turn + 1);
}

static APART void first_way(unsigned turn)
{
    common(turn);
    work();
}

static APART void second_way(unsigned turn)
{
    common(turn);
    work();
    work();
}

static APART void ways_frame(unsigned turn)
{
    first_way(turn);
    if (turn % 2 == 0)
        second_way(turn);
    work();
}

static APART DWORD WINAPI ways_owner(void *count)
{
    for (unsigned turn = 0; turn < (unsigned)(size_t)count; turn++)
        ways_frame(turn);
    return 0;
}

static int compare(const void *left, const void *right)
{
    api(1);
    return *(const int *)left - *(const int *)right;
}

static APART void sort_frame(unsigned turn)
{
    int numbers[] = {3, 1, (int)turn, 2};
    qsort(numbers, 4, sizeof *numbers, compare);
    work();
}

static APART void sort_owner(unsigned count)
{
    for (unsigned turn = 0; turn < count; turn++)
        sort_frame(turn);
}

int main(int argc, char **argv)
{
    unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 20;
    if (argc > 1 && !strcmp(argv[1], "sort"))
        sort_owner(count);
    else {
        HANDLE thread = CreateThread(NULL, 0, ways_owner, (void *)(size_t)(count / 2), 0, NULL);
        WaitForSingleObject(thread, INFINITE);
        printf("%lu\n", GetCurrentThreadId());
        ways_owner((void *)(size_t)count);
    }
    return 0;
}
