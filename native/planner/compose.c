/* Lays the copies out and writes them.
 *
 * The region:
 *
 *   0x000  PE headers, by which a debugger can be shown the copies as a module (headers.c)
 *   0x400  jmp [rip]: the thunk through which every event reaches the recorder's slow path
 *   0x440  copies, in the order of their originals; each
 *              entry stub           ENTER, or the call of a struct ct_hook, and falls into
 *              the parts            one RUNTIME_FUNCTION each
 *              exit stubs           LEAVE and ret, TAIL and jmp
 *   page   address maps, cloned unwind data, two RUNTIME_FUNCTION arrays (read-only): the system's counts from
 *          the module's base, as handler data does, the debugger's from the region's
 *
 * Entry and exit stubs run with RSP at the return address and lie outside every RUNTIME_FUNCTION: to the unwinder
 * they are leaf functions, which is what they are. The one exception are funclets, whose entry stub lies inside:
 * __CxxFrameHandler3 recognises a running catch funclet by the start of its RUNTIME_FUNCTION.
 */
#include "module.h"
#include "write.h"

enum { THUNK_AT = 0x400, COPIES_AT = 0x440, PAGE = 0x1000 };
enum { REGION_LIMIT = 1u << 30, ROUNDS = 16 };
/* Bytes that one address map covers at most, and that all those of functions in several pieces may cover together,
 * beside the size of the image: what lies between the pieces is covered too. */
enum { MAP_SPAN_LIMIT = 0x40000, MAPS_SPAN_LIMIT = 0x400000 };

struct composer {
    struct ct_plan *plan;
    struct ct_writer out;
    uint32_t site;  /* next site's index */
    bool recording; /* first walk: fill plan->sites */
};

bool ct_is_copied(const struct ct_group *group)
{
    return group->function.status == CT_OK && group->patch_size != 0;
}

bool ct_starts_with_int3(const struct ct_group *group)
{
    return ct_is_copied(group) && group->patch_size == 1;
}

static struct ct_group *group_of(const struct ct_plan *plan, uint32_t rva)
{
    const struct ct_part *part = ct_part_at(plan, rva);
    return part && part->group != CT_NONE ? &plan->groups.items[part->group] : NULL;
}

/* ---- stubs ---- */

static void put_event(struct composer *composer, const struct ct_stub *stub, enum ct_event kind, uint32_t id)
{
    struct ct_writer *out = &composer->out;
    uint32_t at = out->at;
    if (stub->size == 0) {
        return;
    }
    ct_put(out, stub->bytes, stub->size);
    if (stub->code_at != CT_NONE) {
        ct_fix_u32(out, at + stub->code_at, id << 3 | (uint32_t)kind);
    }
    ct_fix_rel32(out, at + stub->slow_at, out->region + THUNK_AT);
}

/* The struct ct_hook of a function; its call is where the copy is entered. */
static void put_hook(struct composer *composer, struct ct_group *group, uint32_t id)
{
    struct ct_writer *out = &composer->out;
    ct_align(out, 8);
    uint32_t words[2] = {group->function.rva, id};
    ct_put(out, words, sizeof words);
    group->copy_entry = out->at;
    ct_put_rel32(out, "\xE8", 1, out->region + THUNK_AT);
}

/* ---- one instruction ---- */

struct walk {
    struct ct_group *group;
    uint32_t index; /* of the group */
    uint32_t id;
};

/* Where a jump of this function to `rva` goes: into the copy, or CT_NONE: out of the function. */
static uint32_t inside(const struct composer *composer, const struct walk *walk, uint32_t rva)
{
    const struct ct_plan *plan = composer->plan;
    uint32_t index = ct_insn_at(plan, rva);
    if (index == CT_NONE || group_of(plan, rva) != walk->group) {
        return CT_NONE;
    }
    return composer->out.region + plan->branch_label[index];
}

/* The instruction itself, its RIP-relative operand adjusted. */
static void put_relocated(struct composer *composer, const struct walk *walk, const struct ct_insn *insn)
{
    const struct ct_plan *plan = composer->plan;
    uint32_t at = composer->out.at;
    ct_put(&composer->out, plan->image.bytes + insn->rva, insn->length);
    if (!(insn->flags & CT_INSN_RIP)) {
        return;
    }
    uint32_t target = insn->target;
    if (insn->flags & CT_INSN_LEA && walk->group->parent != CT_NONE &&
        group_of(plan, target) == &plan->groups.items[walk->group->parent]) {
        /* a catch funclet returns the address where its parent goes on */
        target = ct_landing(plan, composer->out.region, target);
    }
    uint32_t end = composer->out.region + at + insn->length;
    ct_fix_u32(&composer->out, at + insn->disp, target - end);
}

