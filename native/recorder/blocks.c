/* Giving blocks to threads, closing them and passing them on. */
#include "session.h"

/* A thread that records nothing looks again after so many bytes of units. */
#define IDLE_BYTES 2048u
/* In use before the host is woken to count what is in them. */
#define SLOTS_BEFORE_HOST 8

struct ct_events *ct_busy_block;
struct ct_events *ct_idle_block;

static uint8_t zeros[CT_BLOCK]; /* never written to */

static uint64_t idle_cursor(void)
{
    return (uint64_t)(uintptr_t)ct_idle_block + CT_BLOCK - IDLE_BYTES;
}

uint32_t ct_values_after(uint32_t code)
{
    int values = (code & 7) == CT_EXT ? ct_ext_values(code >> 3) : 0;
    return values > 0 ? (uint32_t)values : 0;
}

static void write_unit(const struct session *s, uint64_t at, uint32_t code)
{
    if (s->header->clock == CT_CLOCK_NONE)
        __atomic_store_n((uint32_t *)(uintptr_t)at, code, __ATOMIC_RELEASE);
    else if (s->header->clock == CT_CLOCK_TSC)
        __atomic_store_n((uint64_t *)(uintptr_t)at, ct_rdtsc() << 24 | code, __ATOMIC_RELEASE);
    else
        __atomic_store_n((uint64_t *)(uintptr_t)at, ct_load64(&ct_coarse_clock) | code, __ATOMIC_RELEASE);
}

uint64_t ct_end_of_units(const struct session *s, const struct ct_events *block)
{
    uint64_t at = ct_units_of(block), end = (uint64_t)(uintptr_t)block + CT_BLOCK;
    while (at < end) {
        uint64_t unit = s->unit_size == 4 ? *(const uint32_t *)(uintptr_t)at : *(const uint64_t *)(uintptr_t)at;
        if (unit == 0)
            break;
        at += s->unit_size + 8 * ct_values_after((uint32_t)unit & 0xFFFFFF);
    }
    return at < end ? at : end;
}

static bool is_open(uint32_t state)
{
    return state >= SLOT_OPEN;
}

/* The slot the calling thread has open with this block; NULL if it is of an earlier session, or closed meanwhile. */
static struct slot *own_slot(struct session *s, const struct ct_events *block)
{
    if (!block)
        return NULL;
    struct slot *slot = NULL;
    uint64_t distance = (uint64_t)((const char *)block - (const char *)s->slots[0].block);
    if (distance < (uint64_t)s->live_count * CT_BLOCK) {
        slot = s->slots + distance / CT_BLOCK;
    } else {
        uint32_t used = ct_load32(&s->slots_used);
        for (uint32_t i = s->live_count; i < used && !slot; i++)
            if (s->slots[i].block == block)
                slot = s->slots + i;
    }
    return slot && is_open(ct_load32(&slot->state)) && slot->teb == ct_this_teb() ? slot : NULL;
}

/* Makes a new slot fit for use. The file gets real zeros there, so that a full disk is an error here and not a fault
 * in the target's next event. */
static bool materialise(struct session *s, struct slot *slot)
{
    uint32_t index = (uint32_t)(slot - s->slots), done;
    if (index < s->live_count)
        return NT_SUCCESS(ct_write(s, s->live_offset + (uint64_t)index * CT_BLOCK, zeros, CT_BLOCK, &done));
    slot->block = ct_append_slot(s);
    slot->is_private = !slot->block;
    if (slot->is_private)
        slot->block = ct_allocate(CT_BLOCK);
    if (!slot->block)
        return false;
    for (uint32_t used = ct_load32(&s->slots_used); used <= index; used = ct_load32(&s->slots_used))
        ct_swap32(&s->slots_used, used, index + 1);
    return true;
}

