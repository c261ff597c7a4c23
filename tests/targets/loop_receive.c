// build: -O2 -fno-optimize-sibling-calls
/* A loop without graphics, whose owner and whose calls are known: as a server that receives and answers.
 *
 *     serve -- the owner: its loop runs once per message, ARGUMENT times
 *         idle                 once per turn
 *         handle_message       once per turn: the frame function
 *             receive          once per turn
 *                 api_receive  once per turn: the API
 *             answer           twice per turn
 *
 * What it prints depends on everything it received, in order; sums over its code as it then stands follow. */
#include <stdio.h>
#include <stdlib.h>

#include "code_sum.h"

#define APART __attribute__((noinline))

static volatile unsigned state = 1, answers;

__declspec(dllexport) APART int api_receive(unsigned char *buffer, int size, float scale)
{
    for (int i = 0; i < size; i++) {
        state = state * 1664525 + 1013904223;
        buffer[i] = (unsigned char)((float)(state >> 24) * scale);
    }
    return size;
}

__declspec(dllexport) APART int receive(unsigned char *buffer, int size)
{
    int got = api_receive(buffer, size, 0.5f);
    return got - 1;
}

__declspec(dllexport) APART void answer(unsigned char byte)
{
    answers = answers * 31 + byte;
}

__declspec(dllexport) APART void idle(void)
{
    state ^= 5;
}

__declspec(dllexport) APART void handle_message(int turn)
{
    unsigned char buffer[16];
    int got = receive(buffer, 1 + turn % 16);
    answer(buffer[0]);
    answer((unsigned char)got);
}

__declspec(dllexport) APART int serve(int count)
{
    int turn;
    for (turn = 0; turn < count; turn++) {
        idle();
        handle_message(turn);
    }
    return turn;
}

int main(int argc, char **argv)
{
    printf("%d", serve(argc > 1 ? atoi(argv[1]) : 100));
    printf(" %u %u\n", state, answers);
    print_code_sums();
    return fflush(stdout);
}
