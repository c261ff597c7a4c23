/* One instruction at a time, reduced to what relocation needs to know of it. */
#ifndef CALLTRACE_DECODE_H
#define CALLTRACE_DECODE_H

#include "image.h"

enum ct_flow {
    CT_FLOW_NEXT,     /* goes on behind itself */
    CT_FLOW_CALL,     /* call rel32; target = RVA */
    CT_FLOW_CALL_IND, /* call r/m64; target = RVA of the pointer if RIP-relative, or known (known.c) */
    CT_FLOW_JMP,      /* jmp rel; target = RVA */
    CT_FLOW_JCC,      /* jcc rel, xbegin; target = RVA */
    CT_FLOW_LOOP,     /* jrcxz, jecxz, loop, loope, loopne: rel8 only; target = RVA */
    CT_FLOW_RET,      /* ret, ret imm16, with any prefix */
    CT_FLOW_JMP_IND,  /* jmp r/m64; target = RVA of the pointer if RIP-relative */
    CT_FLOW_STOP,     /* ud2, hlt, int3, int 29h: does not go on */
};

enum ct_insn_flags {
    CT_INSN_RIP = 1,        /* has a RIP-relative operand: target = its RVA, disp = offset of the disp32 */
    CT_INSN_LEA = 2,        /* lea r64, [rip+disp32] */
    CT_INSN_INDEXED = 4,    /* memory operand with an index register */
    CT_INSN_TABLE = 8,      /* memory operand base+index*scale+disp32: target = disp32, may be a table's RVA */
    CT_INSN_INERT = 32,     /* integer arithmetic between registers: cannot fault, whatever their values */
    CT_INSN_REX_W = 16,     /* jmp r/m64 with REX.W: how MSVC and clang mark a tail call */
    CT_INSN_TWICE = 64,     /* calls what returns twice; set by known.c */
    CT_INSN_SWITCHES = 128, /* calls, or jumps to, what goes on with another stack; set by known.c */
};

struct ct_insn {
    uint32_t rva;
    uint32_t target;
    uint8_t length;
    uint8_t flow;  /* enum ct_flow */
    uint8_t disp;  /* offset of the disp32 of a RIP-relative operand */
    uint8_t flags; /* enum ct_insn_flags */
};

static inline bool ct_is_call(const struct ct_insn *insn)
{
    return insn->flow == CT_FLOW_CALL || insn->flow == CT_FLOW_CALL_IND;
}

/* A direct one? */
static inline bool ct_is_jump(const struct ct_insn *insn)
{
    return insn->flow == CT_FLOW_JMP || insn->flow == CT_FLOW_JCC || insn->flow == CT_FLOW_LOOP;
}

/* A jmp rel32 that jmp rel8 could have replaced: assemblers see to that unless the target is another symbol. */
static inline bool ct_is_tail_jump(const struct ct_insn *insn)
{
    int32_t distance = (int32_t)(insn->target - insn->rva - insn->length);
    return insn->flow == CT_FLOW_JMP && insn->length >= 5 && distance >= -128 && distance <= 127;
}

/* May this indirect jump be a switch, and not a tail call? */
static inline bool ct_may_stay_inside(const struct ct_insn *insn)
{
    return !(insn->flags & (CT_INSN_RIP | CT_INSN_REX_W));
}

/* What an instruction does to registers, as far as a calling convention cares. */
struct ct_effects {
    uint32_t reads, writes; /* bit n: general register n, as encoded: 0 = rax, 1 = rcx, ...; CT_FLAGS */
    bool vectors;           /* writes one of xmm6 to xmm15 */
    bool odd;               /* of a kind that compilers do not emit into ordinary functions */
    uint32_t compared;      /* cmp with a constant: that constant, else CT_NONE */
};
enum { CT_FLAGS = 1 << 16 };

struct ct_decoder;

/* NULL: out of memory. */
struct ct_decoder *ct_decoder_open(void);
void ct_decoder_close(struct ct_decoder *decoder);
/* false: no instruction there before `end`. */
bool ct_decode(struct ct_decoder *decoder, const struct ct_image *image, uint32_t rva, uint32_t end,
               struct ct_insn *out);
/* Of the instruction that ct_decode() decoded last. An idiom that makes zero or all ones reads nothing. */
struct ct_effects ct_effects(struct ct_decoder *decoder);
/* Of the same: does it read or write memory by an operand? If so the general registers, bits as above,
 * and the displacement that the address is made of. */
bool ct_accesses_memory(const struct ct_decoder *decoder, uint32_t *registers, int64_t *displacement);
/* The general registers that an instruction writes, all or in part: bit n for the register of number n. */
uint32_t ct_registers_written(struct ct_decoder *decoder, const struct ct_image *image, const struct ct_insn *insn);

#endif
