/* Decodes every function by following its control flow, and finds the functions that .pdata leaves out.
 *
 * Only coverage depends on what is found here: code that is missed is not copied, and whoever gets there runs the
 * original bytes. What must not be missed are jumps into the first bytes of a function, which a patch would cover:
 * hence CT_MARK_TARGET on everything that any instruction or table names.
 */
#include <stdlib.h>

#include "module.h"

enum { TABLE_LIMIT = 8192, CROSSING_COST = 4 };

static bool in_group(const struct ct_plan *plan, uint32_t rva, uint32_t group)
{
    const struct ct_part *part = ct_part_at(plan, rva);
    return part && part->group == group;
}

/* A branch, table entry or handler of `from` leads to `rva`: more of the same function, or a crossing. */
static void lead(struct ct_plan *plan, uint32_t from, uint32_t rva)
{
    ct_mark(plan, rva, 1, CT_MARK_TARGET);
    const struct ct_part *source = &plan->parts.items[from];
    const struct ct_part *part = source->begin <= rva && rva < source->end ? source : ct_part_at(plan, rva);
    if (!part) {
        return;
    }
    if (part->group != source->group) {
        vec_push(&plan->crossings, &plan->oom, (struct ct_cross){from, rva});
    } else if (!ct_marked(plan, rva, CT_MARK_START)) {
        vec_push(&plan->work, &plan->oom, rva);
    }
}

/* Could a jump table of `group` hold rva? Behind a table's end, chance may give addresses in its function: as likely as
 * not in the middle of an instruction. */
static bool is_case(const struct ct_plan *plan, uint64_t rva, uint32_t group)
{
    return rva < plan->image.size && in_group(plan, (uint32_t)rva, group) &&
           (ct_marked(plan, (uint32_t)rva, CT_MARK_START) || !ct_marked(plan, (uint32_t)rva, CT_MARK_BODY));
}

/* MSVC's and clang-cl's jump tables hold RVAs and are addressed as [image base + index*4 + table's RVA]. */
static void read_rva_table(struct ct_plan *plan, uint32_t from, uint32_t table)
{
    uint32_t group = plan->parts.items[from].group;
    for (uint32_t i = 0; i < TABLE_LIMIT; i++) {
        uint32_t rva = ct_u32(&plan->image, table + 4 * i);
        if (!ct_spend(plan, 1) || !ct_has(&plan->image, table + 4 * i, 4) || !is_case(plan, rva, group)) {
            return;
        }
        lead(plan, from, rva);
        ct_mark(plan, table + 4 * i, 4, CT_MARK_BODY);
        plan->groups.items[group].tables = true;
    }
}

/* Only data that was taken for code goes, or reads and writes, outside the image. */
static bool leads_astray(const struct ct_plan *plan, const struct ct_insn *insn)
{
    bool goes = insn->flow == CT_FLOW_CALL || insn->flow == CT_FLOW_JMP || insn->flow == CT_FLOW_JCC;
    bool accesses = insn->flags & CT_INSN_RIP && !(insn->flags & CT_INSN_LEA);
    return (goes || accesses) && insn->target >= plan->image.size;
}

/* A direct jump of `from`. */
static void jump(struct ct_plan *plan, uint32_t from, const struct ct_insn *insn)
{
    struct ct_part *part = &plan->parts.items[from];
    bool tail = part->unwind.version == 0 && ct_is_tail_jump(insn);
    if (tail || !ct_part_at(plan, insn->target)) {
        part->returns = true;
        vec_push(&plan->jumps, &plan->oom, insn->target);
    }
    if (tail) {
        ct_mark(plan, insn->target, 1, CT_MARK_TARGET);
    } else {
        lead(plan, from, insn->target);
    }
}

/* Is this a breakpoint in the program's source? A handler, or a debugger, steps over it. Other int3s stand behind calls
 * that do not return, or fill gaps. */
static bool is_stepped_over(const struct ct_plan *plan, const struct ct_part *part, const struct ct_insn *insn)
{
    const struct ct_insn *before = plan->insns.count > 1 ? insn - 1 : NULL;
    bool after_call = before && ct_is_call(before) && before->rva + before->length == insn->rva;
    uint8_t next = ct_u8(&plan->image, insn->rva + 1);
    return insn->length == 1 && ct_u8(&plan->image, insn->rva) == 0xCC && !after_call && insn->rva + 1 < part->end &&
           next != 0xCC && next != 0x90;
}

