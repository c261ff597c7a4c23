/* The recorder's inner workings: one session per trace file, and the threads' blocks in it.
 *
 *   slow_path.S   from inline event code into ct_refill, nothing disturbed
 *   recorder.c    the exports for the host; sessions begin and end; process and thread ends
 *   blocks.c      giving blocks to threads, closing and passing them on
 *   hits.c        first entries, and hooks that go
 *   append.c      writing closed blocks to the file; limits, full disks, the ring
 *   service.c     our own threads: the writer, the coarse clock
 *   modules.c     function tables of relocated copies; module loads
 *   api.c         the C API of calltrace.h
 *
 * Recording must go on in any thread at any instruction, at loader lock, with other threads frozen or killed, so there
 * are no locks here: each slot has a state that changes by compare-and-swap, and whoever moved a slot to SLOT_BUSY
 * owns it. A thread that dies owning one costs one slot until it is swept.
 *
 * A session has users: its recording, its own threads, and each thread that is inside the DLL on its behalf. Whoever is
 * the last to leave it, after the recording was stopped, unmaps and closes the trace file.
 */
#ifndef CALLTRACE_SESSION_H
#define CALLTRACE_SESSION_H

#include "nt.h"
#include "recorder.h"
#include "trace_format.h"
#include <stdbool.h>
#include <stddef.h>

_Static_assert(sizeof(struct ct_chunk) == 32 && sizeof(struct ct_events) == 64, "layout of the trace file");
_Static_assert(offsetof(struct ct_hook, call) % 8 == 0, "one aligned store changes the call");
_Static_assert(sizeof(struct ct_file_header) <= CT_BLOCK, "the header fits its block");

#define CT_RESERVE_STACKS (8u * 0x8000u) /* bytes; slow_path.S shares them out */

#define MORE_SLOTS                                                                                                     \
    4096u /* for threads beyond the LIVE chunk's slots: each a LIVE chunk of its own, or private memory */

enum slot_state {
    SLOT_NEW = 0, /* never used: it may still be a hole of the file, or have no block at all */
    SLOT_FREE,    /* all zeros */
    SLOT_FULL,    /* closed, to be appended to the file */
    SLOT_BUSY,    /* changing from one to another */
    SLOT_OPEN,    /* this and all above: a thread writes into it; each opening has a number of its own */
};

struct slot {
    uint32_t state;   /* enum slot_state; atomic */
    uint32_t leaving; /* its thread has announced its end; a few events may still follow */
    uint64_t teb;     /* of its thread; 0 if it has none */
    uint64_t thread_id;
    uint64_t offset; /* in the file, where its block is just being written; else 0 */
    struct ct_events *block;
    bool is_private; /* the block is not part of the file */
};

struct session {
    struct session *next;          /* every session there ever was; they are used again, and never freed */
    uint32_t users;                /* 0: the file is closed, and the session may be used again; atomic */
    uint32_t cursor;               /* gs offset of each thread's cursor; 0: this session is over and done with */
    struct ct_file_header *header; /* the file's first block, mapped */
    struct slot *slots;            /* first those of the LIVE chunk, then more */
    uint32_t live_count;
    uint32_t slot_count;   /* live_count + MORE_SLOTS */
    uint32_t slots_used;   /* slots from here on are all SLOT_NEW; atomic */
    uint32_t unit_size;    /* bytes */
    uint64_t live_offset;  /* in the file, of the first slot */
    uint64_t live_end;     /* in the file, of the LIVE chunk */
    struct ct_start given; /* by the host: flags, and handles that are ours */
    uint32_t stopped;      /* by ct_stop; atomic */
    uint32_t disk_full;    /* the last attempt to write failed for lack of room; atomic */
    uint32_t probing;      /* one thread is trying whether it still is; atomic */
    uint32_t sweeps;       /* atomic */
    uint32_t openings;     /* number for the next SLOT_OPEN; atomic */
    uint32_t leaving;      /* slots with their leaving mark set; atomic */
    HANDLE writer_id;      /* thread id of the writer while it runs, else NULL; atomic */
    uint32_t writer_idle;  /* it sleeps, or is about to; atomic */
    uint32_t running;      /* how many threads of our own have begun; atomic */
    bool counted;          /* CT_POLICY_COUNT: full slots are the host's to empty */
    uint32_t *hits;        /* one bit for each function that was entered, atomic; NULL: every event is recorded */
};

/* The session being recorded, NULL while there is none; read it by ct_acquire. */
extern struct session *ct_session;
extern __declspec(dllexport) struct ct_recorder ct_recorder;
/* Blocks nobody reads. busy: the cursor of a thread inside the recorder, and of its own threads for ever. idle: of a
 * thread with nothing to record into, for now or because its copies' recording is over. */
