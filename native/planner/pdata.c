/* The exception directory: RUNTIME_FUNCTIONs, their unwind data, and which of them make up one function. */
#include <stdlib.h>

#include "module.h"

enum { CHAIN_LIMIT = 32, KIND_SAMPLES = 64, LABELS_LIMIT = 8 };

static int by_begin(const void *a, const void *b)
{
    const struct ct_part *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin ? 1 : 0;
}

void ct_sort_parts(struct ct_plan *plan)
{
    if (plan->parts.count) {
        qsort(plan->parts.items, plan->parts.count, sizeof *plan->parts.items, by_begin);
    }
}

struct ct_part *ct_part_at(const struct ct_plan *plan, uint32_t rva)
{
    uint32_t low = 0, high = plan->parts.count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (plan->parts.items[middle].begin <= rva) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low && rva < plan->parts.items[low - 1].end ? &plan->parts.items[low - 1] : NULL;
}

static void read_parts(struct ct_plan *plan)
{
    const struct ct_image *image = &plan->image;
    for (uint32_t at = 0; at + 12 <= image->pdata_size; at += 12) {
        struct ct_part part = {
            .begin = ct_u32(image, image->pdata + at),
            .end = ct_u32(image, image->pdata + at + 4),
            .group = CT_NONE,
            .unwind = {.rva = ct_u32(image, image->pdata + at + 8)},
        };
        if (part.begin || part.end) {
            vec_push(&plan->parts, &plan->oom, part);
        }
    }
    ct_sort_parts(plan);
}

static void new_group(struct ct_plan *plan, struct ct_part *part, uint32_t status, uint32_t status_at)
{
    struct ct_group group = {
        .function =
            {
                .rva = part->begin,
                .status = status,
                .status_at = status_at,
                .parent = CT_NONE,
                .sources = CT_SOURCE_PDATA,
            },
        .parent = CT_NONE,
    };
    part->group = plan->groups.count;
    plan->damaged |= status != CT_OK;
    vec_push(&plan->groups, &plan->oom, group);
}

/* Parts that overlap or lie outside executable sections become functions of their own that are refused. */
static void check_extents(struct ct_plan *plan)
{
    uint32_t kept = 0, last_end = 0;
    for (uint32_t i = 0; i < plan->parts.count; i++) {
        struct ct_part part = plan->parts.items[i];
        const struct ct_range *section = ct_exec(&plan->image, part.begin);
        bool sound = part.begin < part.end && section && part.end <= section->end && part.begin >= last_end;
        if (sound) {
            last_end = part.end;
            plan->parts.items[kept++] = part;
        } else {
            new_group(plan, &part, CT_OVERLAP, part.begin);
        }
    }
    plan->parts.count = kept;
}

/* The part that `part` is chained to, over any number of steps: the primary. NULL: a broken chain. */
static struct ct_part *primary_of(struct ct_plan *plan, struct ct_part *part)
{
    for (unsigned steps = 0; steps < CHAIN_LIMIT; steps++) {
        if (!(part->unwind.flags & CT_UNW_CHAININFO)) {
            return part;
        }
        uint32_t begin = part->unwind.chain[0];
        part = ct_part_at(plan, begin);
        if (!part || part->begin != begin || part->unwind.version == 0) {
            return NULL;
        }
    }
    return NULL;
}

/* What the data behind each handler looks like, judged over samples of all functions that use it: a handler in a
 * stripped program has no name. */
struct handler_use {
    uint32_t handler;
    uint32_t part;
};

static int by_handler(const void *a, const void *b)
{
    const struct handler_use *x = a, *y = b;
    if (x->handler != y->handler) {
        return x->handler < y->handler ? -1 : 1;
    }
    return x->part < y->part ? -1 : x->part > y->part ? 1 : 0;
}

