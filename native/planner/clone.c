/* Unwind data for the copies: every RUNTIME_FUNCTION of a copied function cloned, with each code address in its
 * UNWIND_INFO and in the data of its language handler moved to the copy. What does not depend on code addresses
 * (types, states, filters, actions) goes on pointing into the module.
 */
#include "module.h"

struct clone {
    struct ct_plan *plan;
    uint32_t base; /* RVA of plan->data */
};

/* ---- appending ---- */

static void put_image(struct ct_plan *plan, uint32_t rva, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        put_u8(plan, ct_u8(&plan->image, rva + i));
    }
}

static void align(struct ct_plan *plan, uint32_t to)
{
    while (plan->data.count % to) {
        put_u8(plan, 0);
    }
}

static void set_u32(struct ct_plan *plan, uint32_t at, uint32_t value)
{
    if (at + 4 <= plan->data.count) {
        memcpy(plan->data.items + at, &value, 4);
    }
}

/* __CxxFrameHandler4's variable-length unsigned integer; `long_form` takes 5 bytes whatever the value. */
static void put_compressed(struct ct_plan *plan, uint32_t value)
{
    unsigned more = value < 1u << 7 ? 0 : value < 1u << 14 ? 1 : value < 1u << 21 ? 2 : value < 1u << 28 ? 3 : 4;
    if (more == 4) {
        put_u8(plan, 15);
        put_u32(plan, value);
        return;
    }
    uint32_t bits = value << (more + 1) | ((1u << more) - 1);
    for (unsigned i = 0; i <= more; i++) {
        put_u8(plan, (uint8_t)(bits >> 8 * i));
    }
}

static void put_uleb(struct ct_plan *plan, uint64_t value)
{
    do {
        put_u8(plan, (uint8_t)((value & 0x7F) | (value > 0x7F ? 0x80 : 0)));
        value >>= 7;
    } while (value);
}

/* ---- where things are in the copy ---- */

static struct ct_part *copied_part(const struct ct_plan *plan, uint32_t rva)
{
    struct ct_part *part = ct_part_at(plan, rva);
    return part && part->group != CT_NONE && ct_is_copied(&plan->groups.items[part->group]) ? part : NULL;
}

static uint32_t unwound(const struct ct_plan *plan, const struct ct_part *part, uint32_t rva)
{
    return plan->region + ct_unwind_label(plan, part, rva);
}

/* ---- UNWIND_INFO ---- */

static uint16_t code_at(const struct ct_plan *plan, const struct ct_unwind *unwind, unsigned slot)
{
    return ct_u16(&plan->image, unwind->codes + 2 * slot);
}

static bool is_epilog_code(uint16_t code)
{
    return (code >> 8 & 15) == 6;
}

static bool is_inside(const struct ct_part *part, uint32_t rva)
{
    return part->begin <= rva && rva <= part->end;
}

/* May RIP in the copy be compared with the copy's labels as that in the original with the original's? Where an event
 * lies before a label there are two addresses for one, and a label of another function says nothing of this one. */
static bool has_labels(const struct ct_plan *plan, const struct ct_part *part)
{
    for (uint32_t i = 0; i < part->handler_words; i++) {
        uint32_t word = ct_u32(&plan->image, part->unwind.data + 4 * i);
        uint32_t index = ct_insn_at(plan, word);
        bool one_address = index != CT_NONE && ct_unwind_label(plan, part, word) == plan->branch_label[index];
        if (is_inside(part, word) ? word != part->end && !one_address : ct_exec(&plan->image, word) != NULL) {
            return false;
        }
    }
    return true;
}

