// build: -O2 -fno-inline -fno-optimize-sibling-calls -D__USE_MINGW_ANSI_STDIO=0
/* Programs that walk their own stack find as many frames through traced functions as untraced, and the registers that
 * these saved; RtlUnwindEx, called by a handler of the program's own, leaves frames behind.
 *
 * exit: 25
 * output:
 *     walked 3 9 19
 *     captured 3 9 19
 *     saved 1234
 *     unwound 4321
 * tree:
 *     main
 *         compare
 *             walk
 *             descend  x3 deep
 *                 walk
 *             walk
 *             descend  x9 deep
 *                 walk
 *             walk
 *             descend  x19 deep
 *                 walk
 *         compare
 *             capture
 *             descend  x3 deep
 *                 capture
 *             capture
 *             descend  x9 deep
 *                 capture
 *             capture
 *             descend  x19 deep
 *                 capture
 *         keep
 *             look
 *         unwind
 *             raise  end not recorded
 *                 [RaiseException]  end not recorded
 *                     handle  end not recorded
 *
 * not traced: guarded -- its handler is its own, and the handler's data tells addresses in it
 */
#include <stdio.h>
#include <windows.h>

/* keep: holds 1234 in rbx while it calls its argument.
 * guarded: calls its argument under `handle`. */
long keep(long (*code)(void));
long guarded(long (*code)(void));
void landing(void);
__asm__(".text\n"
        ".def keep; .scl 2; .type 32; .endef; .globl keep\n"
        ".seh_proc keep\n"
        "keep: pushq %rbx\n"
        ".seh_pushreg %rbx\n"
        "subq $32, %rsp\n"
        ".seh_stackalloc 32\n"
        ".seh_endprologue\n"
        "movl $1234, %ebx\n"
        "callq *%rcx\n"
        "addq $32, %rsp\n"
        "popq %rbx\n"
        "ret\n"
        ".seh_endproc\n"
        ".p2align 4, 0xCC\n"
        ".def guarded; .scl 2; .type 32; .endef; .globl guarded\n"
        ".seh_proc guarded\n"
        ".seh_handler handle, @except\n"
        "guarded: subq $40, %rsp\n"
        ".seh_stackalloc 40\n"
        ".seh_endprologue\n"
        "callq *%rcx\n"
        ".globl landing\n"
        "landing: nop\n" /* or the unwinder sees an epilogue, where handlers are not called */
        "addq $40, %rsp\n"
        "ret\n"
        ".seh_handlerdata\n"
        ".rva guarded, landing\n"
        ".text\n"
        ".seh_endproc\n"
        ".p2align 4, 0xCC\n");

/* How many frames there are above the one `context` stands in. */
static inline __attribute__((always_inline)) int frames_above(CONTEXT *context)
{
    int count = 0;
    while (context->Rip) {
        DWORD64 base, frame;
        void *data;
        RUNTIME_FUNCTION *function = RtlLookupFunctionEntry(context->Rip, &base, NULL);
        if (!function)
            break;
        RtlVirtualUnwind(UNW_FLAG_NHANDLER, base, context->Rip, function, context, &data, &frame, NULL);
        count++;
    }
    return count;
}

static int walk(void)
{
    CONTEXT context;
    RtlCaptureContext(&context);
    return frames_above(&context);
}

static int capture(void)
{
    void *addresses[62];
    return CaptureStackBackTrace(0, 62, addresses, NULL);
}

static int descend(int depth, int (*measure)(void))
{
    return depth > 1 ? descend(depth - 1, measure) + 0 * depth : measure();
}

static void compare(const char *how, int (*measure)(void))
{
    int found[3];
    static const int depths[3] = {3, 9, 19};
    for (int i = 0; i < 3; i++) {
        int here = measure();
        found[i] = descend(depths[i], measure) - here;
    }
    printf("%s %d %d %d\n", how, found[0], found[1], found[2]);
}

/* What its caller keeps in rbx. */
static long look(void)
{
    CONTEXT context;
    DWORD64 base, frame;
    void *data;
    RtlCaptureContext(&context);
    for (int i = 0; i < 2; i++) {
        RUNTIME_FUNCTION *function = RtlLookupFunctionEntry(context.Rip, &base, NULL);
        if (i == 1)
            return (long)context.Rbx;
        RtlVirtualUnwind(UNW_FLAG_NHANDLER, base, context.Rip, function, &context, &data, &frame, NULL);
    }
    return 0;
}

__attribute__((used)) EXCEPTION_DISPOSITION handle(EXCEPTION_RECORD *record, void *frame, CONTEXT *context,
                                                   DISPATCHER_CONTEXT *dispatcher)
{
    if (!(record->ExceptionFlags & EXCEPTION_UNWIND))
        RtlUnwindEx(frame, (void *)(uintptr_t)landing, record, (void *)4321, context, dispatcher->HistoryTable);
    return ExceptionContinueSearch;
}

static long raise(void)
{
    RaiseException(0xE0000003, 0, 0, NULL);
    return 0;
}

static long unwind(void)
{
    return guarded(raise) + 0;
}

int main(void)
{
    compare("walked", walk);
    compare("captured", capture);
    printf("saved %ld\n", keep(look));
    printf("unwound %ld\n", unwind());
    return 25;
}
