/* Reads the slots of a trace that is still being recorded, while its threads go on.
 *
 * A thread's blocks are in slots and, sooner or later, in the file behind them: a slot is cleared only when its block
 * has been written completely. So, in this order:
 *
 *   1. how far the file reaches
 *   2. which block each thread is in: the last one that is seen in any slot; later blocks do not count
 *   3. the contents of all slots, each unit by itself and in order, as the threads write them
 *   4. (in ct_reader_open) the chunks of the file
 *
 * A block before the thread's last one has ended when step 2 is over. Step 3 finds it in its slot, or it is in the file
 * at step 4. A slot that changed hands in step 3 held a block that is in the file. Of threads that step 2 met in no
 * slot, what lies behind the end seen in step 1 does not count: it may be half written.
 */
#include "index.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_WORDS (CT_BLOCK / sizeof(uint64_t))
#define EVENTS_WORDS (sizeof(struct ct_events) / sizeof(uint64_t))

_Static_assert(sizeof(struct ct_events) % sizeof(uint64_t) == 0, "events header in words");

static void read_words(uint64_t *to, const uint8_t *from, size_t from_word, size_t to_word)
{
    const uint64_t *words = (const void *)from;
    for (size_t at = from_word; at < to_word; at++)
        to[at] = __atomic_load_n(&words[at], __ATOMIC_ACQUIRE);
}

/* False: the slot is not in use, or just given up. */
static bool read_header(const uint8_t *slot, struct ct_events *header)
{
    uint64_t words[EVENTS_WORDS];
    read_words(words, slot, 0, EVENTS_WORDS);
    memcpy(header, words, sizeof *header);
    return header->chunk.kind == CT_CHUNK_EVENTS;
}

static bool same_block(const struct ct_events *a, const struct ct_events *b)
{
    return a->thread_index == b->thread_index && a->first_unit == b->first_unit && a->open_tsc == b->open_tsc;
}

bool ct_copy_block(const uint8_t *block, uint64_t *copy)
{
    struct ct_events before, after;
    if (!read_header(block, &before))
        return false;
    memcpy(copy, &before, sizeof before);
    read_words(copy, block, EVENTS_WORDS, BLOCK_WORDS);
    return read_header(block, &after) && same_block(&before, &after);
}

static int by_thread(const void *a, const void *b)
{
    const struct ct_place *x = a, *y = b;
    return x->thread_index < y->thread_index ? -1 : x->thread_index > y->thread_index;
}

/* By thread, each thread's last block first. */
static int by_place(const void *a, const void *b)
{
    const struct ct_place *x = a, *y = b;
    if (x->thread_index != y->thread_index)
        return by_thread(a, b);
    return x->first_unit > y->first_unit ? -1 : x->first_unit < y->first_unit;
}

uint64_t ct_last_block(const struct ct_snapshot *snapshot, uint32_t thread_index)
{
    struct ct_place wanted = {.thread_index = thread_index};
    const struct ct_place *place = NULL;
    if (snapshot->last_count)
        place = bsearch(&wanted, snapshot->last, snapshot->last_count, sizeof wanted, by_thread);
    return place ? place->first_unit : CT_NOT_SEEN;
}

/* False: no memory. */
static bool see_threads(struct ct_snapshot *snapshot, const uint8_t *file)
{
    uint64_t room = 0;
    for (uint32_t at = 0; at < snapshot->slot_count; at++) {
        struct ct_events seen;
        if (!read_header(file + snapshot->slots[at].offset, &seen))
            continue;
        if (!ct_reserve_items((void **)&snapshot->last, &room, snapshot->last_count + 1u, sizeof *snapshot->last))
            return false;
        snapshot->last[snapshot->last_count++] = (struct ct_place){seen.first_unit, seen.thread_index};
    }
    if (snapshot->last_count)
        qsort(snapshot->last, snapshot->last_count, sizeof *snapshot->last, by_place);
    uint32_t kept = 0;
    for (uint32_t at = 0; at < snapshot->last_count; at++)
        if (!kept || snapshot->last[kept - 1].thread_index != snapshot->last[at].thread_index)
            snapshot->last[kept++] = snapshot->last[at];
    snapshot->last_count = kept;
    return true;
}

/* Of every LIVE chunk. False: no memory. */
static bool find_slots(struct ct_snapshot *snapshot, const uint8_t *file, uint64_t size)
{
    uint64_t room = 0, offset = CT_BLOCK;
    struct ct_chunk chunk;
    while (offset < size && size - offset >= sizeof chunk) {
        memcpy(&chunk, file + offset, sizeof chunk);
        uint64_t left = size - offset;
        uint64_t length = chunk.length;
        if (chunk.kind == CT_CHUNK_HOLE || !length || length % CT_BLOCK)
            length = CT_BLOCK;
        if (length > left)
            length = left;
        for (uint64_t at = CT_BLOCK; chunk.kind == CT_CHUNK_LIVE && at + CT_BLOCK <= length; at += CT_BLOCK) {
            if (!ct_reserve_items((void **)&snapshot->slots, &room, snapshot->slot_count + 1u, sizeof(struct ct_slot)))
                return false;
            snapshot->slots[snapshot->slot_count++].offset = offset + at;
        }
        offset += length;
    }
    return true;
}

/* False: no memory. */
static bool copy_slot(struct ct_slot *slot, const uint8_t *file)
{
    struct ct_events now;
    if (!read_header(file + slot->offset, &now))
        return true;
    slot->copy = malloc(CT_BLOCK);
    if (!slot->copy)
        return false;
    if (!ct_copy_block(file + slot->offset, slot->copy)) {
        free(slot->copy);
        slot->copy = NULL;
    }
    return true;
}

struct ct_snapshot *ct_reader_snapshot(const void *file, uint64_t size)
{
    struct ct_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot || size < sizeof snapshot->header)
        return snapshot;
    memcpy(&snapshot->header, file, sizeof snapshot->header);
    snapshot->file_size = size;
    bool memory = find_slots(snapshot, file, size) && see_threads(snapshot, file);
    for (uint32_t at = 0; at < snapshot->slot_count && memory; at++)
        memory = copy_slot(&snapshot->slots[at], file);
    if (memory)
        return snapshot;
    ct_reader_snapshot_close(snapshot);
    return NULL;
}

void ct_reader_snapshot_close(struct ct_snapshot *snapshot)
{
    for (uint32_t at = 0; at < snapshot->slot_count; at++)
        free(snapshot->slots[at].copy);
    free(snapshot->slots);
    free(snapshot->last);
    free(snapshot);
}