/* One run of instructions without a break, and the branches found on it queued. */
static void decode_run(struct ct_plan *plan, uint32_t at)
{
    struct ct_part *part = ct_part_at(plan, at);
    if (!part || part->group == CT_NONE) {
        return;
    }
    const uint32_t group = part->group;
    const struct ct_range *section = ct_exec(&plan->image, at);
    struct ct_taken taken = {0};
    while (section && !plan->oom) {
        if (at < part->begin || at >= part->end) {
            struct ct_part *before = part;
            part = ct_part_at(plan, at);
            if (!part || part->group != group) {
                before->runs_out = true;
                return;
            }
        }
        if (ct_marked(plan, at, CT_MARK_START)) {
            return;
        }
        uint32_t from = (uint32_t)(part - plan->parts.items);
        struct ct_insn insn;
        if (!ct_decode(plan->decoder, &plan->image, at, section->end, &insn) || leads_astray(plan, &insn)) {
            part->dirty = true;
            return;
        }
        ct_mark(plan, at, 1, CT_MARK_START);
        ct_mark(plan, at, insn.length, CT_MARK_BODY);
        vec_push(&plan->insns, &plan->oom, insn);
        ct_note_accesses(plan, &insn, &taken);
        switch (insn.flow) {
        case CT_FLOW_JMP:
            jump(plan, from, &insn);
            return;
        case CT_FLOW_RET:
            part->returns = true;
            return;
        case CT_FLOW_STOP:
            if (plan->oom || !is_stepped_over(plan, part, &plan->insns.items[plan->insns.count - 1])) {
                return;
            }
            break;
        case CT_FLOW_JMP_IND:
            part->returns = true;
            plan->groups.items[group].unresolved |= ct_may_stay_inside(&insn);
            return;
        case CT_FLOW_JCC:
        case CT_FLOW_LOOP:
            jump(plan, from, &insn);
            break;
        case CT_FLOW_CALL:
            ct_mark(plan, insn.target, 1, CT_MARK_TARGET);
            if (!plan->sweeping) {
                vec_push(&plan->seeds, &plan->oom, (struct ct_seed){insn.target, CT_SOURCE_CALL});
            } else if (!ct_part_at(plan, insn.target)) {
                vec_push(&plan->jumps, &plan->oom, insn.target);
            }
            break;
        default:
            if (insn.flags & CT_INSN_TABLE) {
                read_rva_table(plan, from, insn.target);
            } else if (insn.flags & CT_INSN_RIP) {
                ct_mark(plan, insn.target, 1, CT_MARK_TARGET);
                if (insn.flags & CT_INSN_LEA && !plan->sweeping) {
                    vec_push(&plan->leas, &plan->oom, (struct ct_cross){from, insn.target});
                }
            }
            break;
        }
        at += insn.length;
    }
}

static void decode_work(struct ct_plan *plan)
{
    while (plan->work.count && !plan->oom) {
        decode_run(plan, plan->work.items[--plan->work.count]);
    }
}

/* ---- exception data ---- */

/* First all funclets are named; then the functions that are none are read, which are the parents; then the funclets,
 * whose data may name funclets nested in them (__CxxFrameHandler4) or repeat their parent's (3). Funclets without
 * RUNTIME_FUNCTION are functions only when leaf functions are known: the last two again for them. */
enum eh_pass {
    EH_NAME,
    EH_PARENTS,
    EH_FUNCLETS,
    EH_LEAVES_OF_PARENTS,
    EH_LEAVES_OF_FUNCLETS,
};

struct eh_context {
    struct ct_plan *plan;
    uint32_t part;
    enum eh_pass pass;
};

/* A language handler of another module runs unseen: when it calls a funclet, every recorded frame above the parent's
 * is done with. One that is linked into this module is itself recorded, and goes on when the funclet returns. */
static bool is_import_thunk(const struct ct_plan *plan, uint32_t rva)
{
    return ct_u16(&plan->image, rva) == 0x25FF &&
           ct_import_at(plan, rva + 6 + ct_u32(&plan->image, rva + 2)) != CT_NONE;
}

/* The function whose frame a funclet of `part` works on: that part's, or, if the data is one for the function and all
 * of its funclets, the catch funclet that it is nested in. */
static uint32_t parent_of(struct ct_plan *plan, const struct ct_part *part, uint32_t state)
{
    struct ct_fh3 info;
    if (state == CT_NONE || !ct_read_fh3(&plan->image, ct_u32(&plan->image, part->unwind.data), &info)) {
        return part->group;
    }
    const struct ct_part *code = ct_part_at(plan, ct_fh3_handler_code(&plan->image, &info, state, &plan->budget));
    bool nested = code && code->group != CT_NONE &&
                  ct_marked(plan, plan->groups.items[code->group].function.rva, CT_MARK_FUNCLET);
    return nested ? code->group : part->group;
}

