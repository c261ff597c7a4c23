/* The map between original instructions and their copies: for whoever shows one as the other, or looks for it. */
#include "module.h"

/* What begins there ends what lies before it; of two that begin at one place the first is empty. */
static void put_piece(struct ct_plan *plan, uint32_t begin, uint32_t rva)
{
    struct ct_piece *last = plan->pieces.count ? &plan->pieces.items[plan->pieces.count - 1] : NULL;
    if (last && last->begin == begin) {
        last->rva = rva;
    } else if (!last || last->rva != rva) {
        vec_push(&plan->pieces, &plan->oom, ((struct ct_piece){begin, rva}));
    }
}

/* What follows an instruction's copy belongs to the next one. */
static void put_part(struct ct_plan *plan, const struct ct_part *part)
{
    for (uint32_t i = part->first; i < part->first + part->count; i++) {
        const struct ct_insn *insn = &plan->insns.items[i];
        put_piece(plan, i == part->first ? part->copy_begin : plan->branch_label[i], insn->rva);
        put_piece(plan, plan->end_label[i], insn->rva + insn->length);
    }
}

/* Behind the parts: the stubs through which instructions leave the function. Rets may share one. */
static void put_exits(struct ct_plan *plan, const struct ct_group *group)
{
    uint32_t last = 0;
    for (uint32_t p = 0; p < group->parts.count; p++) {
        const struct ct_part *part = &plan->parts.items[group->parts.items[p]];
        for (uint32_t i = part->first; i < part->first + part->count; i++) {
            const struct ct_insn *insn = &plan->insns.items[i];
            uint32_t label = plan->exit_label[i];
            uint32_t start = insn->flags & CT_INSN_SWITCHES ? label : label - plan->codegen.event.entry;
            if (label && start > last) {
                put_piece(plan, start, insn->rva);
                last = start;
            }
        }
    }
}

static void put_pieces(struct ct_plan *plan)
{
    for (uint32_t g = 0; g < plan->groups.count; g++) {
        const struct ct_group *group = &plan->groups.items[g];
        if (!ct_is_copied(group)) {
            continue;
        }
        put_piece(plan, group->copy.begin, group->function.rva); /* the entry stub */
        for (uint32_t p = 0; p < group->parts.count; p++) {
            put_part(plan, &plan->parts.items[group->parts.items[p]]);
        }
        put_exits(plan, group);
        put_piece(plan, group->copy.end, CT_NONE);
    }
}

/* May the copy's first instruction run without its function being entered anew? */
static bool goes_back_to_start(const struct ct_plan *plan, const struct ct_group *group)
{
    if (group->unresolved || plan->marks[group->function.rva] & CT_MARK_LAND) {
        return true;
    }
    for (uint32_t p = 0; p < group->parts.count; p++) {
        const struct ct_part *part = &plan->parts.items[group->parts.items[p]];
        for (uint32_t i = part->first; i < part->first + part->count; i++) {
            const struct ct_insn *insn = &plan->insns.items[i];
            bool jumps = insn->flow == CT_FLOW_JMP || insn->flow == CT_FLOW_JCC || insn->flow == CT_FLOW_LOOP;
            if (jumps && insn->target == group->function.rva) {
                return true;
            }
        }
    }
    return false;
}

static void put_copied(struct ct_plan *plan)
{
    for (uint32_t p = 0; p < plan->parts.count; p++) {
        const struct ct_part *part = &plan->parts.items[p];
        const struct ct_group *group = part->group == CT_NONE ? NULL : &plan->groups.items[part->group];
        if (!group || !ct_is_copied(group)) {
            continue;
        }
        for (uint32_t i = part->first; i < part->first + part->count; i++) {
            uint32_t rva = plan->insns.items[i].rva, begin = plan->branch_label[i];
            bool passed = rva == group->function.rva && !ct_starts_with_int3(group) && !goes_back_to_start(plan, group);
            vec_push(&plan->copied, &plan->oom, ((struct ct_copied){rva, begin, passed ? 0 : begin}));
        }
    }
}

bool ct_plan_copies(struct ct_plan *plan, struct ct_copies *out)
{
    plan->pieces.count = 0;
    plan->copied.count = 0;
    put_pieces(plan);
    put_copied(plan);
    *out = (struct ct_copies){plan->pieces.items, plan->copied.items, plan->pieces.count, plan->copied.count};
    return !plan->oom;
}
