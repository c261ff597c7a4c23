// build: clang -O2 -fno-inline -fms-extensions -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* Structured exceptions: filters that handle, pass on and repair, __finally left normally and by unwinding, exceptions
 * inside __finally; faults of every kind in traced functions. What a __try guards are calls: that is what clang sees.
 * clang names filters __filt_NAME, finally blocks __fin_NAME, and what calls these in unwinding ?dtor$N@?0?NAME@4HA.
 *
 * exit: 23
 * output:
 *     handled 39 -5 -9 -12
 *     repaired 40 3 5 9
 *     finally 40 -30
 *     nested 40 -50
 *     log 217
 *     collided -60
 * tree:
 *     main
 *         handle
 *             handled_load
 *                 load
 *             handled_load
 *                 load  unwound
 *                     __filt_handled_load
 *                         wanted
 *                 note
 *             handled_store
 *                 store  unwound
 *                     __filt_handled_store
 *                         wanted
 *                 note
 *             handled_divide
 *                 divide  unwound
 *                     __filt_handled_divide
 *                         wanted
 *                 note
 *             handled_trap
 *                 trap  unwound
 *                     __filt_handled_trap
 *                         wanted
 *                 note
 *             handled_break
 *                 [DebugBreak]  unwound
 *                     __filt_handled_break
 *                         wanted
 *                 note
 *             handled_run  x2
 *                 run  unwound
 *                     __filt_handled_run
 *                         wanted
 *                 note
 *         continue_execution
 *             repaired
 *                 load
 *                     __filt_repaired
 *                         repair
 *             repaired
 *                 divide
 *                     __filt_repaired
 *                         repair
 *             repaired
 *                 trap
 *                     __filt_repaired
 *                         repair
 *             repaired
 *                 [RaiseException]
 *                     __filt_repaired
 *                         repair
 *         finally
 *             outermost
 *                 passed_on
 *                     finish
 *                         load
 *                         __fin_finish
 *                             note
 *             outermost
 *                 passed_on  unwound
 *                     finish  unwound
 *                         load  unwound
 *                             __filt_passed_on
 *                                 wanted
 *                             __filt_outermost
 *                                 wanted
 *                         ?dtor$2@?0?finish@4HA
 *                             __fin_finish
 *                                 note
 *                 note
 *             nested
 *                 load
 *                 __fin_nested
 *                     note
 *             nested
 *                 load  unwound
 *                     __filt_nested.6
 *                         wanted
 *                     __filt_nested
 *                         wanted
 *                 ?dtor$2@?0?nested@4HA
 *                     __fin_nested
 *                         note
 *                 note
 *         collision
 *             collided  unwound
 *                 finally_raises  unwound
 *                     finally_handles  unwound
 *                         load  unwound
 *                             __filt_collided
 *                                 wanted
 *                         ?dtor$2@?0?finally_handles@4HA
 *                             __fin_finally_handles
 *                                 handled_load
 *                                     load  unwound
 *                                         __filt_handled_load
 *                                             wanted
 *                                     note
 *                                 note
 *                     ?dtor$2@?0?finally_raises@4HA  unwound
 *                         __fin_finally_raises  unwound
 *                             divide  unwound
 *                                 __filt_collided
 *                                     wanted
 *                                 __filt_collision
 *                                     wanted
 */
#include <stdio.h>
#include <windows.h>

#define OWN __attribute__((noinline))

/* Faults in functions whose registers are known. */
long load(const long *address);
long store(long *address);
long divide(long number, long by);
long trap(void);
__asm__(".text\n"
        ".def load; .scl 2; .type 32; .endef; .globl load\n"
        "load: movl (%rcx), %eax\n"
        "ret\n"
        ".p2align 4, 0xCC\n"
        ".def store; .scl 2; .type 32; .endef; .globl store\n"
        "store: movl $7, (%rcx)\n"
        "movl $7, %eax\n"
        "ret\n"
        ".p2align 4, 0xCC\n"
        ".def divide; .scl 2; .type 32; .endef; .globl divide\n"
        "divide: movl %edx, %r8d\n"
        "movl %ecx, %eax\n"
        "cltd\n"
        "idivl %r8d\n"
        "ret\n"
        ".p2align 4, 0xCC\n"
        ".def trap; .scl 2; .type 32; .endef; .globl trap\n"
        ".seh_proc trap\n"
        "trap: .seh_endprologue\n"
        "movl $5, %eax\n"
        "int3\n"
        "ret\n"
        ".seh_endproc\n"
        ".p2align 4, 0xCC\n");

static long good = 40;
static volatile long log_sum;

OWN static void note(long value)
{
    log_sum += value;
}

/* ---- filters ---- */

OWN static long wanted(EXCEPTION_POINTERS *about, DWORD code)
{
    return about->ExceptionRecord->ExceptionCode == code ? EXCEPTION_EXECUTE_HANDLER : EXCEPTION_CONTINUE_SEARCH;
}