enum ct_status ct_check_unwind(const struct ct_plan *plan, const struct ct_group *group, uint32_t *at)
{
    for (uint32_t p = 0; p < group->parts.count; p++) {
        const struct ct_part *part = &plan->parts.items[group->parts.items[p]];
        const struct ct_unwind *unwind = &part->unwind;
        *at = unwind->rva;
        if (unwind->version == 0) {
            continue;
        }
        uint32_t prolog = part->begin + unwind->prolog;
        if (ct_unwind_label(plan, part, prolog) - part->copy_begin > 255) {
            return CT_PROLOG_TOO_LONG;
        }
        for (unsigned slot = 0, slots; slot < unwind->code_count; slot += slots) {
            uint16_t code = code_at(plan, unwind, slot);
            slots = ct_unwind_code_slots(unwind->version, code);
            if (slots == 0 || slots > unwind->code_count - slot) {
                return CT_UNWIND_UNKNOWN;
            }
            if (!is_epilog_code(code) &&
                ct_unwind_label(plan, part, part->begin + (code & 255)) - part->copy_begin > 255) {
                return CT_PROLOG_TOO_LONG;
            }
        }
        if (part->handler == CT_HANDLER_LABELS && !has_labels(plan, part)) {
            *at = unwind->handler;
            return CT_HANDLER_UNKNOWN;
        }
        if (part->handler == CT_HANDLER_LSDA) {
            /* landing pads are unsigned distances from the function's start */
            struct ct_lsda lsda;
            ct_read_lsda(&plan->image, unwind->data, part->begin, &lsda);
            struct ct_cursor cursor = {&plan->image, lsda.calls, false};
            while (cursor.at < lsda.calls_end && !cursor.bad) {
                struct ct_lsda_call call;
                ct_get_lsda_call(&cursor, &lsda, part->begin, &call);
                uint32_t index = call.pad ? ct_insn_at(plan, call.pad) : CT_NONE;
                if (call.pad && (index == CT_NONE || copied_part(plan, call.pad) == NULL ||
                                 plan->branch_label[index] <= part->copy_begin)) {
                    *at = call.pad;
                    return CT_HANDLER_BAD;
                }
            }
        }
    }
    return CT_OK;
}

/* The header and the codes. Version 2's epilog codes are left out and the clone is version 1: its epilogs still end
 * in pops and a jump, by which version 1's unwinder knows them. */
static void put_unwind(struct ct_plan *plan, const struct ct_part *part)
{
    const struct ct_unwind *unwind = &part->unwind;
    uint32_t start = plan->data.count;
    put_u8(plan, (uint8_t)(1 | unwind->flags << 3));
    put_u8(plan, (uint8_t)(ct_unwind_label(plan, part, part->begin + unwind->prolog) - part->copy_begin));
    put_u8(plan, 0);
    put_u8(plan, unwind->frame);
    unsigned kept = 0;
    for (unsigned slot = 0, slots; slot < unwind->code_count; slot += slots) {
        uint16_t code = code_at(plan, unwind, slot);
        slots = ct_unwind_code_slots(unwind->version, code);
        if (slots == 0) {
            break;
        }
        if (is_epilog_code(code)) {
            continue;
        }
        put_u8(plan, (uint8_t)(ct_unwind_label(plan, part, part->begin + (code & 255)) - part->copy_begin));
        put_u8(plan, (uint8_t)(code >> 8));
        put_image(plan, unwind->codes + 2 * (slot + 1), 2 * (slots - 1));
        kept += slots;
    }
    if (kept % 2) {
        put_u8(plan, 0);
        put_u8(plan, 0);
    }
    if (!plan->oom) {
        plan->data.items[start + 2] = (uint8_t)kept;
    }
}

/* ---- labels and numbers ---- */

static void put_labels(struct ct_plan *plan, const struct ct_part *part)
{
    for (uint32_t i = 0; i < part->handler_words; i++) {
        uint32_t word = ct_u32(&plan->image, part->unwind.data + 4 * i);
        put_u32(plan, is_inside(part, word) ? unwound(plan, part, word) : word);
    }
}

/* ---- C scope table ---- */

