/* Between the addresses of original instructions and those of their copies, both ways: for whoever shows the copies as
 * the code they are copies of. */
#include "module.h"

static const struct ct_group *copied_group(const struct ct_plan *plan, uint32_t rva)
{
    const struct ct_part *part = ct_part_at(plan, rva);
    const struct ct_group *group = part && part->group != CT_NONE ? &plan->groups.items[part->group] : NULL;
    return group && ct_is_copied(group) ? group : NULL;
}

uint32_t ct_plan_map(const struct ct_plan *plan, uint32_t rva)
{
    uint32_t index = ct_insn_at(plan, rva);
    return index != CT_NONE && copied_group(plan, rva) ? plan->branch_label[index] : 0;
}

uint32_t ct_plan_entry(const struct ct_plan *plan, uint32_t rva)
{
    const struct ct_group *group = copied_group(plan, rva);
    return group && group->function.rva == rva ? group->copy_entry : 0;
}

/* The function whose copy holds the code at `offset`, or NULL. Copies lie in the order of their functions. */
static const struct ct_group *group_at(const struct ct_plan *plan, uint32_t offset)
{
    uint32_t low = 0, high = plan->groups.count;
    while (low < high) { /* the first whose copy ends behind it */
        uint32_t middle = low + (high - low) / 2;
        if (plan->groups.items[middle].copy.end <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const struct ct_group *group = low < plan->groups.count ? &plan->groups.items[low] : NULL;
    return group && group->copy.begin <= offset && ct_is_copied(group) ? group : NULL;
}

/* In a part: what follows an instruction's copy belongs to the next one. */
static uint32_t in_part(const struct ct_plan *plan, const struct ct_part *part, uint32_t offset)
{
    uint32_t low = part->first, high = part->first + part->count;
    while (low < high) { /* the first that ends behind it */
        uint32_t middle = low + (high - low) / 2;
        if (plan->end_label[middle] <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const struct ct_insn *insns = plan->insns.items;
    bool before = low < part->first + part->count && plan->branch_label[low] <= offset;
    if (before || low == part->first) {
        return insns[low].rva;
    }
    return insns[low - 1].rva + insns[low - 1].length;
}

/* Behind the parts: the instruction that leaves the function through this stub. */
static uint32_t in_exits(const struct ct_plan *plan, const struct ct_group *group, uint32_t offset)
{
    uint32_t found = CT_NONE, nearest = 0;
    for (uint32_t p = 0; p < group->parts.count; p++) {
        const struct ct_part *part = &plan->parts.items[group->parts.items[p]];
        for (uint32_t i = part->first; i < part->first + part->count; i++) {
            uint32_t label = plan->exit_label[i];
            uint32_t start = plan->insns.items[i].flags & CT_INSN_SWITCHES ? label : label - plan->codegen.event.entry;
            if (label && start <= offset && start > nearest) {
                found = plan->insns.items[i].rva;
                nearest = start;
            }
        }
    }
    return found;
}

uint32_t ct_plan_origin(const struct ct_plan *plan, uint32_t offset)
{
    const struct ct_group *group = group_at(plan, offset);
    if (!group) {
        return CT_NONE;
    }
    for (uint32_t p = 0; p < group->parts.count; p++) {
        const struct ct_part *part = &plan->parts.items[group->parts.items[p]];
        if (offset < part->copy_begin) {
            return group->function.rva; /* the entry stub */
        }
        if (offset < part->copy_end) {
            return in_part(plan, part, offset);
        }
    }
    return in_exits(plan, group, offset);
}