static void visit_eh(void *opaque, enum ct_eh_what what, uint32_t rva, uint32_t state)
{
    const struct eh_context *context = opaque;
    struct ct_plan *plan = context->plan;
    uint32_t index = plan->parts.items[context->part].group;
    struct ct_group *group = &plan->groups.items[index];
    if (context->pass == EH_NAME) {
        if (what == CT_EH_FUNCLET) {
            ct_mark(plan, rva, 1, CT_MARK_TARGET | CT_MARK_FUNCLET);
            if (!ct_part_at(plan, rva)) {
                vec_push(&plan->seeds, &plan->oom, (struct ct_seed){rva, CT_SOURCE_HANDLER});
            }
        }
        return;
    }
    if (what == CT_EH_FUNCLET) {
        struct ct_group *funclet = ct_group_starting(plan, rva);
        group->landed_in = true;
        if (funclet && funclet != group && funclet->parent == CT_NONE) {
            index = parent_of(plan, &plan->parts.items[context->part], state);
            plan->groups.items[index].landed_in = true;
            funclet->parent = index;
            if (is_import_thunk(plan, plan->parts.items[context->part].unwind.handler)) {
                funclet->function.flags |= CT_FUNCTION_FUNCLET;
                funclet->function.parent = index;
            }
        }
        return;
    }
    if (context->pass <= EH_FUNCLETS) {
        ct_mark(plan, rva, 1, CT_MARK_LAND);
        group->landed_in = true;
        lead(plan, context->part, rva);
    }
}

static void read_handlers(struct ct_plan *plan, enum eh_pass pass)
{
    bool of_funclets = pass == EH_FUNCLETS || pass == EH_LEAVES_OF_FUNCLETS;
    for (uint32_t i = 0; i < plan->parts.count && !plan->oom; i++) {
        const struct ct_part *part = &plan->parts.items[i];
        struct ct_function *function = &plan->groups.items[part->group].function;
        bool funclet = ct_marked(plan, part->begin, CT_MARK_FUNCLET);
        if (part->handler == CT_HANDLER_NONE || function->status != CT_OK ||
            (pass != EH_NAME && funclet != of_funclets)) {
            continue;
        }
        struct eh_context context = {plan, i, pass};
        if (part->handler == CT_HANDLER_OTHER) {
            function->status = CT_HANDLER_UNKNOWN;
            function->status_at = part->unwind.handler;
        } else if (!ct_handler_visit(&plan->image, part->handler, part->unwind.data, part->begin, part->end,
                                     &plan->budget, visit_eh, &context)) {
            function->status = CT_HANDLER_BAD;
            function->status_at = part->unwind.data;
        }
    }
}

/* __CxxFrameHandler3: a catch funclet returns the address where its parent goes on. */
static void follow_funclet_leas(struct ct_plan *plan)
{
    for (uint32_t i = 0; i < plan->leas.count; i++) {
        const struct ct_part *part = &plan->parts.items[plan->leas.items[i].from];
        uint32_t parent = plan->groups.items[part->group].parent;
        uint32_t rva = plan->leas.items[i].to;
        if (parent != CT_NONE && in_group(plan, rva, parent)) {
            ct_mark(plan, rva, 1, CT_MARK_TARGET | CT_MARK_LAND);
            vec_push(&plan->work, &plan->oom, rva);
        }
    }
    decode_work(plan);
}

/* ---- jump tables whose address a lea gives ---- */

/* gcc's and clang's hold distances from the table in 4 bytes; older code holds whole addresses in 8. */
struct lea_table {
    uint32_t from; /* part */
    uint32_t at, size, count;
};

/* Nothing says how many entries a table has: it ends where another begins, and before what leads to no instruction of
 * the function. */
static bool read_entry(struct ct_plan *plan, const struct lea_table *table, uint32_t i, uint32_t *rva)
{
    uint32_t at = table->at + table->size * i;
    if (i >= TABLE_LIMIT || !ct_spend(plan, 1) || !ct_has(&plan->image, at, table->size) ||
        (i && (plan->named[at / 4] || ct_marked(plan, at, CT_MARK_TARGET)))) {
        return false;
    }
    uint64_t to = table->size == 4 ? table->at + ct_u32(&plan->image, at) : ct_u64(&plan->image, at) - plan->image.base;
    *rva = (uint32_t)to;
    return is_case(plan, to, plan->parts.items[table->from].group);
}

static bool take_entry(struct ct_plan *plan, struct lea_table *table)
{
    uint32_t rva, second;
    if (!read_entry(plan, table, table->count, &rva) ||
        (table->count == 0 && !read_entry(plan, table, 1, &second))) { /* one may be chance: no table */
        return false;
    }
    ct_mark(plan, table->at + table->size * table->count++, table->size, CT_MARK_BODY);
    plan->groups.items[plan->parts.items[table->from].group].tables = true;
    lead(plan, table->from, rva);
    return true;
}

/* A function's tables lie one behind the other, and code that one leads to may be what names the next. So that no table
 * is read beyond its end, all are read at once, one entry of each in turn. */
