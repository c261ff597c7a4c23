// build: -O2
/* Functions that leave no room for a jump at their start, packed against their neighbours:
 *
 *     packed ROUNDS first|last    four threads call each of them in so many rounds
 *     packed wait first|last      they do so until the standard input ends; "pid N" is printed at the start
 *
 * Every result is checked, and with functions that do nothing that no register, flag or vector register changes. In
 * each round a thread also runs into two int3s of the program's own, which a vectored handler steps over. It is added
 * in front of the handlers there are or behind them, and also counts the breakpoints of others that it sees.
 *
 * Expected: every result right, and all int3s of the program's own seen. Prints at its end
 *
 *     wrong 0, own int3s all, others none
 *
 * and ends with 9. Per thread and round each of these is entered once, those marked so twice, and `nothing` at the
 * start 40 times more per thread. */
#include <process.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

enum { THREADS = 4, LEVELS = 40, STACK = 0x40000, OWN = 0x0DDBA115 };

typedef unsigned long long value;
value nothing(void), nothing_more(void), zero(void), jump(value, value), identity(value), target_of_jump(value, value),
    loop_to_0(value, value), loop_to_1(value, value), loop_to_2(value, value), loop_to_3(value, value),
    loop_to_4(value, value), call_at_0(value, value (*)(void)), callee(void), tail_call(value, value (*)(void)),
    stops(value), last(void);

#define FUNCTION(name) ".globl " #name "\n.def " #name "; .scl 2; .type 32; .endef\n" #name ":\n"
__asm__(
    ".text\n.fill 200, 1, 0xC3\n"                          /* keeps padding out of a short jump's reach */
    ".intel_syntax noprefix\n"                             /**/
    FUNCTION(nothing) "ret\n"                              /* twice */
    FUNCTION(nothing_more) "rep ret\n"                     /* twice */
    FUNCTION(zero) "xor eax, eax\nret\n"                   /**/
    FUNCTION(jump) ".byte 0xEB, target_of_jump - . - 1\n"  /**/
    FUNCTION(identity) "mov eax, ecx\nret\n"               /**/
    FUNCTION(target_of_jump) "lea eax, [rcx + rdx]\nret\n" /* twice */
    FUNCTION(loop_to_0) "add edx, 3\ndec ecx\njne loop_to_0\nmov eax, edx\nret\n" /**/
    FUNCTION(loop_to_1) "cld\n1: add edx, 3\ndec ecx\njne 1b\nmov eax, edx\nret\n" FUNCTION(
        loop_to_2) "xor eax, eax\n1: add eax, edx\ndec ecx\njne 1b\nret\n" FUNCTION(loop_to_3) "lea eax, [rdx + 1]\n1: "
                                                                                               "add eax, edx\ndec "
                                                                                               "ecx\njne "
                                                                                               "1b\nret\n" FUNCTION(
                                                                                                   loop_to_4) "lea "
                                                                                                              "rax, "
                                                                                                              "[rdx + "
                                                                                                              "1]\n1: "
                                                                                                              "add "
                                                                                                              "eax, "
                                                                                                              "edx\ndec"
                                                                                                              " ecx\njn"
                                                                                                              "e "
                                                                                                              "1b\nret"
                                                                                                              "\n" FUNCTION(call_at_0) "call rdx\ninc rax\nret\n" /**/
    FUNCTION(callee) "mov eax, 41\nret\n" /* twice */
    FUNCTION(tail_call) "jmp rdx\n"       /**/
    FUNCTION(stops) "int3\nret\n"         /**/
    FUNCTION(last) "ret\n"                /* twice */
                   ".fill 200, 1, 0xC3\n");

/* exact(f, state): calls f with the registers of `state`, and keeps in it what they are afterwards. */
struct state {
    value general[15]; /* rax rcx rdx rbx rbp rsi rdi r8 .. r15 */
    value flags;
    unsigned char vector[16][32];
    value avx;
};
void exact(value (*f)(void), struct state *state);
#define VECTORS(what)                                                                                                  \
    ".set at, 128\n.irp r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n" what ".set at, at + 32\n.endr\n"
