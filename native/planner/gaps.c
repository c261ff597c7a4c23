/* Leaf functions that nothing names, or only a jump.
 *
 * .pdata may leave leaf functions out. One that nothing calls and whose address nothing takes (it is reached by a jump
 * at another function's end, or not at all) is found by reading what lies between the known functions from its
 * beginning: padding, a function, padding, a function.
 *
 * It may be data just as well, and patching data would break the program. So this is as strict as the calling
 * convention allows (Microsoft, "x64 software conventions"; "x64 exception handling" for what needs no
 * RUNTIME_FUNCTION): code without a RUNTIME_FUNCTION makes no calls, leaves RSP and the nonvolatile registers alone,
 * and is entered with values in the argument registers only. Every path through it must stay that, decode, and leave by
 * a ret, or by a jump to a function's start; nothing else may refer to any byte of it.
 */
#include <stdlib.h>

#include "module.h"

enum {
    ARGUMENTS = 1 << 1 | 1 << 2 | 1 << 8 | 1 << 9,                     /* rcx, rdx, r8, r9 */
    AT_ENTRY = ARGUMENTS | 1 << 4 | 1 << 10,                           /* rsp; r10: a nested function's frame */
    NONVOLATILE = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 0xF000, /* rbx, rsp, rbp, rsi, rdi, r12 to r15 */
    INSIDE = 0x80,      /* in reader.seen: not the first byte of an instruction */
    INSN_COST = 16,     /* of the work budget */
    LONGEST = 1 << 16,  /* bytes of one leaf function */
    LONGEST_ENTRY = 64, /* bytes that ct_may_be_entered looks at */
    MOST_CASES = 1024,  /* of one switch */
};

struct reader {
    struct ct_plan *plan;
    uint32_t begin, end; /* the gap */
    uint8_t *seen;       /* per byte of the gap: length of the instruction that starts there, or INSIDE */
    VEC(uint32_t) work;
    VEC(uint32_t) read;          /* instructions of the function that is being read */
    VEC(struct ct_range) tables; /* and its jump tables */
    uint32_t from;               /* where that function starts */
    uint32_t written;            /* registers that hold a value, as long as `entering` */
    bool entering;               /* on the path that leads straight on from its start */
    bool leaves;                 /* by a ret or by a jump */
};

/* What a run of instructions has done that a jump table needs. */
struct table {
    uint32_t at;    /* what a lea gave the address of, else CT_NONE */
    uint32_t limit; /* the highest index that a comparison lets through, else CT_NONE */
    bool indexes;   /* a memory operand had an index */
};