static void follow_lea_tables(struct ct_plan *plan)
{
    VEC(struct lea_table) tables = {0};
    uint32_t taken = 0, seen = 0; /* leas already taken for tables are moved to the front */
    while (!plan->oom) {
        if (!tables.count) {
            seen = taken; /* indirect jumps found since make tables of what were none */
        }
        for (; seen < plan->leas.count; seen++) {
            struct ct_cross lea = plan->leas.items[seen];
            if (lea.to < plan->image.size && plan->groups.items[plan->parts.items[lea.from].group].unresolved) {
                plan->leas.items[seen] = plan->leas.items[taken];
                plan->leas.items[taken++] = lea;
                plan->named[lea.to / 4] = true;
                vec_push(&tables, &plan->oom, (struct lea_table){lea.from, lea.to, 4, 0});
                vec_push(&tables, &plan->oom, (struct lea_table){lea.from, lea.to, 8, 0});
            }
        }
        if (!tables.count) {
            break;
        }
        uint32_t kept = 0;
        for (uint32_t i = 0; i < tables.count; i++) {
            struct lea_table table = tables.items[i];
            if (take_entry(plan, &table)) {
                tables.items[kept++] = table;
            } else if (!table.count && table.size == 8 && !ct_marked(plan, table.at, CT_MARK_BODY) &&
                       in_group(plan, table.at, plan->parts.items[table.from].group)) {
                lead(plan, table.from, table.at); /* no table: a label */
            }
        }
        tables.count = kept;
        decode_work(plan);
    }
    vec_free(&tables);
}

/* Where an indirect jump's table was not found: what is left between the instructions may be its cases. It may be data
 * as well: nothing that it seems to name counts as a function. */
static void sweep_gaps(struct ct_plan *plan)
{
    plan->sweeping = true;
    for (uint32_t i = 0; i < plan->parts.count && !plan->oom; i++) {
        struct ct_part *part = &plan->parts.items[i];
        const struct ct_group *group = part->group == CT_NONE ? NULL : &plan->groups.items[part->group];
        if (!group || !group->unresolved || group->tables || part->swept) {
            continue;
        }
        part->swept = true;
        for (uint32_t at = part->begin; at < part->end; at++) {
            if (!ct_marked(plan, at, CT_MARK_BODY)) {
                vec_push(&plan->work, &plan->oom, at);
                decode_work(plan);
            }
        }
    }
    plan->sweeping = false;
}

/* ---- separated parts without chained unwind data ---- */

static int by_from(const void *a, const void *b)
{
    const struct ct_cross *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from ? 1 : 0;
}

/* Do all jumps out of part `index` go to `group`? crossings are sorted by `from`. */
static bool only_leads_to(struct ct_plan *plan, uint32_t index, uint32_t group)
{
    uint32_t low = 0, high = plan->crossings.count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (plan->crossings.items[middle].from < index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < plan->crossings.count && plan->crossings.items[low].from == index; low++) {
        if (!ct_spend(plan, 1) || !in_group(plan, plan->crossings.items[low].to, group)) {
            return false;
        }
    }
    return true;
}

/* gcc splits foo into foo and foo.cold, two unrelated RUNTIME_FUNCTIONs with jumps between them. The cold part is
 * no function: nothing calls it and no other part is chained to it; its unwind codes describe a frame that it does not
 * build itself, or it only goes back to where it came from, or nowhere. */
static bool is_continuation(struct ct_plan *plan, const struct ct_part *part, uint32_t from_group)
{
    const struct ct_group *group = &plan->groups.items[part->group];
    if (part->unwind.version == 0 || group->function.rva != part->begin || group->function.status != CT_OK ||
        group->joined || group->chained || group->parent != CT_NONE ||
        ct_marked(plan, part->begin, CT_MARK_ENTRY | CT_MARK_FUNCLET)) {
        return false;
    }
    if (part->unwind.prolog == 0 && part->unwind.code_count > 0) {
        return true;
    }
    return !part->returns && only_leads_to(plan, (uint32_t)(part - plan->parts.items), from_group);
}

