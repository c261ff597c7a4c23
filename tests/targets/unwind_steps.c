// build: -O2 -mno-stack-arg-probe -fno-inline -fno-ipa-cp -fno-ipa-sra -fno-ipa-icf
/* Walks its own stack with the system's unwinder at every instruction it runs, and writes down what it finds.
 *
 *     unwind_steps FRAMES COUNTS
 *
 * A single step raises an exception after each instruction; the handler unwinds with RtlVirtualUnwind from there.
 * FRAMES gets a line wherever the result differs from that of the instruction before: of each frame the function and
 * where on the stack it ends, and a hash of the registers its caller gets back. The lines are the same whether the
 * functions run where they were linked or in relocated copies, if those are unwound as the originals are. COUNTS gets
 * the number of instructions seen in the originals and in copies.
 */
#include "frames.c"

#include <stdio.h>
#include <windows.h>

static void *const functions[] = {mix,      many_registers, vectors,   large_frame, dynamic_frame,
                                  variadic, chosen,         recursive, run};
enum { COUNT = sizeof functions / sizeof *functions, DEEPEST = 32 };

static ULONG64 image, image_end, region, region_end; /* region: of the copies, once one was met */
static ULONG64 stack_top;                            /* frames above are main's and the system's */
static ULONG64 copies[COUNT];                        /* where each function's copy begins */
static ULONG64 steps_in_image, steps_in_copies;
static char last[4096];
static FILE *out;

/* A jump at a function's start leads to its copy, which begins at a multiple of 16. */
static ULONG64 copy_of(const unsigned char *function)
{
    if (*function == 0xEB)
        function += 2 + (signed char)function[1];
    if (*function != 0xE9)
        return 0;
    int distance;
    memcpy(&distance, function + 1, sizeof distance);
    return (ULONG64)(function + 5 + distance) & ~15ull;
}

static int in_copies(ULONG64 rip)
{
    if (region && rip >= region && rip < region_end)
        return 1;
    MEMORY_BASIC_INFORMATION about;
    if (rip < image_end || rip - image >= 0x80000000u || !VirtualQuery((void *)rip, &about, sizeof about) ||
        about.Type != MEM_PRIVATE)
        return 0;
    region = (ULONG64)about.AllocationBase;
    region_end = (ULONG64)about.BaseAddress + about.RegionSize;
    return 1;
}

/* Which of the functions an address belongs to; -1: none of them. */
static int function_at(ULONG64 rip)
{
    int found = -1;
    ULONG64 base, nearest = 0;
    if (in_copies(rip)) {
        for (int i = 0; i < COUNT; i++) {
            if (copies[i] <= rip && copies[i] > nearest) {
                nearest = copies[i];
                found = i;
            }
        }
        return found;
    }
    RUNTIME_FUNCTION *entry = RtlLookupFunctionEntry(rip, &base, NULL);
    for (int i = 0; entry && i < COUNT; i++)
        if (base + entry->BeginAddress == (ULONG64)functions[i])
            found = i;
    return found;
}

static ULONG64 mixed_in(ULONG64 hash, ULONG64 value)
{
    return (hash ^ value) * 0x100000001B3u;
}

static ULONG64 hash_of(const CONTEXT *context)
{
    const DWORD64 kept[] = {context->Rbx, context->Rbp, context->Rsi, context->Rdi,
                            context->R12, context->R13, context->R14, context->R15};
    ULONG64 hash = 0xCBF29CE484222325u;
    for (unsigned i = 0; i < sizeof kept / sizeof *kept; i++)
        hash = mixed_in(hash, kept[i] < stack_top && stack_top - kept[i] < 0x100000 ? stack_top - kept[i] : kept[i]);
    const M128A *vectors_kept = &context->Xmm6;
    for (unsigned i = 0; i < 10; i++)
        hash = mixed_in(mixed_in(hash, vectors_kept[i].Low), (ULONG64)vectors_kept[i].High);
    return hash;
}

/* An epilog may end with a jump out of the function ("x64 exception handling", epilog code), as that of a tail call
 * does and that of every copy. Wine 8 takes such a one for the body, so it is done here by the rule: what is left of it
 * is carried out. False: not in an epilog, or in one that ends with ret. */
static int finish_epilog(CONTEXT *context)
{
    const unsigned char *at = (const unsigned char *)context->Rip;
    ULONG64 *const registers = &context->Rax;
    ULONG64 rsp = context->Rsp;
    int distance;
    if (at[0] == 0x48 && at[1] == 0x83 && at[2] == 0xC4) { /* add rsp, imm8 */
        rsp += (signed char)at[3];
        at += 4;
    } else if (at[0] == 0x48 && at[1] == 0x81 && at[2] == 0xC4) { /* add rsp, imm32 */
        memcpy(&distance, at + 3, sizeof distance);
        rsp += distance;
        at += 7;
    } else if ((at[0] & 0xFE) == 0x48 && at[1] == 0x8D && (at[2] & 0xF8) == 0x60) { /* lea rsp, [reg+disp8] */
        rsp = registers[(at[2] & 7) + (at[0] & 1) * 8] + (signed char)at[3];
        at += 4;
    } else if ((at[0] & 0xFE) == 0x48 && at[1] == 0x8D && (at[2] & 0xF8) == 0xA0) { /* lea rsp, [reg+disp32] */
        memcpy(&distance, at + 3, sizeof distance);
        rsp = registers[(at[2] & 7) + (at[0] & 1) * 8] + distance;
        at += 7;
    }
    const unsigned char *end = at;
    while ((*end & 0xF8) == 0x58 || (*end == 0x41 && (end[1] & 0xF8) == 0x58))
        end += *end == 0x41 ? 2 : 1;
    if (*end != 0xE9)
        return 0;
    memcpy(&distance, end + 1, sizeof distance);
    ULONG64 target = (ULONG64)(end + 5 + distance), base;
    if (RtlLookupFunctionEntry(context->Rip, &base, NULL) == RtlLookupFunctionEntry(target, &base, NULL))
        return 0;
    while (at < end) {
        int extended = *at == 0x41;
        registers[(at[extended] & 7) + 8 * extended] = *(ULONG64 *)rsp;
        rsp += 8;
        at += 1 + extended;
    }
    context->Rip = *(ULONG64 *)rsp;
    context->Rsp = rsp + 8;
    return 1;
}

