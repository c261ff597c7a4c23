/* Events as columns. */
#include <stdlib.h>

#include "machine.h"
#include "nodes.h"
#include "rows.h"

struct ct_column_reader {
    struct ct_machine machine;
    struct ct_totals totals;
    struct ct_nodes nodes;
    struct ct_stat *stats; /* by node */
    uint64_t stat_room;
};

struct ct_column_reader *ct_reader_columns_open(struct ct_reader *reader)
{
    struct ct_column_reader *columns = calloc(1, sizeof *columns);
    if (columns)
        ct_machine_start(&columns->machine, reader, 0, UINT32_MAX, &columns->totals);
    return columns;
}

void ct_reader_columns_close(struct ct_column_reader *columns)
{
    ct_machine_free(&columns->machine);
    ct_nodes_free(&columns->nodes);
    free(columns->stats);
    free(columns);
}

static void set_bit(uint8_t *bits, uint32_t at, bool set)
{
    bits[at / 8] = (uint8_t)((at % 8 ? bits[at / 8] : 0) | set << at % 8);
}

/* The end of a call. False: no memory. */
static bool count(struct ct_column_reader *columns, uint32_t node, const struct ct_step *step)
{
    if (!ct_reserve_items((void **)&columns->stats, &columns->stat_room, node + 1u, sizeof *columns->stats))
        return false;
    struct ct_stat *stat = &columns->stats[node];
    stat->calls += !(step->flags & CT_STEP_RESUMED);
    stat->self += step->self;
    if (step->flags & CT_STEP_OUTERMOST)
        stat->total += step->time - step->begin;
    return true;
}

/* False: no memory. */
static bool fill(struct ct_column_reader *columns, const struct ct_columns *out, uint32_t row,
                 const struct ct_step *step)
{
    struct ct_node node;
    bool named = ct_row_node(step, &node), closes = step->type == CT_STEP_CLOSE, has_value = ct_row_has_value(step);
    out->thread[row] = columns->machine.reader->threads[step->thread].entry.index;
    out->position[row] = step->position;
    out->time[row] = (int64_t)(step->time - out->start);
    out->depth[row] = step->depth;
    out->event[row] = (uint8_t)ct_row_of(step);
    out->node[row] = named ? ct_node_number(&columns->nodes, node) : 0;
    out->value[row] = has_value ? step->value : 0;
    out->duration[row] = closes ? step->time - step->begin : 0;
    out->self[row] = closes ? step->self : 0;
    out->cause[row] = step->cause;
    set_bit(out->has_node, row, named);
    set_bit(out->has_value, row, has_value);
    set_bit(out->closes, row, closes);
    return out->node[row] != CT_NONE && (!closes || count(columns, out->node[row], step));
}

uint32_t ct_reader_columns_next(struct ct_column_reader *columns, const struct ct_columns *out, uint32_t capacity,
                                uint32_t *pull)
{
    uint32_t row = 0;
    struct ct_step step;
    while (row < capacity && ct_machine_next(&columns->machine, &step)) {
        if (step.type == CT_STEP_THREAD)
            continue;
        if (!fill(columns, out, row, &step)) {
            *pull = CT_PULL_NO_MEMORY;
            return row;
        }
        row++;
    }
    *pull = row == capacity ? CT_PULL_MORE : CT_PULL_END;
    if (columns->machine.no_memory)
        *pull = CT_PULL_NO_MEMORY;
    return row;
}

const struct ct_node *ct_reader_columns_nodes(const struct ct_column_reader *columns, uint32_t *count)
{
    *count = columns->nodes.count;
    return columns->nodes.of;
}

const struct ct_stat *ct_reader_columns_stats(const struct ct_column_reader *columns, uint32_t *count)
{
    *count = (uint32_t)(columns->stat_room < columns->nodes.count ? columns->stat_room : columns->nodes.count);
    return columns->stats;
}