static void join_parts(struct ct_plan *plan)
{
    bool changed = true;
    /* a few times, but a damaged image may have each part found by the one before */
    while (changed && !plan->oom && ct_spend(plan, CROSSING_COST * (uint64_t)plan->crossings.count)) {
        changed = false;
        if (plan->crossings.count) {
            qsort(plan->crossings.items, plan->crossings.count, sizeof *plan->crossings.items, by_from);
        }
        for (uint32_t i = 0, count = plan->crossings.count; i < count; i++) {
            struct ct_cross crossing = plan->crossings.items[i];
            uint32_t group = plan->parts.items[crossing.from].group;
            struct ct_part *part = ct_part_at(plan, crossing.to);
            if (!part || part->group == CT_NONE || plan->groups.items[group].function.status != CT_OK) {
                continue;
            }
            if (part->group != group && is_continuation(plan, part, group)) {
                plan->groups.items[part->group].joined = true;
                plan->groups.items[group].unresolved |= plan->groups.items[part->group].unresolved;
                plan->groups.items[group].landed_in |= plan->groups.items[part->group].landed_in;
                part->group = group;
                plan->groups.items[group].chained = true; /* and so is nobody's continuation itself */
                changed = true;
            }
            if (part->group == group && !ct_marked(plan, crossing.to, CT_MARK_START)) {
                vec_push(&plan->work, &plan->oom, crossing.to);
            }
        }
        decode_work(plan);
    }
}

/* ---- leaf functions ---- */

static int by_rva(const void *a, const void *b)
{
    const struct ct_seed *x = a, *y = b;
    return x->rva < y->rva ? -1 : x->rva > y->rva ? 1 : 0;
}

/* Pointers into code that the loader relocates. */
static void read_relocations(struct ct_plan *plan)
{
    const struct ct_image *image = &plan->image;
    uint32_t at = 0;
    while (at + 8 <= image->relocs_size && ct_has(image, image->relocs + at, 8)) {
        uint32_t page = ct_u32(image, image->relocs + at), size = ct_u32(image, image->relocs + at + 4);
        if (size < 8 || size > image->relocs_size - at) {
            return;
        }
        for (uint32_t entry = 8; entry + 2 <= size; entry += 2) {
            uint16_t value = ct_u16(image, image->relocs + at + entry);
            if (value >> 12 == 10) { /* IMAGE_REL_BASED_DIR64 */
                uint64_t rva = ct_u64(image, page + (value & 0xFFF)) - image->base;
                if (rva < image->size && ct_exec(image, (uint32_t)rva)) {
                    vec_push(&plan->seeds, &plan->oom, (struct ct_seed){(uint32_t)rva, CT_SOURCE_POINTER});
                }
            }
        }
        at += size;
    }
}

/* Sorts the seeds, merges those of one address. */
static void merge_seeds(struct ct_plan *plan)
{
    if (!plan->seeds.count) {
        return;
    }
    qsort(plan->seeds.items, plan->seeds.count, sizeof *plan->seeds.items, by_rva);
    uint32_t kept = 0;
    for (uint32_t i = 1; i < plan->seeds.count; i++) {
        if (plan->seeds.items[i].rva == plan->seeds.items[kept].rva) {
            plan->seeds.items[kept].source |= plan->seeds.items[i].source;
        } else {
            plan->seeds.items[++kept] = plan->seeds.items[i];
        }
    }
    plan->seeds.count = plan->seeds_merged = kept + 1;
}

static void mark_entries(struct ct_plan *plan)
{
    for (uint32_t i = 0; i < plan->seeds.count; i++) {
        ct_mark(plan, plan->seeds.items[i].rva, 1, CT_MARK_TARGET | CT_MARK_ENTRY);
    }
}

/* Bytes of the memory operand that a ModRM byte begins, and of that byte. */
static uint32_t operand_length(uint8_t modrm, uint8_t sib)
{
    bool has_sib = modrm >> 6 != 3 && (modrm & 7) == 4;
    switch (modrm >> 6) {
    case 0:
        return 1 + has_sib + ((modrm & 7) == 5 || (has_sib && (sib & 7) == 5) ? 4 : 0);
    case 1:
        return 1 + has_sib + 1;
    case 2:
        return 1 + has_sib + 4;
    default:
        return 1;
    }
}

/* The length of one instruction that compilers align with, else 0: int3; nop; nop r/m (0F 1F); either nop with 66h and
 * 2Eh prefixes. */
static uint32_t padding_at(const struct ct_image *image, uint32_t rva)
{
    if (ct_u8(image, rva) == 0xCC) {
        return 1;
    }
    uint32_t at = rva;
    while (at - rva < 14 && (ct_u8(image, at) == 0x66 || ct_u8(image, at) == 0x2E)) {
        at++;
    }
    if (ct_u8(image, at) == 0x90) {
        at++;
    } else if (ct_u8(image, at) == 0x0F && ct_u8(image, at + 1) == 0x1F) {
        at += 2 + operand_length(ct_u8(image, at + 2), ct_u8(image, at + 3));
    } else {
        return 0;
    }
    return at - rva <= 15 ? at - rva : 0;
}

uint32_t ct_skip_padding(const struct ct_plan *plan, uint32_t at, uint32_t end)
{
    for (uint32_t length; at < end && (length = padding_at(&plan->image, at)) && length <= end - at;) {
        at += length;
    }
    return at;
}

