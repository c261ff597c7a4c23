/* The calltrace trace file, version 1: the one declaration of its layout.
 *
 * Everything is little-endian. The file is a sequence of chunks, each a multiple of CT_BLOCK bytes long and
 * starting at a multiple of CT_BLOCK, so that any part of it can be mapped by itself:
 *
 *   offset 0        struct ct_file_header, padded to one block; mapped by host and target while recording
 *   ...             chunks, each starting with struct ct_chunk: skip what you do not know by its length
 *
 * A chunk whose kind is 0 is a hole of one block (its write failed or was lost with the process): step over it.
 *
 * Recording threads fill the slots of the LIVE chunk, which the target keeps mapped. A full slot is appended to
 * the file as an EVENTS chunk and the slot is used again, so a slot holds what its thread recorded last. That
 * makes the file complete up to the last event whatever ends the process.
 *
 * Who reads while it is written relies on this order (reader/snapshot.c): a thread has closed its block before it opens
 * the next one; a block's kind comes into its slot last and goes first; it goes when the block is whole in the file.
 *
 * EVENTS payload: units of header.unit_size bytes (4 without a clock, 8 with one). A unit is
 *
 *   4 bytes:  bits 0..23 code, bit 24 CT_WHOLE, bits 25..31 zero
 *   8 bytes:  bits 0..23 code, bits 24..63 the low 40 bits of the time stamp counter
 *   code:     bits 0..2 enum ct_event, bits 3..23 id
 *
 * except CT_FRAME, whose whole unit is the stack pointer (its low three bits are zero, so is CT_FRAME; in
 * 4-byte units the low 32 bits of it), and the payload units after a CT_EXT. A zero unit ends an open chunk.
 */
#ifndef CALLTRACE_TRACE_FORMAT_H
#define CALLTRACE_TRACE_FORMAT_H

#include <stdint.h>

#define CT_MAGIC "CALLTRC" /* with its terminating zero: 8 bytes */
#define CT_VERSION 1u
#define CT_BLOCK 0x10000u
#define CT_ID_LIMIT (1u << 21) /* ids of functions and of sites each stay below this */
#define CT_NONE 0xFFFFFFFFu

/* With CT_ENTER, in 4-byte units: the function has also left again, by ret. So are functions recorded in which nothing
 * can happen: no call, no fault, no loop. */
#define CT_WHOLE (1u << 24)

enum ct_event {
    CT_FRAME = 0,  /* unit = stack pointer; belongs to the ENTER, LAND, CALL or RETURN that follows it */
    CT_ENTER = 1,  /* id = function */
    CT_LEAVE = 2,  /* id = function; by ret */
    CT_TAIL = 3,   /* id = function; leaves by a jump */
    CT_CALL = 4,   /* id = site; with a FRAME: a call that may go on with another stack (SwitchToFiber) */
    CT_RETURN = 5, /* id = site */
    CT_LAND = 6,   /* id = function; execution goes on in this frame after an exception or longjmp */
    CT_EXT = 7,    /* id = enum ct_ext, followed by that kind's number of 64-bit values */
};

/* Each 64-bit value of an EXT is one unit in 8-byte traces and two (low half first) in 4-byte ones. All units of
 * one EXT lie in the same chunk. */
enum ct_ext {
    CT_EXT_THREAD_START = 1, /* 0 values */
    CT_EXT_THREAD_EXIT = 2,  /* 0 values */
    CT_EXT_MARK = 3,         /* 1 value: the number given to mark() */
    CT_EXT_ENTER = 4,        /* 2 values: function VA, call-site VA (from the C API) */
    CT_EXT_EXIT = 5,         /* 2 values: function VA, 0 */
    CT_EXT_CALL = 6,         /* 2 values: target VA, call-site VA */
    CT_EXT_RET = 7,          /* 2 values: target VA, call-site VA */
    CT_EXT_GOTO = 8,         /* 2 values: target VA, site VA: the open frame leaves by a jump to target */
    CT_EXT_RESET = 9,        /* 0 values: every open frame of this thread is forgotten */
    CT_EXT_STOP = 10,        /* 0 values: recording of this thread was stopped here on request */
    CT_EXT_MUTED = 11,       /* 1 value, of ct_muted: calls that are not in the file, of the frame that is open here
                                or deeper beneath it */
};

enum ct_muted_kind {
    CT_MUTED_FUNCTION = 0, /* id = function */
    CT_MUTED_SITE = 1,     /* id = site */
    CT_MUTED_OTHERS = 2,   /* id = how many other functions and sites together; 0 of them: only the time is told */
};

