#include "decode.h"

#include "../include/trace_format.h"

#include <capstone/capstone.h>
#include <stdlib.h>

struct ct_decoder {
    csh handle;
    cs_insn *insn;
    uint8_t general[X86_REG_ENDING]; /* number of the general register that this is or is part of, + 1 */
};

static const uint16_t general_registers[16][5] = {
    {X86_REG_RAX, X86_REG_EAX, X86_REG_AX, X86_REG_AL, X86_REG_AH},
    {X86_REG_RCX, X86_REG_ECX, X86_REG_CX, X86_REG_CL, X86_REG_CH},
    {X86_REG_RDX, X86_REG_EDX, X86_REG_DX, X86_REG_DL, X86_REG_DH},
    {X86_REG_RBX, X86_REG_EBX, X86_REG_BX, X86_REG_BL, X86_REG_BH},
    {X86_REG_RSP, X86_REG_ESP, X86_REG_SP, X86_REG_SPL},
    {X86_REG_RBP, X86_REG_EBP, X86_REG_BP, X86_REG_BPL},
    {X86_REG_RSI, X86_REG_ESI, X86_REG_SI, X86_REG_SIL},
    {X86_REG_RDI, X86_REG_EDI, X86_REG_DI, X86_REG_DIL},
    {X86_REG_R8, X86_REG_R8D, X86_REG_R8W, X86_REG_R8B},
    {X86_REG_R9, X86_REG_R9D, X86_REG_R9W, X86_REG_R9B},
    {X86_REG_R10, X86_REG_R10D, X86_REG_R10W, X86_REG_R10B},
    {X86_REG_R11, X86_REG_R11D, X86_REG_R11W, X86_REG_R11B},
    {X86_REG_R12, X86_REG_R12D, X86_REG_R12W, X86_REG_R12B},
    {X86_REG_R13, X86_REG_R13D, X86_REG_R13W, X86_REG_R13B},
    {X86_REG_R14, X86_REG_R14D, X86_REG_R14W, X86_REG_R14B},
    {X86_REG_R15, X86_REG_R15D, X86_REG_R15W, X86_REG_R15B},
};

struct ct_decoder *ct_decoder_open(void)
{
    struct ct_decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder) {
        return NULL;
    }
    if (cs_open(CS_ARCH_X86, CS_MODE_64, &decoder->handle) != CS_ERR_OK) {
        free(decoder);
        return NULL;
    }
    cs_option(decoder->handle, CS_OPT_DETAIL, CS_OPT_ON);
    for (uint8_t number = 0; number < 16; number++) {
        for (uint8_t i = 0; i < 5 && general_registers[number][i]; i++) {
            decoder->general[general_registers[number][i]] = (uint8_t)(number + 1);
        }
    }
    decoder->insn = cs_malloc(decoder->handle);
    if (!decoder->insn) {
        ct_decoder_close(decoder);
        return NULL;
    }
    return decoder;
}

void ct_decoder_close(struct ct_decoder *decoder)
{
    if (!decoder) {
        return;
    }
    if (decoder->insn) {
        cs_free(decoder->insn, 1);
    }
    cs_close(&decoder->handle);
    free(decoder);
}

static bool is_int(const cs_insn *insn, uint8_t vector)
{
    return insn->id == X86_INS_INT && insn->bytes[insn->size - 1] == vector;
}