/* Has the host emptied this full slot? */
static bool is_emptied(const struct session *s, const struct slot *slot)
{
    return s->counted && __atomic_load_n(&slot->block->chunk.kind, __ATOMIC_ACQUIRE) == CT_CHUNK_HOLE;
}

/* Takes a free slot, or else a new one, of those in [from, to). It is SLOT_BUSY then. */
static struct slot *take_slot(struct session *s, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        struct slot *slot = s->slots + i;
        uint32_t state = ct_load32(&slot->state);
        bool is_free = state == SLOT_FREE || (state == SLOT_FULL && is_emptied(s, slot));
        if (is_free && ct_swap32(&slot->state, state, SLOT_BUSY))
            return slot;
    }
    for (uint32_t i = from; i < to; i++) {
        struct slot *slot = s->slots + i;
        if (ct_load32(&slot->state) != SLOT_NEW || !ct_swap32(&slot->state, SLOT_NEW, SLOT_BUSY))
            continue;
        if (materialise(s, slot))
            return slot;
        ct_store32(&slot->state, SLOT_NEW);
        return NULL;
    }
    return NULL;
}

/* SLOT_BUSY, or the caller's own → SLOT_OPEN for the calling thread; returns the cursor. The kind is written last: what
 * is left of a process killed half way through is an unused slot. */
static uint64_t open_slot(struct session *s, struct slot *slot, uint32_t thread_index, uint64_t first_unit)
{
    struct ct_events *block = slot->block;
    uint32_t thread_id;
    __asm__ volatile("movl %%gs:0x48, %0" : "=r"(thread_id));
    block->chunk.flags = CT_EVENTS_LIVE;
    block->chunk.length = CT_BLOCK;
    block->thread_index = thread_index;
    block->thread_id = thread_id;
    block->first_unit = first_unit;
    block->open_tsc = ct_rdtsc();
    __atomic_store_n(&block->chunk.kind, CT_CHUNK_EVENTS, __ATOMIC_RELEASE);
    slot->teb = ct_this_teb();
    slot->thread_id = thread_id;
    uint32_t number = __atomic_fetch_add(&s->openings, 1, __ATOMIC_SEQ_CST);
    ct_store32(&slot->state, SLOT_OPEN + number % (UINT32_MAX - SLOT_OPEN));
    return ct_units_of(block);
}

/* The kind goes first: what is left of a thread killed half way through is not taken for a block. */
static void clear_block(struct slot *slot)
{
    __atomic_store_n(&slot->block->chunk.kind, CT_CHUNK_HOLE, __ATOMIC_SEQ_CST);
    memset(slot->block, 0, CT_BLOCK);
    __atomic_store_n(&slot->offset, 0, __ATOMIC_SEQ_CST);
}

void ct_free_slot(struct slot *slot)
{
    clear_block(slot);
    slot->teb = 0;
    ct_store32(&slot->leaving, 0);
    ct_store32(&slot->state, SLOT_FREE);
}

static void close_block(struct session *s, struct ct_events *block, uint64_t end)
{
    block->chunk.payload_size = end - ct_units_of(block);
    block->close_tsc = ct_rdtsc();
    ct_add64(&s->header->units_total, block->chunk.payload_size / s->unit_size);
}

/* Lets the host have a closed block, which empties it. It is not woken for each: lower slots are taken first, so that
 * few are full as long as low ones are in use. Memory of our own it does not see. */
static enum append_result give_to_host(struct session *s, struct slot *slot)
{
    if (slot->is_private) {
        ct_lose(s, slot->block);
        return APPEND_LOST;
    }
    if (is_emptied(s, slot))
        return APPEND_DONE;
    __atomic_store_n(&slot->block->chunk.flags, CT_EVENTS_LIVE | CT_EVENTS_FULL, __ATOMIC_RELEASE);
    if (slot - s->slots >= SLOTS_BEFORE_HOST)
        ct_wake_host(s);
    return APPEND_NO_ROOM;
}

