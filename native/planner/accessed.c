/* Addresses in the code through which memory is read or written, so that what lies there is looked at as data: tables
 * that are kept among code, and functions whose own bytes something reads. A jump must be written over neither.
 */
#include <stdlib.h>

#include "module.h"

void ct_note_accesses(struct ct_plan *plan, const struct ct_insn *insn, struct ct_taken *taken)
{
    if (plan->sweeping || insn->flow != CT_FLOW_NEXT) {
        taken->registers = ct_is_call(insn) ? 0 : taken->registers; /* anything may be in them after a call */
        return;
    }
    uint32_t through = 0;
    int64_t displacement = 0;
    bool accesses = ct_accesses_memory(plan->decoder, &through, &displacement);
    bool code = insn->flags & CT_INSN_RIP && ct_exec(&plan->image, insn->target);
    if (code && accesses) {
        vec_push(&plan->accessed, &plan->oom, insn->target);
    }
    bool takes = code && insn->flags & CT_INSN_LEA;
    if (!taken->registers && !takes) {
        return;
    }
    uint32_t writes = ct_effects(plan->decoder).writes & 0xFFFF;
    for (uint32_t reg = 0; reg < 16; reg++) {
        if (through & taken->registers & 1u << reg) {
            int64_t rva = taken->rva[reg] + displacement;
            if (rva >= 0 && rva < plan->image.size) {
                vec_push(&plan->accessed, &plan->oom, (uint32_t)rva);
            }
        }
        if (writes & 1u << reg) {
            taken->rva[reg] = insn->target;
        }
    }
    taken->registers &= ~writes;
    taken->registers |= takes ? writes : 0;
}

static int by_address(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

void ct_sort_accesses(struct ct_plan *plan)
{
    if (plan->accessed.count) {
        qsort(plan->accessed.items, plan->accessed.count, sizeof *plan->accessed.items, by_address);
    }
}

bool ct_is_accessed(const struct ct_plan *plan, uint32_t rva, uint32_t size)
{
    uint32_t low = 0, high = plan->accessed.count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (plan->accessed.items[middle] < rva) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < plan->accessed.count && plan->accessed.items[low] - rva < size;
}