static void walk(CONTEXT context)
{
    char line[sizeof last];
    int length = 0;
    ULONG64 lowest = context.Rsp;
    for (int depth = 0; depth < DEEPEST && context.Rsp >= lowest && context.Rsp < stack_top; depth++) {
        ULONG64 base, establisher;
        void *handler;
        int function = function_at(context.Rip);
        if (function < 0)
            break; /* main */
        RUNTIME_FUNCTION *entry = RtlLookupFunctionEntry(context.Rip, &base, NULL);
        if (depth == 0 && entry && finish_epilog(&context)) {
            /* and the caller is reached */
        } else if (entry) {
            RtlVirtualUnwind(UNW_FLAG_NHANDLER, base, context.Rip, entry, &context, &handler, &establisher, NULL);
        } else {
            context.Rip = *(ULONG64 *)context.Rsp;
            context.Rsp += 8;
        }
        length += snprintf(line + length, sizeof line - length, " %d@%llx:%llx", function, stack_top - context.Rsp,
                           hash_of(&context));
    }
    if (strcmp(line, last) != 0) {
        strcpy(last, line);
        fprintf(out, "%s\n", line + 1);
    }
}

static LONG CALLBACK step(EXCEPTION_POINTERS *pointers)
{
    if (pointers->ExceptionRecord->ExceptionCode != EXCEPTION_SINGLE_STEP)
        return EXCEPTION_CONTINUE_SEARCH;
    CONTEXT *context = pointers->ContextRecord;
    int copied = in_copies(context->Rip);
    int original = !copied && function_at(context->Rip) >= 0;
    /* at the region's start stands the way to the recorder's slow path, which is a call of its own */
    if (original || (copied && context->Rip - region >= 0x440)) {
        steps_in_image += original;
        steps_in_copies += copied;
        walk(*context);
    }
    context->EFlags |= 0x100;
    return EXCEPTION_CONTINUE_EXECUTION;
}

static void trap(int on)
{
    if (on)
        __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq" ::: "memory", "cc");
    else
        __asm__ volatile("pushfq; andl $~0x100, (%%rsp); popfq" ::: "memory", "cc");
}

/* With nothing in the registers that `run` has to keep: what main has in them is not the same in every run. */
static __attribute__((noinline)) word stepped(void)
{
    __asm__ volatile("xor %%ebx, %%ebx; xor %%ebp, %%ebp; xor %%esi, %%esi; xor %%edi, %%edi; xor %%r12d, %%r12d;"
                     "xor %%r13d, %%r13d; xor %%r14d, %%r14d; xor %%r15d, %%r15d; pxor %%xmm6, %%xmm6;"
                     "pxor %%xmm7, %%xmm7; pxor %%xmm8, %%xmm8; pxor %%xmm9, %%xmm9; pxor %%xmm10, %%xmm10;"
                     "pxor %%xmm11, %%xmm11; pxor %%xmm12, %%xmm12; pxor %%xmm13, %%xmm13; pxor %%xmm14, %%xmm14;"
                     "pxor %%xmm15, %%xmm15" ::
                         : "rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15", "xmm6", "xmm7", "xmm8", "xmm9",
                           "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc");
    trap(1);
    word result = run(7);
    trap(0);
    return result;
}

int main(int argc, char **argv)
{
    if (argc != 3 || !(out = fopen(argv[1], "wb")))
        return 2;
    IMAGE_DOS_HEADER *dos = (IMAGE_DOS_HEADER *)GetModuleHandleA(NULL);
    IMAGE_NT_HEADERS *headers = (IMAGE_NT_HEADERS *)((char *)dos + dos->e_lfanew);
    image = (ULONG64)dos;
    image_end = image + headers->OptionalHeader.SizeOfImage;
    for (int i = 0; i < COUNT; i++)
        copies[i] = copy_of(functions[i]);
    volatile ULONG64 here = 0;
    stack_top = (ULONG64)&here;
    AddVectoredExceptionHandler(1, step);
    word result = stepped();
    fprintf(out, "%llx\n", result);
    fclose(out);
    FILE *counts = fopen(argv[2], "wb");
    fprintf(counts, "%llu %llu\n", steps_in_image, steps_in_copies);
    return fclose(counts);
}