/* A closed block's slot → SLOT_FULL, for the host or the writer; without one the caller writes it as far as there is
 * room. Then a block in the LIVE chunk can stay as it is. */
static void pass_on(struct session *s, struct slot *slot)
{
    if (s->counted && give_to_host(s, slot) != APPEND_NO_ROOM) {
        ct_free_slot(slot);
        return;
    }
    if (!s->counted)
        slot->block->chunk.flags = CT_EVENTS_LIVE | CT_EVENTS_FULL;
    ct_store32(&slot->leaving, 0);
    ct_store32(&slot->state, SLOT_FULL);
    if (s->counted)
        return;
    if (__atomic_load_n(&s->writer_id, __ATOMIC_SEQ_CST))
        ct_wake_writer(s);
    else
        ct_drain(s);
}

struct slot *ct_take_full(struct session *s)
{
    while (!s->counted) {
        struct slot *oldest = NULL;
        uint32_t used = ct_load32(&s->slots_used);
        for (uint32_t i = 0; i < used; i++) {
            struct slot *slot = s->slots + i;
            if (ct_load32(&slot->state) == SLOT_FULL && (!oldest || slot->block->close_tsc < oldest->block->close_tsc))
                oldest = slot;
        }
        if (!oldest || ct_swap32(&oldest->state, SLOT_FULL, SLOT_BUSY))
            return oldest;
    }
    return NULL;
}

bool ct_drain(struct session *s)
{
    for (;;) {
        struct slot *slot = ct_take_full(s);
        if (!slot)
            return true;
        if (ct_append(s, slot) == APPEND_NO_ROOM) {
            ct_store32(&slot->state, SLOT_FULL);
            return false;
        }
        ct_free_slot(slot);
    }
}

/* From a full block to the next one, as the thread's policy has it. */
static uint64_t next_block(struct session *s, struct slot *slot)
{
    struct ct_events *block = slot->block;
    uint32_t thread_index = block->thread_index;
    uint64_t first_unit = block->first_unit + block->chunk.payload_size / s->unit_size;
    bool waiting = false, host_died = false;
    uint64_t cursor = 0;
    while (!cursor) {
        /* A quarter of the LIVE chunk is kept for threads to come. Who has none of it takes what there is. */
        uint32_t limit = slot->is_private ? s->live_count : s->live_count - (s->live_count + 3) / 4;
        struct slot *fresh = NULL;
        if (slot->is_private || __atomic_load_n(&s->writer_id, __ATOMIC_SEQ_CST))
            fresh = take_slot(s, 0, limit);
        if (fresh) {
            ct_store32(&fresh->leaving, ct_load32(&slot->leaving));
            cursor = open_slot(s, fresh, thread_index, first_unit);
            pass_on(s, slot);
            break;
        }
        enum append_result result = s->counted ? give_to_host(s, slot) : ct_append(s, slot);
        if (result == APPEND_NO_ROOM) {
            if (!ct_recording(s)) {
                pass_on(s, slot);
                cursor = idle_cursor();
                break;
            }
            if (!waiting) {
                __atomic_fetch_add(&s->header->blocked, 1, __ATOMIC_SEQ_CST);
                waiting = true; /* who makes room now sees that; and may have just made some */
                continue;
            }
            if (!host_died) {
                host_died = ct_wait_for_room(s);
                continue;
            }
            ct_lose(s, block); /* nobody is left to make room */
        }
        clear_block(slot);
        cursor = open_slot(s, slot, thread_index, first_unit);
    }
    if (waiting)
        __atomic_fetch_sub(&s->header->blocked, 1, __ATOMIC_SEQ_CST);
    return cursor;
}