/* jmp r/m64 as mov rcx, r/m64: FF /4 becomes REX.W 8B with RCX as the register. */
static void put_load_target(struct composer *composer, const struct ct_insn *insn)
{
    const uint8_t *raw = composer->plan->image.bytes + insn->rva;
    uint8_t bytes[16];
    uint32_t size = 0, at = 0;
    while (at < insn->length && (raw[at] & 0xF0) != 0x40 && raw[at] != 0xFF) {
        if (raw[at] != 0xF2) { /* bnd */
            bytes[size++] = raw[at];
        }
        at++;
    }
    uint8_t rex = at < insn->length && (raw[at] & 0xF0) == 0x40 ? raw[at++] & 3 : 0;
    bytes[size++] = (uint8_t)(0x48 | rex);
    bytes[size++] = 0x8B;
    at++; /* FF */
    bytes[size++] = (uint8_t)((raw[at] & 0xC7) | 1 << 3);
    for (at++; at < insn->length; at++) {
        bytes[size++] = raw[at];
    }
    ct_put(&composer->out, bytes, size);
}

/* The site's id. */
static uint32_t add_site(struct composer *composer, struct ct_site site)
{
    struct ct_plan *plan = composer->plan;
    if (composer->recording) {
        vec_push(&plan->sites, &plan->oom, site);
    }
    return plan->codegen.first_site + composer->site++;
}

/* TAIL, and a record that the function may be left here, to `target` if that is known, or through an import. */
static void put_tail(struct composer *composer, const struct walk *walk, const struct ct_stub *stub,
                     const struct ct_insn *insn, uint32_t target)
{
    bool import = insn->flow == CT_FLOW_JMP_IND && insn->flags & CT_INSN_RIP;
    if (composer->plan->codegen.hits) {
        return;
    }
    add_site(composer, (struct ct_site){
                           .rva = insn->rva,
                           .function = walk->id | CT_SITE_TAIL,
                           .target = target,
                           .import = import ? ct_import_at(composer->plan, insn->target) : CT_NONE,
                       });
    put_event(composer, stub, CT_TAIL, walk->id);
}

static void put_mapped_jump(struct composer *composer, const struct walk *walk, const struct ct_insn *insn)
{
    const struct ct_jump_stub *stub = &composer->plan->codegen.jump;
    struct ct_writer *out = &composer->out;
    ct_put(out, stub->bytes, stub->split);
    put_load_target(composer, insn);
    uint32_t at = out->at - stub->split;
    ct_put(out, stub->bytes + stub->split, stub->size - stub->split);
    ct_fix_rel32(out, at + stub->start_at, walk->group->mapped.begin);
    ct_fix_u32(out, at + stub->length_at, walk->group->mapped.end - walk->group->mapped.begin);
    ct_fix_rel32(out, at + stub->map_at, out->region + walk->group->map);
    ct_fix_rel32(out, at + stub->region_at, out->region);
    put_tail(composer, walk, &composer->plan->codegen.event_inline, insn, 0);
    ct_put(out, composer->plan->image.bytes + insn->rva, insn->length);
}

/* Does this call get CALL and RETURN events? Fills in what is known of its target. */
static bool is_site(const struct composer *composer, const struct ct_part *part, const struct ct_insn *insn,
                    struct ct_site *site)
{
    const struct ct_plan *plan = composer->plan;
    *site = (struct ct_site){
        .rva = insn->rva,
        .function = plan->codegen.first_function + part->group,
        .import = CT_NONE,
    };
    if (part->unwind.version && insn->rva < part->begin + part->unwind.prolog) {
        return false; /* in a prolog an event would stand between the unwind codes */
    }
    if (plan->codegen.hits) {
        return false;
    }
    if (plan->codegen.detail == CT_EVENTS_FUNCTIONS && !(insn->flags & CT_INSN_SWITCHES)) {
        return false;
    }
    if (insn->flow == CT_FLOW_CALL_IND) {
        if (insn->flags & (CT_INSN_RIP | CT_INSN_SWITCHES | CT_INSN_TWICE)) {
            site->import = ct_import_at(plan, insn->target);
        }
        return true;
    }
    site->target = insn->target;
    const struct ct_group *callee = ct_group_starting(plan, insn->target);
    if (callee && callee->function.status == CT_THUNK) {
        site->import = ct_import_at(plan, plan->insns.items[ct_insn_at(plan, insn->target)].target);
        return true;
    }
    return plan->codegen.detail == CT_EVENTS_ALL || insn->flags & CT_INSN_SWITCHES || !callee || !ct_is_copied(callee);
}

/* CALL or RETURN of a site; where another stack may be gone on with, the stack pointer tells which. */
static void put_site_event(struct composer *composer, const struct ct_insn *insn, enum ct_event kind, uint32_t id)
{
    const struct ct_codegen *codegen = &composer->plan->codegen;
    if (insn->flags & CT_INSN_SWITCHES) {
        put_event(composer, &codegen->frame_rsp, CT_FRAME, 0);
    }
    put_event(composer, &codegen->event_inline, kind, id);
}