static int by_address(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* The first of the sorted addresses that is not below rva; at most count. */
static uint32_t first_from(const uint32_t *sorted, uint32_t count, uint32_t rva)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (sorted[middle] < rva) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool is_jumped_to(const struct ct_plan *plan, uint32_t rva)
{
    uint32_t at = first_from(plan->jumps.items, plan->jumps.count, rva);
    return at < plan->jumps.count && plan->jumps.items[at] == rva;
}

static bool is_seed(const struct ct_plan *plan, uint32_t rva)
{
    uint32_t low = 0, high = plan->seeds.count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (plan->seeds.items[middle].rva < rva) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < plan->seeds.count && plan->seeds.items[low].rva == rva && plan->seeds.items[low].source;
}

/* A direct jump: on in the gap, or out of the function to what may be the start of one. */
static bool follow(struct reader *reader, const struct ct_insn *insn)
{
    const struct ct_plan *plan = reader->plan;
    uint32_t rva = insn->target;
    if (rva >= reader->from && rva < reader->end && !ct_is_tail_jump(insn)) {
        vec_push(&reader->work, &reader->plan->oom, rva);
        return true;
    }
    reader->leaves = true;
    return ct_part_at(plan, rva) ? ct_group_starting(plan, rva) != NULL : ct_exec(&plan->image, rva) != NULL;
}

/* May this instruction stand in a leaf function? */
static bool fits(struct reader *reader, const struct ct_insn *insn, struct ct_effects *effects)
{
    const struct ct_plan *plan = reader->plan;
    *effects = ct_effects(plan->decoder);
    if (insn->flow == CT_FLOW_RET) {
        return !effects->odd;
    }
    if (ct_is_call(insn) || effects->odd || effects->vectors || effects->writes & NONVOLATILE ||
        (insn->flags & CT_INSN_RIP && !ct_has(&plan->image, insn->target, 1))) {
        return false;
    }
    if (reader->entering) {
        if (effects->reads & ~reader->written) {
            return false;
        }
        reader->written |= effects->writes;
    }
    return true;
}

/* cmp reg, limit; ja default; lea base, [rip + table]; movsxd reg, [base + reg*4]; add reg, base; jmp reg. An indirect
 * jump without an index is a tail call. */
static bool follow_table(struct reader *reader, const struct table *table)
{
    const struct ct_image *image = &reader->plan->image;
    if (!table->indexes) {
        reader->leaves = true;
        return true;
    }
    if (table->at == CT_NONE || table->limit >= MOST_CASES || !ct_has(image, table->at, 4 * (table->limit + 1))) {
        return false;
    }
    for (uint32_t i = 0; i <= table->limit; i++) {
        uint32_t rva = table->at + ct_u32(image, table->at + 4 * i);
        if (rva < reader->from || rva >= reader->end) {
            return false;
        }
        vec_push(&reader->work, &reader->plan->oom, rva);
    }
    vec_push(&reader->tables, &reader->plan->oom, (struct ct_range){table->at, table->at + 4 * (table->limit + 1)});
    return true;
}

/* One run of instructions without a break. */
static bool read_run(struct reader *reader, uint32_t at)
{
    struct ct_plan *plan = reader->plan;
    struct table table = {CT_NONE, CT_NONE, false};
    uint32_t compared = CT_NONE;
    for (;;) {
        struct ct_insn insn;
        struct ct_effects effects;
        if (at >= reader->end || at - reader->from >= LONGEST) {
            return false;
        }
        uint8_t *seen = reader->seen + (at - reader->begin);
        if (*seen) {
            return *seen != INSIDE;
        }
        if (!ct_spend(plan, INSN_COST) || !ct_decode(plan->decoder, &plan->image, at, reader->end, &insn) ||
            !fits(reader, &insn, &effects)) {
            return false;
        }
        for (uint32_t i = 1; i < insn.length; i++) {
            if (seen[i]) {
                return false;
            }
        }
        memset(seen, INSIDE, insn.length);
        *seen = insn.length;
        vec_push(&reader->read, &plan->oom, at);
        if (plan->oom) {
            return false;
        }
        table.indexes |= (insn.flags & CT_INSN_INDEXED) != 0;
        compared = effects.compared != CT_NONE ? effects.compared : compared;
        if (insn.flags & CT_INSN_LEA) {
            table.at = insn.target;
        }
        switch (insn.flow) {
        case CT_FLOW_JMP:
            reader->entering = false;
            return follow(reader, &insn);
        case CT_FLOW_JCC:
        case CT_FLOW_LOOP:
            if (!follow(reader, &insn)) {
                return false;
            }
            table.limit = compared;
            break;
        case CT_FLOW_RET:
            reader->leaves = true;
            return true;
        case CT_FLOW_JMP_IND:
            if (ct_may_stay_inside(&insn)) {
                return follow_table(reader, &table);
            }
            reader->leaves = true;
            return true;
        case CT_FLOW_STOP:
            return true;
        default:
            break;
        }
        at += insn.length;
    }
}

/* Where the function ends that was read: it is one piece, but for padding before loops. */
static uint32_t end_of_read(const struct reader *reader)
{
    uint32_t at = reader->from;
    for (;;) {
        while (at < reader->end && reader->seen[at - reader->begin]) {
            at += reader->seen[at - reader->begin];
        }
        uint32_t next = ct_skip_padding(reader->plan, at, reader->end);
        if (next == at || next >= reader->end || !reader->seen[next - reader->begin] ||
            reader->seen[next - reader->begin] == INSIDE || ct_jumps_over(reader->plan, at, next)) {
            return at;
        }
        at = next;
    }
}

static bool open_reader(struct reader *reader, struct ct_plan *plan, uint32_t begin, uint32_t end)
{
    *reader = (struct reader){.plan = plan, .begin = begin, .end = end, .seen = calloc(end - begin, 1)};
    plan->oom |= !reader->seen;
    return reader->seen;
}

static void close_reader(struct reader *reader)
{
    free(reader->seen);
    vec_free(&reader->work);
    vec_free(&reader->read);
    vec_free(&reader->tables);
}

/* The end of the leaf function at `from`; 0 = there is none. */
static uint32_t read_leaf(struct reader *reader, uint32_t from)
{
    reader->from = from;
    reader->written = AT_ENTRY;
    reader->entering = true;
    reader->leaves = false;
    reader->work.count = reader->read.count = reader->tables.count = 0;
    bool good = read_run(reader, from);
    reader->entering = false;
    while (good && reader->work.count) {
        good = read_run(reader, reader->work.items[--reader->work.count]);
    }
    uint32_t end = good && reader->leaves ? end_of_read(reader) : 0;
    for (uint32_t i = 0; i < reader->read.count; i++) {
        uint8_t *seen = reader->seen + (reader->read.items[i] - reader->begin);
        memset(seen, 0, *seen);
    }
    return end;
}

uint32_t ct_leaf_end(struct ct_plan *plan, uint32_t begin, uint32_t end)
{
    struct reader reader;
    uint32_t leaf_end = open_reader(&reader, plan, begin, end) ? read_leaf(&reader, begin) : 0;
    close_reader(&reader);
    return leaf_end ? leaf_end : end;
}

/* Does something else refer to what lies behind the first byte? */
static bool is_referred_to(const struct ct_plan *plan, uint32_t begin, uint32_t end)
{
    for (uint32_t at = begin + 1; at < end; at++) {
        if (ct_marked(plan, at, CT_MARK_TARGET | CT_MARK_BODY)) {
            return true;
        }
    }
    return false;
}

/* Only as far as it can be understood: behind that may lie the middle of something. */
static void read_gap(struct ct_plan *plan, uint32_t begin, uint32_t end)
{
    struct reader reader;
    uint32_t at = ct_skip_padding(plan, begin, end);
    if (at == end || !open_reader(&reader, plan, begin, end)) {
        return;
    }
    while (at < end && !plan->oom) {
        if (ct_marked(plan, at, CT_MARK_BODY)) { /* a jump table */
            at = ct_skip_padding(plan, at + 1, end);
            continue;
        }
        bool jumped = is_jumped_to(plan, at);
        bool data = ct_marked(plan, at, CT_MARK_TARGET) && !jumped && !is_seed(plan, at);
        uint32_t leaf_end = data ? 0 : read_leaf(&reader, at);
        if (!leaf_end || is_referred_to(plan, at, leaf_end)) {
            break;
        }
        for (uint32_t i = 0; i < reader.tables.count; i++) {
            struct ct_range table = reader.tables.items[i];
            ct_mark(plan, table.begin, table.end - table.begin, CT_MARK_BODY);
        }
        vec_push(&plan->seeds, &plan->oom, (struct ct_seed){at, jumped ? CT_SOURCE_JUMP : CT_SOURCE_GAP});
        at = ct_skip_padding(plan, leaf_end, end);
    }
    close_reader(&reader);
}

bool ct_may_be_entered(struct ct_plan *plan, uint32_t rva, uint32_t end)
{
    uint32_t written = AT_ENTRY | NONVOLATILE;
    struct ct_insn insn;
    for (uint32_t at = rva; at < end && at - rva < LONGEST_ENTRY; at += insn.length) {
        if (!ct_decode(plan->decoder, &plan->image, at, end, &insn)) {
            return false;
        }
        struct ct_effects effects = ct_effects(plan->decoder);
        bool direct = ct_is_jump(&insn) || insn.flow == CT_FLOW_CALL;
        if (effects.odd || effects.reads & ~written || (direct && !ct_exec(&plan->image, insn.target)) ||
            (insn.flags & CT_INSN_RIP && !ct_has(&plan->image, insn.target, 1))) {
            return false;
        }
        if (insn.flow != CT_FLOW_NEXT) {
            return true;
        }
        written |= effects.writes;
    }
    return true;
}

bool ct_read_gaps(struct ct_plan *plan)
{
    uint32_t next = 0, known = plan->seeds.count;
    if (plan->jumps.count) {
        qsort(plan->jumps.items, plan->jumps.count, sizeof *plan->jumps.items, by_address);
    }
    for (uint32_t i = 0; i < plan->image.exec_count && !plan->oom && !plan->damaged; i++) {
        uint32_t at = plan->image.exec[i].begin;
        while (at < plan->image.exec[i].end) {
            while (next < plan->parts.count && plan->parts.items[next].end <= at) {
                next++;
            }
            const struct ct_part *part = next < plan->parts.count ? &plan->parts.items[next] : NULL;
            uint32_t end = part && part->begin < plan->image.exec[i].end ? part->begin : plan->image.exec[i].end;
            if (at < end) {
                read_gap(plan, at, end);
            }
            at = part && end == part->begin ? part->end : end;
        }
    }
    return plan->seeds.count > known;
}