static uint64_t first_block(struct session *s)
{
    struct slot *slot = take_slot(s, 0, s->live_count);
    if (!slot) {
        /* Threads that were terminated did not say so: look for them now and then. */
        bool all = __atomic_fetch_add(&s->sweeps, 1, __ATOMIC_SEQ_CST) % 16 == 0;
        if (all || ct_load32(&s->leaving)) {
            ct_sweep(s, all);
            slot = take_slot(s, 0, s->live_count);
        }
    }
    if (!slot)
        slot = take_slot(s, s->live_count, s->slot_count);
    if (!slot) {
        ct_add64(&s->header->units_total, IDLE_BYTES / s->unit_size);
        ct_add64(&s->header->units_lost, IDLE_BYTES / s->unit_size);
        return idle_cursor();
    }
    uint64_t at = open_slot(s, slot, __atomic_fetch_add(&s->header->threads, 1, __ATOMIC_SEQ_CST), 0);
    write_unit(s, at, CT_EXT_THREAD_START << 3 | CT_EXT);
    return at + s->unit_size;
}

/* Ends the calling thread's recording into a block whose units end at `end`. */
static void leave_block(struct session *s, struct slot *slot, uint64_t end)
{
    if (end == ct_units_of(slot->block)) {
        ct_free_slot(slot);
    } else {
        close_block(s, slot->block, end);
        pass_on(s, slot);
    }
}

/* The calling thread is done with `block`, whose units end at `end`; NULL if it has none. Moves its cursor to the next.
 * Meanwhile, what is called here may be traced itself: the events of that go nowhere. */
static void advance(struct session *s, struct ct_events *block, uint64_t end)
{
    ct_set_cursor(s->cursor, ct_units_of(ct_busy_block));
    struct slot *slot = own_slot(s, block);
    uint64_t cursor = idle_cursor();
    if (!ct_recording(s)) {
        if (slot)
            leave_block(s, slot, end);
    } else if (slot) {
        close_block(s, slot->block, end);
        cursor = next_block(s, slot);
    } else {
        cursor = first_block(s);
    }
    ct_move_cursor(s, cursor);
}

void ct_move_cursor(struct session *s, uint64_t cursor)
{
    ct_set_cursor(s->cursor, cursor);
    if (ct_recording(s))
        return;
    ct_set_cursor(s->cursor, ct_units_of(ct_busy_block));
    struct slot *slot = own_slot(s, ct_block_of(cursor));
    if (slot)
        leave_block(s, slot, cursor); /* whoever stopped the recording did not dare to touch it */
    ct_set_cursor(s->cursor, idle_cursor());
}

void ct_refill(const char *from, uint64_t caller)
{
    uint64_t offset = CT_TLS_OFFSET + (uint64_t)(from - ct_slow_paths) / 16 * 8;
    uint64_t cursor = ct_cursor(offset);
    struct ct_events *block = ct_block_of(cursor);
    if (block == ct_busy_block) {
        ct_set_cursor(offset, ct_units_of(ct_busy_block));
        return;
    }
    struct session *s = ct_acquire();
    if (s && s->cursor == offset && s->hits)
        ct_hit(s, caller);
    else if (s && s->cursor == offset)
        advance(s, block, cursor);
    else /* the recording of these copies is over */
        ct_set_cursor(offset, ct_units_of(ct_idle_block));
    if (s)
        ct_release(s);
}

uint64_t ct_room(struct session *s, uint32_t size)
{
    uint64_t cursor = ct_cursor(s->cursor);
    struct ct_events *block = ct_block_of(cursor);
    if (!ct_recording(s) || block == ct_busy_block)
        return 0;
    if (!cursor || block == ct_idle_block || cursor + size > (uint64_t)(uintptr_t)block + CT_BLOCK)
        advance(s, block, cursor);
    cursor = ct_cursor(s->cursor);
    return ct_block_of(cursor) == ct_idle_block ? 0 : cursor;
}