static void put_call(struct composer *composer, const struct walk *walk, const struct ct_part *part, uint32_t index)
{
    struct ct_plan *plan = composer->plan;
    const struct ct_insn *insn = &plan->insns.items[index];
    struct ct_site site;
    bool recorded = is_site(composer, part, insn, &site);
    uint32_t id = CT_NONE;
    if (recorded) {
        id = add_site(composer, site);
        put_site_event(composer, insn, CT_CALL, id);
    }
    if (insn->flow == CT_FLOW_CALL) {
        ct_put_rel32(&composer->out, "\xE8", 1, insn->target);
    } else {
        put_relocated(composer, walk, insn);
    }
    plan->end_label[index] = composer->out.at;
    if (inside(composer, walk, insn->rva + insn->length) == CT_NONE) {
        return;
    }
    if (recorded) {
        put_site_event(composer, insn, CT_RETURN, id);
    }
    if (insn->flags & CT_INSN_TWICE) {
        put_event(composer, &plan->codegen.frame_rsp, CT_FRAME, 0);
        put_event(composer, &plan->codegen.event_inline, CT_LAND, walk->id);
    }
}

static void put_conditional(struct composer *composer, const struct ct_insn *insn, uint32_t target)
{
    const uint8_t *raw = composer->plan->image.bytes + insn->rva;
    if (insn->flow == CT_FLOW_LOOP) {
        /*      loop take
         *      jmp  past
         * take: jmp target
         * past:               */
        ct_put(&composer->out, raw, insn->length - 1u);
        ct_put(&composer->out, "\x02\xEB\x05", 3);
        ct_put_rel32(&composer->out, "\xE9", 1, target);
    } else if (insn->length >= 6 && raw[insn->length - 6] == 0xC7) {
        ct_put_rel32(&composer->out, "\xC7\xF8", 2, target); /* xbegin */
    } else {
        /* 7x rel8 and 0F 8x rel32 have the condition in the low half of the opcode's last byte */
        bool is_short = insn->length < 6 || raw[insn->length - 6] != 0x0F;
        uint8_t opcode[2] = {0x0F, (uint8_t)(0x80 | (raw[insn->length - (is_short ? 2 : 5)] & 15))};
        ct_put_rel32(&composer->out, opcode, 2, target);
    }
}

/* Unwind codes count from the start of their function in one byte, and compilers stretch prologs, with branches and
 * calls in them, to the last of it. So a short branch of a prolog stays one where it is sure to reach its target: if it
 * does when all branches and rets between them become long. */
static bool stays_short(const struct ct_plan *plan, const struct ct_part *part, uint32_t index)
{
    const struct ct_insn *insn = &plan->insns.items[index];
    uint32_t end = part->begin + part->unwind.prolog, to = ct_insn_at(plan, insn->target);
    if (insn->flow == CT_FLOW_LOOP || insn->length != 2 || insn->rva >= end || insn->target < part->begin ||
        insn->target >= end || to == CT_NONE) {
        return false;
    }
    uint32_t first = to > index ? index + 1 : to, last = to > index ? to : index, distance = 0;
    for (uint32_t i = first; i <= last; i++) {
        const struct ct_insn *each = &plan->insns.items[i];
        bool plain = each->flow == CT_FLOW_NEXT || (ct_is_call(each) && !(each->flags & CT_INSN_TWICE));
        bool grows = each->flow == CT_FLOW_JMP || each->flow == CT_FLOW_JCC || each->flow == CT_FLOW_RET;
        if ((!plain && !grows) || plan->marks[each->rva] & CT_MARK_LAND ||
            (i < last && each[1].rva != each->rva + each->length)) {
            return false;
        }
        distance += i == to && to > index ? 0 : each->length + (grows && i != index ? 4u : 0);
    }
    return distance <= 127;
}

static void put_branch(struct composer *composer, const struct ct_part *part, uint32_t index, uint32_t target)
{
    const struct ct_insn *insn = &composer->plan->insns.items[index];
    if (stays_short(composer->plan, part, index)) {
        uint32_t end = composer->out.region + composer->out.at + 2;
        uint8_t bytes[2] = {composer->plan->image.bytes[insn->rva], (uint8_t)(target - end)};
        ct_put(&composer->out, bytes, sizeof bytes);
    } else if (insn->flow == CT_FLOW_JMP) {
        ct_put_rel32(&composer->out, "\xE9", 1, target);
    } else {
        put_conditional(composer, insn, target);
    }
}

static bool goes_on(const struct ct_insn *insn)
{
    return insn->flow == CT_FLOW_NEXT || insn->flow == CT_FLOW_CALL || insn->flow == CT_FLOW_CALL_IND ||
           insn->flow == CT_FLOW_JCC || insn->flow == CT_FLOW_LOOP;
}

/* A call at a function's end, with or without a nop behind it, does not return. */
static bool is_nop_behind_call(const struct ct_plan *plan, const struct ct_part *part, uint32_t index)
{
    return plan->image.bytes[plan->insns.items[index].rva] == 0x90 && index > part->first &&
           ct_is_call(&plan->insns.items[index - 1]);
}

