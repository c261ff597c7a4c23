// build: -O2 -D__USE_MINGW_ANSI_STDIO=0 own_code_asm.S
/* Functions that look at themselves: at their own first bytes, at the code around them, at their return address. In
 * a copy they see other bytes and another address, which is a limit of tracing by copies; but they run, and what
 * only asks where it is is left alone, as the plan says.
 *
 * not traced: calls_next, calls_over_data -- they take their own address from the stack
 * output:
 *     read 64 bytes, returns to code, next 1, data 2864434397, table 3 1 4 1
 * tree:
 *     main
 *         read_self
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

/* What it adds up differs in a traced run: its first bytes are a jump to its copy. */
static APART unsigned read_self(void)
{
    const volatile unsigned char *code = (const volatile unsigned char *)(ULONG_PTR)read_self;
    unsigned i;
    for (i = 0; i < 64; i++)
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
    printf("read %u bytes,", read_self());
    printf(" returns to %s,", returns_to() ? "code" : "nowhere");
    printf(" next %u,", calls_next());
    printf(" data %u,", calls_over_data());
    printf(" table");
    for (unsigned i = 0; i < 4; i++)
        printf(" %u", read_table(i));
    printf("\n");
    return 0;
}
