// build: -O2 -D__USE_MINGW_ANSI_STDIO=0
/* Code made at run time, in pages of its own, that is changed between its calls and calls back. It is not traced, and
 * works; what it calls back is.
 *
 * output:
 *     7 8 9
 *     called back with 21 22 23
 * tree:
 *     main
 *         x3
 *             run
 *                 [*]
 *         x3
 *             run
 *                 [*]
 *                     called_back
 */
#include <stdio.h>
#include <string.h>
#include <windows.h>

#define APART __attribute__((noinline, noclone, noipa))

/* mov eax, 7; ret */
static const unsigned char constant[] = {0xB8, 7, 0, 0, 0, 0xC3};
/* sub rsp, 40; mov ecx, 21; mov rax, called_back; call rax; add rsp, 40; ret */
static const unsigned char calling[] = {0x48, 0x83, 0xEC, 40, 0xB9, 21, 0,    0,    0,    0x48, 0xB8, 0,  0,
                                        0,    0,    0,    0,  0,    0,  0xFF, 0xD0, 0x48, 0x83, 0xC4, 40, 0xC3};

static volatile int last;

static APART int called_back(int value)
{
    return value;
}

static APART int run(unsigned char *code)
{
    last = ((int (*)(void))(ULONG_PTR)code)(); /* so that it is no tail call */
    return last;
}

int main(void)
{
    unsigned char *code = VirtualAlloc(NULL, 4096, MEM_RESERVE | MEM_COMMIT, PAGE_EXECUTE_READWRITE);
    memcpy(code, constant, sizeof constant);
    for (unsigned char i = 0; i < 3; i++) {
        code[1] = (unsigned char)(7 + i);
        printf(i ? " %d" : "%d", run(code));
    }
    printf("\ncalled back with");
    memcpy(code, calling, sizeof calling);
    int (*callee)(int) = called_back;
    memcpy(code + 11, &callee, sizeof callee);
    for (unsigned char i = 0; i < 3; i++) {
        code[5] = (unsigned char)(21 + i);
        printf(" %d", run(code));
    }
    printf("\n");
    return 0;
}