/* Does control leave the function here for good, through a stub of its own? */
static bool leaves(const struct composer *composer, const struct walk *walk, const struct ct_insn *insn)
{
    switch (insn->flow) {
    case CT_FLOW_RET:
        return !walk->group->whole;
    case CT_FLOW_JMP_IND:
        return !ct_may_stay_inside(insn);
    case CT_FLOW_JMP:
    case CT_FLOW_JCC:
    case CT_FLOW_LOOP:
        return inside(composer, walk, insn->target) == CT_NONE;
    default:
        return false;
    }
}

/* In front of an instruction where execution goes on after unwinding: who gets there otherwise jumps over it. */
static void put_landing(struct composer *composer, const struct walk *walk)
{
    const struct ct_codegen *codegen = &composer->plan->codegen;
    ct_put_rel32(&composer->out, "\xE9", 1,
                 composer->out.region + composer->out.at + 5 + codegen->frame_rsp.size + codegen->event_inline.size);
    put_event(composer, &codegen->frame_rsp, CT_FRAME, 0);
    put_event(composer, &codegen->event_inline, CT_LAND, walk->id);
}

uint32_t ct_landing(const struct ct_plan *plan, uint32_t region, uint32_t rva)
{
    uint32_t index = ct_insn_at(plan, rva);
    const struct ct_group *group = group_of(plan, rva);
    if (index == CT_NONE || !group || !ct_is_copied(group)) {
        return rva;
    }
    uint32_t label = region + plan->branch_label[index];
    bool lands = plan->marks[rva] & CT_MARK_LAND && !plan->codegen.hits;
    return lands ? label - plan->codegen.frame_rsp.size - plan->codegen.event_inline.size : label;
}

/* A function of which one event says all: in a straight line of inert instructions to its rets nothing can happen. */
static bool is_whole(const struct ct_plan *plan, const struct ct_group *group)
{
    const struct ct_part *part = &plan->parts.items[group->parts.items[0]];
    if (!plan->codegen.whole || group->parts.count != 1 || group->landed_in || group->parent != CT_NONE ||
        part->handler != CT_HANDLER_NONE) {
        return false;
    }
    for (uint32_t i = part->first; i < part->first + part->count; i++) {
        const struct ct_insn *insn = &plan->insns.items[i];
        bool jump = insn->flow == CT_FLOW_JMP || insn->flow == CT_FLOW_JCC;
        bool ahead =
            jump && insn->target > insn->rva && insn->target < part->end && ct_insn_at(plan, insn->target) != CT_NONE;
        if (!ahead && insn->flow != CT_FLOW_RET && !(insn->flags & CT_INSN_INERT)) {
            return false;
        }
        bool last = i + 1 == part->first + part->count;
        if (goes_on(insn) && (last || insn[1].rva != insn->rva + insn->length)) {
            return false;
        }
    }
    return part->count > 0;
}

static void put_insn(struct composer *composer, const struct walk *walk, const struct ct_part *part, uint32_t index,
                     uint32_t next)
{
    struct ct_plan *plan = composer->plan;
    const struct ct_insn *insn = &plan->insns.items[index];
    if (plan->marks[insn->rva] & CT_MARK_LAND && !plan->codegen.hits) {
        put_landing(composer, walk);
    }
    plan->branch_label[index] = composer->out.at;
    bool out = leaves(composer, walk, insn);
    uint32_t target = out ? composer->out.region + plan->exit_label[index] : inside(composer, walk, insn->target);
    switch (insn->flow) {
    case CT_FLOW_CALL:
    case CT_FLOW_CALL_IND:
        put_call(composer, walk, part, index);
        break;
    case CT_FLOW_JCC:
    case CT_FLOW_LOOP:
    case CT_FLOW_JMP:
        put_branch(composer, part, index, target);
        break;
    case CT_FLOW_RET:
        if (out) {
            ct_put_rel32(&composer->out, "\xE9", 1, target);
        } else {
            put_relocated(composer, walk, insn);
        }
        break;
    case CT_FLOW_JMP_IND:
        if (out) {
            ct_put_rel32(&composer->out, "\xE9", 1, target);
        } else {
            put_mapped_jump(composer, walk, insn);
        }
        break;
    default:
        put_relocated(composer, walk, insn);
        break;
    }
    if (!ct_is_call(insn)) {
        plan->end_label[index] = composer->out.at;
    }
    uint32_t follows = insn->rva + insn->length;
    /* int3 and its kin too: a debugger or a handler may step over them */
    bool stops = insn->flow == CT_FLOW_STOP;
    if ((goes_on(insn) || stops) && (next == CT_NONE || plan->insns.items[next].rva != follows)) {
        uint32_t copy = inside(composer, walk, follows);
        if (copy == CT_NONE && !stops && !ct_is_call(insn) && !is_nop_behind_call(plan, part, index)) {
            /* runs on into another function */
            put_tail(composer, walk, &plan->codegen.event_inline, insn, follows);
        }
        ct_put_rel32(&composer->out, "\xE9", 1, copy != CT_NONE ? copy : follows);
    }
}

