// build: -O2 -fno-optimize-sibling-calls loop_shapes_asm.S
/* Loops that are hard to find, or are none: the first ARGUMENT chooses which, the second how many turns.
 *
 *     tail       owner tail_owner, frame function tail_frame, which jumps to the API
 *     pointer    owner pointer_owner, frame function pointer_frame, called through a pointer; a switch in it
 *     blind      owner blind_owner, frame function blind_frame: neither has unwind data
 *     threads    owner worker in two threads at once, frame function step
 *     nested     owner nested_owner; nested_frame calls two functions, with loops of 3 and of 5 calls of the API
 *     recursive  owner recursive_owner, frame function dive, which calls itself 4 deep, the API at each level
 *     reentrant  owner reentrant_owner, frame function reenter: the API calls back, and that calls the API
 *     late       owner late_owner, frame function step; the API is called once before, by another function
 *     never      the API is not called
 *     once       it is called once
 *     left       it is called in a loop of two turns, and then no more
 *
 * The last three then wait for the end of the input, or as many milliseconds as the second argument says. All end with
 * a sum over what they did and sums over their code. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "code_sum.h"

#define APART __attribute__((noinline))

static volatile unsigned sum;

APART void api(unsigned number)
{
    sum = sum * 31 + number;
}

static APART void work(unsigned number)
{
    sum ^= number;
}

void tail_frame(unsigned number);
void blind_frame(unsigned number);
void blind_owner(unsigned count);

static APART void tail_owner(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        tail_frame(i);
}

static APART void pointer_frame(unsigned number)
{
    switch (number % 7) {
    case 0:
        work(3);
        api(1);
        break;
    case 1:
        api(9);
        work(1);
        break;
    case 2:
        work(number);
        api(number);
        work(2);
        break;
    case 3:
        api(77);
        break;
    case 4:
        api(4);
        work(8);
        work(9);
        break;
    case 5:
        work(number * 3);
        api(12);
        break;
    default:
        api(6);
        work(5);
    }
    work(number);
}

static void (*volatile chosen)(unsigned) = pointer_frame;

static APART void pointer_owner(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        chosen(i);
}

static APART void step(unsigned number)
{
    api(number);
    work(number);
}

static DWORD WINAPI worker(void *count)
{
    for (unsigned i = 0; i < (unsigned)(size_t)count; i++)
        step(7);
    return 0;
}

static volatile unsigned two = 2; /* so that no loop is unrolled */

static APART void three(void)
{
    for (unsigned i = 0; i < two + 1; i++)
        api(i);
    work(3);
}

static APART void five(void)
{
    for (unsigned i = 0; i < two + 3; i++)
        api(i);
    work(5);
}

static APART void nested_frame(unsigned number)
{
    three();
    five();
    work(number);
}

static APART void nested_owner(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        nested_frame(i);
}

static APART void dive(unsigned depth)
{
    api(depth);
    if (depth < 4)
        dive(depth + 1);
    work(depth);
}

static APART void recursive_owner(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        dive(1);
}

static APART void calls_back(void (*back)(unsigned), unsigned number);

static APART void back(unsigned number)
{
    calls_back(NULL, number);
    work(number);
}

static APART void calls_back(void (*called)(unsigned), unsigned number)
{
    if (called)
        called(number);
    work(number);
}

static APART void reenter(unsigned number)
{
    calls_back(back, number);
    work(1);
}

static APART void reentrant_owner(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        reenter(i);
}

static APART void begin(void)
{
    api(0);
    work(1);
}

static APART void late_owner(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        step(i);
}

static APART void two_turns(void)
{
    for (unsigned i = 0; i < two; i++)
        step(i);
}

static void threads(unsigned count)
{
    HANDLE both[2];
    for (int i = 0; i < 2; i++)
        both[i] = CreateThread(NULL, 0, worker, (void *)(size_t)count, 0, NULL);
    WaitForMultipleObjects(2, both, TRUE, INFINITE);
    sum = 0; /* their order is any */
}

int main(int argc, char **argv)
{
    const char *shape = argc > 1 ? argv[1] : "";
    unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 20;
    if (!strcmp(shape, "tail"))
        tail_owner(count);
    else if (!strcmp(shape, "pointer"))
        pointer_owner(count);
    else if (!strcmp(shape, "blind"))
        blind_owner(count);
    else if (!strcmp(shape, "threads"))
        threads(count);
    else if (!strcmp(shape, "nested"))
        nested_owner(count);
    else if (!strcmp(shape, "recursive"))
        recursive_owner(count);
    else if (!strcmp(shape, "reentrant"))
        reentrant_owner(count);
    else if (!strcmp(shape, "late")) {
        begin();
        late_owner(count);
    } else {
        if (!strcmp(shape, "once"))
            step(1);
        else if (!strcmp(shape, "left"))
            two_turns();
        if (argc > 2)
            Sleep(count);
        else
            while (getchar() != EOF)
                ;
    }
    printf("%u\n", sum);
    print_code_sums();
    return fflush(stdout);
}