static enum ct_flow flow_of(const cs_insn *insn, uint8_t opcode)
{
    switch (insn->id) {
    case X86_INS_CALL:
        return opcode == 0xE8 ? CT_FLOW_CALL : CT_FLOW_CALL_IND;
    case X86_INS_LCALL:
    case X86_INS_LJMP: /* far transfers are copied as they are; nothing is known of where they go */
        return CT_FLOW_NEXT;
    case X86_INS_JMP:
        return opcode == 0xE9 || opcode == 0xEB ? CT_FLOW_JMP : CT_FLOW_JMP_IND;
    case X86_INS_JRCXZ:
    case X86_INS_JECXZ:
    case X86_INS_JCXZ:
    case X86_INS_LOOP:
    case X86_INS_LOOPE:
    case X86_INS_LOOPNE:
        return CT_FLOW_LOOP;
    case X86_INS_RET:
    case X86_INS_RETF:
    case X86_INS_RETFQ:
    case X86_INS_IRET:
    case X86_INS_IRETD:
    case X86_INS_IRETQ:
        return CT_FLOW_RET;
    case X86_INS_UD0:
    case X86_INS_UD1:
    case X86_INS_UD2:
    case X86_INS_HLT:
    case X86_INS_INT3:
        return CT_FLOW_STOP;
    case X86_INS_XBEGIN:
        return CT_FLOW_JCC;
    default:
        break;
    }
    if (is_int(insn, 0x29) || is_int(insn, 3)) { /* 29h is __fastfail */
        return CT_FLOW_STOP;
    }
    for (uint8_t i = 0; i < insn->detail->groups_count; i++) {
        if (insn->detail->groups[i] == CS_GRP_JUMP) {
            return CT_FLOW_JCC;
        }
    }
    return CT_FLOW_NEXT;
}

static bool is_integer_arithmetic(unsigned id)
{
    switch (id) {
    case X86_INS_ADC:
    case X86_INS_ADD:
    case X86_INS_AND:
    case X86_INS_BSWAP:
    case X86_INS_CDQ:
    case X86_INS_CDQE:
    case X86_INS_CMP:
    case X86_INS_CQO:
    case X86_INS_CWDE:
    case X86_INS_DEC:
    case X86_INS_IMUL:
    case X86_INS_INC:
    case X86_INS_LEA:
    case X86_INS_MOV:
    case X86_INS_MOVABS:
    case X86_INS_MOVSX:
    case X86_INS_MOVSXD:
    case X86_INS_MOVZX:
    case X86_INS_MUL:
    case X86_INS_NEG:
    case X86_INS_NOP:
    case X86_INS_NOT:
    case X86_INS_OR:
    case X86_INS_ROL:
    case X86_INS_ROR:
    case X86_INS_SAR:
    case X86_INS_SBB:
    case X86_INS_SHL:
    case X86_INS_SHR:
    case X86_INS_SUB:
    case X86_INS_TEST:
    case X86_INS_XOR:
        return true;
    default:
        return false;
    }
}

/* Its operands, other than those of an address that is only computed, are registers and constants. */
static bool is_inert(const cs_insn *insn)
{
    const cs_x86 *x86 = &insn->detail->x86;
    bool two_bytes = x86->opcode[0] == 0x0F;
    uint8_t row = x86->opcode[1] & 0xF0;
    bool conditional = two_bytes && (row == 0x40 || row == 0x90);                                  /* cmovcc, setcc */
    bool special = x86->opcode[0] == 0x8C || x86->opcode[0] == 0x8E || (two_bytes && row == 0x20); /* mov ds, cr, dr */
    if (special || !(conditional || is_integer_arithmetic(insn->id))) {
        return false;
    }
    for (uint8_t i = 0; i < x86->op_count; i++) {
        const cs_x86_op *operand = &x86->operands[i];
        bool general = operand->type == X86_OP_REG && operand->reg != X86_REG_INVALID;
        bool address = operand->type == X86_OP_MEM && (insn->id == X86_INS_LEA || insn->id == X86_INS_NOP);
        if (!general && !address && operand->type != X86_OP_IMM) {
            return false;
        }
    }
    return true;
}

bool ct_decode(struct ct_decoder *decoder, const struct ct_image *image, uint32_t rva, uint32_t end,
               struct ct_insn *out)
{
    if (rva >= end || end > image->size) {
        return false;
    }
    const uint8_t *code = image->bytes + rva;
    size_t room = end - rva < 15 ? end - rva : 15;
    uint64_t address = rva;
    if (!cs_disasm_iter(decoder->handle, &code, &room, &address, decoder->insn)) {
        return false;
    }
    const cs_insn *insn = decoder->insn;
    const cs_x86 *x86 = &insn->detail->x86;
    *out = (struct ct_insn){.rva = rva, .length = (uint8_t)insn->size};
    out->flow = (uint8_t)flow_of(insn, x86->opcode[0]);

