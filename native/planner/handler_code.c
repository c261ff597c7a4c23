/* What the code of a language handler shows of the data it is given.
 *
 * Handlers of hand-written assembly, as OpenSSL has one in each of its modules, compare RIP with labels of the function
 * to tell how much of its frame was built. Where the labels stand in the handler's data, as RVAs, they can be those of
 * a copy. Where the handler's own instructions name them it works for the original alone.
 */
#include "module.h"

enum { INSN_LIMIT = 512, DECODE_COST = 16, REGISTER_R9 = 9, HANDLER_DATA = 0x38 /* in DISPATCHER_CONTEXT */ };

struct reading {
    struct ct_plan *plan;
    VEC(uint32_t) work, seen;
    uint32_t data_registers; /* bit n: register n was loaded with the address of the data */
    bool complete;
    struct ct_handler_code found;
};

static bool was_seen(const struct reading *reading, uint32_t rva)
{
    for (uint32_t i = 0; i < reading->seen.count; i++) {
        if (reading->seen.items[i] == rva) {
            return true;
        }
    }
    return false;
}

static void note(struct reading *reading, const struct ct_insn *insn)
{
    struct ct_plan *plan = reading->plan;
    uint32_t registers;
    int64_t displacement;
    if (insn->flags & CT_INSN_LEA && ct_exec(&plan->image, insn->target)) {
        reading->found.names_code = true;
    }
    if (!ct_accesses_memory(plan->decoder, &registers, &displacement)) {
        return;
    }
    if (registers == 1u << REGISTER_R9 && displacement == HANDLER_DATA) {
        reading->data_registers |= ct_effects(plan->decoder).writes & 0xFFFF;
    } else if (registers & reading->data_registers) {
        uint32_t words = displacement < 0 || displacement > 4 * UINT8_MAX ? UINT8_MAX : (uint32_t)displacement / 4 + 1;
        reading->found.words = words > reading->found.words ? (uint8_t)words : reading->found.words;
    }
}

static void read_run(struct reading *reading, uint32_t at)
{
    struct ct_plan *plan = reading->plan;
    struct ct_insn insn = {.flow = CT_FLOW_NEXT};
    while (!was_seen(reading, at)) {
        reading->complete = reading->complete && reading->seen.count < INSN_LIMIT &&
                            ct_spend(plan, DECODE_COST + reading->seen.count) &&
                            ct_decode(plan->decoder, &plan->image, at, plan->image.size, &insn);
        if (!reading->complete) {
            return;
        }
        vec_push(&reading->seen, &plan->oom, at);
        note(reading, &insn);
        if (ct_is_jump(&insn)) {
            vec_push(&reading->work, &plan->oom, insn.target);
        }
        if (insn.flow == CT_FLOW_JMP || insn.flow == CT_FLOW_JMP_IND || insn.flow == CT_FLOW_RET ||
            insn.flow == CT_FLOW_STOP) {
            return;
        }
        at += insn.length;
    }
}

struct ct_handler_code ct_read_handler_code(struct ct_plan *plan, uint32_t handler)
{
    struct reading reading = {.plan = plan, .complete = true};
    vec_push(&reading.work, &plan->oom, handler);
    while (reading.work.count && reading.complete && !plan->oom) {
        read_run(&reading, reading.work.items[--reading.work.count]);
    }
    vec_free(&reading.work);
    vec_free(&reading.seen);
    reading.found.names_code |= !reading.complete;
    return reading.found;
}
