// build: -O2 -D__USE_MINGW_ANSI_STDIO=0
/* A program that hooks its own functions: it saves a function's first bytes, puts a jump there, and puts the bytes
 * back. While the jump is there the function is another one, which is not entered by the way that is traced; before and
 * after it is. Where the function that does so can be seen to write to another's first bytes, that one is left alone.
 *
 * not traced: open_answer -- its first bytes are written by hook_open
 * output:
 *     1 2 1
 *     3 2 3
 * tree:
 *     main
 *         answer
 *         hook
 *         other_answer
 *         unhook
 *         answer
 *         hook_open  x2
 */
#include <stdio.h>
#include <string.h>
#include <windows.h>

#define APART __attribute__((noinline, noclone, noipa))

enum { JUMP = 14 };

static int (*volatile asked)(void);

static APART int answer(void)
{
    return 1;
}

static APART int other_answer(void)
{
    return 2;
}

static APART int open_answer(void)
{
    return 3;
}

static APART void hook(unsigned char *code, unsigned char *saved)
{
    unsigned char jump[JUMP] = {0xFF, 0x25, 0, 0, 0, 0}; /* jmp [rip + 0] */
    int (*to)(void) = other_answer;
    DWORD before;
    memcpy(jump + 6, &to, sizeof to);
    VirtualProtect(code, JUMP, PAGE_EXECUTE_READWRITE, &before);
    memcpy(saved, code, JUMP);
    memcpy(code, jump, JUMP);
    FlushInstructionCache(GetCurrentProcess(), code, JUMP);
}

static APART void unhook(unsigned char *code, const unsigned char *saved)
{
    memcpy(code, saved, JUMP);
}

/* mov eax, 2; ret: the pages are writable by now. */
static APART void hook_open(unsigned value)
{
    unsigned char *code = (unsigned char *)(ULONG_PTR)open_answer;
    code[0] = 0xB8;
    memcpy(code + 1, &value, sizeof value);
    code[5] = 0xC3;
}

int main(void)
{
    unsigned char saved[JUMP];
    unsigned char *code = (unsigned char *)(ULONG_PTR)answer;
    asked = answer;
    printf("%d", asked());
    hook(code, saved);
    printf(" %d", asked());
    unhook(code, saved);
    printf(" %d\n", asked());

    asked = open_answer;
    printf("%d", asked());
    hook_open(2);
    printf(" %d", asked());
    hook_open(3);
    printf(" %d\n", asked());
    return 0;
}
