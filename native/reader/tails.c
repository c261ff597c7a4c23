/* Which functions a function may be left to by a jump, from the site records of its module. */
#include "index.h"

#include <stdlib.h>
#include <string.h>

static int by_rva(const void *a, const void *b)
{
    const struct ct_start *x = a, *y = b;
    return x->rva < y->rva ? -1 : x->rva > y->rva;
}

static int by_tail(const void *a, const void *b)
{
    const struct ct_tail *x = a, *y = b;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return x->to < y->to ? -1 : x->to > y->to;
}

struct ct_site_record ct_site_at(const struct ct_reader *reader, const struct ct_module_entry *module, uint32_t at)
{
    struct ct_site_record record;
    memcpy(&record, reader->file + module->sites + (uint64_t)at * sizeof record, sizeof record);
    return record;
}

struct ct_start *ct_function_starts(const struct ct_reader *reader, const struct ct_module_entry *module)
{
    struct ct_start *starts = malloc(((size_t)module->function_count + 1) * sizeof *starts);
    for (uint32_t i = 0; i < module->function_count && starts; i++) {
        struct ct_function_record record;
        memcpy(&record, reader->file + module->functions + (uint64_t)i * sizeof record, sizeof record);
        starts[i] = (struct ct_start){record.rva, module->first_function + i};
    }
    if (starts)
        qsort(starts, module->function_count, sizeof *starts, by_rva);
    return starts;
}

uint32_t ct_function_at(const struct ct_start *starts, uint32_t count, uint32_t rva)
{
    struct ct_start wanted = {rva, 0};
    const struct ct_start *start = bsearch(&wanted, starts, count, sizeof *starts, by_rva);
    return start ? start->id : CT_NONE;
}

static bool read_module(struct ct_reader *reader, const struct ct_module_entry *module, uint64_t *room)
{
    struct ct_start *starts = ct_function_starts(reader, module);
    if (!starts)
        return false;
    bool memory = true;
    for (uint32_t i = 0; i < module->site_count && memory; i++) {
        struct ct_site_record record = ct_site_at(reader, module, i);
        if (!(record.function & CT_SITE_TAIL))
            continue;
        struct ct_tail tail = {record.function & ~CT_SITE_TAIL, CT_NONE};
        if (record.target) {
            uint32_t to = ct_function_at(starts, module->function_count, record.target);
            tail.to = to == CT_NONE ? CT_ID_LIMIT : to; /* no function: matches none */
        } else if (record.import != CT_NONE && reader->index.modules == 1)
            tail.to = CT_ID_LIMIT; /* what is imported lies in no other module that was traced */
        memory = ct_reserve_items((void **)&reader->tails, room, reader->tail_count + 1, sizeof tail);
        if (memory)
            reader->tails[reader->tail_count++] = tail;
    }
    free(starts);
    return memory;
}

bool ct_read_tails(struct ct_reader *reader)
{
    uint64_t room = 0;
    for (uint32_t at = 0; at < reader->index.modules; at++)
        if (!read_module(reader, &reader->modules[at], &room))
            return false;
    if (reader->tail_count)
        qsort(reader->tails, reader->tail_count, sizeof *reader->tails, by_tail);
    return true;
}

/* The first tail that is not less than { from, to }. */
static uint64_t find(const struct ct_reader *reader, uint32_t from, uint32_t to)
{
    struct ct_tail wanted = {from, to};
    uint64_t low = 0, high = reader->tail_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (by_tail(&reader->tails[middle], &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool has(const struct ct_reader *reader, uint32_t from, uint32_t to)
{
    uint64_t at = find(reader, from, to);
    return at < reader->tail_count && reader->tails[at].from == from && reader->tails[at].to == to;
}

bool ct_may_tail(const struct ct_reader *reader, uint32_t from, uint32_t to)
{
    uint64_t at = find(reader, from, 0);
    bool known = at < reader->tail_count && reader->tails[at].from == from;
    return !known || has(reader, from, to) || has(reader, from, CT_NONE);
}