extern struct ct_events *ct_busy_block;
extern struct ct_events *ct_idle_block;
/* Time stamp counter << 24, when header.clock is CT_CLOCK_COARSE. */
extern uint64_t ct_coarse_clock;

/* runtime.c and inlines */
void *memset(void *to, int value, size_t size);
void *memcpy(void *to, const void *from, size_t size);

/* Zeroed memory from the system, or NULL. */
void *ct_allocate(size_t size);

/* Gives it back, whole. */
void ct_free(void *memory);

/* Held for short, or while the host plans a module; never in the slow path. */
void ct_lock(uint32_t *word);
void ct_unlock(uint32_t *word);

/* The calling thread's cursor, which is at this gs offset. */
static inline uint64_t ct_cursor(uint64_t offset)
{
    uint64_t value;
    __asm__ volatile("movq %%gs:(%1), %0" : "=r"(value) : "r"(offset) : "memory");
    return value;
}

static inline void ct_set_cursor(uint64_t offset, uint64_t value)
{
    __asm__ volatile("movq %0, %%gs:(%1)" : : "r"(value), "r"(offset) : "memory");
}

static inline uint64_t ct_this_teb(void)
{
    uint64_t value;
    __asm__ volatile("movq %%gs:0x30, %0" : "=r"(value));
    return value;
}

static inline uint64_t ct_rdtsc(void)
{
    return __builtin_ia32_rdtsc();
}

static inline HANDLE ct_handle(uint64_t value)
{
    return (HANDLE)(uintptr_t)value;
}

