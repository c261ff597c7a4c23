// build: -O2 -fno-optimize-sibling-calls
/* An exception that reaches a noexcept function: std::terminate, whose handler ends the process.
 *
 * exit: 35
 * output:
 *     terminated
 * tree:
 *     main  open at process end
 *         promise  open at process end
 *             middle  open at process end
 *                 raise  open at process end
 *                     last_word  open at process end
 */
#include <cstdio>
#include <exception>

#include <windows.h>

#define OWN __attribute__((noinline))

static volatile int passed;

OWN static void last_word()
{
    std::puts("terminated");
    std::fflush(stdout);
    ExitProcess(35);
}

OWN static void raise(int value)
{
    if (value)
        throw value;
    passed = 1;
}

OWN static void middle(int value)
{
    raise(value + 1);
    passed = 2;
}

OWN static void promise() noexcept
{
    middle(passed);
    passed = 3;
}

int main()
{
    std::set_terminate(last_word);
    try {
        promise();
    } catch (...) {
        std::puts("not reached");
    }
    return 1;
}