bool ct_jumps_over(const struct ct_plan *plan, uint32_t at, uint32_t to)
{
    /* jmp rel8 or rel32 */
    return (at >= 2 && ct_u8(&plan->image, at - 2) == 0xEB && at + (int8_t)ct_u8(&plan->image, at - 1) == to) ||
           (at >= 5 && ct_u8(&plan->image, at - 5) == 0xE9 && at + ct_u32(&plan->image, at - 4) == to);
}

/* A pointer alone is weak evidence of a function: it may be a label, or data between functions, and is then no seed. */
static bool is_plausible(struct ct_plan *plan, struct ct_seed *seed)
{
    if (seed->source != CT_SOURCE_POINTER) {
        return seed->source != 0;
    }
    uint32_t before = seed->rva - 1;
    const struct ct_part *part = ct_part_at(plan, before);
    uint8_t byte = ct_u8(&plan->image, before);
    if (!(part && part->end == seed->rva) && byte != 0xCC && byte != 0x90 && byte != 0xC3 && seed->rva % 16) {
        return false;
    }
    if (padding_at(&plan->image, seed->rva) || !ct_may_be_entered(plan, seed->rva, plan->image.size)) {
        seed->source = 0;
    }
    return seed->source;
}

/* It is no function, and is not looked at again. */
static void drop_leaf(struct ct_plan *plan, struct ct_part *part)
{
    plan->groups.items[part->group].joined = true;
    part->group = CT_NONE;
    uint32_t low = 0, high = plan->seeds_merged;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (plan->seeds.items[middle].rva < part->begin) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < plan->seeds_merged && plan->seeds.items[low].rva == part->begin) {
        plan->seeds.items[low].source = 0; /* not to be tried again unless something else names it */
    }
}

/* Where a leaf ends: behind the last instruction that was reached, but not behind padding that only a jump crosses at
 * which it was left: that jump leads to another function. */
static uint32_t end_of_leaf(const struct ct_plan *plan, const struct ct_part *part)
{
    uint32_t end = part->begin, at = part->begin;
    for (;;) {
        while (at < part->end && ct_marked(plan, at, CT_MARK_BODY)) {
            end = ++at;
        }
        if (at >= part->end) {
            return end;
        }
        uint32_t next = ct_skip_padding(plan, at, part->end);
        if (next > at && (next == part->end || !ct_marked(plan, next, CT_MARK_BODY) || ct_jumps_over(plan, at, next))) {
            return end;
        }
        at = next > at ? next : at + 1;
    }
}

static void settle_leaf(struct ct_plan *plan, struct ct_part *part)
{
    part->settled = true;
    part->end = end_of_leaf(plan, part);
    struct ct_function *function = &plan->groups.items[part->group].function;
    bool weak = !(function->sources & ~(CT_SOURCE_POINTER | CT_SOURCE_JUMP | CT_SOURCE_GAP));
    bool named = function->sources & ~(CT_SOURCE_CALL | CT_SOURCE_POINTER | CT_SOURCE_JUMP | CT_SOURCE_GAP);
    if (!ct_marked(plan, part->begin, CT_MARK_START)) {
        if (named) {
            function->status = CT_UNDECODABLE;
            function->status_at = part->begin;
            part->end = part->begin + 1; /* of no size it would be found, and added, again */
        } else {
            drop_leaf(plan, part); /* not code after all */
        }
    } else if (weak && (part->dirty || part->runs_out)) {
        drop_leaf(plan, part);
    }
}

/* Ends the leaves that were just decoded, and forgets those of their instructions, from `first` on, that turned out to
 * be no part of them. */
static void settle_leaves(struct ct_plan *plan, uint32_t first)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < plan->parts.count; i++) {
        struct ct_part *part = &plan->parts.items[i];
        if (part->unwind.version == 0 && !part->settled && part->group != CT_NONE &&
            plan->groups.items[part->group].function.status == CT_OK) {
            settle_leaf(plan, part);
        }
        if (part->group != CT_NONE) {
            plan->parts.items[kept++] = *part;
        }
    }
    plan->parts.count = kept;
    kept = first;
    for (uint32_t i = first; i < plan->insns.count; i++) {
        struct ct_insn insn = plan->insns.items[i];
        if (ct_part_at(plan, insn.rva)) {
            plan->insns.items[kept++] = insn;
            if (ct_is_jump(&insn) && !ct_part_at(plan, insn.target)) {
                vec_push(&plan->jumps, &plan->oom, insn.target);
            }
        } else {
            for (uint32_t k = 0; k < insn.length; k++) {
                plan->marks[insn.rva + k] &= (uint8_t) ~(CT_MARK_START | CT_MARK_BODY);
            }
        }
    }
    plan->insns.count = kept;
}

