/* The index of a trace file: its chunks, modules and threads, each thread's pieces in order. */
#include "index.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (CT_BLOCK - (uint32_t)sizeof(struct ct_events))
#define ADDRESS_LIMIT (1u << 20)

_Static_assert(sizeof(struct ct_chunk) == 32, "chunk header");
_Static_assert(sizeof(struct ct_events) == 64, "events header");
_Static_assert(sizeof(struct ct_module) == 80, "module header");
_Static_assert(sizeof(struct ct_function_record) == 16, "function record");
_Static_assert(sizeof(struct ct_site_record) == 16, "site record");

/* Growing arrays of the walk over the chunks. */
struct walk {
    struct ct_reader *reader;
    struct ct_pages pages;
    uint64_t piece_count, piece_room;
    uint64_t module_room, info_room;
};

bool ct_reserve_items(void **array, uint64_t *capacity, uint64_t count, size_t size)
{
    if (count <= *capacity)
        return true;
    uint64_t room = *capacity ? *capacity : 64;
    while (room < count)
        room *= 2;
    if (room > SIZE_MAX / size)
        return false;
    uint8_t *grown = realloc(*array, (size_t)room * size);
    if (!grown)
        return false;
    memset(grown + *capacity * size, 0, (size_t)(room - *capacity) * size);
    *array = grown;
    *capacity = room;
    return true;
}

static uint32_t address_slot(const struct ct_addresses *addresses, uint64_t va)
{
    uint32_t mask = addresses->slot_count - 1;
    uint32_t slot = (uint32_t)((va * 0x9E3779B97F4A7C15u) >> 32) & mask;
    while (addresses->slots[slot] && addresses->values[addresses->slots[slot] - 1] != va)
        slot = (slot + 1) & mask;
    return slot;
}

/* Doubles the tables; they are kept at most half full. */
static bool grow_addresses(struct ct_addresses *addresses)
{
    struct ct_addresses grown = {.count = addresses->count, .slot_count = addresses->slot_count * 2};
    if (!grown.slot_count)
        grown.slot_count = 1024;
    grown.slots = calloc(grown.slot_count, sizeof *grown.slots);
    grown.values = realloc(addresses->values, grown.slot_count / 2 * sizeof *grown.values);
    if (grown.values)
        addresses->values = grown.values;
    if (!grown.slots || !grown.values) {
        free(grown.slots);
        return false;
    }
    for (uint32_t id = 0; id < grown.count; id++)
        grown.slots[address_slot(&grown, grown.values[id])] = id + 1;
    free(addresses->slots);
    *addresses = grown;
    return true;
}

bool ct_address_id(struct ct_addresses *addresses, uint64_t va, uint32_t *id)
{
    if (!addresses->slot_count) {
        if (!grow_addresses(addresses))
            return false;
        /* Id 0 is VA 0, and stands for all that are too many. */
        addresses->slots[address_slot(addresses, 0)] = 1;
        addresses->values[addresses->count++] = 0;
    }
    uint32_t slot = address_slot(addresses, va);
    if (!addresses->slots[slot] && addresses->count < ADDRESS_LIMIT) {
        if (addresses->count == addresses->slot_count / 2) {
            if (!grow_addresses(addresses))
                return false;
            slot = address_slot(addresses, va);
        }
        addresses->values[addresses->count] = va;
        addresses->slots[slot] = ++addresses->count;
    }
    *id = addresses->slots[slot] ? addresses->slots[slot] - 1 : 0;
    return true;
}

uint32_t ct_open_units(const uint8_t *units, uint32_t room, uint32_t unit_size)
{
    uint32_t limit = room / unit_size, at = 0;
    while (at < limit) {
        uint64_t unit = 0;
        memcpy(&unit, units + (size_t)at * unit_size, unit_size);
        if (!unit)
            break;
        uint32_t step = 1;
        if ((unit & 7) == CT_EXT) {
            int values = ct_ext_values((uint32_t)(unit & 0xFFFFFF) >> 3);
            if (values > 0)
                step += (uint32_t)values * (8 / unit_size);
        }
        if (step > limit - at)
            break;
        at += step;
    }
    return at;
}

