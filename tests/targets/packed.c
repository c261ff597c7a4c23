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

__asm__(".text\n"
        ".intel_syntax noprefix\n"
        ".macro function name\n"
        ".globl \\name\n"
        ".def \\name; .scl 2; .type 32; .endef\n"
        "\\name:\n"
        ".endm\n"
        ".fill 200, 1, 0xC3\n" /* keeps padding out of a short jump's reach */
        "function nothing\n"   /* twice */
        "    ret\n"
        "function nothing_more\n" /* twice */
        "    rep ret\n"
        "function zero\n"
        "    xor eax, eax\n"
        "    ret\n"
        "function jump\n"
        "    .byte 0xEB, target_of_jump - . - 1\n"
        "function identity\n"
        "    mov eax, ecx\n"
        "    ret\n"
        "function target_of_jump\n" /* twice */
        "    lea eax, [rcx + rdx]\n"
        "    ret\n"
        "function loop_to_0\n"
        "    add edx, 3\n"
        "    dec ecx\n"
        "    jne loop_to_0\n"
        "    mov eax, edx\n"
        "    ret\n"
        "function loop_to_1\n"
        "    cld\n"
        "1:  add edx, 3\n"
        "    dec ecx\n"
        "    jne 1b\n"
        "    mov eax, edx\n"
        "    ret\n"
        "function loop_to_2\n"
        "    xor eax, eax\n"
        "1:  add eax, edx\n"
        "    dec ecx\n"
        "    jne 1b\n"
        "    ret\n"
        "function loop_to_3\n"
        "    lea eax, [rdx + 1]\n"
        "1:  add eax, edx\n"
        "    dec ecx\n"
        "    jne 1b\n"
        "    ret\n"
        "function loop_to_4\n"
        "    lea rax, [rdx + 1]\n"
        "1:  add eax, edx\n"
        "    dec ecx\n"
        "    jne 1b\n"
        "    ret\n"
        "function call_at_0\n"
        "    call rdx\n"
        "    inc rax\n"
        "    ret\n"
        "function callee\n" /* twice */
        "    mov eax, 41\n"
        "    ret\n"
        "function tail_call\n"
        "    jmp rdx\n"
        "function stops\n"
        "    int3\n"
        "    ret\n"
        "function last\n" /* twice */
        "    ret\n"
        ".fill 200, 1, 0xC3\n"
        ".att_syntax prefix\n");

/* exact(f, state): calls f with the registers of `state`, and keeps in it what they are afterwards. */
struct state {
    value general[15]; /* rax rcx rdx rbx rbp rsi rdi r8 .. r15 */
    value flags;
    unsigned char vector[16][32];
    value avx; /* whether it has the upper halves */
};
void exact(value (*f)(void), struct state *state);
__asm__(".intel_syntax noprefix\n"
        ".macro each_general how:vararg\n"
        ".set at, 8\n"
        ".irp r, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15\n"
        "    \\how \\r\n"
        "    .set at, at + 8\n"
        ".endr\n"
        ".endm\n"
        ".macro each_vector how:vararg\n"
        ".set at, 128\n"
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
        "    \\how \\n\n"
        "    .set at, at + 32\n"
        ".endr\n"
        ".endm\n"
        ".macro load r\n"
        "    mov \\r, [rax + at]\n"
        ".endm\n"
        ".macro store r\n"
        "    mov [rax + at], \\r\n"
        ".endm\n"
        ".macro load_x n\n"
        "    movups xmm\\n, [rax + at]\n"
        ".endm\n"
        ".macro load_y n\n"
        "    vmovups ymm\\n, [rax + at]\n"
        ".endm\n"
        ".macro store_x n\n"
        "    movups [rax + at], xmm\\n\n"
        ".endm\n"
        ".macro store_y n\n"
        "    vmovups [rax + at], ymm\\n\n"
        ".endm\n"
        ".p2align 4\n"
        "function exact\n"
        ".irp r, rbx, rbp, rsi, rdi, r12, r13, r14, r15\n"
        "    push \\r\n"
        ".endr\n"
        "    sub rsp, 0xA8\n"
        ".irp n, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
        "    movups [rsp + (\\n - 6) * 16], xmm\\n\n"
        ".endr\n"
        "    push rcx\n"
        "    push rdx\n"
        "    mov rax, rdx\n"
        "    cmp qword ptr [rax + 640], 0\n"
        "    je 1f\n"
        "    each_vector load_y\n"
        "    jmp 2f\n"
        "1:  each_vector load_x\n"
        "2:  push qword ptr [rax + 120]\n"
        "    each_general load\n"
        "    mov rax, [rax]\n"
        "    popfq\n"
        "    call [rsp + 8]\n"
        "    pushfq\n"
        "    push rax\n"
        "    mov rax, [rsp + 16]\n"
        "    each_general store\n"
        "    pop qword ptr [rax]\n"
        "    pop qword ptr [rax + 120]\n"
        "    cmp qword ptr [rax + 640], 0\n"
        "    je 3f\n"
        "    each_vector store_y\n"
        "    vzeroupper\n"
        "    jmp 4f\n"
        "3:  each_vector store_x\n"
        "4:  add rsp, 16\n"
        ".irp n, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
        "    movups xmm\\n, [rsp + (\\n - 6) * 16]\n"
        ".endr\n"
        "    add rsp, 0xA8\n"
        ".irp r, r15, r14, r13, r12, rdi, rsi, rbp, rbx\n"
        "    pop \\r\n"
        ".endr\n"
        "    ret\n"
        ".att_syntax prefix\n");

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
