/* No input may take more than 2 s of the processor's time. What the clock on the wall says of it means nothing on a
 * machine that has other things to do, too. To be included before all else. */
#ifndef CALLTRACE_FUZZ_LIMIT_H
#define CALLTRACE_FUZZ_LIMIT_H

#define _XOPEN_SOURCE 700

#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef LONGEST_MS
#define LONGEST_MS 2000
#endif

/* libFuzzer shows where this was, and keeps the input. */
static void take_too_long(int signal)
{
    (void)signal;
    static const char told[] = "one input has used up the time that it may take of the processor\n";
    if (write(STDERR_FILENO, told, sizeof told - 1) > 0)
        abort();
    _exit(EXIT_FAILURE);
}

static void set_timer(long milliseconds)
{
    struct itimerval limit = {.it_value = {milliseconds / 1000, milliseconds % 1000 * 1000}};
    setitimer(ITIMER_PROF, &limit, NULL);
}

/* Around what an input is given to. */
static void begin_limit(void)
{
    signal(SIGPROF, take_too_long);
    set_timer(LONGEST_MS);
}

static void end_limit(void)
{
    set_timer(0);
}

#endif