/* One block of events at `at`, a slot or a chunk, of which `left` bytes can be read. */
static bool add_piece(struct walk *walk, const uint8_t *at, uint64_t left, bool live, bool copied)
{
    struct ct_reader *reader = walk->reader;
    if (left < sizeof(struct ct_events)) {
        reader->index.truncated = 1;
        return true;
    }
    struct ct_events block;
    memcpy(&block, at, sizeof block);
    uint32_t unit_size = reader->header.unit_size;
    uint32_t room = left < CT_BLOCK ? (uint32_t)(left - sizeof block) : PIECE_BYTES;
    uint64_t used = block.chunk.payload_size;
    if (used > PIECE_BYTES || used % unit_size) {
        reader->index.damaged_chunks++;
        used = 0;
    }
    if (used > room)
        used = room;
    struct ct_piece piece = {
        .units_at = at + sizeof block,
        .first_unit = block.first_unit,
        .open_tsc = block.open_tsc,
        .close_tsc = block.close_tsc,
        .thread_index = block.thread_index,
        .thread_id = block.thread_id,
        .live = live,
        .copied = copied,
    };
    piece.units = used ? (uint32_t)(used / unit_size) : ct_open_units(piece.units_at, room, unit_size);
    if (piece.first_unit > CT_NUMBER_LIMIT || piece.open_tsc > CT_NUMBER_LIMIT) {
        reader->index.damaged_chunks++;
        return true;
    }
    if (!ct_reserve_items((void **)&reader->pieces, &walk->piece_room, walk->piece_count + 1, sizeof piece))
        return false;
    reader->pieces[walk->piece_count++] = piece;
    return true;
}

static bool add_slots(struct walk *walk, uint64_t offset, uint64_t length)
{
    struct ct_reader *reader = walk->reader;
    bool counted = reader->header.policy == CT_POLICY_COUNT; /* what is in them is not for us */
    for (uint64_t at = CT_BLOCK; at < length && at < reader->index.file_size - offset; at += CT_BLOCK) {
        uint32_t kind = CT_CHUNK_HOLE;
        ct_read_header(&walk->pages, offset + at);
        if (reader->index.file_size - offset - at >= sizeof kind)
            memcpy(&kind, reader->file + offset + at, sizeof kind);
        reader->index.live_slots++;
        uint64_t left = reader->index.file_size - offset - at;
        bool in_snapshot = reader->snapshot && left >= CT_BLOCK;
        if (kind == CT_CHUNK_EVENTS && !in_snapshot && !counted &&
            !add_piece(walk, reader->file + offset + at, left, true, false))
            return false;
    }
    return true;
}

/* `length` bytes of the chunk lie in the file. */
static bool add_module(struct walk *walk, uint64_t offset, uint64_t length)
{
    struct ct_reader *reader = walk->reader;
    struct ct_module module;
    if (length < sizeof module)
        return reader->index.damaged_chunks++, true;
    memcpy(&module, reader->file + offset, sizeof module);
    struct ct_module_entry entry = {
        .base = module.base,
        .load_tsc = module.load_tsc,
        .size = module.size,
        .index = module.index,
        .first_function = module.first_function,
        .function_count = module.function_count,
        .first_site = module.first_site,
        .site_count = module.site_count,
        .json_size = module.json_size,
    };
    entry.functions = offset + sizeof module;
    entry.sites = entry.functions + (uint64_t)entry.function_count * sizeof(struct ct_function_record);
    entry.json = entry.sites + (uint64_t)entry.site_count * sizeof(struct ct_site_record);
    bool ids = entry.first_function <= CT_ID_LIMIT && entry.function_count <= CT_ID_LIMIT - entry.first_function &&
               entry.first_site <= CT_ID_LIMIT && entry.site_count <= CT_ID_LIMIT - entry.first_site;
    /* The sums cannot wrap: three counts of 32 bits, 16 bytes each at most. */
    if (!ids || entry.json + entry.json_size > offset + length)
        return reader->index.damaged_chunks++, true;
    if (!ct_reserve_items((void **)&reader->modules, &walk->module_room, reader->index.modules + 1u, sizeof entry))
        return false;
    reader->modules[reader->index.modules++] = entry;
    return true;
}

/* False: the payload is not whole. */
static bool payload_at(struct ct_reader *reader, uint64_t offset, uint64_t length, struct ct_span *span)
{
    struct ct_chunk chunk;
    memcpy(&chunk, reader->file + offset, sizeof chunk);
    bool whole = chunk.payload_size <= length - sizeof chunk;
    reader->index.damaged_chunks += !whole;
    if (whole)
        *span = (struct ct_span){offset + sizeof chunk, chunk.payload_size};
    return whole;
}

static bool add_info(struct walk *walk, uint64_t offset, uint64_t length)
{
    struct ct_reader *reader = walk->reader;
    struct ct_span span;
    if (!payload_at(reader, offset, length, &span))
        return true;
    if (!ct_reserve_items((void **)&reader->infos, &walk->info_room, reader->index.infos + 1u, sizeof span))
        return false;
    reader->infos[reader->index.infos++] = span;
    return true;
}

