/* Calls of functions that do not return like others: setjmp, SwitchToFiber. */
#include "module.h"

/* What the function, or address table slot, at rva is known for; 0 = nothing. */
static uint32_t trait_of(const struct ct_plan *plan, uint32_t rva)
{
    uint32_t low = 0, high = plan->image.known_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (plan->image.known[middle].rva < rva) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < plan->image.known_count && plan->image.known[low].rva == rva ? plan->image.known[low].trait : 0;
}

/* The trait of what is called or jumped to, by its address, through its slot, or by way of an import thunk. */
static uint32_t trait_of_target(const struct ct_plan *plan, const struct ct_insn *insn)
{
    bool through_slot = insn->flow == CT_FLOW_CALL_IND || insn->flow == CT_FLOW_JMP_IND;
    if (through_slot) {
        return insn->flags & CT_INSN_RIP ? trait_of(plan, insn->target) : 0;
    }
    if (insn->flow != CT_FLOW_CALL && insn->flow != CT_FLOW_JMP) {
        return 0;
    }
    const struct ct_group *callee = ct_group_starting(plan, insn->target);
    if (callee && callee->function.status == CT_THUNK) {
        return trait_of(plan, plan->insns.items[ct_insn_at(plan, insn->target)].target);
    }
    return trait_of(plan, insn->target);
}

/* Registers that a call does not preserve: rax, rcx, rdx, r8 to r11. */
enum { VOLATILE_REGISTERS = 0x0F07 };

/* The number of the register that `call reg` or `jmp reg` goes through; 16: another kind of instruction. */
static uint32_t through_register(const struct ct_plan *plan, const struct ct_insn *insn)
{
    const uint8_t *raw = plan->image.bytes + insn->rva;
    uint8_t modrm = raw[insn->length - 1];
    bool indirect = insn->flow == CT_FLOW_CALL_IND || insn->flow == CT_FLOW_JMP_IND;
    if (!indirect || insn->length < 2 || raw[insn->length - 2] != 0xFF || modrm < 0xC0) {
        return 16;
    }
    bool extended = insn->length >= 3 && (raw[insn->length - 3] & 0xF1) == 0x41; /* REX.B */
    return (modrm & 7) + (extended ? 8 : 0);
}

/* The register that `mov r64, [rip+disp32]` loads; 16: another instruction. */
static uint32_t loaded_register(const struct ct_plan *plan, const struct ct_insn *insn)
{
    const uint8_t *raw = plan->image.bytes + insn->rva;
    bool is_mov = insn->length == 7 && insn->flags & CT_INSN_RIP && (raw[0] & 0xFB) == 0x48 && raw[1] == 0x8B;
    return is_mov ? (raw[2] >> 3 & 7) + (raw[0] & 4 ? 8 : 0) : 16;
}

static void mark(struct ct_plan *plan, const struct ct_part *part, struct ct_insn *insn, uint32_t trait)
{
    if (trait == CT_TRAIT_SWITCHES) {
        insn->flags |= CT_INSN_SWITCHES;
    } else if (trait == CT_TRAIT_RETURNS_TWICE && ct_is_call(insn)) {
        insn->flags |= CT_INSN_TWICE;
        plan->groups.items[part->group].landed_in = true;
    }
}

/* Compilers load an import that is called several times into a register. Followed in the order of the addresses, from
 * the load at `first` on, until the register is written again. */
static void follow_load(struct ct_plan *plan, const struct ct_part *part, uint32_t first, uint32_t reg, uint32_t trait)
{
    for (uint32_t i = first + 1; i < part->first + part->count; i++) {
        struct ct_insn *insn = &plan->insns.items[i];
        if (through_register(plan, insn) == reg) {
            mark(plan, part, insn, trait);
            insn->target = plan->insns.items[first].target;
        }
        uint32_t written = ct_is_call(insn)             ? VOLATILE_REGISTERS
                           : insn->flow == CT_FLOW_NEXT ? ct_registers_written(plan->decoder, &plan->image, insn)
                                                        : 0;
        /* an epilog's pop ends nothing: code behind it is reached by other ways */
        bool pop = insn->length <= 2 && (plan->image.bytes[insn->rva + insn->length - 1] & 0xF8) == 0x58;
        if (written >> reg & 1 && !pop) {
            return;
        }
    }
}

void ct_mark_known(struct ct_plan *plan)
{
    for (uint32_t p = 0; p < plan->parts.count && plan->image.known_count; p++) {
        const struct ct_part *part = &plan->parts.items[p];
        for (uint32_t i = part->first; i < part->first + part->count; i++) {
            struct ct_insn *insn = &plan->insns.items[i];
            mark(plan, part, insn, trait_of_target(plan, insn));
            uint32_t reg = loaded_register(plan, insn);
            uint32_t trait = reg < 16 ? trait_of(plan, insn->target) : 0;
            if (trait) {
                follow_load(plan, part, i, reg, trait);
            }
        }
    }
}