/* ---- one function ---- */

/* In place of a tail jump to SwitchToFiber: a call, for only so the return to this stack can be recorded. It needs 48
 * bytes more of the stack, and unwind data: one allocation. */
static void put_switching_exit(struct composer *composer, const struct walk *walk, const struct ct_insn *insn)
{
    struct ct_plan *plan = composer->plan;
    struct ct_writer *out = &composer->out;
    struct ct_range stub = {.begin = out->at};
    bool indirect = insn->flow == CT_FLOW_JMP_IND;
    uint32_t id = add_site(composer, (struct ct_site){
                                         .rva = insn->rva,
                                         .function = walk->id,
                                         .target = indirect ? 0 : insn->target,
                                         .import = indirect ? ct_import_at(plan, insn->target) : CT_NONE,
                                     });
    ct_put(out, "\x48\x83\xEC\x28", 4); /* sub rsp, 28h */
    put_site_event(composer, insn, CT_CALL, id);
    if (indirect && insn->flags & CT_INSN_RIP) {
        ct_put_rel32(out, "\xFF\x15", 2, insn->target);
    } else if (indirect) {
        uint8_t call[2] = {0xFF, (uint8_t)(plan->image.bytes[insn->rva + insn->length - 1] & ~0x30) | 2 << 3};
        ct_put(out, "\x41", insn->length > 2 && plan->image.bytes[insn->rva + insn->length - 3] & 1);
        ct_put(out, call, sizeof call);
    } else {
        ct_put_rel32(out, "\xE8", 1, insn->target);
    }
    put_site_event(composer, insn, CT_RETURN, id);
    ct_put(out, "\x48\x83\xC4\x28", 4); /* add rsp, 28h */
    stub.end = out->at;
    put_event(composer, &plan->codegen.event_inline, CT_LEAVE, walk->id);
    ct_put(out, "\xC3", 1);
    vec_push(&plan->switches, &plan->oom, stub);
}

static void put_exit(struct composer *composer, const struct walk *walk, const struct ct_insn *insn)
{
    const struct ct_codegen *codegen = &composer->plan->codegen;
    if (insn->flow == CT_FLOW_RET) {
        put_event(composer, &codegen->event, CT_LEAVE, walk->id);
        put_relocated(composer, walk, insn);
    } else if (insn->flow == CT_FLOW_JMP_IND) {
        put_tail(composer, walk, &codegen->event, insn, 0);
        put_relocated(composer, walk, insn);
    } else {
        put_tail(composer, walk, &codegen->event, insn, insn->target);
        ct_put_rel32(&composer->out, "\xE9", 1, insn->target);
    }
}

/* Rets of the same bytes share one stub. */
struct shared_ret {
    uint32_t insn;
    uint32_t label;
};

static void put_exits(struct composer *composer, const struct walk *walk)
{
    struct ct_plan *plan = composer->plan;
    struct shared_ret rets[4];
    uint32_t ret_count = 0;
    for (uint32_t p = 0; p < walk->group->parts.count; p++) {
        const struct ct_part *part = &plan->parts.items[walk->group->parts.items[p]];
        for (uint32_t i = part->first; i < part->first + part->count; i++) {
            const struct ct_insn *insn = &plan->insns.items[i];
            if (!leaves(composer, walk, insn)) {
                continue;
            }
            uint32_t known = 0;
            while (insn->flow == CT_FLOW_RET && known < ret_count &&
                   (plan->insns.items[rets[known].insn].length != insn->length ||
                    memcmp(plan->image.bytes + plan->insns.items[rets[known].insn].rva, plan->image.bytes + insn->rva,
                           insn->length) != 0)) {
                known++;
            }
            if (insn->flow == CT_FLOW_RET && known < ret_count) {
                plan->exit_label[i] = rets[known].label;
                continue;
            }
            if (insn->flags & CT_INSN_SWITCHES && !plan->codegen.hits) {
                plan->exit_label[i] = composer->out.at;
                put_switching_exit(composer, walk, insn);
                continue;
            }
            plan->exit_label[i] = composer->out.at + plan->codegen.event.entry;
            if (insn->flow == CT_FLOW_RET && ret_count < sizeof rets / sizeof *rets) {
                rets[ret_count++] = (struct shared_ret){i, plan->exit_label[i]};
            }
            put_exit(composer, walk, insn);
        }
    }
}