static void put_scope(struct ct_plan *plan, uint32_t data)
{
    uint32_t count = ct_u32(&plan->image, data);
    put_u32(plan, count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t entry = data + 4 + 16 * i;
        uint32_t begin = ct_u32(&plan->image, entry), end = ct_u32(&plan->image, entry + 4);
        uint32_t target = ct_u32(&plan->image, entry + 12);
        const struct ct_part *part = copied_part(plan, begin);
        /* a scope may reach into parts chained to the one it begins in */
        const struct ct_part *last = end > begin ? copied_part(plan, end - 1) : part;
        last = part && last && last->group == part->group ? last : part;
        put_u32(plan, part ? unwound(plan, part, begin) : begin);
        put_u32(plan, last ? unwound(plan, last, end) : end);
        put_image(plan, entry + 8, 4);
        put_u32(plan, target ? ct_landing(plan, plan->region, target) : 0);
    }
    put_image(plan, data + 4 + 16 * count, 12); /* GSHandlerData, if it is the GS form */
}

/* ---- __CxxFrameHandler3 ---- */

/* The runtime knows that a catch funclet is running by comparing the start of its RUNTIME_FUNCTION with the
 * addresses in the try block map: these must be those of the copies. */
static uint32_t clone_fh3_tries(struct clone *clone, const struct ct_fh3 *info)
{
    struct ct_plan *plan = clone->plan;
    const struct ct_image *image = &plan->image;
    align(plan, 4);
    uint32_t map = plan->data.count;
    put_image(plan, info->try_map, info->try_count * 20);
    for (uint32_t i = 0; i < info->try_count && !plan->oom; i++) {
        uint32_t entry = info->try_map + 20 * i;
        uint32_t count = ct_u32(image, entry + 12), catches = ct_u32(image, entry + 16);
        set_u32(plan, map + 20 * i + 16, clone->base + plan->data.count);
        for (uint32_t k = 0; k < count; k++) {
            uint32_t handler = ct_u32(image, catches + 20 * k + 12);
            const struct ct_part *part = copied_part(plan, handler);
            put_image(plan, catches + 20 * k, 12);
            put_u32(plan, part && part->begin == handler ? plan->region + part->copy_begin : handler);
            put_image(plan, catches + 20 * k + 16, 4);
        }
    }
    return clone->base + map;
}

/* The IP-to-state entries that matter to one part: the state it starts in, and the changes inside it. */
static uint32_t put_fh3_ips(struct ct_plan *plan, const struct ct_fh3 *info, const struct ct_part *part)
{
    uint32_t start = plan->data.count, state = CT_NONE, count = 1;
    put_u32(plan, plan->region + part->copy_begin);
    put_u32(plan, state);
    for (uint32_t i = 0; i < info->ip_count; i++) {
        uint32_t ip = ct_u32(&plan->image, info->ip_map + 8 * i);
        state = ct_u32(&plan->image, info->ip_map + 8 * i + 4);
        if (ip <= part->begin) {
            set_u32(plan, start + 4, state);
        } else if (ip < part->end) {
            put_u32(plan, unwound(plan, part, ip));
            put_u32(plan, state);
            count++;
        }
    }
    return count;
}

/* Those of a RUNTIME_FUNCTION and of what is chained to it. */
static uint32_t clone_fh3_ips(struct clone *clone, const struct ct_fh3 *info, const struct ct_part *primary,
                              uint32_t *count)
{
    struct ct_plan *plan = clone->plan;
    const struct ct_group *group = &plan->groups.items[primary->group];
    uint32_t map = plan->data.count;
    *count = 0;
    for (uint32_t i = 0; i < group->parts.count; i++) {
        const struct ct_part *part = &plan->parts.items[group->parts.items[i]];
        if (part == primary || part->unwind.flags & CT_UNW_CHAININFO) {
            *count += put_fh3_ips(plan, info, part);
        }
    }
    return clone->base + map;
}

