/* Between the host and calltrace.dll inside the target: what the host writes into the target's memory and passes,
 * by address, to the DLL's exports, which it calls on a stopped thread. Fixed layout, 64-bit little-endian.
 *
 * Inline event code in relocated copies keeps its state in four TLS slots, addressed as gs:[offset]:
 *
 *   cursor    address of the next unit in the thread's block. Blocks are CT_BLOCK-aligned and units start behind
 *             a header, so the low 16 bits are zero exactly when the block is full or the thread has none yet:
 *             then the code calls `slow_path`, which preserves every register and flag, and looks again.
 *   scratch   three slots where registers are saved for the length of one event.
 *
 * Each recording has a cursor slot and a slow path of its own. Copies that a stack still refers to when their recording
 * is stopped stay, with a cursor that leads nowhere; the next recording knows nothing of them. The scratch slots are
 * those of all recordings: no thread is in the middle of two events.
 *
 * What a recording leaves in the process is listed in the DLL, which stays loaded: any later host can put the original
 * bytes back, free copies that nobody refers to any more, and end a recording whose host has died.
 */
#ifndef CALLTRACE_RECORDER_H
#define CALLTRACE_RECORDER_H

#include <stdint.h>

#define CT_RECORDER_ABI 4u

enum ct_recorder_status {
    CT_RECORDER_OK = 0,
    CT_RECORDER_BAD_ABI = 1,    /* host and DLL are of different versions */
    CT_RECORDER_NO_TLS = 2,     /* no four free TLS slots among the 64 that live in the TEB */
    CT_RECORDER_NO_MAPPING = 3, /* the trace file cannot be mapped; system_error says why */
    CT_RECORDER_NO_TABLE = 4,   /* RtlAddFunctionTable refused */
    CT_RECORDER_NOT_STARTED = 5,
    CT_RECORDER_TWICE = 6,     /* already recording into another file */
    CT_RECORDER_NO_MEMORY = 7, /* also: too many copies are left of earlier recordings */
    CT_RECORDER_BUSY = 8,      /* a thread that does not run now is in the way: call ct_await, then try again */
};

enum ct_start_flags {
    CT_START_NOTIFY_LOADS = 1, /* tell the host of each module load, and wait for its answer */
    CT_START_HITS = 2,         /* copies have a struct ct_hook: record each function's first entry, and unhook it */
};

/* in/out of: uint32_t ct_start(struct ct_start *). The handles belong to the DLL from then on, whatever comes of it; it
 * closes them when the recording is over and no thread needs them any more. */
struct ct_start {
    uint32_t abi;          /* in: CT_RECORDER_ABI */
    uint32_t flags;        /* in: enum ct_start_flags */
    uint64_t file;         /* in: handle of the trace file, valid in the target, read and write access */
    uint64_t host_process; /* in: handle of the host process (SYNCHRONIZE): nobody waits for a host that died */
    uint64_t load_request; /* in: auto-reset event: set by the DLL when a module was loaded */
    uint64_t load_answer;  /* in: auto-reset event: set by the host when it has dealt with it */
    uint64_t full;         /* in: with CT_POLICY_COUNT, auto-reset event: set by the DLL when the host sleeps and a slot
                              is full */
    uint64_t room;         /* in: beside it, auto-reset event: set by the host when it has emptied some */
    uint32_t status;       /* out: enum ct_recorder_status */
    uint32_t system_error; /* out: NTSTATUS or Win32 error behind it */
    uint32_t cursor;       /* out: gs offset */
    uint32_t scratch[3];   /* out: gs offsets */
    uint64_t slow_path;    /* out: VA */
    uint64_t coarse_clock; /* out: VA of a 64-bit word: time stamp counter << 24, renewed by a thread of the DLL */
};

enum ct_code_state {
    CT_CODE_FREE = 0,     /* an unused entry */
    CT_CODE_ACTIVE = 1,   /* jumps lead to these copies */
    CT_CODE_LEFT = 2,     /* their recording was stopped: only a thread that is inside can run them */
    CT_CODE_UNLOADED = 3, /* their module is gone, and their function table */
};

/* The copies of one module's functions, which a region of memory holds. In of: uint32_t ct_add_code(const struct
 * ct_code *), before the first jump to them is written, and of uint32_t ct_remove_code(const struct ct_code *), which
 * goes by `region`; the host frees that afterwards. */
struct ct_code {
    uint64_t base;   /* VA of the module; what RVAs count from */
    uint64_t region; /* VA of the relocated copies */
    uint32_t region_size;
    uint32_t code_size;   /* bytes at its start that are code */
    uint32_t table;       /* RVA of the sorted RUNTIME_FUNCTION array of the copies */
    uint32_t table_count; /* entries */
    uint32_t patches;     /* RVA of an array of struct ct_patch */
    uint32_t patch_count;
    uint32_t breakpoints; /* RVA of an array of struct ct_breakpoint */
    uint32_t breakpoint_count;
    uint32_t state;  /* out: enum ct_code_state */
    uint32_t cursor; /* out: gs offset of the recording they belong to */
};

/* Bytes of the module that lead to a copy. */
struct ct_patch {
    uint32_t rva;
    uint32_t size;
    uint8_t original[8];
    uint8_t bytes[8];
};

/* An int3 in place of a function's first byte, which the recorder turns into a jump to the function's copy. */
struct ct_breakpoint {
    uint32_t rva;  /* of the function */
    uint32_t copy; /* RVA of what its entry leads to */
};

/* In front of a copy, in a recording of first entries: what leads to the function goes to `call`. Both that, and the
 * bytes that lead there, are changed while other threads run through them, so `call` is 8-byte aligned. */
struct ct_hook {
    uint32_t rva;    /* of the function */
    uint32_t id;     /* of its events */
    uint8_t call[5]; /* call rel32, to the slow path; once that is no longer wanted a nop */
};

/* The exported variable ct_recorder; to be read at any time. */
struct ct_recorder {
    uint32_t abi;
    uint32_t recording;  /* from ct_start to ct_stop: id of the host process, or 1 if that is not known; else 0 */
    uint32_t open_files; /* trace files that are still mapped and open */
    uint32_t code_count; /* entries of `codes` to look at */
    uint64_t codes;      /* VA of struct ct_code[]; an entry is valid while its state is not CT_CODE_FREE */
    uint64_t nowhere;    /* VA of room for units that nobody reads */
};

/* void *ct_add_vectored_handler(ULONG first, PVECTORED_EXCEPTION_HANDLER handler): for the program, in place of
 * AddVectoredExceptionHandler, so that its handlers do not see the breakpoints above. */

/* uint32_t ct_is_orphaned(void): 1 if the host of the recording that is under way has died.
 *
 * uint32_t ct_stop(void): record nothing more in any thread; copies may go on running. The host has put the original
 * bytes back, and has set RCX to ct_recorder.nowhere in each thread that stands in event code with a unit's address
 * there: the trace file is unmapped once the DLL's own threads have ended, soon after the target goes on. It never
 * waits, so that no other thread need run meanwhile.
 *
 * uint32_t ct_await(void): wait, if need be, for another thread, which must be able to run. */

#endif