/* Changes *place from one value to another if that is what it holds. */
static inline bool ct_swap32(uint32_t *place, uint32_t from, uint32_t to)
{
    return __atomic_compare_exchange_n(place, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline bool ct_swap64(uint64_t *place, uint64_t from, uint64_t to)
{
    return __atomic_compare_exchange_n(place, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline uint32_t ct_load32(const uint32_t *place)
{
    return __atomic_load_n(place, __ATOMIC_SEQ_CST);
}

static inline uint64_t ct_load64(const uint64_t *place)
{
    return __atomic_load_n(place, __ATOMIC_SEQ_CST);
}

static inline void ct_store32(uint32_t *place, uint32_t value)
{
    __atomic_store_n(place, value, __ATOMIC_SEQ_CST);
}

static inline void ct_add64(uint64_t *place, uint64_t value)
{
    __atomic_fetch_add(place, value, __ATOMIC_SEQ_CST);
}

/* Where the units of a block start. */
static inline uint64_t ct_units_of(const struct ct_events *block)
{
    return (uint64_t)(uintptr_t)(block + 1);
}

/* The block a cursor points into; a cursor at a block's end belongs to that block. NULL for cursor 0. */
static inline struct ct_events *ct_block_of(uint64_t cursor)
{
    return cursor ? (struct ct_events *)(uintptr_t)((cursor - 1) & ~(uint64_t)(CT_BLOCK - 1)) : NULL;
}

static inline bool ct_recording(const struct session *s)
{
    return !ct_load32(&s->stopped) && !ct_load32(&s->header->stop);
}

/* The number of 64-bit values that follow a unit: those of its kind if it is a CT_EXT, else 0. `code` is the low 24
 * bits of the unit. */
uint32_t ct_values_after(uint32_t code);

/* recorder.c */

/* The session being recorded, with the caller as one more user; NULL if there is none. */
struct session *ct_acquire(void);

/* One user less; the last closes the file. */
void ct_release(struct session *s);

/* Gives back what sessions that are over had of the process: TLS slots, the notification of module loads. Takes locks,
 * so it is for calls of the host and for our own threads. */
void ct_tidy(void);

/* slow_path.S: where event code enters the recorder: 16 bytes of code for each TLS slot that may hold its cursor. */
extern const char ct_slow_paths[];
#define CT_TLS_OFFSET 0x1480u /* in the TEB, of the first of 64 slots of 8 bytes */

/* blocks.c */

/* The slow path, come through the entry that ends at `from`, called by event code that goes on at `caller`: gives the
 * calling thread room for at least one unit, or records a first entry. */
void ct_refill(const char *from, uint64_t caller);

/* Room for `size` bytes of units in one block of the calling thread: their address, or 0 if it is not recording. Its
 * cursor is not moved past them. */
uint64_t ct_room(struct session *s, uint32_t size);

/* Moves the calling thread's cursor, which the end of recording may have taken elsewhere just before. */
void ct_move_cursor(struct session *s, uint64_t cursor);

/* Records one CT_EXT with its values; false if the thread is not recording. */
bool ct_record(enum ct_ext kind, uint64_t first, uint64_t second);

/* Records that a function was entered, and left again, unless that was recorded before. false: the thread is not
 * recording. */
bool ct_record_hit(struct session *s, uint32_t id);

/* Records the end of the calling thread. DLLs told after us, and thread-local destructors, may still record: so its
 * block stays open, and is swept when the thread is gone. */
void ct_thread_ends(void);

/* Address behind the last unit of an open block, found by reading it. */
uint64_t ct_end_of_units(const struct session *s, const struct ct_events *block);

/* SLOT_BUSY of the caller → SLOT_FREE, zeroed. */
void ct_free_slot(struct slot *slot);

/* Takes a full slot, the longest closed one first; NULL if there is none. It is SLOT_BUSY then. */
struct slot *ct_take_full(struct session *s);

/* Appends every full block; false if there was no room for one. */
bool ct_drain(struct session *s);

/* Closes the blocks of threads that died; with `all` unset only of those that had
 * announced it. */
void ct_sweep(struct session *s, bool all);

/* Ends every thread's recording with CT_EXT_STOP. */
void ct_close_all(struct session *s);

/* At the process's end, with all other threads gone: brings into the file what lies outside it. */
void ct_settle(struct session *s);

/* hits.c */

/* The call of a struct ct_hook, which ends at `caller`: records that the function is entered, for the first time only,
 * and takes the hook away. */
void ct_hit(struct session *s, uint64_t caller);

/* append.c */

enum append_result {
    APPEND_DONE,
    APPEND_NO_ROOM, /* policy block: try again later */
    APPEND_LOST,    /* given up, and counted */
};

/* Writes a slot's closed block to the file, following the policy when there is no room. Never waits. If a thread died
 * while it did so, the next one writes to the same place. */
enum append_result ct_append(struct session *s, struct slot *slot);

/* Adds a LIVE chunk of one slot to the file, and maps the slot: its zeroed block, or NULL if there is no room. */
struct ct_events *ct_append_slot(struct session *s);

/* Writes at an offset. The number of bytes written is in *done, also on failure. */
NTSTATUS ct_write(const struct session *s, uint64_t offset, const void *data, uint32_t size, uint32_t *done);

/* Reads exactly `size` bytes at an offset. */
bool ct_read(const struct session *s, uint64_t offset, void *data, uint32_t size);

/* Counts a closed block's units as lost. */
void ct_lose(struct session *s, const struct ct_events *block);

/* Is this the header of a closed EVENTS block? */
bool ct_is_events(const struct session *s, const struct ct_events *block);

/* recorder.c */

/* Maps a part of the file. */
NTSTATUS ct_map_part(HANDLE section, uint64_t offset, uint64_t size, void **view);

/* A section of the whole file as it is now. */
NTSTATUS ct_open_section(HANDLE file, HANDLE *section);

/* service.c */

/* Starts the writer, and the coarse clock if asked for, as users; without them recording still works. */
void ct_start_service(struct session *s);

/* Tells the writer that a slot is full. */
void ct_wake_writer(struct session *s);

/* Tells the host that a slot is full, if it sleeps. */
void ct_wake_host(struct session *s);

/* Sleeps 20 ms, or until the host has made room; true if the host has died. */
bool ct_wait_for_room(struct session *s);

/* breakpoints.c. The caller holds a lock. */

/* From now on the int3s of `code` lead to their copies. false: no memory. */
bool ct_add_breakpoints(const struct ct_code *code);

/* And no longer. */
void ct_remove_breakpoints(const struct ct_code *code);

/* RtlAddVectoredExceptionHandler, but ours stays in front. */
void *ct_add_handler(ULONG first, PVECTORED_EXCEPTION_HANDLER handler);

/* modules.c */

/* Registers for notification of module loads and unloads, if that was not done; undoes it. */
void ct_watch_modules(void);
void ct_unwatch_modules(void);

/* The copies that are being recorded and hold this address; NULL if there are none. Takes no lock: for a thread that
 * will return there, so that they stay. */
const struct ct_code *ct_code_at(uint64_t address);

/* Are copies left of the recording with this cursor? */
bool ct_has_code(uint32_t cursor);

/* No jump leads to any copy any more, and no thread waits for the host's answer. false: a thread is just changing the
 * list of copies, and nothing was done. */
bool ct_leave_code(struct session *s);

/* Waits for that thread. */
void ct_await_code(void);

#endif
