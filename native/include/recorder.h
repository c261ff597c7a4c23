/* Between the host and calltrace.dll inside the target: what the host writes into the target's memory and passes,
 * by address, to the DLL's exports, which it calls on a stopped thread. Fixed layout, 64-bit little-endian.
 *
 * Inline event code in relocated copies keeps its state in four TLS slots, addressed as gs:[offset]:
 *
 *   cursor    address of the next unit in the thread's block. Blocks are CT_BLOCK-aligned and units start behind
 *             a header, so the low 16 bits are zero exactly when the block is full or the thread has none yet:
 *             then the code calls `slow_path`, which preserves every register and flag, and looks again.
 *   scratch   three slots where registers are saved for the length of one event.
 */
#ifndef CALLTRACE_RECORDER_H
#define CALLTRACE_RECORDER_H

#include <stdint.h>

#define CT_RECORDER_ABI 1u

enum ct_recorder_status {
    CT_RECORDER_OK = 0,
    CT_RECORDER_BAD_ABI = 1,    /* host and DLL are of different versions */
    CT_RECORDER_NO_TLS = 2,     /* no four free TLS slots among the 64 that live in the TEB */
    CT_RECORDER_NO_MAPPING = 3, /* the trace file cannot be mapped; system_error says why */
    CT_RECORDER_NO_TABLE = 4,   /* RtlAddFunctionTable refused */
    CT_RECORDER_NOT_STARTED = 5,
    CT_RECORDER_TWICE = 6,     /* already recording into another file */
    CT_RECORDER_NO_MEMORY = 7, /* for the breakpoints at functions' starts */
};

enum ct_start_flags { CT_START_NOTIFY_LOADS = 1 /* tell the host of each module load, and wait for its answer */ };

/* in/out of: uint32_t ct_start(struct ct_start *) */
struct ct_start {
    uint32_t abi;          /* in: CT_RECORDER_ABI */
    uint32_t flags;        /* in: enum ct_start_flags */
    uint64_t file;         /* in: handle of the trace file, valid in the target, read and write access */
    uint64_t host_process; /* in: handle of the host process (SYNCHRONIZE): nobody waits for a host that died */
    uint64_t load_request; /* in: auto-reset event: set by the DLL when a module was loaded */
    uint64_t load_answer;  /* in: auto-reset event: set by the host when it has dealt with it */
    uint32_t status;       /* out: enum ct_recorder_status */
    uint32_t system_error; /* out: NTSTATUS or Win32 error behind it */
    uint32_t cursor;       /* out: gs offset */
    uint32_t scratch[3];   /* out: gs offsets */
    uint64_t slow_path;    /* out: VA */
    uint64_t coarse_clock; /* out: VA of a 64-bit word: time stamp counter << 24, renewed by a thread of the DLL */
};

/* in of: uint32_t ct_add_code(const struct ct_code *), uint32_t ct_remove_code(const struct ct_code *) */
struct ct_code {
    uint64_t base;   /* VA of the module; what the function table's RVAs count from */
    uint64_t region; /* VA of the relocated copies */
    uint32_t region_size;
    uint32_t table;       /* RVA (from base) of the sorted RUNTIME_FUNCTION array of the copies */
    uint32_t table_count; /* entries */
    uint32_t breakpoints; /* RVA of an array of struct ct_breakpoint */
    uint32_t breakpoint_count;
    uint32_t reserved;
};

/* An int3 in place of a function's first byte, which the recorder turns into a jump to the function's copy. */
struct ct_breakpoint {
    uint32_t rva;  /* of the function */
    uint32_t copy; /* RVA of what its entry leads to */
};

/* void *ct_add_vectored_handler(ULONG first, PVECTORED_EXCEPTION_HANDLER handler): for the program, in place of
 * AddVectoredExceptionHandler, so that its handlers do not see the breakpoints above. */

/* uint32_t ct_stop(void): record nothing more in any thread; copies may go on running. */

#endif