static void put_fh3(struct clone *clone, const struct ct_part *part, uint32_t unwind_at)
{
    struct ct_plan *plan = clone->plan;
    struct ct_fh3 info;
    ct_read_fh3(&plan->image, ct_u32(&plan->image, part->unwind.data), &info);
    put_u32(plan, 0);
    put_image(plan, part->unwind.data + 4, 12); /* GSHandlerData, if it is the GS form */
    uint32_t tries = info.try_count ? clone_fh3_tries(clone, &info) : 0;
    uint32_t count;
    align(plan, 4);
    uint32_t ips = clone_fh3_ips(clone, &info, part, &count);
    set_u32(plan, unwind_at, clone->base + plan->data.count);
    uint32_t at = plan->data.count;
    put_image(plan, info.rva, CT_FH3_SIZE);
    set_u32(plan, at + 16, tries);
    set_u32(plan, at + 20, count);
    set_u32(plan, at + 24, ips);
}

/* ---- __CxxFrameHandler4 ---- */

static uint32_t clone_fh4_catches(struct clone *clone, uint32_t catches, uint32_t begin)
{
    struct ct_plan *plan = clone->plan;
    uint32_t start = plan->data.count;
    struct ct_cursor cursor = {&plan->image, catches, false};
    uint32_t count = ct_get_compressed(&cursor);
    put_compressed(plan, count);
    for (uint32_t i = 0; i < count && !cursor.bad; i++) {
        struct ct_fh4_catch one;
        ct_get_fh4_catch(&cursor, begin, &one);
        put_u8(plan, (uint8_t)(one.header | (one.continuation_count ? CT_FH4_CONT_RVA : 0)));
        if (one.header & CT_FH4_ADJECTIVES) {
            put_compressed(plan, one.adjectives);
        }
        if (one.header & CT_FH4_TYPE) {
            put_u32(plan, one.type);
        }
        if (one.header & CT_FH4_OBJECT) {
            put_compressed(plan, one.object);
        }
        put_u32(plan, one.handler);
        for (uint32_t k = 0; k < one.continuation_count; k++) {
            put_u32(plan, ct_landing(plan, plan->region, one.continuation[k]));
        }
    }
    return clone->base + start;
}

static uint32_t clone_fh4_tries(struct clone *clone, uint32_t map, uint32_t begin)
{
    struct ct_plan *plan = clone->plan;
    VEC(uint32_t) catches = {0};
    struct ct_cursor cursor = {&plan->image, map, false};
    uint32_t count = ct_get_compressed(&cursor);
    for (uint32_t i = 0; i < count && !cursor.bad; i++) {
        for (unsigned k = 0; k < 3; k++) {
            ct_get_compressed(&cursor);
        }
        vec_push(&catches, &plan->oom, clone_fh4_catches(clone, ct_get_u32(&cursor), begin));
    }
    uint32_t start = plan->data.count;
    cursor = (struct ct_cursor){&plan->image, map, false};
    put_compressed(plan, ct_get_compressed(&cursor));
    for (uint32_t i = 0; i < catches.count; i++) {
        for (unsigned k = 0; k < 3; k++) {
            put_compressed(plan, ct_get_compressed(&cursor));
        }
        ct_get_u32(&cursor);
        put_u32(plan, catches.items[i]);
    }
    vec_free(&catches);
    return clone->base + start;
}

static uint32_t clone_fh4_ips(struct clone *clone, uint32_t map, const struct ct_part *part)
{
    struct ct_plan *plan = clone->plan;
    uint32_t start = plan->data.count, ip = part->begin, last = part->copy_begin;
    struct ct_cursor cursor = {&plan->image, map, false};
    uint32_t count = ct_get_compressed(&cursor);
    put_compressed(plan, count);
    for (uint32_t i = 0; i < count && !cursor.bad; i++) {
        ip += ct_get_compressed(&cursor);
        /* a map that starts with the function means its first byte, not the stub a funclet's copy starts with */
        uint32_t label = ct_unwind_label(plan, part, ip);
        put_compressed(plan, label - last);
        put_compressed(plan, ct_get_compressed(&cursor));
        last = label;
    }
    return clone->base + start;
}