static bool add_leaves(struct ct_plan *plan)
{
    uint32_t known = plan->parts.count;
    uint32_t next_part = 0;
    ct_sort_accesses(plan);
    for (uint32_t i = 0; i < plan->seeds.count && !plan->oom; i++) {
        struct ct_seed seed = plan->seeds.items[i];
        const struct ct_range *section = ct_exec(&plan->image, seed.rva);
        while (next_part < known && plan->parts.items[next_part].end <= seed.rva) {
            next_part++;
        }
        uint32_t end = section ? section->end : 0;
        if (next_part < known) {
            const struct ct_part *part = &plan->parts.items[next_part];
            if (part->begin <= seed.rva) {
                if (part->begin == seed.rva && part->group != CT_NONE &&
                    plan->groups.items[part->group].function.rva == seed.rva) {
                    plan->groups.items[part->group].function.sources |= (uint16_t)seed.source;
                }
                continue;
            }
            end = part->begin < end ? part->begin : end;
        }
        bool weak = !(seed.source & ~(CT_SOURCE_POINTER | CT_SOURCE_GAP));
        if (!seed.source || !section || ct_marked(plan, seed.rva, CT_MARK_BODY) ||
            (weak && ct_is_accessed(plan, seed.rva, 5)) || !is_plausible(plan, &plan->seeds.items[i])) {
            continue;
        }
        for (uint32_t k = i + 1; k < plan->seeds.count && plan->seeds.items[k].rva < end; k++) {
            if (plan->seeds.items[k].source && is_plausible(plan, &plan->seeds.items[k])) {
                end = plan->seeds.items[k].rva;
            }
        }
        struct ct_group group = {
            .function = {.rva = seed.rva, .sources = (uint16_t)seed.source, .parent = CT_NONE},
            .parent = CT_NONE,
        };
        end = ct_leaf_end(plan, seed.rva, end);
        struct ct_part part = {.begin = seed.rva, .end = end, .group = plan->groups.count};
        vec_push(&plan->groups, &plan->oom, group);
        vec_push(&plan->parts, &plan->oom, part);
        vec_push(&plan->work, &plan->oom, seed.rva);
    }
    return plan->parts.count > known;
}

/* Code whose address is taken. */
static void seed_leas(struct ct_plan *plan)
{
    for (uint32_t i = 0; i < plan->leas.count; i++) {
        uint32_t rva = plan->leas.items[i].to;
        if (ct_exec(&plan->image, rva)) {
            vec_push(&plan->seeds, &plan->oom, (struct ct_seed){rva, CT_SOURCE_POINTER});
        }
    }
}

/* crossings and leas name parts by index, which adding leaves changes: they are consumed before. */
static void find_leaves(struct ct_plan *plan)
{
    for (unsigned round = 0; round < 16 && !plan->oom; round++) {
        plan->crossings.count = 0;
        merge_seeds(plan);
        if (!add_leaves(plan)) {
            return;
        }
        uint32_t first = plan->insns.count;
        ct_sort_parts(plan);
        plan->leas.count = 0;
        decode_work(plan);
        follow_lea_tables(plan);
        sweep_gaps(plan);
        seed_leas(plan);
        settle_leaves(plan, first);
    }
}

/* ---- the finished picture ---- */

/* Sorts the instructions by address: they come in ascending runs, three passes of 11 bits do it. */
static void sort_insns(struct ct_plan *plan)
{
    uint32_t count = plan->insns.count;
    struct ct_insn *from = plan->insns.items, *to = malloc(((size_t)count + 1) * sizeof *to);
    uint32_t *buckets = malloc(2049 * sizeof *buckets);
    if (!to || !buckets) {
        plan->oom = true;
        free(to);
        free(buckets);
        return;
    }
    for (unsigned shift = 0; shift < 33; shift += 11) {
        memset(buckets, 0, 2049 * sizeof *buckets);
        for (uint32_t i = 0; i < count; i++) {
            buckets[(from[i].rva >> shift & 2047) + 1]++;
        }
        for (unsigned i = 0; i < 2048; i++) {
            buckets[i + 1] += buckets[i];
        }
        for (uint32_t i = 0; i < count; i++) {
            to[buckets[from[i].rva >> shift & 2047]++] = from[i];
        }
        struct ct_insn *swap = from;
        from = to;
        to = swap;
    }
    plan->insns.items = from;
    plan->insns.room = count + 1;
    free(to);
    free(buckets);
}

uint32_t ct_insn_at(const struct ct_plan *plan, uint32_t rva)
{
    if (rva >= plan->image.size || !(plan->marks[rva] & CT_MARK_START)) {
        return CT_NONE;
    }
    uint32_t index = plan->block_insn[rva / 64];
    while (index < plan->insns.count && plan->insns.items[index].rva < rva) {
        index++;
    }
    return index < plan->insns.count && plan->insns.items[index].rva == rva ? index : CT_NONE;
}