static bool walk_chunks(struct walk *walk)
{
    struct ct_reader *reader = walk->reader;
    struct ct_index *index = &reader->index;
    uint64_t offset = CT_BLOCK;
    while (offset < index->file_size) {
        uint64_t left = index->file_size - offset;
        struct ct_chunk chunk;
        if (left < sizeof chunk) {
            index->truncated = 1;
            break;
        }
        ct_read_header(&walk->pages, offset);
        memcpy(&chunk, reader->file + offset, sizeof chunk);
        if (chunk.kind == CT_CHUNK_HOLE) {
            index->hole_blocks++;
            offset += CT_BLOCK;
            continue;
        }
        bool sound = chunk.length && chunk.length % CT_BLOCK == 0;
        if (chunk.kind == CT_CHUNK_EVENTS && chunk.length != CT_BLOCK)
            sound = false;
        if (!sound) {
            index->damaged_chunks++;
            offset += CT_BLOCK;
            continue;
        }
        uint64_t length = chunk.length;
        if (length > left) {
            index->truncated = 1;
            length = left;
        }
        bool memory = true;
        switch (chunk.kind) {
        case CT_CHUNK_LIVE:
            memory = add_slots(walk, offset, length);
            break;
        case CT_CHUNK_EVENTS:
            memory = add_piece(walk, reader->file + offset, left, false, false);
            break;
        case CT_CHUNK_MODULE:
            memory = add_module(walk, offset, length);
            break;
        case CT_CHUNK_INFO:
            memory = add_info(walk, offset, length);
            break;
        case CT_CHUNK_GRAPH:
            payload_at(reader, offset, length, &reader->graph);
            break;
        default:
            index->unknown_chunks++;
        }
        if (!memory)
            return false;
        offset += length;
    }
    ct_release_blocks(&walk->pages);
    if (reader->header.append_end > index->file_size)
        index->truncated = 1;
    return true;
}

static bool add_copies(struct walk *walk)
{
    const struct ct_snapshot *snapshot = walk->reader->snapshot;
    for (uint32_t at = 0; snapshot && at < snapshot->slots.count; at++) {
        const void *copy = snapshot->slots.items[at].copy;
        if (copy && !add_piece(walk, copy, CT_BLOCK, true, true))
            return false;
    }
    return true;
}

/* By thread and position; of two copies of one piece that of the snapshot first, then the fuller, then the one in a
 * slot: the file's may be half written, a slot is cleared only when it is not. */
static int compare_pieces(const void *left, const void *right)
{
    const struct ct_piece *a = left, *b = right;
    if (a->thread_index != b->thread_index)
        return a->thread_index < b->thread_index ? -1 : 1;
    if (a->first_unit != b->first_unit)
        return a->first_unit < b->first_unit ? -1 : 1;
    if (a->copied != b->copied)
        return a->copied ? -1 : 1;
    if (a->units != b->units)
        return a->units > b->units ? -1 : 1;
    if (a->live != b->live)
        return a->live ? -1 : 1;
    return a->units_at < b->units_at ? -1 : a->units_at > b->units_at;
}

static int compare_modules(const void *left, const void *right)
{
    const struct ct_module_entry *a = left, *b = right;
    if (a->index != b->index)
        return a->index < b->index ? -1 : 1;
    return a->functions < b->functions ? -1 : a->functions > b->functions;
}

/* Of a trace that is still being recorded: does what the thread did from this piece on not count (snapshot.c)? What
 * counts of the thread so far ends before unit `expected`. */
static bool is_later(const struct ct_reader *reader, const struct ct_piece *piece, uint64_t expected)
{
    const struct ct_snapshot *snapshot = reader->snapshot;
    if (!snapshot)
        return false;
    uint64_t last = ct_last_block(snapshot, piece->thread_index);
    bool seen = last != CT_NOT_SEEN;
    if (seen && piece->first_unit <= last)
        return false;
    if (!seen && !piece->copied && (uint64_t)(piece->units_at - reader->file) < snapshot->file_size)
        return false;
    return piece->first_unit > expected ||
           (!piece->copied && ct_is_unwritten(snapshot, piece->thread_index, piece->first_unit));
}

static bool is_other_copy(const struct ct_piece *kept, const struct ct_piece *piece)
{
    return kept->copied && kept->thread_index == piece->thread_index && kept->first_unit == piece->first_unit;
}

