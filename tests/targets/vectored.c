// build: -O2 -fno-inline -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* Vectored handlers and the filter of last resort see faults of traced functions before, or after, any frame does:
 * they step over an instruction, change a register, send execution to another function.
 *
 * The RIP that a handler sees lies in the function's copy. Moving it by the length of an instruction works, and so does
 * setting it to a function. The function that was left like this has no end of its own in the tree.
 *
 * exit: 24
 * output:
 *     skipped 3
 *     repaired 40
 *     elsewhere 77
 *     passed on -1
 *     last resort 40
 *     seen 4 1
 * tree:
 *     main
 *         skip
 *             store
 *                 handler
 *                     count
 *         repair
 *             load
 *                 handler
 *                     count
 *         leave
 *             store  end not recorded
 *                 handler
 *                     count
 *                 other
 *         pass_on
 *             [RaiseException]
 *                 handler
 *                     count
 *         last
 *             load
 *                 last_resort
 *                     count
 */
#include <stdio.h>
#include <windows.h>

/* Its first instruction has 6 bytes. */
long store(long *address, long result);
long load(const long *address);
__asm__(".text\n"
        ".def store; .scl 2; .type 32; .endef; .globl store\n"
        "store: movl $7, (%rcx)\n"
        "movl %edx, %eax\n"
        "ret\n"
        ".p2align 4, 0xCC\n"
        ".def load; .scl 2; .type 32; .endef; .globl load\n"
        "load: movl (%rcx), %eax\n"
        "ret\n"
        ".p2align 4, 0xCC\n");

static long good = 40;
static volatile long seen, seen_last;
static enum { SKIP, REPAIR, LEAVE, PASS_ON } how;

static void count(volatile long *counter)
{
    ++*counter;
}

static long other(void)
{
    return 77;
}

static LONG CALLBACK handler(EXCEPTION_POINTERS *about)
{
    CONTEXT *context = about->ContextRecord;
    count(&seen);
    switch (how) {
    case SKIP:
        context->Rip += 6;
        return EXCEPTION_CONTINUE_EXECUTION;
    case REPAIR:
        context->Rcx = (DWORD64)(uintptr_t)&good;
        return EXCEPTION_CONTINUE_EXECUTION;
    case LEAVE:
        context->Rip = (DWORD64)(uintptr_t)other;
        return EXCEPTION_CONTINUE_EXECUTION;
    default:
        return about->ExceptionRecord->ExceptionCode == 0xE0000002 ? EXCEPTION_CONTINUE_EXECUTION
                                                                   : EXCEPTION_CONTINUE_SEARCH;
    }
}

static LONG WINAPI last_resort(EXCEPTION_POINTERS *about)
{
    count(&seen_last);
    about->ContextRecord->Rcx = (DWORD64)(uintptr_t)&good;
    return EXCEPTION_CONTINUE_EXECUTION;
}

static void skip(void)
{
    how = SKIP;
    printf("skipped %ld\n", store(NULL, 3));
}

static void repair(void)
{
    how = REPAIR;
    printf("repaired %ld\n", load(NULL));
}

static void leave(void)
{
    how = LEAVE;
    printf("elsewhere %ld\n", store(NULL, 4));
}

static void pass_on(void)
{
    how = PASS_ON;
    RaiseException(0xE0000002, 0, 0, NULL);
    printf("passed on -1\n");
}

static void last(void)
{
    printf("last resort %ld\n", load(NULL));
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    void *vectored = AddVectoredExceptionHandler(1, handler);
    skip();
    repair();
    leave();
    pass_on();
    RemoveVectoredExceptionHandler(vectored);
    SetUnhandledExceptionFilter(last_resort);
    last();
    printf("seen %ld %ld\n", seen, seen_last);
    return 24;
}
