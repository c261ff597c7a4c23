// build: -O2 -D__USE_MINGW_ANSI_STDIO=0
/* A program that hooks one of its own functions: it saves its first bytes, puts a jump there, and puts the bytes back.
 * While the jump is there the function is another one, which is not entered by the way that is traced; before and
 * after it is.
 *
 * output:
 *     1 2 1
 * tree:
 *     main
 *         answer
 *         hook
 *         other_answer
 *         unhook
 *         answer
 */
#include <stdio.h>
#include <string.h>
#include <windows.h>

#define APART __attribute__((noinline, noclone, noipa))

static unsigned char saved[16];

static APART int answer(void)
{
    return 1;
}

static APART int other_answer(void)
{
    return 2;
}

static APART void hook(void)
{
    unsigned char *code = (unsigned char *)(ULONG_PTR)answer;
    unsigned char jump[14] = {0xFF, 0x25, 0, 0, 0, 0}; /* jmp [rip + 0] */
    int (*to)(void) = other_answer;
    DWORD before;
    memcpy(jump + 6, &to, sizeof to);
    VirtualProtect(code, sizeof jump, PAGE_EXECUTE_READWRITE, &before);
    memcpy(saved, code, sizeof jump);
    memcpy(code, jump, sizeof jump);
    FlushInstructionCache(GetCurrentProcess(), code, sizeof jump);
}

static APART void unhook(void)
{
    memcpy((void *)(ULONG_PTR)answer, saved, 14);
}

int main(void)
{
    printf("%d", answer());
    hook();
    printf(" %d", answer());
    unhook();
    printf(" %d\n", answer());
    return 0;
}