/* Makes the threads, and leaves out pieces that another one holds already: a slot whose copy is in the file. */
static bool order_threads(struct ct_reader *reader, uint64_t piece_count)
{
    if (piece_count)
        qsort(reader->pieces, (size_t)piece_count, sizeof *reader->pieces, compare_pieces);
    uint64_t kept = 0, room = 0;
    struct ct_reader_thread *thread = NULL;
    uint64_t expected = 0;
    bool later = false;
    for (uint64_t at = 0; at < piece_count; at++) {
        struct ct_piece piece = reader->pieces[at];
        if (kept && is_other_copy(&reader->pieces[kept - 1], &piece))
            continue;
        bool same = thread && thread->entry.index == piece.thread_index;
        later = (later && reader->pieces[at - 1].thread_index == piece.thread_index) ||
                is_later(reader, &piece, same ? expected : 0);
        if (later)
            continue;
        if (!same) {
            if (!ct_reserve_items((void **)&reader->threads, &room, reader->index.threads + 1u, sizeof *thread))
                return false;
            thread = &reader->threads[reader->index.threads++];
            *thread = (struct ct_reader_thread){.first_piece = kept};
            thread->entry.index = piece.thread_index;
            thread->entry.id = piece.thread_id;
            thread->entry.open_tsc = piece.open_tsc;
            expected = 0;
        }
        if (piece.first_unit < expected) {
            if (piece.first_unit + piece.units > expected)
                reader->index.damaged_chunks++;
            else
                /* The same events as a slot: then nothing is missing behind them. */
                thread->ends_live |= piece.live && piece.units && piece.first_unit + piece.units == expected;
            continue;
        }
        uint64_t missing = piece.first_unit - expected;
        thread->entry.lost += missing;
        thread->entry.units += piece.units;
        thread->ends_live = piece.live;
        thread->piece_count++;
        expected = piece.first_unit + piece.units;
        reader->pieces[kept++] = piece;
        reader->index.units += piece.units;
        reader->index.event_chunks += piece.units > 0;
        reader->index.lost += missing;
    }
    return true;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Modules in order of their index, none whose ids another one has; then what is known of ids. */
static bool order_modules(struct ct_reader *reader)
{
    uint32_t count = reader->index.modules;
    if (!count)
        return true;
    qsort(reader->modules, count, sizeof *reader->modules, compare_modules);
    uint32_t ids = 0;
    for (uint32_t at = 0; at < count; at++) {
        const struct ct_module_entry *module = &reader->modules[at];
        ids = larger(ids, module->first_function + module->function_count);
        ids = larger(ids, module->first_site + module->site_count);
    }
    uint8_t *taken = calloc(ids + 1u, 1); /* bit 0: as a function, bit 1: as a site */
    reader->parents = malloc((ids + 1u) * sizeof *reader->parents);
    reader->holders = malloc((ids + 1u) * sizeof *reader->holders);
    if (!taken || !reader->parents || !reader->holders) {
        free(taken);
        return false;
    }
    memset(reader->parents, 0xFF, (ids + 1u) * sizeof *reader->parents);
    memset(reader->holders, 0xFF, (ids + 1u) * sizeof *reader->holders);
    reader->id_count = ids;
    uint32_t kept = 0;
    for (uint32_t at = 0; at < count; at++) {
        struct ct_module_entry module = reader->modules[at];
        uint32_t functions_end = module.first_function + module.function_count;
        uint32_t sites_end = module.first_site + module.site_count;
        bool fresh = true;
        for (uint32_t id = module.first_function; id < functions_end && fresh; id++)
            fresh = !(taken[id] & 1);
        for (uint32_t id = module.first_site; id < sites_end && fresh; id++)
            fresh = !(taken[id] & 2);
        if (!fresh) {
            reader->index.damaged_chunks++;
            continue;
        }
        for (uint32_t id = module.first_function; id < functions_end; id++) {
            struct ct_function_record record;
            size_t size = sizeof record;
            memcpy(&record, reader->file + module.functions + (uint64_t)(id - module.first_function) * size, size);
            taken[id] |= 1;
            if (record.flags & CT_FUNCTION_FUNCLET && record.parent < CT_ID_LIMIT)
                reader->parents[id] = record.parent;
        }
        for (uint32_t id = module.first_site; id < sites_end; id++) {
            struct ct_site_record record;
            size_t size = sizeof record;
            memcpy(&record, reader->file + module.sites + (uint64_t)(id - module.first_site) * size, size);
            taken[id] |= 2;
            if (!(record.function & CT_SITE_TAIL))
                reader->holders[id] = record.function;
        }
        reader->modules[kept++] = module;
    }
    free(taken);
    reader->index.modules = kept;
    return true;
}

static uint32_t check_header(const uint8_t *file, uint64_t size, struct ct_file_header *header)
{
    if (size < sizeof *header || memcmp(file, CT_MAGIC, sizeof header->magic))
        return CT_READER_NOT_A_TRACE;
    memcpy(header, file, sizeof *header);
    if (header->version != CT_VERSION)
        return CT_READER_VERSION;
    uint32_t unit_size = header->clock == CT_CLOCK_NONE ? 4 : 8;
    if (header->block_size != CT_BLOCK || header->unit_size != unit_size || header->header_size != sizeof *header)
        return CT_READER_BAD_HEADER;
    return CT_READER_OK;
}

uint32_t ct_reader_abi(void)
{
    return CT_READER_ABI;
}

struct ct_reader *ct_reader_open(const void *file, uint64_t size, uint32_t mapped, struct ct_snapshot *snapshot,
                                 uint32_t *status)
{
    struct ct_file_header header;
    *status = check_header(file, size, &header);
    if (*status != CT_READER_OK)
        return NULL;
    struct ct_reader *reader = calloc(1, sizeof *reader);
    if (reader) {
        reader->file = file;
        reader->mapped = mapped;
        reader->header = snapshot ? snapshot->header : header;
        reader->snapshot = snapshot;
        reader->index.file_size = size;
        struct walk walk = {.reader = reader, .pages = {.file = mapped ? file : NULL, .size = size}};
        if (walk_chunks(&walk) && (!snapshot || ct_look_again(snapshot, file, size, mapped)) && add_copies(&walk) &&
            order_threads(reader, walk.piece_count) && order_modules(reader) && ct_read_tails(reader))
            return reader;
        reader->snapshot = NULL; /* stays the caller's */
        ct_reader_close(reader);
    }
    *status = CT_READER_NO_MEMORY;
    return NULL;
}

static int compare_marks(const void *left, const void *right)
{
    const struct ct_mark *a = left, *b = right;
    if (a->thread != b->thread)
        return a->thread < b->thread ? -1 : 1;
    if (a->position != b->position)
        return a->position < b->position ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

uint32_t ct_reader_set_marks(struct ct_reader *reader, const struct ct_mark *marks, uint32_t count)
{
    free(reader->marks);
    reader->mark_count = 0;
    reader->marks = malloc((count + 1u) * sizeof *marks);
    if (!reader->marks)
        return 0;
    memcpy(reader->marks, marks, count * sizeof *marks);
    reader->mark_count = count;
    qsort(reader->marks, count, sizeof *marks, compare_marks);
    return 1;
}

uint64_t ct_reader_units_read(const struct ct_reader *reader)
{
    return reader->units_read;
}

void ct_reader_close(struct ct_reader *reader)
{
    if (reader->snapshot)
        ct_reader_snapshot_close(reader->snapshot);
    free(reader->pieces);
    free(reader->modules);
    free(reader->infos);
    free(reader->threads);
    free(reader->parents);
    free(reader->holders);
    free(reader->tails);
    free(reader->marks);
    free(reader->addresses.values);
    free(reader->addresses.slots);
    free(reader);
}

void ct_reader_index(const struct ct_reader *reader, struct ct_index *out)
{
    *out = reader->index;
}

void ct_reader_module(const struct ct_reader *reader, uint32_t at, struct ct_module_entry *out)
{
    *out = reader->modules[at];
}

void ct_reader_info(const struct ct_reader *reader, uint32_t at, struct ct_span *out)
{
    *out = reader->infos[at];
}

uint32_t ct_reader_graph(const struct ct_reader *reader, struct ct_span *out)
{
    *out = reader->graph;
    return reader->graph.size != 0;
}

void ct_reader_thread(const struct ct_reader *reader, uint32_t at, struct ct_thread_entry *out)
{
    *out = reader->threads[at].entry;
}

uint32_t ct_reader_set_addresses(struct ct_reader *reader, const uint64_t *addresses, uint32_t count)
{
    uint32_t id;
    for (uint32_t at = 0; at < count; at++)
        if (!ct_address_id(&reader->addresses, addresses[at], &id))
            return 0;
    return 1;
}

uint64_t ct_reader_address(const struct ct_reader *reader, uint32_t id)
{
    return id < reader->addresses.count ? reader->addresses.values[id] : 0;
}
