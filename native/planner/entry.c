/* How the entry of each function is patched, tried in this order (enum ct_entry):
 *
 *   5 bytes   E9 rel32   jmp copy            over the function's own first bytes, and over the int3 or nop padding
 *                                            behind it where it is shorter
 *   2 bytes   EB rel8    jmp pad             to a hole in nearby padding that holds the 5-byte jump
 *   1 byte    CC         int3                which the recorder's exception handler turns into a jump to the copy
 *
 * A byte that something else may jump or return to cannot be covered, except the first. The bytes of a body that was
 * copied are no room for jumps: whatever analysis has missed, and every thread that was inside, goes on in them.
 */
#include "module.h"

enum {
    LONG_JUMP = 5,
    SHORT_JUMP = 2,
    BREAKPOINT = 1,
    SHORT_REACH_BACK = 128,
    SHORT_REACH_AHEAD = 127,
    LONGEST_PAD = 1024
};

/* The instruction that ends at rva, or NULL. */
static const struct ct_insn *insn_before(const struct ct_plan *plan, uint32_t rva)
{
    for (uint32_t back = 1; back <= 15 && back <= rva; back++) {
        uint32_t index = ct_insn_at(plan, rva - back);
        if (index != CT_NONE && plan->insns.items[index].length == back) {
            return &plan->insns.items[index];
        }
    }
    return NULL;
}

/* Straight on from a function's entry at rva: where its copy, having no copy of what follows, goes back to the
 * original within `size` bytes; 0 = nowhere. */
static uint32_t goes_back(const struct ct_plan *plan, uint32_t rva, uint32_t size)
{
    for (uint32_t at = rva; at < rva + size;) {
        uint32_t index = ct_insn_at(plan, at);
        if (index == CT_NONE) {
            return ct_part_at(plan, at) ? at : 0;
        }
        const struct ct_insn *insn = &plan->insns.items[index];
        if (insn->flow == CT_FLOW_RET || insn->flow == CT_FLOW_JMP || insn->flow == CT_FLOW_JMP_IND) {
            break;
        }
        at += insn->length;
    }
    return 0;
}

/* May the bytes at [rva + 1, rva + size) be overwritten? */
static enum ct_status coverable(const struct ct_plan *plan, uint32_t group, uint32_t rva, uint32_t size, uint32_t *at)
{
    for (uint32_t i = 0; i < size; i++) {
        *at = rva + i;
        if (rva + i >= plan->image.size) {
            return CT_TOO_SHORT;
        }
        uint8_t marks = plan->marks[rva + i];
        const struct ct_part *part = ct_part_at(plan, rva + i);
        if (part ? part->group != group : !(marks & CT_MARK_PAD)) {
            return CT_TOO_SHORT;
        }
        if (marks & CT_MARK_USED) {
            return CT_TOO_SHORT;
        }
        if (i && marks & (CT_MARK_TARGET | CT_MARK_LAND | CT_MARK_ENTRY)) {
            return CT_BRANCH_INTO_ENTRY;
        }
        uint32_t insn = i ? ct_insn_at(plan, rva + i) : CT_NONE;
        if (insn != CT_NONE && insn && ct_is_call(&plan->insns.items[insn - 1])) {
            return CT_CALL_IN_ENTRY;
        }
    }
    uint32_t back = goes_back(plan, rva, size);
    if (back) {
        *at = back;
        return CT_UNDECODABLE;
    }
    return CT_OK;
}

static void use(struct ct_plan *plan, uint32_t rva, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        plan->marks[rva + i] |= CT_MARK_USED;
    }
}

static void take(struct ct_plan *plan, struct ct_group *group, enum ct_entry entry, uint8_t size)
{
    group->patch_size = size;
    group->function.flags |= (uint16_t)(entry << CT_FUNCTION_ENTRY_SHIFT);
    use(plan, group->function.rva, size);
}

/* Can control run into the padding around rva from the code before it? Where that is far away it is not looked for. */
static bool runs_into(const struct ct_plan *plan, uint32_t rva)
{
    uint32_t start = rva;
    while (start && plan->marks[start - 1] & CT_MARK_PAD) {
        if (rva - --start == LONGEST_PAD) {
            return true;
        }
    }
    const struct ct_insn *insn = insn_before(plan, start);
    /* a call at a function's very end does not return */
    return !insn || (insn->flow != CT_FLOW_RET && insn->flow != CT_FLOW_STOP && insn->flow != CT_FLOW_JMP &&
                     insn->flow != CT_FLOW_JMP_IND && !ct_is_call(insn));
}

/* Five bytes of free padding within reach of a short jump at rva; 0 = none. */
static uint32_t find_pad(const struct ct_plan *plan, uint32_t rva)
{
    uint32_t from = rva + SHORT_JUMP - SHORT_REACH_BACK, to = rva + SHORT_JUMP + SHORT_REACH_AHEAD;
    if (rva < SHORT_REACH_BACK || to + LONG_JUMP > plan->image.size) {
        return 0;
    }
    uint32_t run = 0;
    bool inside = false, closed = false;
    for (uint32_t at = from; at < to + LONG_JUMP; at++) {
        bool pad = plan->marks[at] & CT_MARK_PAD;
        if (pad && !inside) {
            closed = !runs_into(plan, at);
        }
        inside = pad;
        run = pad && closed && !(plan->marks[at] & CT_MARK_USED) ? run + 1 : 0;
        if (run == LONG_JUMP) {
            return at - LONG_JUMP + 1;
        }
    }
    return 0;
}

static bool wants_patch(const struct ct_plan *plan, const struct ct_group *group)
{
    return group->function.status == CT_OK && group->parts.count > 0 && group->patch_size == 0 && !plan->oom;
}

void ct_choose_entries(struct ct_plan *plan)
{
    /* every 5-byte jump first: the holes for short jumps come out of the padding that is left */
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        struct ct_group *group = &plan->groups.items[i];
        if (!wants_patch(plan, group)) {
            continue;
        }
        uint32_t at;
        if (ct_insn_at(plan, group->function.rva) == CT_NONE) {
            group->function.status = CT_UNDECODABLE;
            group->function.status_at = group->function.rva;
        } else if (coverable(plan, i, group->function.rva, LONG_JUMP, &at) == CT_OK) {
            bool fits = ct_part_at(plan, group->function.rva + LONG_JUMP - 1) != NULL;
            take(plan, group, fits ? CT_ENTRY_JUMP : CT_ENTRY_PADDING, LONG_JUMP);
        }
    }
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        struct ct_group *group = &plan->groups.items[i];
        if (!wants_patch(plan, group)) {
            continue;
        }
        uint32_t at, ignored;
        enum ct_status status = coverable(plan, i, group->function.rva, LONG_JUMP, &at);
        if (coverable(plan, i, group->function.rva, SHORT_JUMP, &ignored) == CT_OK) {
            group->pad = find_pad(plan, group->function.rva);
        }
        if (group->pad) {
            take(plan, group, CT_ENTRY_SHORT_JUMP, SHORT_JUMP);
            use(plan, group->pad, LONG_JUMP);
        } else if (plan->codegen.breakpoints &&
                   coverable(plan, i, group->function.rva, BREAKPOINT, &ignored) == CT_OK) {
            take(plan, group, CT_ENTRY_BREAKPOINT, BREAKPOINT);
        } else {
            group->function.status = status;
            group->function.status_at = at;
        }
    }
}