    switch (out->flow) {
    case CT_FLOW_CALL:
    case CT_FLOW_JMP:
    case CT_FLOW_JCC:
    case CT_FLOW_LOOP:
        if (x86->prefix[2] == X86_PREFIX_OPSIZE && out->flow != CT_FLOW_LOOP) {
            return false; /* 66h before a branch truncates RIP on one maker's processors and not on the other's */
        }
        if (x86->op_count < 1 || x86->operands[x86->op_count - 1].type != X86_OP_IMM) {
            return false;
        }
        out->target = (uint32_t)x86->operands[x86->op_count - 1].imm;
        return true;
    default:
        break;
    }
    if (out->flow == CT_FLOW_NEXT && is_inert(insn)) {
        out->flags |= CT_INSN_INERT;
    }
    if (out->flow == CT_FLOW_JMP_IND && x86->rex & 8) {
        out->flags |= CT_INSN_REX_W;
    }
    uint8_t modrm_at = x86->encoding.modrm_offset;
    if (modrm_at == 0) {
        return true;
    }
    if ((x86->modrm & 0xC7) == 0x05) { /* mod 0, rm 5: RIP-relative */
        if (x86->addr_size != 8 || modrm_at + 5 > insn->size) {
            return false;
        }
        int32_t disp;
        memcpy(&disp, insn->bytes + modrm_at + 1, sizeof disp);
        out->flags |= CT_INSN_RIP;
        out->disp = (uint8_t)(modrm_at + 1);
        out->target = rva + insn->size + (uint32_t)disp;
        if (insn->id == X86_INS_LEA && x86->rex & 8) {
            out->flags |= CT_INSN_LEA;
        }
        return true;
    }
    for (uint8_t i = 0; i < x86->op_count; i++) {
        const cs_x86_op *operand = &x86->operands[i];
        if (operand->type == X86_OP_MEM && operand->mem.index != X86_REG_INVALID) {
            out->flags |= CT_INSN_INDEXED;
            if (operand->mem.base != X86_REG_INVALID && operand->mem.scale == 4 && operand->mem.disp > 0x400 &&
                operand->mem.disp < image->size) {
                out->flags |= CT_INSN_TABLE;
                out->target = (uint32_t)operand->mem.disp;
            }
        }
    }
    return true;
}

static bool is_odd(const cs_insn *insn)
{
    switch (insn->id) {
    case X86_INS_ENTER:
    case X86_INS_IN:
    case X86_INS_INSB:
    case X86_INS_INSD:
    case X86_INS_INSW:
    case X86_INS_INT1:
    case X86_INS_LCALL:
    case X86_INS_LJMP:
    case X86_INS_OUT:
    case X86_INS_OUTSB:
    case X86_INS_OUTSD:
    case X86_INS_OUTSW:
    case X86_INS_RETF:
    case X86_INS_RETFQ:
    case X86_INS_XLATB:
        return true;
    case X86_INS_INT:
        return !is_int(insn, 0x29);
    case X86_INS_RET: /* callees do not remove arguments */
        return insn->detail->x86.op_count && insn->detail->x86.operands[0].imm != 0;
    case X86_INS_MOVABS: /* of memory at a whole address, not of a constant */
        return (insn->detail->x86.opcode[0] & 0xFC) == 0xA0;
    default:
        break;
    }
    for (uint8_t i = 0; i < insn->detail->groups_count; i++) {
        if (insn->detail->groups[i] == CS_GRP_PRIVILEGE || insn->detail->groups[i] == CS_GRP_IRET) {
            return true;
        }
    }
    return false;
}