static void put_group(struct composer *composer, uint32_t index)
{
    struct ct_plan *plan = composer->plan;
    const struct ct_codegen *codegen = &plan->codegen;
    struct ct_group *group = &plan->groups.items[index];
    struct walk walk = {group, index, codegen->first_function + index};
    bool funclet = group->parent != CT_NONE;
    bool logical = group->function.flags & CT_FUNCTION_FUNCLET;
    uint32_t start = composer->out.at;
    group->whole = is_whole(plan, group);
    uint32_t whole = group->whole ? CT_WHOLE >> 3 : 0;
    if (codegen->hits) {
        put_hook(composer, group, walk.id);
        start = group->copy_entry;
    } else if (logical || group->landed_in) {
        group->copy_entry = start;
        put_event(composer, logical ? &codegen->frame_rdx : &codegen->frame_rsp, CT_FRAME, 0);
        put_event(composer, &codegen->event_inline, CT_ENTER, walk.id);
    } else {
        group->copy_entry = start + (funclet ? 0 : codegen->event.entry);
        put_event(composer, funclet ? &codegen->event_inline : &codegen->event, CT_ENTER, walk.id | whole);
    }
    const uint32_t *parts = group->parts.items;
    uint32_t entry = ct_insn_at(plan, group->function.rva);
    bool leads = plan->parts.items[parts[0]].first == entry;
    if (!leads) {
        ct_put_rel32(&composer->out, "\xE9", 1, composer->out.region + plan->branch_label[entry]);
    }
    for (uint32_t p = 0; p < group->parts.count; p++) {
        struct ct_part *part = &plan->parts.items[parts[p]];
        part->copy_begin = p == 0 && funclet && leads ? start : composer->out.at;
        uint32_t end = part->first + part->count;
        for (uint32_t i = part->first; i < end; i++) {
            uint32_t next = i + 1 < end ? i + 1 : CT_NONE;
            if (next == CT_NONE && p + 1 < group->parts.count && plan->parts.items[parts[p + 1]].count) {
                next = plan->parts.items[parts[p + 1]].first;
            }
            put_insn(composer, &walk, part, i, next);
        }
        part->copy_end = composer->out.at;
    }
    put_exits(composer, &walk);
}

uint32_t ct_unwind_label(const struct ct_plan *plan, const struct ct_part *part, uint32_t rva)
{
    if (rva <= part->begin || part->count == 0) {
        return part->copy_begin;
    }
    if (rva >= part->end) {
        return part->copy_end;
    }
    uint32_t low = part->first, high = part->first + part->count;
    while (low < high) { /* the first instruction behind rva */
        uint32_t middle = low + (high - low) / 2;
        if (plan->insns.items[middle].rva <= rva) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == part->first) {
        return part->copy_begin;
    }
    const struct ct_insn *insn = &plan->insns.items[low - 1];
    if (rva >= insn->rva + insn->length) { /* between instructions: as the next one */
        return low < part->first + part->count ? plan->branch_label[low] : part->copy_end;
    }
    const struct ct_insn *before = low - 1 > part->first ? &plan->insns.items[low - 2] : NULL;
    bool follows = before && before->rva + before->length == insn->rva;
    return (follows ? plan->end_label[low - 2] : plan->branch_label[low - 1]) + (rva - insn->rva);
}

/* ---- all of it ---- */

static void refuse(struct ct_group *group, enum ct_status status, uint32_t at)
{
    group->function.status = status;
    group->function.status_at = at;
}

/* pop r64: as the first instruction of what is called it takes the return address. */
static bool pops(const struct ct_image *image, uint32_t rva)
{
    bool rex = (ct_u8(image, rva) & 0xF0) == 0x40;
    return (ct_u8(image, rva + rex) & 0xF8) == 0x58;
}

/* What can be seen to be impossible before anything is laid out. */
static void check_group(struct ct_plan *plan, uint32_t index)
{
    struct ct_group *group = &plan->groups.items[index];
    if (plan->codegen.first_function + index >= CT_ID_LIMIT) {
        refuse(group, CT_IDS_EXHAUSTED, group->function.rva);
        return;
    }
    if (ct_is_accessed(plan, group->function.rva, 5)) {
        refuse(group, CT_READ_AS_DATA, group->function.rva);
        return;
    }
    for (uint32_t p = 0; p < group->parts.count; p++) {
        const struct ct_part *part = &plan->parts.items[group->parts.items[p]];
        for (uint32_t i = part->first; i < part->first + part->count; i++) {
            const struct ct_insn *insn = &plan->insns.items[i];
            if (insn->flow == CT_FLOW_CALL &&
                (insn->target == insn->rva + insn->length || pops(&plan->image, insn->target))) {
                refuse(group, CT_POSITION_DEPENDENT, insn->rva);
                return;
            }
            bool reaches = insn->flags & CT_INSN_RIP || insn->flow == CT_FLOW_CALL || insn->flow == CT_FLOW_JMP ||
                           insn->flow == CT_FLOW_JCC || insn->flow == CT_FLOW_LOOP;
            if (reaches && insn->target >= plan->image.size) {
                refuse(group, CT_OUT_OF_RANGE, insn->rva);
                return;
            }
        }
    }
}