static inline uint64_t ct_muted(uint32_t kind, uint32_t id, uint64_t calls)
{
    return id | (uint64_t)kind << 21 | calls << 24;
}

/* How many 64-bit values follow a CT_EXT of this kind; -1: a kind this version does not know. */
static inline int ct_ext_values(uint32_t kind)
{
    switch (kind) {
    case CT_EXT_THREAD_START:
    case CT_EXT_THREAD_EXIT:
    case CT_EXT_RESET:
    case CT_EXT_STOP:
        return 0;
    case CT_EXT_MARK:
    case CT_EXT_MUTED:
        return 1;
    case CT_EXT_ENTER:
    case CT_EXT_EXIT:
    case CT_EXT_CALL:
    case CT_EXT_RET:
    case CT_EXT_GOTO:
        return 2;
    default:
        return -1;
    }
}

enum ct_clock { CT_CLOCK_NONE = 0, CT_CLOCK_TSC = 1, CT_CLOCK_COARSE = 2 };
enum ct_policy {
    CT_POLICY_BLOCK = 0,
    CT_POLICY_DROP_OLDEST = 1,
    CT_POLICY_COUNT = 2, /* the host counts what full slots hold, and empties them; no block goes into the file but
                            those that it makes of some of that: slots are for it alone */
};

enum ct_state {
    CT_STATE_RECORDING = 0, /* also what remains when host and target both died: the trace was cut */
    CT_STATE_EXITED = 1,    /* the target ran to its end while recording */
    CT_STATE_STOPPED = 2,   /* recording was stopped, the target went on */
    CT_STATE_KILLED = 3,    /* the target was terminated without running its DLLs' exit code */
};

/* What another process asks of the host that records, which answers by the next value. */
enum ct_pause {
    CT_PAUSE_NONE = 0,
    CT_PAUSE_WANTED = 1,
    CT_PAUSE_PAUSED = 2,
    CT_PAUSE_RESUME_WANTED = 3, /* answered by CT_PAUSE_NONE */
};

/* Offset 0. Fields marked * are changed by target and host while recording, with atomic instructions. */
struct ct_file_header {
    char magic[8];
    uint32_t version;
    uint32_t header_size; /* sizeof(struct ct_file_header) */
    uint32_t block_size;  /* CT_BLOCK */
    uint32_t unit_size;   /* 4 or 8 */
    uint32_t clock;       /* enum ct_clock */
    uint32_t policy;      /* enum ct_policy */
    uint64_t created_ns;  /* Unix time in nanoseconds */
    uint64_t tsc_start;   /* time stamp counter when created */
    uint64_t tsc_hz;      /* 0 = not known */
    uint64_t max_size;    /* bytes the file may grow to; 0 = no limit. * lowered when the disk is full */
    uint64_t ring_start;  /* * first byte that drop-oldest may overwrite; 0 until the ring is in use */
    uint64_t ring_next;   /* * block number counter of the ring; with CT_POLICY_COUNT 1 while the host sleeps */
    uint64_t append_end;  /* * where the next chunk goes */
    uint64_t units_total; /* * units in chunks that were closed, kept or lost */
    uint64_t units_lost;  /* * units of chunks given up or overwritten */
    uint32_t threads;     /* * thread indexes given out */
    uint32_t state;       /* * enum ct_state */
    uint32_t exit_code;   /* of the target, if state is CT_STATE_EXITED or CT_STATE_KILLED */
    uint32_t process_id;  /* of the target */
    uint64_t tsc_end;     /* 0 until recording ended in order */
    uint32_t blocked;     /* * threads waiting for room (policy block) */
    uint32_t stop;        /* * set by the host: record nothing more, keep nobody waiting */
    /* Module loads: the DLL fills these, signals the host, and waits for its answer (one at a time). */
    uint64_t load_base;
    uint32_t load_size;
    uint32_t load_answer; /* 1: load_path holds a struct ct_code that the DLL is to register; 0: it has, or need not */
    uint16_t load_path[508]; /* UTF-16, zero-terminated */
    uint32_t pause;          /* * enum ct_pause */
    uint32_t reserved;
};

enum ct_chunk_kind {
    CT_CHUNK_HOLE = 0,
    CT_CHUNK_LIVE = 1,   /* length - CT_BLOCK bytes of slots, each one block, follow in the blocks after this one */
    CT_CHUNK_EVENTS = 2, /* struct ct_events, one block long */
    CT_CHUNK_MODULE = 3, /* struct ct_module */
    CT_CHUNK_INFO = 4,   /* payload: UTF-8 JSON object, payload_size bytes after the 32-byte header */
    CT_CHUNK_GRAPH = 5, /* with CT_POLICY_COUNT: what was counted until it was written (reader.h); the last one tells */
};

