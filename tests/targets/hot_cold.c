// build: -O2 -freorder-blocks-and-partition -D__USE_MINGW_ANSI_STDIO=0
/* gcc moves what is seldom run out of a function, behind all others: `checked` and `parsed` go there and come back,
 * `ended` does not come back. It is still one function, entered once and left once.
 *
 * exit: 5
 * output:
 *     3 -3 6
 *     12 0 -7
 * tree:
 *     main  open at process end
 *         checked
 *         checked
 *             complain
 *         checked
 *         parsed
 *         parsed
 *             complain
 *             complain
 *         parsed
 *             complain
 *         ended  open at process end
 *             complain
 *             give_up  open at process end
 */
#include <stdio.h>
#include <stdlib.h>

#define APART __attribute__((noinline, noclone, noipa))
#define SELDOM(condition) __builtin_expect(!!(condition), 0)

static volatile int complaints;

static APART __attribute__((cold)) void complain(int what)
{
    complaints += what;
}

static APART __attribute__((cold, noreturn)) void give_up(int code)
{
    fflush(stdout);
    exit(code);
}

static APART int checked(int value)
{
    if (SELDOM(value < 0)) {
        complain(1);
        value = -value;
        value -= complaints + 3;
    }
    return value * 3 + complaints * 0;
}

static APART int parsed(const char *text)
{
    int value = 0;
    for (; *text; text++) {
        if (SELDOM(*text < '0')) {
            complain(2);
            continue;
        }
        if (SELDOM(*text > '9')) {
            complain(3);
            return -7;
        }
        value = value * 10 + (*text - '0');
    }
    return value;
}

static APART int ended(int value)
{
    if (SELDOM(value == complaints)) {
        complain(4);
        give_up(5);
    }
    return value;
}

int main(void)
{
    printf("%d", checked(1));
    printf(" %d", checked(-3));
    printf(" %d\n", checked(2));
    printf("%d", parsed("12"));
    printf(" %d", parsed("--"));
    printf(" %d\n", parsed("1x2"));
    int left = ended(complaints);
    printf("not reached\n");
    return left;
}