__asm__(".p2align 4\n" FUNCTION(
    exact) ".irp r, rbx, rbp, rsi, rdi, r12, r13, r14, r15\npush \\r\n.endr\n"
           "sub rsp, 0xA8\n"
           ".irp r, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\nmovups [rsp + (\\r - 6) * 16], xmm\\r\n.endr\n"
           "push rcx\npush rdx\n"
           "mov rax, rdx\n"
           "cmp qword ptr [rax + 640], 0\nje 1f\n" VECTORS("vmovups ymm\\r, [rax + at]\n") "jmp 2f\n1:\n" VECTORS(
               "movups xmm\\r, [rax + at]\n") "2:\n"
                                              "push qword ptr [rax + 120]\n"
                                              ".set at, 8\n.irp r, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, "
                                              "r12, r13, r14, r15\n"
                                              "mov \\r, [rax + at]\n.set at, at + 8\n.endr\n"
                                              "mov rax, [rax]\npopfq\n"
                                              "call [rsp + 8]\n"
                                              "pushfq\npush rax\nmov rax, [rsp + 16]\n"
                                              ".set at, 8\n.irp r, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, "
                                              "r12, r13, r14, r15\n"
                                              "mov [rax + at], \\r\n.set at, at + 8\n.endr\n"
                                              "pop qword ptr [rax]\npop qword ptr [rax + 120]\n"
                                              "cmp qword ptr [rax + 640], 0\nje 3f\n" VECTORS(
                                                  "vmovups [rax + at], "
                                                  "ymm\\r\n") "vzeroupper\n"
                                                              "jmp "
                                                              "4f\n3:"
                                                              "\n" VECTORS("movups "
                                                                           "[rax + "
                                                                           "at], "
                                                                           "xmm\\r"
                                                                           "\n") "4:"
                                                                                 "\n"
                                                                                 "ad"
                                                                                 "d "
                                                                                 "rs"
                                                                                 "p,"
                                                                                 " 1"
                                                                                 "6"
                                                                                 "\n"
                                                                                 ".i"
                                                                                 "rp"
                                                                                 " r"
                                                                                 ", "
                                                                                 "6,"
                                                                                 " 7"
                                                                                 ", "
                                                                                 "8,"
                                                                                 " 9"
                                                                                 ", "
                                                                                 "10"
                                                                                 ", "
                                                                                 "11"
                                                                                 ", "
                                                                                 "12"
                                                                                 ", "
                                                                                 "13"
                                                                                 ", "
                                                                                 "14"
                                                                                 ", "
                                                                                 "15"
                                                                                 "\n"
                                                                                 "mo"
                                                                                 "vu"
                                                                                 "ps"
                                                                                 " x"
                                                                                 "mm"
                                                                                 "\\"
                                                                                 "r,"
                                                                                 " ["
                                                                                 "rs"
                                                                                 "p "
                                                                                 "+ "
                                                                                 "("
                                                                                 "\\"
                                                                                 "r "
                                                                                 "- "
                                                                                 "6)"
                                                                                 " *"
                                                                                 " 1"
                                                                                 "6]"
                                                                                 "\n"
                                                                                 ".e"
                                                                                 "nd"
                                                                                 "r"
                                                                                 "\n"
                                                                                 "ad"
                                                                                 "d "
                                                                                 "rs"
                                                                                 "p,"
                                                                                 " 0"
                                                                                 "xA"
                                                                                 "8"
                                                                                 "\n"
                                                                                 ".i"
                                                                                 "rp"
                                                                                 " r"
                                                                                 ", "
                                                                                 "r1"
                                                                                 "5,"
                                                                                 " r"
                                                                                 "14"
                                                                                 ", "
                                                                                 "r1"
                                                                                 "3,"
                                                                                 " r"
                                                                                 "12"
                                                                                 ", "
                                                                                 "rd"
                                                                                 "i,"
                                                                                 " r"
                                                                                 "si"
                                                                                 ", "
                                                                                 "rb"
                                                                                 "p,"
                                                                                 " r"
                                                                                 "bx"
                                                                                 "\n"
                                                                                 "po"
                                                                                 "p "
                                                                                 "\\"
                                                                                 "r"
                                                                                 "\n"
                                                                                 ".e"
                                                                                 "nd"
                                                                                 "r"
                                                                                 "\n"
                                                                                 "re"
                                                                                 "t"
                                                                                 "\n"
                                                                                 ".a"
                                                                                 "tt"
                                                                                 "_s"
                                                                                 "yn"
                                                                                 "ta"
                                                                                 "x "
                                                                                 "pr"
                                                                                 "ef"
                                                                                 "ix"
                                                                                 "\n");