struct ct_chunk {
    uint32_t kind; /* enum ct_chunk_kind */
    uint32_t flags;
    uint64_t length;       /* bytes to the next chunk, this header included; a multiple of CT_BLOCK */
    uint64_t payload_size; /* bytes in use after the 32 header bytes */
    uint64_t reserved;
};

#define CT_EVENTS_LIVE 1u /* flags: a slot in use (in the LIVE area only) */
#define CT_EVENTS_FULL 2u /* beside it: closed, on its way to the file or, with CT_POLICY_COUNT, to the host */

/* One block of one thread's events; also the start of every slot in the LIVE area (kind 0: slot not in use). */
struct ct_events {
    struct ct_chunk chunk; /* payload_size: bytes of units, valid once closed; 0 = open: units end at a zero one */
    uint32_t thread_index; /* dense, from 0 */
    uint32_t thread_id;    /* the system's */
    uint64_t first_unit;   /* units this thread recorded before this chunk: a jump is a gap */
    uint64_t open_tsc;
    uint64_t close_tsc; /* 0 = open */
};                      /* 64 bytes; units follow */

/* functions, then sites, then JSON follow each other right after this header. */
struct ct_module {
    struct ct_chunk chunk;
    uint64_t base; /* VA */
    uint32_t size; /* SizeOfImage */
    uint32_t index;
    uint32_t first_function; /* ids of this module's functions are first_function + position */
    uint32_t function_count;
    uint32_t first_site;
    uint32_t site_count;
    uint32_t json_size;
    uint32_t reserved2;
    uint64_t load_tsc;
}; /* 80 bytes */

enum ct_source { /* bits: who named this function */
                 CT_SOURCE_PDATA = 1,
                 CT_SOURCE_CALL = 2, /* target of a direct call */
                 CT_SOURCE_EXPORT = 4,
                 CT_SOURCE_ENTRY = 8,
                 CT_SOURCE_TLS = 16,
                 CT_SOURCE_GUARD = 32,   /* Guard CF function table */
                 CT_SOURCE_POINTER = 64, /* relocated pointer, or lea of a code address */
                 CT_SOURCE_SYMBOL = 128,
                 CT_SOURCE_JUMP = 256,     /* jumped to from another function, or called by what may be data */
                 CT_SOURCE_GAP = 512,      /* nothing: code between functions that can only be a leaf function */
                 CT_SOURCE_HANDLER = 1024, /* exception data names it as a funclet; if .pdata does not name it too */
};

enum ct_function_flags {
    CT_FUNCTION_FUNCLET = 1,  /* catch or cleanup funclet of `parent`: its ENTER's FRAME is the parent's establisher
                                 frame, or the same as the parent's if that is a funclet: everything above the
                                 parent's frame is unwound */
    CT_FUNCTION_THUNK = 2,    /* a single jmp through a pointer */
    CT_FUNCTION_FILTERED = 4, /* left alone because the user's patterns leave it out */
};

/* How the start of an instrumented function leads to its copy: flags >> CT_FUNCTION_ENTRY_SHIFT. */
#define CT_FUNCTION_ENTRY_SHIFT 4
enum ct_entry {
    CT_ENTRY_JUMP = 0,       /* a jump over its own first five bytes */
    CT_ENTRY_PADDING = 1,    /* the same, but over the padding behind it as well */
    CT_ENTRY_SHORT_JUMP = 2, /* a jump of two bytes to one in padding near by */
    CT_ENTRY_BREAKPOINT = 3, /* an int3 that the recorder catches: each entry costs microseconds */
};

struct ct_function_record {
    uint32_t rva;
    uint32_t size;    /* bytes in all its parts */
    uint16_t sources; /* enum ct_source */
    uint8_t flags;    /* enum ct_function_flags, enum ct_entry */
    uint8_t status;   /* enum ct_status: 0 = instrumented, else why not */
    uint32_t parent;  /* function id of a funclet's parent, else CT_NONE */
};

/* A call, or, with CT_SITE_TAIL, a jump by which the function may be left. No event names the latter: they tell which
 * ENTER behind a CT_TAIL can be the jump's. */
#define CT_SITE_TAIL 0x80000000u
struct ct_site_record {
    uint32_t rva;      /* of the call or jump instruction */
    uint32_t function; /* id of the function that holds it; plus CT_SITE_TAIL */
    uint32_t target;   /* RVA of a direct target in this module, else 0 */
    uint32_t import;   /* position in the JSON's "imports", else CT_NONE */
};

#endif