/* Data of so little shape that the handler's code must bear it out. */
static bool bears_out(struct ct_plan *plan, enum ct_handler kind, uint32_t handler, uint8_t *words)
{
    if (kind != CT_HANDLER_LABELS && kind != CT_HANDLER_GS) {
        return true;
    }
    struct ct_handler_code code = ct_read_handler_code(plan, handler);
    *words = code.words;
    return !code.names_code && (kind == CT_HANDLER_GS || (code.words && code.words <= LABELS_LIMIT));
}

static enum ct_handler kind_of(struct ct_plan *plan, const struct handler_use *uses, uint32_t count, uint8_t *words)
{
    static const enum ct_handler order[] = {CT_HANDLER_FH3, CT_HANDLER_LSDA,   CT_HANDLER_SCOPE,
                                            CT_HANDLER_FH4, CT_HANDLER_LABELS, CT_HANDLER_GS};
    uint32_t step = count / KIND_SAMPLES + 1;
    for (unsigned k = 0; k < sizeof order / sizeof *order; k++) {
        bool all = true;
        for (uint32_t i = 0; all && i < count; i += step) {
            const struct ct_part *part = &plan->parts.items[uses[i].part];
            all = ct_handler_fits(&plan->image, order[k], part->unwind.data, part->begin, part->end, &plan->budget);
        }
        if (all && bears_out(plan, order[k], uses->handler, words)) {
            return order[k];
        }
    }
    return CT_HANDLER_OTHER;
}

static void classify_handlers(struct ct_plan *plan)
{
    VEC(struct handler_use) uses = {0};
    for (uint32_t i = 0; i < plan->parts.count; i++) {
        const struct ct_unwind *unwind = &plan->parts.items[i].unwind;
        if (unwind->version && unwind->flags & (CT_UNW_EHANDLER | CT_UNW_UHANDLER) &&
            !(unwind->flags & CT_UNW_CHAININFO)) {
            vec_push(&uses, &plan->oom, (struct handler_use){unwind->handler, i});
        }
    }
    if (uses.count) {
        qsort(uses.items, uses.count, sizeof *uses.items, by_handler);
    }
    for (uint32_t i = 0, next; i < uses.count; i = next) {
        for (next = i + 1; next < uses.count && uses.items[next].handler == uses.items[i].handler; next++) {
        }
        uint8_t words = 0;
        enum ct_handler kind = kind_of(plan, uses.items + i, next - i, &words);
        for (uint32_t k = i; k < next; k++) {
            plan->parts.items[uses.items[k].part].handler = kind;
            plan->parts.items[uses.items[k].part].handler_words = words;
        }
    }
    vec_free(&uses);
}

void ct_read_pdata(struct ct_plan *plan)
{
    read_parts(plan);
    check_extents(plan);
    for (uint32_t i = 0; i < plan->parts.count; i++) {
        struct ct_part *part = &plan->parts.items[i];
        uint32_t rva = part->unwind.rva;
        if (!ct_read_unwind(&plan->image, rva, &part->unwind)) {
            part->unwind = (struct ct_unwind){.rva = rva};
        }
    }
    classify_handlers(plan);
    for (uint32_t i = 0; i < plan->parts.count; i++) {
        struct ct_part *part = &plan->parts.items[i];
        if (part->unwind.version == 0) {
            new_group(plan, part, CT_UNWIND_BAD, part->unwind.rva);
        } else if (!(part->unwind.flags & CT_UNW_CHAININFO)) {
            new_group(plan, part, CT_OK, 0);
        }
    }
    for (uint32_t i = 0; i < plan->parts.count; i++) {
        struct ct_part *part = &plan->parts.items[i];
        if (part->group == CT_NONE) {
            struct ct_part *primary = primary_of(plan, part);
            if (primary && primary->group != CT_NONE) {
                part->group = primary->group;
                plan->groups.items[part->group].chained = true;
            } else {
                new_group(plan, part, CT_UNWIND_BAD, part->unwind.rva);
            }
        }
    }
}
