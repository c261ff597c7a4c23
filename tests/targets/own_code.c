// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 own_code_asm.S
/* Functions that look at themselves: at their own first bytes, at the code around them, at their return address. In
 * a copy they would see other bytes and other addresses. Those that can be seen to do so are left alone, and the plan
 * says why; the others see their copy, which is a limit of tracing by copies, and run.
 *
 * not traced: calls_next, calls_over_data, read_self, read_other
 *     -- they take their own address from the stack, or their first bytes are read
 * tree:
 *     main
 *         read_through
 *         returns_to
 *         read_table  x4
 */
#include <stdio.h>
#include <windows.h>

#define APART __attribute__((noinline, noclone, noipa))

unsigned calls_next(void);
unsigned calls_over_data(void);
unsigned read_table(unsigned index);

static volatile unsigned seen;

static APART unsigned read_self(void)
{
    const volatile unsigned char *code = (const volatile unsigned char *)(ULONG_PTR)read_self;
    unsigned sum = 0;
    for (unsigned i = 0; i < 32; i++)
        sum += code[i];
    return sum;
}

static APART int read_other(void)
{
    return 40;
}

/* Its pointer comes from far away: nothing tells that these are bytes of a function, so it sees the jump there. */
static APART unsigned read_through(const volatile unsigned char *code)
{
    unsigned i;
    for (i = 0; i < 32; i++)
        seen += code[i];
    return i;
}

/* Is the return address one of executable memory? */
static APART int returns_to(void)
{
    MEMORY_BASIC_INFORMATION information;
    const void *address = __builtin_return_address(0);
    return VirtualQuery(address, &information, sizeof information) && (information.Protect & 0xF0);
}

int main(void)
{
    const unsigned char *other = (const unsigned char *)(ULONG_PTR)read_other;
    printf("own %u, other %d,", read_self(), other[0] == 0xB8);
    printf(" read %u,", read_through((const unsigned char *)(ULONG_PTR)returns_to));
    printf(" returns to %s,", returns_to() ? "code" : "nowhere");
    printf(" next %u,", calls_next());
    printf(" data %u,", calls_over_data());
    printf(" table");
    for (unsigned i = 0; i < 4; i++)
        printf(" %u", read_table(i));
    printf("\n");
    return 0;
}
