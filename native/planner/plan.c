#include "plan.h"

#include "module.h"

const char *ct_status_text(uint32_t status)
{
    static const char *const text[CT_STATUS_COUNT] = {
        [CT_OK] = "instrumented",
        [CT_TOO_SHORT] = "no room for a jump at its start",
        [CT_BRANCH_INTO_ENTRY] = "something jumps into its first five bytes",
        [CT_CALL_IN_ENTRY] = "a call returns into its first five bytes",
        [CT_UNDECODABLE] = "no valid instruction at its start",
        [CT_UNWIND_BAD] = "its unwind data is damaged",
        [CT_UNWIND_UNKNOWN] = "its unwind data has codes of an unknown kind",
        [CT_PROLOG_TOO_LONG] = "its prolog is too long for unwind data",
        [CT_HANDLER_UNKNOWN] = "its exception handler is of no known kind",
        [CT_HANDLER_BAD] = "its exception handler's data contradicts itself",
        [CT_OVERLAP] = "its .pdata entry overlaps another or lies outside the code",
        [CT_POSITION_DEPENDENT] = "it takes its own address from the stack, behind a call",
        [CT_OUT_OF_RANGE] = "an operand is out of reach of the copy",
        [CT_IDS_EXHAUSTED] = "the trace has no number left for it",
        [CT_THUNK] = "import thunk: its calls are recorded where they are made",
        [CT_FILTERED] = "left out by the patterns given",
        [CT_RUNTIME_CODE] = "its runtime looks return addresses up in tables of its own",
        [CT_READ_AS_DATA] = "its first bytes are read or written as data",
    };
    return status < CT_STATUS_COUNT ? text[status] : "unknown";
}

/* The work budget, beside one for each byte of code. Large programs take a third of theirs at most. */
enum { WORK = 4 << 20 };

/* An import thunk is one jump through a slot of the import address table. */
static void find_thunks(struct ct_plan *plan)
{
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        struct ct_group *group = &plan->groups.items[i];
        if (group->parts.count != 1 || group->function.status != CT_OK) {
            continue;
        }
        const struct ct_part *part = &plan->parts.items[group->parts.items[0]];
        if (part->count == 0) {
            continue;
        }
        const struct ct_insn *insn = &plan->insns.items[part->first];
        if (insn->rva == part->begin && insn->flow == CT_FLOW_JMP_IND && insn->flags & CT_INSN_RIP) {
            group->function.flags |= CT_FUNCTION_THUNK;
            if (ct_import_at(plan, insn->target) != CT_NONE) {
                group->function.status = CT_THUNK;
            }
        }
    }
}

uint32_t ct_import_at(const struct ct_plan *plan, uint32_t rva)
{
    uint32_t low = 0, high = plan->image.import_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (plan->image.imports[middle] < rva) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < plan->image.import_count && plan->image.imports[low] == rva ? low : CT_NONE;
}

struct ct_plan *ct_plan_open(const struct ct_image *image)
{
    struct ct_plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        return NULL;
    }
    plan->image = *image;
    plan->marks = calloc((size_t)image->size + 1, 1);
    plan->named = calloc((size_t)image->size / 4 + 1, sizeof *plan->named);
    plan->decoder = ct_decoder_open();
    plan->budget = WORK;
    for (uint32_t i = 0; i < image->exec_count; i++) {
        plan->budget += image->exec[i].end - image->exec[i].begin;
    }
    if (!plan->marks || !plan->named || !plan->decoder) {
        ct_plan_close(plan);
        return NULL;
    }
    ct_read_pdata(plan);
    ct_discover(plan);
    if (!plan->oom) {
        find_thunks(plan);
        ct_mark_known(plan);
        for (uint32_t i = 0; i < plan->groups.count; i++) {
            vec_push(&plan->functions, &plan->oom, plan->groups.items[i].function);
        }
        for (uint32_t i = 0; i < plan->parts.count; i++) {
            const struct ct_part *part = &plan->parts.items[i];
            vec_push(&plan->extents, &plan->oom, (struct ct_extent){part->begin, part->end, part->group});
        }
    }
    if (plan->oom) {
        ct_plan_close(plan);
        return NULL;
    }
    return plan;
}

void ct_plan_close(struct ct_plan *plan)
{
    if (!plan) {
        return;
    }
    ct_decoder_close(plan->decoder);
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        vec_free(&plan->groups.items[i].parts);
    }
    free(plan->marks);
    free(plan->named);
    free(plan->block_insn);
    free(plan->branch_label);
    free(plan->end_label);
    free(plan->exit_label);
    free(plan->bytes);
    vec_free(&plan->parts);
    vec_free(&plan->groups);
    vec_free(&plan->functions);
    vec_free(&plan->extents);
    vec_free(&plan->pieces);
    vec_free(&plan->copied);
    vec_free(&plan->insns);
    vec_free(&plan->crossings);
    vec_free(&plan->leas);
    vec_free(&plan->accessed);
    vec_free(&plan->jumps);
    vec_free(&plan->work);
    vec_free(&plan->seeds);
    vec_free(&plan->sites);
    vec_free(&plan->switches);
    vec_free(&plan->patches);
    vec_free(&plan->data);
    free(plan);
}

const struct ct_function *ct_plan_functions(const struct ct_plan *plan, uint32_t *count)
{
    *count = plan->functions.count;
    for (uint32_t i = 0; i < plan->functions.count; i++) {
        plan->functions.items[i] = plan->groups.items[i].function;
    }
    return plan->functions.items;
}

const struct ct_extent *ct_plan_extents(const struct ct_plan *plan, uint32_t *count)
{
    *count = plan->extents.count;
    return plan->extents.items;
}

void ct_plan_select(struct ct_plan *plan, const uint8_t *wanted)
{
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        struct ct_function *function = &plan->groups.items[i].function;
        if (wanted[i] == CT_CHOICE_WANT || function->status != CT_OK) {
            continue;
        }
        if (wanted[i] == CT_CHOICE_RUNTIME) {
            function->status = CT_RUNTIME_CODE;
        } else {
            function->status = CT_FILTERED;
            function->flags |= CT_FUNCTION_FILTERED;
        }
    }
}

const struct ct_site *ct_plan_sites(const struct ct_plan *plan, uint32_t *count)
{
    *count = plan->sites.count;
    return plan->sites.items;
}