static uint32_t clone_fh4_separated(struct clone *clone, uint32_t map)
{
    struct ct_plan *plan = clone->plan;
    VEC(uint32_t) pairs = {0};
    struct ct_cursor cursor = {&plan->image, map, false};
    uint32_t count = ct_get_compressed(&cursor);
    for (uint32_t i = 0; i < count && !cursor.bad; i++) {
        uint32_t begin = ct_get_u32(&cursor), ips = ct_get_u32(&cursor);
        const struct ct_part *part = copied_part(plan, begin);
        bool copied = part && part->begin == begin;
        vec_push(&pairs, &plan->oom, copied ? plan->region + part->copy_begin : begin);
        vec_push(&pairs, &plan->oom, copied ? clone_fh4_ips(clone, ips, part) : ips);
    }
    uint32_t start = plan->data.count;
    put_compressed(plan, pairs.count / 2);
    for (uint32_t i = 0; i < pairs.count; i++) {
        put_u32(plan, pairs.items[i]);
    }
    vec_free(&pairs);
    return clone->base + start;
}

static void put_fh4(struct clone *clone, const struct ct_part *part, uint32_t unwind_at)
{
    struct ct_plan *plan = clone->plan;
    struct ct_fh4 info;
    ct_read_fh4(&plan->image, ct_u32(&plan->image, part->unwind.data), &info);
    put_u32(plan, 0);
    put_image(plan, part->unwind.data + 4, 12); /* GSHandlerData, if it is the GS form */
    uint32_t tries = info.header & CT_FH4_TRY ? clone_fh4_tries(clone, info.try_map, part->begin) : 0;
    uint32_t ips = info.header & CT_FH4_SEPARATED ? clone_fh4_separated(clone, info.ip_map)
                                                  : clone_fh4_ips(clone, info.ip_map, part);
    set_u32(plan, unwind_at, clone->base + plan->data.count);
    put_u8(plan, info.header);
    if (info.header & CT_FH4_BBT) {
        put_compressed(plan, info.bbt_flags);
    }
    if (info.header & CT_FH4_UNWIND) {
        put_u32(plan, info.unwind_map);
    }
    if (info.header & CT_FH4_TRY) {
        put_u32(plan, tries);
    }
    put_u32(plan, ips);
    if (info.header & CT_FH4_CATCH) {
        put_compressed(plan, info.frame);
    }
    align(plan, 4);
}

/* ---- gcc's LSDA ---- */

enum { DW_EH_PE_udata4 = 0x03, DW_EH_PE_pcrel = 0x10, DW_EH_PE_omit = 0xFF };

static void put_lsda_calls(struct clone *clone, const struct ct_lsda *lsda, const struct ct_part *part)
{
    struct ct_plan *plan = clone->plan;
    struct ct_cursor cursor = {&plan->image, lsda->calls, false};
    while (cursor.at < lsda->calls_end && !cursor.bad) {
        struct ct_lsda_call call;
        ct_get_lsda_call(&cursor, lsda, part->begin, &call);
        uint32_t begin = ct_unwind_label(plan, part, call.begin);
        put_u32(plan, begin - part->copy_begin);
        put_u32(plan, ct_unwind_label(plan, part, call.end) - begin);
        put_u32(plan, call.pad ? ct_landing(plan, 0, call.pad) - part->copy_begin : 0);
        put_uleb(plan, call.action);
    }
}

static unsigned uleb_size(uint32_t value)
{
    unsigned size = 1;
    while (value >>= 7) {
        size++;
    }
    return size;
}