static bool record(struct session *s, enum ct_ext kind, uint64_t first, uint64_t second)
{
    uint32_t code = (uint32_t)kind << 3 | CT_EXT, values = ct_values_after(code);
    uint32_t size = s->unit_size + 8 * values;
    uint64_t at = ct_room(s, size);
    if (!at)
        return false;
    /* The unit itself last: until then the chunk ends before it. */
    uint64_t value[2] = {first, second};
    memcpy((void *)(uintptr_t)(at + s->unit_size), value, 8 * values);
    write_unit(s, at, code);
    ct_move_cursor(s, at + size);
    return true;
}

bool ct_record(enum ct_ext kind, uint64_t first, uint64_t second)
{
    struct session *s = ct_acquire();
    if (!s)
        return false;
    bool recorded = record(s, kind, first, second);
    ct_release(s);
    return recorded;
}

bool ct_record_hit(struct session *s, uint32_t id)
{
    uint32_t *word = s->hits + id / 32, bit = 1u << id % 32;
    if (ct_load32(word) & bit)
        return true;
    uint32_t size = 2 * s->unit_size;
    uint64_t at = ct_room(s, size);
    if (!at)
        return false;
    /* Whoever stops the recording from now on leaves the block to us. */
    ct_set_cursor(s->cursor, ct_units_of(ct_busy_block));
    if (!own_slot(s, ct_block_of(at))) {
        ct_set_cursor(s->cursor, idle_cursor());
        return false;
    }
    if (__atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST) & bit)
        size = 0;
    if (size) {
        /* The first one last: until then the chunk ends before it. */
        write_unit(s, at + s->unit_size, id << 3 | CT_LEAVE);
        write_unit(s, at, id << 3 | CT_ENTER);
    }
    ct_move_cursor(s, at + size);
    return true;
}

static void end_thread(struct session *s)
{
    struct slot *slot = own_slot(s, ct_block_of(ct_cursor(s->cursor)));
    if (!slot || !record(s, CT_EXT_THREAD_EXIT, 0, 0))
        return;
    slot = own_slot(s, ct_block_of(ct_cursor(s->cursor)));
    if (slot && ct_swap32(&slot->leaving, 0, 1))
        __atomic_fetch_add(&s->leaving, 1, __ATOMIC_SEQ_CST);
}

void ct_thread_ends(void)
{
    struct session *s = ct_acquire();
    if (!s)
        return;
    end_thread(s);
    ct_release(s);
}

/* Where the thread that had this slot open stands. */
static bool cursor_of(const struct session *s, const struct slot *slot, uint64_t *cursor)
{
    return slot->teb && NT_SUCCESS(NtReadVirtualMemory(NT_PROCESS, (void *)(uintptr_t)(slot->teb + s->cursor), cursor,
                                                       sizeof *cursor, NULL));
}

static bool is_dead(const struct session *s, const struct slot *slot)
{
    OBJECT_ATTRIBUTES attributes = {.Length = sizeof attributes};
    CLIENT_ID id = {.UniqueThread = (HANDLE)(uintptr_t)slot->thread_id};
    HANDLE thread;
    NTSTATUS status = NtOpenThread(&thread, THREAD_QUERY_LIMITED_INFORMATION | SYNCHRONIZE, &attributes, &id);
    if (!NT_SUCCESS(status))
        return status == STATUS_INVALID_CID || status == STATUS_INVALID_PARAMETER;
    LARGE_INTEGER now = {0};
    nt_thread_basic_information information;
    bool dead = NtWaitForSingleObject(thread, FALSE, &now) == STATUS_WAIT_0;
    if (!dead && NT_SUCCESS(NtQueryInformationThread(thread, (THREADINFOCLASS)0 /* basic */, &information,
                                                     sizeof information, NULL))) {
        /* Thread ids and TEBs are used again, so the thread found may be a later one. */
        uint64_t cursor;
        if ((uint64_t)(uintptr_t)information.teb != slot->teb)
            dead = true;
        else if (cursor_of(s, slot, &cursor))
            dead = ct_block_of(cursor) != slot->block && ct_block_of(cursor) != ct_busy_block;
    }
    NtClose(thread);
    return dead;
}