static bool allocate_labels(struct ct_plan *plan)
{
    size_t count = (size_t)plan->insns.count + 1;
    free(plan->branch_label); /* of an earlier layout */
    free(plan->end_label);
    free(plan->exit_label);
    plan->branch_label = calloc(count, sizeof *plan->branch_label);
    plan->end_label = calloc(count, sizeof *plan->end_label);
    plan->exit_label = calloc(count, sizeof *plan->exit_label);
    return plan->branch_label && plan->end_label && plan->exit_label;
}

static void put_copies(struct composer *composer)
{
    struct ct_plan *plan = composer->plan;
    composer->out.at = COPIES_AT;
    composer->site = 0;
    plan->switches.count = 0;
    for (uint32_t i = 0; i < plan->groups.count && composer->out.at < REGION_LIMIT; i++) {
        struct ct_group *group = &plan->groups.items[i];
        group->copy.begin = composer->out.at;
        if (ct_is_copied(group)) {
            ct_align(&composer->out, 16);
            group->copy.begin = composer->out.at;
            put_group(composer, i);
        }
        group->copy.end = composer->out.at;
    }
}

/* Can another function's refusal make this one impossible? Its data names code that may be the other's. */
static bool depends_on_others(const struct ct_plan *plan, const struct ct_group *group)
{
    for (uint32_t p = 0; p < group->parts.count; p++) {
        enum ct_handler handler = plan->parts.items[group->parts.items[p]].handler;
        if (handler == CT_HANDLER_LSDA || handler == CT_HANDLER_LABELS) {
            return true;
        }
    }
    return false;
}

/* Refuses what turns out impossible once laid out. true: there was something. After so many rounds that one refusal
 * must have led to the next, all that may still follow are refused at once. */
static bool refuse_impossible(struct ct_plan *plan, unsigned round)
{
    bool any = false;
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        struct ct_group *group = &plan->groups.items[i];
        uint32_t at = group->function.rva;
        enum ct_status status = ct_is_copied(group) ? ct_check_unwind(plan, group, &at) : CT_OK;
        if (round == ROUNDS && ct_is_copied(group) && depends_on_others(plan, group)) {
            status = CT_HANDLER_BAD;
        }
        if (status != CT_OK) {
            refuse(group, status, at);
            any = true;
        }
    }
    return any;
}

static uint32_t round_up(uint32_t value, uint32_t to)
{
    return (value + to - 1) / to * to;
}

/* What the address map of a function covers: all of its parts, or the first one only where they lie so far apart, or
 * where there are so many such functions, that the maps would be out of proportion. */
static struct ct_range mapped_of(const struct ct_plan *plan, const struct ct_group *group, uint32_t *room)
{
    const uint32_t *parts = group->parts.items;
    uint32_t begin = plan->parts.items[parts[0]].begin, end = plan->parts.items[parts[group->parts.count - 1]].end;
    const struct ct_part *primary = ct_part_at(plan, group->function.rva);
    if (end - begin > MAP_SPAN_LIMIT || end - begin > *room) {
        return (struct ct_range){primary->begin, primary->end};
    }
    *room -= end - begin;
    return (struct ct_range){begin, end};
}

/* Address maps come first in the data: their place is known before the unwind data's is. false: too many. */
static bool place_maps(struct ct_plan *plan, uint32_t data)
{
    uint64_t at = data;
    uint32_t room = plan->image.size + MAPS_SPAN_LIMIT;
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        struct ct_group *group = &plan->groups.items[i];
        if (ct_is_copied(group) && group->unresolved) {
            group->mapped = mapped_of(plan, group, &room);
            group->map = (uint32_t)at;
            at += (group->mapped.end - group->mapped.begin) * UINT64_C(4);
        }
    }
    return at < REGION_LIMIT;
}

/* Its words: where each instruction's copy begins, else 0. */
static void put_map(struct ct_plan *plan, const struct ct_group *group)
{
    uint32_t size = (group->mapped.end - group->mapped.begin) * 4;
    uint8_t *map = put_zeros(plan, size);
    for (uint32_t p = 0; map && p < group->parts.count; p++) {
        const struct ct_part *part = &plan->parts.items[group->parts.items[p]];
        for (uint32_t i = part->first; i < part->first + part->count; i++) {
            uint32_t at = plan->insns.items[i].rva - group->mapped.begin;
            if (at < size / 4) {
                memcpy(map + 4 * at, &plan->branch_label[i], 4);
            }
        }
    }
}