static volatile LONG own, others, wrong, rounds_done;
static volatile LONG rounds_wanted;

static LONG WINAPI handler(EXCEPTION_POINTERS *pointers)
{
    if (pointers->ExceptionRecord->ExceptionCode != EXCEPTION_BREAKPOINT)
        return EXCEPTION_CONTINUE_SEARCH;
    if (pointers->ContextRecord->Rcx != OWN) {
        InterlockedIncrement(&others);
        return EXCEPTION_CONTINUE_SEARCH;
    }
    InterlockedIncrement(&own);
    pointers->ContextRecord->Rcx = 0; /* used up: functions without arguments find what was left in it */
    pointers->ContextRecord->Rip++;
    return EXCEPTION_CONTINUE_EXECUTION;
}

static void check(int right)
{
    if (!right)
        InterlockedIncrement(&wrong);
}

static void check_exact(value (*f)(void), value seed)
{
    struct state before, after;
    unsigned char *bytes = (unsigned char *)&before;
    for (size_t i = 0; i < sizeof before; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (unsigned char)(seed >> 56);
    }
    before.flags = (before.flags & 0x8D5) | 0x202;
    before.avx = __builtin_cpu_supports("avx") != 0;
    if (!before.avx)
        for (int i = 0; i < 16; i++)
            memset(before.vector[i] + 16, 0, 16);
    after = before;
    exact(f, &after);
    check(memcmp(&before, &after, sizeof before) == 0);
}

/* Into fresh stack, page by page. */
static __attribute__((noinline)) int descend(int level)
{
    volatile char room[3000];
    room[0] = (char)level;
    nothing();
    return level ? descend(level - 1) + room[0] : 0;
}

static void round_of(value n)
{
    nothing();
    nothing_more();
    last();
    check(zero() == 0);
    check(jump(n, 5) == n + 5);
    check(identity(n) == n);
    check(target_of_jump(n, 7) == n + 7);
    check(loop_to_0(4, n) == n + 12);
    check(loop_to_1(4, n) == n + 12);
    check(loop_to_2(4, n) == 4 * n);
    check(loop_to_3(4, n) == 5 * n + 1);
    check(loop_to_4(4, n) == 5 * n + 1);
    check(call_at_0(n, callee) == 42);
    check(tail_call(n, callee) == 41);
    SetLastError((DWORD)n);
    check_exact(nothing, n);
    check_exact(nothing_more, ~n);
    check_exact(last, n << 32);
    check(GetLastError() == (DWORD)n);
    stops(OWN);
    value marker = OWN;
    __asm__ volatile("int3" : "+c"(marker) : : "memory");
}

static unsigned __stdcall thread(void *argument)
{
    (void)argument;
    check(descend(LEVELS - 1) == (LEVELS - 1) * LEVELS / 2);
    for (LONG done = 0; done < rounds_wanted; done++) {
        round_of((value)done & 0xFFFF);
        InterlockedIncrement(&rounds_done);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 1;
    int wait = strcmp(argv[1], "wait") == 0;
    rounds_wanted = wait ? 0x7FFFFFFF : atoi(argv[1]);
    AddVectoredExceptionHandler(strcmp(argv[2], "first") == 0, handler);
    if (wait)
        printf("pid %lu\n", GetCurrentProcessId());
    fflush(stdout);
    HANDLE threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = (HANDLE)_beginthreadex(NULL, STACK, thread, NULL, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (wait)
        while (getchar() != EOF)
            ;
    if (wait)
        rounds_wanted = 0;
    WaitForMultipleObjects(THREADS, threads, TRUE, INFINITE);
    printf("wrong %ld, own int3s %s, others %s\n", wrong, own == 2 * rounds_done ? "all" : "lost",
           others ? "seen" : "none");
    return 9;
}
