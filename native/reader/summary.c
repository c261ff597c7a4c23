/* A trace, or some threads of it, in numbers: totals, and calls and times by function and site. */
#include "machine.h"

#include <stdlib.h>

#define STEPS_PER_RUN (1u << 22)

struct stats {
    struct ct_stat *of;
    uint64_t count;
};

struct ct_summary {
    struct ct_machine machine;
    struct ct_totals totals;
    struct stats stats[CT_NODE_KINDS];
};

struct ct_summary *ct_reader_summary_open(struct ct_reader *reader, uint32_t first_thread, uint32_t thread_count)
{
    struct ct_summary *summary = calloc(1, sizeof *summary);
    if (!summary)
        return NULL;
    ct_machine_start(&summary->machine, reader, first_thread, thread_count, &summary->totals);
    summary->totals.first_time = UINT64_MAX;
    return summary;
}

static bool take(struct ct_summary *summary, const struct ct_step *step)
{
    struct ct_totals *totals = &summary->totals;
    if (step->type == CT_STEP_THREAD)
        return true;
    if (step->time < totals->first_time)
        totals->first_time = step->time;
    if (step->time > totals->last_time)
        totals->last_time = step->time;
    if (step->type != CT_STEP_CLOSE)
        return true;
    struct stats *stats = &summary->stats[step->kind];
    if (!ct_reserve_items((void **)&stats->of, &stats->count, step->id + 1u, sizeof *stats->of))
        return false;
    struct ct_stat *stat = &stats->of[step->id];
    stat->calls += !(step->flags & CT_STEP_RESUMED);
    stat->self += step->self;
    if (step->flags & CT_STEP_OUTERMOST)
        stat->total += step->time - step->begin;
    return true;
}

uint32_t ct_reader_summary_run(struct ct_summary *summary)
{
    struct ct_step step;
    for (uint32_t count = 0; count < STEPS_PER_RUN; count++) {
        if (!ct_machine_next(&summary->machine, &step))
            return summary->machine.no_memory ? CT_PULL_NO_MEMORY : CT_PULL_END;
        if (!take(summary, &step))
            return CT_PULL_NO_MEMORY;
    }
    return CT_PULL_MORE;
}

void ct_reader_summary_totals(const struct ct_summary *summary, struct ct_totals *out)
{
    *out = summary->totals;
    if (out->first_time > out->last_time)
        out->first_time = out->last_time;
}

const struct ct_stat *ct_reader_summary_stats(const struct ct_summary *summary, uint32_t kind, uint32_t *count)
{
    *count = (uint32_t)summary->stats[kind].count;
    return summary->stats[kind].of;
}

void ct_reader_summary_close(struct ct_summary *summary)
{
    ct_machine_free(&summary->machine);
    for (int kind = 0; kind < CT_NODE_KINDS; kind++)
        free(summary->stats[kind].of);
    free(summary);
}