static void put_data(struct ct_plan *plan, uint32_t data, struct ct_table *by_region, struct ct_region *out)
{
    struct ct_table table;
    plan->data.count = 0;
    for (uint32_t i = 0; i < plan->groups.count && !plan->oom; i++) {
        const struct ct_group *group = &plan->groups.items[i];
        if (ct_is_copied(group) && group->unresolved) {
            put_map(plan, group);
        }
    }
    ct_clone_unwind(plan, plan->region + data, &table, by_region);
    by_region->at += data;
    out->table = plan->region + data + table.at;
    out->table_count = table.count;
    out->breakpoints = plan->region + data + plan->data.count;
    out->breakpoint_count = 0;
    for (uint32_t i = 0; i < plan->groups.count && !plan->oom; i++) {
        const struct ct_group *group = &plan->groups.items[i];
        if (ct_starts_with_int3(group)) {
            put_u32(plan, group->function.rva);
            put_u32(plan, plan->region + group->copy_entry);
            out->breakpoint_count++;
        }
    }
}

bool ct_plan_layout(struct ct_plan *plan, const struct ct_codegen *codegen, struct ct_layout *out)
{
    plan->codegen = *codegen;
    if (!allocate_labels(plan)) {
        return false;
    }
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        if (plan->groups.items[i].function.status == CT_OK) {
            check_group(plan, i);
        }
    }
    ct_choose_entries(plan);
    struct composer composer = {.plan = plan, .recording = true};
    unsigned round = 0;
    do {
        plan->sites.count = 0;
        put_copies(&composer);
    } while (refuse_impossible(plan, round++) && !plan->oom);
    if (plan->oom || composer.out.at >= REGION_LIMIT || plan->codegen.first_site + composer.site > CT_ID_LIMIT) {
        return false;
    }
    uint32_t code_size = round_up(composer.out.at, PAGE);
    struct ct_table by_region;
    struct ct_region made;
    if (!place_maps(plan, code_size)) {
        return false;
    }
    /* the size of the data does not depend on where the region will lie */
    plan->region = round_up(plan->image.size, PAGE);
    put_data(plan, code_size, &by_region, &made);
    if (plan->data.count >= REGION_LIMIT) {
        return false;
    }
    plan->layout = (struct ct_layout){
        .region_size = code_size + round_up(plan->data.count, PAGE),
        .code_size = code_size,
        .copy_bytes = composer.out.at - COPIES_AT,
        .data_bytes = plan->data.count,
        .site_count = plan->sites.count,
        .breakpoints = made.breakpoint_count,
    };
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        plan->layout.instrumented += ct_is_copied(&plan->groups.items[i]);
    }
    *out = plan->layout;
    return !plan->oom;
}

static void add_patch(struct ct_plan *plan, uint32_t rva, uint32_t size, uint8_t opcode, uint32_t target)
{
    struct ct_patch patch = {.rva = rva, .size = size, .bytes = {opcode}};
    uint32_t distance = target - (rva + size);
    memcpy(patch.original, plan->image.bytes + rva, size);
    memcpy(patch.bytes + 1, &distance, size - 1); /* of an int3, nothing */
    vec_push(&plan->patches, &plan->oom, patch);
}

static void put_patches(struct ct_plan *plan)
{
    plan->patches.count = 0;
    for (uint32_t i = 0; i < plan->groups.count; i++) {
        const struct ct_group *group = &plan->groups.items[i];
        if (!ct_is_copied(group)) {
            continue;
        }
        uint32_t copy = plan->region + group->copy_entry;
        if (group->patch_size == 5) {
            add_patch(plan, group->function.rva, 5, 0xE9, copy);
        } else if (group->patch_size == 1) {
            add_patch(plan, group->function.rva, 1, 0xCC, 0);
        } else {
            add_patch(plan, group->pad, 5, 0xE9, copy);
            add_patch(plan, group->function.rva, 2, 0xEB, group->pad);
        }
    }
}

bool ct_plan_emit(struct ct_plan *plan, uint32_t region, struct ct_region *out)
{
    uint32_t size = plan->layout.region_size;
    if (region < plan->image.size || region % PAGE || region > 0x7FFFFFFFu - size) {
        return false;
    }
    free(plan->bytes);
    plan->bytes = calloc(1, size);
    plan->region = region;
    if (!plan->bytes) {
        return false;
    }
    struct composer composer = {.plan = plan, .out = {plan->bytes, 0, plan->layout.code_size, region}};
    put_copies(&composer);
    memset(plan->bytes + composer.out.at, 0xCC, plan->layout.code_size - composer.out.at);
    memcpy(plan->bytes + THUNK_AT, "\xFF\x25\0\0\0\0", 6); /* jmp [rip+0] */
    memcpy(plan->bytes + THUNK_AT + 6, &plan->codegen.slow_path, 8);
    struct ct_table by_region;
    put_data(plan, plan->layout.code_size, &by_region, out);
    ct_put_headers(plan, by_region);
    put_patches(plan);
    if (plan->oom || plan->data.count != plan->layout.data_bytes) {
        return false;
    }
    if (plan->data.count) {
        memcpy(plan->bytes + plan->layout.code_size, plan->data.items, plan->data.count);
    }
    out->bytes = plan->bytes;
    out->patches = plan->patches.items;
    out->patch_count = plan->patches.count;
    return true;
}