static void put_lsda(struct clone *clone, const struct ct_part *part)
{
    struct ct_plan *plan = clone->plan;
    const struct ct_image *image = &plan->image;
    struct ct_lsda lsda;
    ct_read_lsda(image, part->unwind.data, part->begin, &lsda);
    struct ct_lsda_reach reach;
    uint64_t unlimited = UINT64_MAX; /* what ct_handler_visit went through before */
    ct_lsda_follow(image, &lsda, part->begin, &unlimited, &reach);
    unsigned type_size = lsda.type_encoding == DW_EH_PE_omit ? 0 : ct_lsda_type_size(lsda.type_encoding);

    /* the call-site table is built behind the end, measured, and put after the header it belongs behind */
    uint32_t start = plan->data.count;
    put_lsda_calls(clone, &lsda, part);
    uint32_t calls = plan->data.count - start;
    plan->data.count = start;

    uint32_t actions = reach.actions_end - lsda.calls_end;
    put_u8(plan, DW_EH_PE_omit);
    put_u8(plan, lsda.type_encoding);
    uint32_t padding = 0;
    if (type_size) {
        /* distance from behind this number to the end of the type table, which is to be aligned */
        uint32_t body = 1 + uleb_size(calls) + calls + actions + reach.types * type_size;
        while ((plan->data.count + uleb_size(body + padding) + body + padding) % 4) {
            padding++;
        }
        put_uleb(plan, body + padding);
    }
    put_u8(plan, DW_EH_PE_udata4);
    put_uleb(plan, calls);
    put_lsda_calls(clone, &lsda, part);
    put_image(plan, lsda.calls_end, actions);
    for (uint32_t i = 0; i < padding; i++) {
        put_u8(plan, 0);
    }
    for (uint32_t i = reach.types; type_size && i > 0; i--) {
        uint32_t entry = lsda.types - i * type_size;
        uint32_t value = ct_u32(image, entry);
        if ((lsda.type_encoding & 0x70) == DW_EH_PE_pcrel && type_size == 4) {
            put_u32(plan, value ? entry + value - (clone->base + plan->data.count) : 0);
        } else if ((lsda.type_encoding & 0x70) == DW_EH_PE_pcrel) {
            uint64_t wide = ct_u64(image, entry);
            wide = wide ? entry + wide - (clone->base + plan->data.count) : 0;
            put_u32(plan, (uint32_t)wide);
            put_u32(plan, (uint32_t)(wide >> 32));
        } else {
            put_image(plan, entry, type_size);
        }
    }
    if (type_size) {
        put_image(plan, lsda.types, reach.specs_end - lsda.types);
    }
}

/* ---- a function ---- */

static void put_handler(struct clone *clone, const struct ct_part *part)
{
    struct ct_plan *plan = clone->plan;
    put_u32(plan, part->unwind.handler);
    uint32_t at = plan->data.count;
    switch (part->handler) {
    case CT_HANDLER_SCOPE:
        put_scope(plan, part->unwind.data);
        break;
    case CT_HANDLER_FH3:
        put_fh3(clone, part, at);
        break;
    case CT_HANDLER_FH4:
        put_fh4(clone, part, at);
        break;
    case CT_HANDLER_LSDA:
        put_lsda(clone, part);
        break;
    case CT_HANDLER_LABELS:
        put_labels(plan, part);
        break;
    case CT_HANDLER_GS:
        put_image(plan, part->unwind.data, 12);
        break;
    case CT_HANDLER_NONE:
    case CT_HANDLER_OTHER:
        break;
    }
}

struct chain_hole {
    uint32_t at;   /* offset in plan->data of the chained RUNTIME_FUNCTION */
    uint32_t part; /* whose it is */
    bool by_region;
};

struct table_entry {
    uint32_t begin, end, unwind;
};

static int by_begin(const void *a, const void *b)
{
    const struct table_entry *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin ? 1 : 0;
}

/* The RUNTIME_FUNCTION array of the copies: ascending, as the system's binary search wants it. It counts from the
 * module's base, or `by_region` from the region's. */