/* SLOT_BUSY of a thread that is gone or was stopped → SLOT_FULL, or free if nothing is in it. `stopped`: the cursor of
 * a stopped thread, behind which there may be half an event; 0 for one that is gone. */
static void finish(struct session *s, struct slot *slot, uint64_t stopped)
{
    struct ct_events *block = slot->block;
    if (block->chunk.kind == CT_CHUNK_EVENTS && block->chunk.payload_size == 0) {
        uint64_t end = stopped ? stopped : ct_end_of_units(s, block);
        if (stopped && end + s->unit_size <= (uint64_t)(uintptr_t)block + CT_BLOCK) {
            write_unit(s, end, CT_EXT_STOP << 3 | CT_EXT);
            end += s->unit_size;
        }
        if (end != ct_units_of(block))
            close_block(s, block, end);
    }
    if (block->chunk.kind == CT_CHUNK_EVENTS && block->chunk.payload_size)
        pass_on(s, slot);
    else
        ct_free_slot(slot);
}

void ct_sweep(struct session *s, bool all)
{
    uint32_t used = ct_load32(&s->slots_used);
    for (uint32_t i = 0; i < used; i++) {
        struct slot *slot = s->slots + i;
        uint32_t state = ct_load32(&slot->state), leaving = ct_load32(&slot->leaving);
        if (!is_open(state) || !(all || leaving) || slot->teb == ct_this_teb() || !is_dead(s, slot))
            continue;
        if (!ct_swap32(&slot->state, state, SLOT_BUSY)) /* what was found out is of an earlier opening */
            continue;
        if (leaving)
            __atomic_fetch_sub(&s->leaving, 1, __ATOMIC_SEQ_CST);
        finish(s, slot, 0);
    }
}

void ct_close_all(struct session *s)
{
    uint32_t used = ct_load32(&s->slots_used);
    for (uint32_t i = 0; i < used; i++) {
        struct slot *slot = s->slots + i;
        uint32_t state = ct_load32(&slot->state);
        uint64_t cursor = 0;
        if (!is_open(state))
            continue;
        bool there = cursor_of(s, slot, &cursor) && ct_block_of(cursor) == slot->block;
        bool dead = is_dead(s, slot);
        /* Else it is in the slow path, and will find out for itself that recording is over. */
        if ((!there && !dead) || !ct_swap32(&slot->state, state, SLOT_BUSY))
            continue;
        if (!dead) {
            /* Event code may have tested its cursor already, so it gets one that can be written through. */
            uint64_t idle = idle_cursor();
            NtWriteVirtualMemory(NT_PROCESS, (void *)(uintptr_t)(slot->teb + s->cursor), &idle, sizeof idle, NULL);
        }
        finish(s, slot, dead ? 0 : cursor);
    }
    ct_drain(s);
}

void ct_settle(struct session *s)
{
    uint32_t used = ct_load32(&s->slots_used);
    for (uint32_t i = 0; i < used; i++) {
        struct slot *slot = s->slots + i;
        uint32_t state = ct_load32(&slot->state);
        /* Blocks that the writer, or a thread, died over; and those in memory that goes with the process. */
        if (slot->block && slot->teb != ct_this_teb() && (state == SLOT_BUSY || (is_open(state) && slot->is_private))) {
            ct_store32(&slot->state, SLOT_BUSY);
            finish(s, slot, 0);
        }
    }
    ct_drain(s);
    uint64_t cursor = ct_cursor(s->cursor);
    struct slot *own = own_slot(s, ct_block_of(cursor));
    if (own && own->is_private)
        advance(s, own->block, cursor);
    for (uint32_t i = s->live_count; i < used; i++)
        if (s->slots[i].is_private && ct_load32(&s->slots[i].state) == SLOT_FULL)
            ct_lose(s, s->slots[i].block);
}