static void index_insns(struct ct_plan *plan)
{
    uint32_t blocks = plan->image.size / 64 + 1, index = 0;
    plan->block_insn = malloc(blocks * sizeof *plan->block_insn);
    if (!plan->block_insn) {
        plan->oom = true;
        return;
    }
    for (uint32_t block = 0; block < blocks; block++) {
        while (index < plan->insns.count && plan->insns.items[index].rva / 64 < block) {
            index++;
        }
        plan->block_insn[block] = index;
    }
    index = 0;
    for (uint32_t i = 0; i < plan->parts.count; i++) {
        struct ct_part *part = &plan->parts.items[i];
        while (index < plan->insns.count && plan->insns.items[index].rva < part->begin) {
            index++;
        }
        part->first = index;
        while (index < plan->insns.count && plan->insns.items[index].rva < part->end) {
            index++;
        }
        part->count = index - part->first;
    }
}

/* Takes out the groups that were joined to others or dropped, and gives each function its parts. */
static void settle_groups(struct ct_plan *plan)
{
    uint32_t *renumbered = malloc(((size_t)plan->groups.count + 1) * sizeof *renumbered);
    if (!renumbered) {
        plan->oom = true;
        return;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        renumbered[i] = plan->groups.items[i].joined ? CT_NONE : kept;
        if (!plan->groups.items[i].joined) {
            plan->groups.items[kept++] = plan->groups.items[i];
        }
    }
    plan->groups.count = kept;
    for (uint32_t i = 0; i < kept; i++) {
        struct ct_group *group = &plan->groups.items[i];
        if (group->parent != CT_NONE) {
            group->parent = renumbered[group->parent];
        }
        if (group->function.parent != CT_NONE) {
            group->function.parent = group->parent;
        }
    }
    for (uint32_t i = 0; i < plan->parts.count; i++) {
        struct ct_part *part = &plan->parts.items[i];
        part->group = renumbered[part->group];
        struct ct_group *group = &plan->groups.items[part->group];
        vec_push(&group->parts, &plan->oom, i);
        group->function.size += part->end - part->begin;
    }
    free(renumbered);
}

struct ct_group *ct_group_starting(const struct ct_plan *plan, uint32_t rva)
{
    const struct ct_part *part = ct_part_at(plan, rva);
    if (!part || part->begin != rva || part->group == CT_NONE) {
        return NULL;
    }
    struct ct_group *group = &plan->groups.items[part->group];
    return group->function.rva == rva ? group : NULL;
}

/* Runs of int3 and nop between the parts: room for jumps. */
static void mark_padding(struct ct_plan *plan)
{
    for (uint32_t i = 0; i < plan->parts.count; i++) {
        uint32_t at = plan->parts.items[i].end;
        const struct ct_range *section = ct_exec(&plan->image, at);
        uint32_t end = section ? section->end : at;
        if (i + 1 < plan->parts.count && plan->parts.items[i + 1].begin < end) {
            end = plan->parts.items[i + 1].begin;
        }
        for (uint32_t length; at < end && !ct_marked(plan, at, CT_MARK_TARGET | CT_MARK_BODY) &&
                              (length = padding_at(&plan->image, at)) && length <= end - at;) {
            ct_mark(plan, at, length, CT_MARK_PAD);
            at += length;
        }
    }
}

void ct_discover(struct ct_plan *plan)
{
    for (uint32_t i = 0; i < plan->image.seed_count; i++) {
        vec_push(&plan->seeds, &plan->oom, plan->image.seeds[i]);
    }
    read_relocations(plan);
    mark_entries(plan);
    read_handlers(plan, EH_NAME);
    read_handlers(plan, EH_PARENTS);
    read_handlers(plan, EH_FUNCLETS);
    for (uint32_t i = 0; i < plan->parts.count; i++) {
        vec_push(&plan->work, &plan->oom, plan->parts.items[i].begin);
    }
    decode_work(plan);
    mark_entries(plan); /* call targets too, now */
    follow_lea_tables(plan);
    sweep_gaps(plan);
    join_parts(plan);
    follow_funclet_leas(plan);
    seed_leas(plan);
    find_leaves(plan);
    for (unsigned round = 0; round < 8 && !plan->oom && ct_read_gaps(plan); round++) {
        find_leaves(plan);
    }
    read_handlers(plan, EH_LEAVES_OF_PARENTS);
    read_handlers(plan, EH_LEAVES_OF_FUNCLETS);
    if (plan->oom) {
        return;
    }
    ct_sort_accesses(plan);
    sort_insns(plan);
    settle_groups(plan);
    if (plan->oom) {
        return;
    }
    index_insns(plan);
    mark_padding(plan);
}
