/* Which functions a function may be left to by a jump, from the site records of its module. */
#include "index.h"

#include <stdlib.h>
#include <string.h>

struct start {
    uint32_t rva, id;
};

static int by_rva(const void *a, const void *b)
{
    const struct start *x = a, *y = b;
    return x->rva < y->rva ? -1 : x->rva > y->rva;
}

static int by_tail(const void *a, const void *b)
{
    const struct ct_tail *x = a, *y = b;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return x->to < y->to ? -1 : x->to > y->to;
}

static struct ct_site_record site_at(const struct ct_reader *reader, const struct ct_module_entry *module, uint32_t at)
{
    struct ct_site_record record;
    memcpy(&record, reader->file + module->sites + (uint64_t)at * sizeof record, sizeof record);
    return record;
}

static bool read_module(struct ct_reader *reader, const struct ct_module_entry *module, uint64_t *room)
{
    struct start *starts = malloc(((size_t)module->function_count + 1) * sizeof *starts);
    if (!starts)
        return false;
    for (uint32_t i = 0; i < module->function_count; i++) {
        struct ct_function_record record;
        memcpy(&record, reader->file + module->functions + (uint64_t)i * sizeof record, sizeof record);
        starts[i] = (struct start){record.rva, module->first_function + i};
    }
    qsort(starts, module->function_count, sizeof *starts, by_rva);
    bool memory = true;
    for (uint32_t i = 0; i < module->site_count && memory; i++) {
        struct ct_site_record record = site_at(reader, module, i);
        if (!(record.function & CT_SITE_TAIL))
            continue;
        struct ct_tail tail = {record.function & ~CT_SITE_TAIL, CT_NONE};
        if (record.target) {
            struct start wanted = {record.target, 0};
            const struct start *start = bsearch(&wanted, starts, module->function_count, sizeof *starts, by_rva);
            tail.to = start ? start->id : CT_ID_LIMIT; /* no function: matches none */
        }
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
