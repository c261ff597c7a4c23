// build: -O2 -fno-inline -D__USE_MINGW_ANSI_STDIO=0
/* A small program to look at with calltrace: `make demo`.
 *
 * It evaluates each argument as an arithmetic expression (a recursive-descent parser, each rule a function),
 * sorts the results with qsort and a callback of its own, and has a second thread count the ways to climb as many
 * stairs as there are results.
 */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

enum { MOST_RESULTS = 16 };

static double parse_sum(const char **text);

static void skip_spaces(const char **text)
{
    while (**text == ' ')
        ++*text;
}

static int take(const char **text, char wanted)
{
    skip_spaces(text);
    if (**text != wanted)
        return 0;
    ++*text;
    return 1;
}

static double parse_number(const char **text)
{
    if (**text < '0' || **text > '9') {
        printf("not a number: \"%s\"\n", *text);
        exit(1);
    }
    double value = 0;
    while (**text >= '0' && **text <= '9')
        value = value * 10 + (*(*text)++ - '0');
    return value;
}

static double parse_factor(const char **text)
{
    if (take(text, '-'))
        return -parse_factor(text);
    if (!take(text, '('))
        return parse_number(text);
    double value = parse_sum(text);
    if (!take(text, ')')) {
        printf("a ) is missing before \"%s\"\n", *text);
        exit(1);
    }
    return value;
}

static double parse_product(const char **text)
{
    double value = parse_factor(text);
    for (;;) {
        if (take(text, '*'))
            value *= parse_factor(text);
        else if (take(text, '/'))
            value /= parse_factor(text);
        else
            return value;
    }
}

static double parse_sum(const char **text)
{
    double value = parse_product(text);
    for (;;) {
        if (take(text, '+'))
            value += parse_product(text);
        else if (take(text, '-'))
            value -= parse_product(text);
        else
            return value;
    }
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static unsigned ways_to_climb(unsigned stairs)
{
    return stairs < 2 ? 1 : ways_to_climb(stairs - 1) + ways_to_climb(stairs - 2);
}

static DWORD WINAPI climb(void *stairs)
{
    return ways_to_climb(*(const unsigned *)stairs);
}

int main(int argc, char **argv)
{
    double results[MOST_RESULTS];
    unsigned count = 0;
    for (int i = 1; i < argc && count < MOST_RESULTS; ++i) {
        const char *text = argv[i];
        results[count++] = parse_sum(&text);
    }

    HANDLE climber = CreateThread(NULL, 0, climb, &count, 0, NULL);
    if (!climber)
        return 1;
    qsort(results, count, sizeof results[0], compare);
    for (unsigned i = 0; i < count; ++i)
        printf("%g\n", results[i]);

    DWORD ways = 0;
    WaitForSingleObject(climber, INFINITE);
    GetExitCodeThread(climber, &ways);
    CloseHandle(climber);
    printf("%lu ways to climb %u stairs\n", ways, count);
    return 0;
}
