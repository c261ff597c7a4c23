// build: -O2 -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0 seh_labels_asm.S
/* Faults in functions whose handlers compare RIP with labels: in the prolog, the body and the epilogue of each. What is
 * left by a fault is left by a change of the context, which nothing records. One handler ends in the other one's code.
 *
 * exit: 7
 * output:
 *     returned 1006: 1 2 3 4 5
 *     prolog -1: 1 2 3 4 5
 *     body -1: 1 2 3 4 5
 *     epilogue -1: 1 2 3 4 5
 *     returned 1036: 1 2 3 4 5
 *     prolog -1: 1 2 3 4 5
 *     body -1: 1 2 3 4 5
 *     epilogue -1: 1 2 3 4 5
 * tree:
 *     main
 *         guarded
 *             [*]
 *                 mixes  tail
 *                 mixes_covered
 *         report
 *         guarded
 *             [*]
 *                 mixes  tail
 *                 mixes_covered  end not recorded
 *                     fixed_frame_handler
 *                     leave_callee
 *         report
 *         guarded
 *             [*]
 *                 mixes  tail
 *                 mixes_covered  end not recorded
 *                     fixed_frame_handler
 *                     leave_callee
 *         report
 *         guarded
 *             [*]
 *                 mixes  tail
 *                 mixes_covered  end not recorded
 *                     fixed_frame_handler
 *                     leave_callee
 *         report
 *         guarded
 *             [*]
 *                 adds  tail
 *                 adds_covered
 *         report
 *         guarded
 *             [*]
 *                 adds  tail
 *                 adds_covered  end not recorded
 *                     sized_frame_handler  tail
 *                     leave_callee
 *         report
 *         guarded
 *             [*]
 *                 adds  tail
 *                 adds_covered  end not recorded
 *                     sized_frame_handler  tail
 *                     leave_callee
 *         report
 *         guarded
 *             [*]
 *                 adds  tail
 *                 adds_covered  end not recorded
 *                     sized_frame_handler  tail
 *                     leave_callee
 *         report
 */
#include <stdio.h>
#include <windows.h>

typedef long long reading(const long long *, const long long *, long long, const long long *);
long long mixes(const long long *, const long long *, long long, const long long *);
long long adds(const long long *, const long long *, long long, const long long *);
long long guarded(reading *, const long long *, const long long *, const long long *);
long leave_callee(EXCEPTION_POINTERS *, void *);
extern long long found[5];

/* The filter of `guarded`: by now the callee's handler has put into the context what its caller had in the registers,
 * so the callee can be left as by its ret. */
long leave_callee(EXCEPTION_POINTERS *what, void *frame)
{
    CONTEXT *context = what->ContextRecord;
    (void)frame;
    context->Rip = *(const ULONG64 *)context->Rsp;
    context->Rsp += 8;
    context->Rax = (ULONG64)-1;
    return EXCEPTION_CONTINUE_EXECUTION;
}

static __attribute__((noinline)) void report(const char *where, long long result)
{
    printf("%s %lld: %lld %lld %lld %lld %lld\n", where, result, found[0], found[1], found[2], found[3], found[4]);
    fflush(NULL);
}

static const long long one = 1, two = 2, three = 3;

int main(void)
{
    reading *const functions[] = {mixes, adds};
    const long long *const nowhere = (const long long *)16;
    for (int i = 0; i < 2; i++) {
        report("returned", guarded(functions[i], &one, &two, &three));
        report("prolog", guarded(functions[i], nowhere, &two, &three));
        report("body", guarded(functions[i], &one, nowhere, &three));
        report("epilogue", guarded(functions[i], &one, &two, nowhere));
    }
    return 7;
}
