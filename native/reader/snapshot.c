/* Reads the slots of a trace that is still being recorded, while its threads go on.
 *
 * A thread's blocks are in slots and, sooner or later, in the file behind them: a slot is cleared only when its block
 * has been written completely. So, in this order:
 *
 *   1. how far the file reaches
 *   2. which block each thread is in: the last one that is seen in any slot
 *   3. the contents of all slots, each unit by itself and in order, as the threads write them
 *   4. (in ct_reader_open) the headers of the file's chunks
 *   5. which blocks are still in a slot
 *
 * A block before the last one that step 2 saw of its thread has ended when step 2 is over. Step 3 finds it in its slot,
 * or it is in the file at step 4. A slot that changed hands in step 3 held a block that is in the file. Of threads that
 * step 2 met in no slot, what lies before the end seen in step 1 is in the file.
 *
 * Step 2 may miss a thread's last blocks, or all of them: the thread can be between two blocks, or go to a slot that
 * was looked at already while the one it left is cleared. A block has but one slot, from its beginning until it is in
 * the file. So, of blocks that step 2 did not see, those that are in no slot in step 5 had been written completely;
 * they count as long as none is missing between them.
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

static const struct ct_place *find_place(const struct ct_places *places, struct ct_place wanted,
                                         int (*compare)(const void *, const void *))
{
    return places->count ? bsearch(&wanted, places->items, places->count, sizeof wanted, compare) : NULL;
}

uint64_t ct_last_block(const struct ct_snapshot *snapshot, uint32_t thread_index)
{
    const struct ct_place *place = find_place(&snapshot->last, (struct ct_place){0, thread_index}, by_thread);
    return place ? place->first_unit : CT_NOT_SEEN;
}

bool ct_is_unwritten(const struct ct_snapshot *snapshot, uint32_t thread_index, uint64_t first_unit)
{
    return find_place(&snapshot->unwritten, (struct ct_place){first_unit, thread_index}, by_place);
}

/* The blocks that are in slots now. False: no memory. */
static bool see_blocks(const struct ct_slots *slots, const uint8_t *file, struct ct_places *places)
{
    uint64_t room = 0;
    for (uint32_t at = 0; at < slots->count; at++) {
        struct ct_events seen;
        if (!read_header(file + slots->items[at].offset, &seen))
            continue;
        if (!ct_reserve_items((void **)&places->items, &room, places->count + 1u, sizeof *places->items))
            return false;
        places->items[places->count++] = (struct ct_place){seen.first_unit, seen.thread_index};
    }
    if (places->count)
        qsort(places->items, places->count, sizeof *places->items, by_place);
    return true;
}

/* Each thread's last block only. */
static void keep_last(struct ct_places *places)
{
    uint32_t kept = 0;
    for (uint32_t at = 0; at < places->count; at++)
        if (!kept || places->items[kept - 1].thread_index != places->items[at].thread_index)
            places->items[kept++] = places->items[at];
    places->count = kept;
}

/* Of every LIVE chunk. False: no memory. */
static bool find_slots(struct ct_slots *slots, const uint8_t *file, uint64_t size, bool mapped)
{
    struct ct_pages pages = {.file = mapped ? file : NULL, .size = size};
    uint64_t room = 0, offset = CT_BLOCK;
    struct ct_chunk chunk;
    while (offset < size && size - offset >= sizeof chunk) {
        ct_read_header(&pages, offset);
        memcpy(&chunk, file + offset, sizeof chunk);
        uint64_t left = size - offset;
        uint64_t length = chunk.length;
        if (chunk.kind == CT_CHUNK_HOLE || !length || length % CT_BLOCK)
            length = CT_BLOCK;
        if (length > left)
            length = left;
        for (uint64_t at = CT_BLOCK; chunk.kind == CT_CHUNK_LIVE && at + CT_BLOCK <= length; at += CT_BLOCK) {
            if (!ct_reserve_items((void **)&slots->items, &room, slots->count + 1u, sizeof *slots->items))
                return false;
            slots->items[slots->count++].offset = offset + at;
        }
        offset += length;
    }
    ct_release_blocks(&pages);
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

struct ct_snapshot *ct_reader_snapshot(const void *file, uint64_t size, uint32_t mapped)
{
    struct ct_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot || size < sizeof snapshot->header)
        return snapshot;
    memcpy(&snapshot->header, file, sizeof snapshot->header);
    snapshot->file_size = size;
    if (snapshot->header.policy == CT_POLICY_COUNT) /* slots are not for us */
        return snapshot;
    bool memory =
        find_slots(&snapshot->slots, file, size, mapped) && see_blocks(&snapshot->slots, file, &snapshot->last);
    keep_last(&snapshot->last);
    for (uint32_t at = 0; at < snapshot->slots.count && memory; at++)
        memory = copy_slot(&snapshot->slots.items[at], file);
    if (memory)
        return snapshot;
    ct_reader_snapshot_close(snapshot);
    return NULL;
}

bool ct_look_again(struct ct_snapshot *snapshot, const uint8_t *file, uint64_t size, bool mapped)
{
    struct ct_slots slots = {0}; /* may be more by now */
    if (snapshot->header.policy == CT_POLICY_COUNT)
        return true;
    bool memory = find_slots(&slots, file, size, mapped) && see_blocks(&slots, file, &snapshot->unwritten);
    free(slots.items);
    return memory;
}

void ct_reader_snapshot_close(struct ct_snapshot *snapshot)
{
    for (uint32_t at = 0; at < snapshot->slots.count; at++)
        free(snapshot->slots.items[at].copy);
    free(snapshot->slots.items);
    free(snapshot->last.items);
    free(snapshot->unwritten.items);
    free(snapshot);
}