/* xor r, r; sub r, r; sbb r, r; or r, -1; and r, 0: what the register held does not matter. */
static bool forgets(const cs_insn *insn)
{
    const cs_x86_op *operands = insn->detail->x86.operands;
    if (insn->detail->x86.op_count != 2 || operands[0].type != X86_OP_REG || operands[0].size - 1u > 7) {
        return false;
    }
    uint64_t ones = ~(uint64_t)0 >> (64 - 8 * operands[0].size);
    switch (insn->id) {
    case X86_INS_XOR:
    case X86_INS_SUB:
    case X86_INS_SBB:
        return operands[1].type == X86_OP_REG && operands[0].reg == operands[1].reg;
    case X86_INS_OR:
        return operands[1].type == X86_OP_IMM && ((uint64_t)operands[1].imm & ones) == ones;
    case X86_INS_AND:
        return operands[1].type == X86_OP_IMM && operands[1].imm == 0;
    default:
        return false;
    }
}

static uint32_t general_bits(const struct ct_decoder *decoder, const cs_regs regs, uint8_t count)
{
    uint32_t bits = 0;
    for (uint8_t i = 0; i < count; i++) {
        if (regs[i] == X86_REG_EFLAGS) {
            bits |= CT_FLAGS;
        } else if (regs[i] < X86_REG_ENDING && decoder->general[regs[i]]) {
            bits |= 1u << (decoder->general[regs[i]] - 1);
        }
    }
    return bits;
}

/* Capstone leaves out that some instructions write the flags (test m, r; ktest; ...): all but these may. */
static bool keeps_flags(const cs_insn *insn)
{
    switch (insn->id) {
    case X86_INS_LEA:
    case X86_INS_MOV:
    case X86_INS_MOVABS:
    case X86_INS_MOVSX:
    case X86_INS_MOVSXD:
    case X86_INS_MOVZX:
        return true;
    default:
        return false;
    }
}

struct ct_effects ct_effects(struct ct_decoder *decoder)
{
    const cs_insn *insn = decoder->insn;
    struct ct_effects effects = {.odd = is_odd(insn), .compared = CT_NONE};
    cs_regs reads, writes;
    uint8_t read_count = 0, write_count = 0;
    if (insn->id == X86_INS_NOP || insn->id == X86_INS_ENDBR64) {
        return effects;
    }
    cs_regs_access(decoder->handle, insn, reads, &read_count, writes, &write_count);
    effects.reads = general_bits(decoder, reads, read_count);
    effects.writes = general_bits(decoder, writes, write_count) | (keeps_flags(insn) ? 0u : CT_FLAGS);
    const cs_x86 *x86 = &insn->detail->x86;
    if (insn->id == X86_INS_CMP && x86->operands[1].type == X86_OP_IMM) {
        effects.compared = (uint32_t)x86->operands[1].imm;
    }
    if (forgets(insn)) {
        effects.reads &= insn->id == X86_INS_SBB ? CT_FLAGS : 0u;
    }
    for (uint8_t i = 0; i < write_count; i++) {
        uint16_t reg = writes[i];
        effects.vectors |= (reg >= X86_REG_XMM6 && reg <= X86_REG_XMM15) ||
                           (reg >= X86_REG_YMM6 && reg <= X86_REG_YMM15) ||
                           (reg >= X86_REG_ZMM6 && reg <= X86_REG_ZMM15);
    }
    return effects;
}

bool ct_accesses_memory(const struct ct_decoder *decoder, uint32_t *registers, int64_t *displacement)
{
    const cs_insn *insn = decoder->insn;
    for (uint8_t i = 0; i < insn->detail->x86.op_count && insn->id != X86_INS_LEA && insn->id != X86_INS_NOP; i++) {
        const cs_x86_op *operand = &insn->detail->x86.operands[i];
        if (operand->type == X86_OP_MEM) {
            const cs_regs parts = {(uint16_t)operand->mem.base, (uint16_t)operand->mem.index};
            *registers = general_bits(decoder, parts, 2);
            *displacement = operand->mem.disp;
            return true;
        }
    }
    return false;
}

uint32_t ct_registers_written(struct ct_decoder *decoder, const struct ct_image *image, const struct ct_insn *insn)
{
    struct ct_insn again;
    bool decodes = ct_decode(decoder, image, insn->rva, insn->rva + insn->length, &again);
    return decodes ? ct_effects(decoder).writes & 0xFFFF : 0xFFFF;
}