OWN static long repair(EXCEPTION_POINTERS *about)
{
    CONTEXT *context = about->ContextRecord;
    switch (about->ExceptionRecord->ExceptionCode) {
    case EXCEPTION_ACCESS_VIOLATION:
        context->Rcx = (DWORD64)(uintptr_t)&good;
        return EXCEPTION_CONTINUE_EXECUTION;
    case EXCEPTION_INT_DIVIDE_BY_ZERO:
        context->R8 = 2;
        return EXCEPTION_CONTINUE_EXECUTION;
    case EXCEPTION_BREAKPOINT:
        context->Rip += 1; /* over the int3 */
        return EXCEPTION_CONTINUE_EXECUTION;
    default:
        return about->ExceptionRecord->ExceptionFlags & EXCEPTION_NONCONTINUABLE ? EXCEPTION_CONTINUE_SEARCH
                                                                                 : EXCEPTION_CONTINUE_EXECUTION;
    }
}

OWN static long handled_load(const long *address)
{
    __try {
        return load(address);
    } __except (wanted(GetExceptionInformation(), EXCEPTION_ACCESS_VIOLATION)) {
        note(1);
        return -1;
    }
}

OWN static long handled_store(long *address)
{
    __try {
        return store(address);
    } __except (wanted(GetExceptionInformation(), EXCEPTION_ACCESS_VIOLATION)) {
        note(2);
        return -2;
    }
}

OWN static long handled_divide(long by)
{
    __try {
        return divide(6, by);
    } __except (wanted(GetExceptionInformation(), EXCEPTION_INT_DIVIDE_BY_ZERO)) {
        note(3);
        return -3;
    }
}

OWN static long handled_trap(void)
{
    __try {
        return trap();
    } __except (wanted(GetExceptionInformation(), EXCEPTION_BREAKPOINT)) {
        note(4);
        return -4;
    }
}

OWN static long handled_break(void)
{
    __try {
        DebugBreak();
        return 0;
    } __except (wanted(GetExceptionInformation(), EXCEPTION_BREAKPOINT)) {
        note(5);
        return -5;
    }
}

OWN static long run(long (*code)(void))
{
    return code() + 1;
}

OWN static long handled_run(long (*code)(void))
{
    __try {
        return run(code);
    } __except (wanted(GetExceptionInformation(), EXCEPTION_ACCESS_VIOLATION)) {
        note(6);
        return -6;
    }
}

OWN static void handle(void)
{
    static long not_code[4];
    long (*data)(void) = (long (*)(void))(uintptr_t)not_code;
    long loads = handled_load(&good) + handled_load(NULL);
    long stores = handled_store(NULL) + handled_divide(0);
    long traps = handled_trap() + handled_break();
    long runs = handled_run(data) + handled_run(NULL);
    printf("handled %ld %ld %ld %ld\n", loads, stores, traps, runs);
}

OWN static long repaired(long what)
{
    __try {
        switch (what) {
        case 0:
            return load(NULL);
        case 1:
            return divide(6, 0);
        case 2:
            return trap();
        default:
            RaiseException(0xE0000001, 0, 0, NULL);
            return 9;
        }
    } __except (repair(GetExceptionInformation())) {
        note(1000);
        return 1000;
    }
}

OWN static void continue_execution(void)
{
    long first = repaired(0), second = repaired(1), third = repaired(2), fourth = repaired(3);
    printf("repaired %ld %ld %ld %ld\n", first, second, third, fourth);
}

/* ---- __finally ---- */

OWN static long finish(const long *address)
{
    long value = 0;
    __try {
        value = load(address);
    } __finally {
        note(AbnormalTermination() ? 10 : 20);
    }
    return value;
}

OWN static long passed_on(const long *address)
{
    __try {
        return finish(address);
    } __except (wanted(GetExceptionInformation(), EXCEPTION_BREAKPOINT)) {
        note(1000);
        return 1000;
    }
}

OWN static long outermost(const long *address)
{
    __try {
        return passed_on(address);
    } __except (wanted(GetExceptionInformation(), EXCEPTION_ACCESS_VIOLATION)) {
        note(30);
        return -30;
    }
}

/* One function, three levels. */
OWN static long nested(const long *address)
{
    long value = 0;
    __try {
        __try {
            __try {
                value = load(address);
            } __finally {
                note(40);
            }
        } __except (wanted(GetExceptionInformation(), EXCEPTION_BREAKPOINT)) {
            value = 1000;
        }
    } __except (wanted(GetExceptionInformation(), EXCEPTION_ACCESS_VIOLATION)) {
        note(50);
        value = -50;
    }
    return value;
}

/* An exception handled while another one unwinds, and one that takes its place. */
OWN static void finally_handles(void)
{
    __try {
        load(NULL);
    } __finally {
        note(handled_load(NULL));
    }
}

OWN static void finally_raises(void)
{
    __try {
        finally_handles();
    } __finally {
        divide(1, 0);
    }
}

OWN static long collided(void)
{
    __try {
        finally_raises();
        return 0;
    } __except (wanted(GetExceptionInformation(), EXCEPTION_ACCESS_VIOLATION)) {
        return 1000;
    }
}

OWN static long collision(void)
{
    __try {
        return collided();
    } __except (wanted(GetExceptionInformation(), EXCEPTION_INT_DIVIDE_BY_ZERO)) {
        return -60;
    }
}

OWN static void finally(void)
{
    printf("finally %ld %ld\n", outermost(&good), outermost(NULL));
    printf("nested %ld %ld\n", nested(&good), nested(NULL));
    printf("log %ld\n", log_sum);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    handle();
    continue_execution();
    finally();
    printf("collided %ld\n", collision());
    return 23;
}