static void put_table(struct ct_plan *plan, uint32_t switch_unwind, bool by_region, struct ct_table *out)
{
    VEC(struct table_entry) table = {0};
    uint32_t base = by_region ? plan->region : 0;
    for (uint32_t i = 0; i < plan->parts.count && !plan->oom; i++) {
        const struct ct_part *part = &plan->parts.items[i];
        if (part->unwind.version && ct_is_copied(&plan->groups.items[part->group]) &&
            part->copy_begin < part->copy_end) {
            vec_push(&table, &plan->oom,
                     (struct table_entry){plan->region + part->copy_begin, plan->region + part->copy_end,
                                          by_region ? part->region_unwind : part->copy_unwind});
        }
    }
    for (uint32_t i = 0; i < plan->switches.count; i++) {
        const struct ct_range *stub = &plan->switches.items[i];
        vec_push(&table, &plan->oom,
                 (struct table_entry){plan->region + stub->begin, plan->region + stub->end, switch_unwind});
    }
    if (table.count) {
        /* joined parts lie with their function, whatever their own address was */
        qsort(table.items, table.count, sizeof *table.items, by_begin);
    }
    *out = (struct ct_table){plan->data.count, table.count};
    for (uint32_t i = 0; i < table.count; i++) {
        put_u32(plan, table.items[i].begin - base);
        put_u32(plan, table.items[i].end - base);
        put_u32(plan, table.items[i].unwind - base);
    }
    vec_free(&table);
}

/* UNWIND_INFO whose chained RUNTIME_FUNCTION counts from one of two bases; the same for the rest of them. */
static void put_chained(struct ct_plan *plan, const struct ct_part *part, struct chain_hole *hole)
{
    put_unwind(plan, part);
    const struct ct_part *to = ct_part_at(plan, part->unwind.chain[0]);
    uint32_t base = hole->by_region ? 0 : plan->region;
    hole->at = plan->data.count;
    hole->part = (uint32_t)(to - plan->parts.items);
    put_u32(plan, base + to->copy_begin);
    put_u32(plan, base + to->copy_end);
    put_u32(plan, 0);
}

void ct_clone_unwind(struct ct_plan *plan, uint32_t data_base, struct ct_table *table, struct ct_table *by_region)
{
    struct clone clone = {plan, data_base};
    VEC(struct chain_hole) holes = {0};
    for (uint32_t i = 0; i < plan->parts.count && !plan->oom; i++) {
        struct ct_part *part = &plan->parts.items[i];
        if (part->unwind.version == 0 || !ct_is_copied(&plan->groups.items[part->group])) {
            continue;
        }
        align(plan, 4);
        part->copy_unwind = part->region_unwind = data_base + plan->data.count;
        if (part->unwind.flags & CT_UNW_CHAININFO) {
            struct chain_hole hole = {.by_region = false};
            put_chained(plan, part, &hole);
            vec_push(&holes, &plan->oom, hole);
            part->region_unwind = data_base + plan->data.count;
            hole.by_region = true;
            put_chained(plan, part, &hole);
            vec_push(&holes, &plan->oom, hole);
            continue;
        }
        put_unwind(plan, part);
        if (part->unwind.flags & (CT_UNW_EHANDLER | CT_UNW_UHANDLER)) {
            put_handler(&clone, part);
        }
    }
    for (uint32_t i = 0; i < holes.count; i++) {
        const struct ct_part *to = &plan->parts.items[holes.items[i].part];
        set_u32(plan, holes.items[i].at + 8,
                holes.items[i].by_region ? to->region_unwind - plan->region : to->copy_unwind);
    }
    vec_free(&holes);
    align(plan, 4);
    uint32_t switch_unwind = data_base + plan->data.count;
    if (plan->switches.count) {
        /* version 1, prolog of 4 bytes, 1 code: UWOP_ALLOC_SMALL of 28h bytes done at offset 4 */
        static const uint8_t info[8] = {1, 4, 1, 0, 4, 0x42};
        for (unsigned i = 0; i < sizeof info; i++) {
            vec_push(&plan->data, &plan->oom, info[i]);
        }
    }
    align(plan, 16);
    put_table(plan, switch_unwind, false, table);
    put_table(plan, switch_unwind, true, by_region);
}
