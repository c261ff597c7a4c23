#include "eh.h"

enum { HEADERS_END = 0x1000 }; /* no section lies lower */

/* ---- UNWIND_INFO ---- */

bool ct_read_unwind(const struct ct_image *image, uint32_t rva, struct ct_unwind *out)
{
    if (rva & 3 || !ct_has(image, rva, 4)) {
        return false;
    }
    uint8_t first = ct_u8(image, rva);
    *out = (struct ct_unwind){
        .version = first & 7,
        .flags = first >> 3,
        .prolog = ct_u8(image, rva + 1),
        .code_count = ct_u8(image, rva + 2),
        .frame = ct_u8(image, rva + 3),
        .rva = rva,
        .codes = rva + 4,
    };
    uint32_t tail = rva + 4 + 2 * ((out->code_count + 1u) & ~1u);
    if (out->version < 1 || out->version > 2 || !ct_has(image, rva, tail - rva)) {
        return false;
    }
    if (out->flags & CT_UNW_CHAININFO) {
        for (unsigned i = 0; i < 3; i++) {
            out->chain[i] = ct_u32(image, tail + 4 * i);
        }
        return ct_has(image, tail, 12);
    }
    if (out->flags & (CT_UNW_EHANDLER | CT_UNW_UHANDLER)) {
        out->handler = ct_u32(image, tail);
        out->data = tail + 4;
        return ct_has(image, tail, 8);
    }
    return true;
}

unsigned ct_unwind_code_slots(uint8_t version, uint16_t code)
{
    unsigned info = code >> 12;
    switch (code >> 8 & 15) {
    case 0:  /* UWOP_PUSH_NONVOL */
    case 2:  /* UWOP_ALLOC_SMALL */
    case 3:  /* UWOP_SET_FPREG */
    case 10: /* UWOP_PUSH_MACHFRAME */
        return 1;
    case 1: /* UWOP_ALLOC_LARGE */
        return info == 0 ? 2 : info == 1 ? 3 : 0;
    case 4: /* UWOP_SAVE_NONVOL */
    case 8: /* UWOP_SAVE_XMM128 */
        return 2;
    case 5: /* UWOP_SAVE_NONVOL_FAR */
    case 9: /* UWOP_SAVE_XMM128_FAR */
        return 3;
    case 6: /* UWOP_EPILOG */
        return version == 2 ? 1 : 0;
    default:
        return 0;
    }
}

/* ---- reading ---- */

uint8_t ct_get_u8(struct ct_cursor *cursor)
{
    if (!ct_has(cursor->image, cursor->at, 1)) {
        cursor->bad = true;
        return 0;
    }
    return cursor->image->bytes[cursor->at++];
}

uint32_t ct_get_u32(struct ct_cursor *cursor)
{
    if (!ct_has(cursor->image, cursor->at, 4)) {
        cursor->bad = true;
        return 0;
    }
    cursor->at += 4;
    return ct_u32(cursor->image, cursor->at - 4);
}

uint32_t ct_get_compressed(struct ct_cursor *cursor)
{
    /* the number of low one bits in the first byte says how many bytes follow */
    uint32_t value = ct_get_u8(cursor);
    if ((value & 15) == 15) {
        return ct_get_u32(cursor);
    }
    unsigned more = (value & 1) == 0 ? 0 : (value & 3) == 1 ? 1 : (value & 7) == 3 ? 2 : 3;
    for (unsigned i = 1; i <= more; i++) {
        value |= (uint32_t)ct_get_u8(cursor) << 8 * i;
    }
    return value >> (more + 1);
}

uint64_t ct_get_uleb(struct ct_cursor *cursor)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = ct_get_u8(cursor);
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) {
            return value;
        }
    }
    cursor->bad = true;
    return 0;
}

int64_t ct_get_sleb(struct ct_cursor *cursor)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 63; shift += 7) {
        uint8_t byte = ct_get_u8(cursor);
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) {
            return (int64_t)(byte & 0x40 ? value | ~(uint64_t)0 << (shift + 7) : value);
        }
    }
    cursor->bad = true;
    return 0;
}

/* Every element of a table has its cost, so that tables which many functions share in a damaged file cannot take for
 * ever: each function's copy is given copies of them. */
enum { ELEMENT_COST = 4 };

static bool spend_much(uint64_t *budget, uint64_t amount)
{
    if (*budget < amount) {
        *budget = 0;
        return false;
    }
    *budget -= amount;
    return true;
}

static bool spend(uint64_t *budget, struct ct_cursor *cursor)
{
    return !cursor->bad && spend_much(budget, ELEMENT_COST);
}

/* ---- C scope tables ---- */

static bool visit_scope(const struct ct_image *image, uint32_t data, uint64_t *budget, ct_eh_visit *visit,
                        void *context)
{
    struct ct_cursor cursor = {image, data, false};
    uint32_t count = ct_get_u32(&cursor);
    for (uint32_t i = 0; i < count; i++) {
        if (!spend(budget, &cursor)) {
            return false;
        }
        uint32_t begin = ct_get_u32(&cursor), end = ct_get_u32(&cursor);
        uint32_t handler = ct_get_u32(&cursor), target = ct_get_u32(&cursor);
        if (cursor.bad || begin > end || !ct_exec(image, begin) || (target && !ct_exec(image, target)) ||
            (handler != 1 && !ct_exec(image, handler)) || (handler == 1 && !target)) {
            return false;
        }
        if (target) { /* __except: goes on there; the handler is a filter, which runs before anything is unwound */
            visit(context, CT_EH_LAND, target, CT_NONE);
        } else { /* __finally */
            visit(context, CT_EH_FUNCLET, handler, CT_NONE);
        }
    }
    return !cursor.bad;
}

/* ---- __CxxFrameHandler3 ---- */

bool ct_read_fh3(const struct ct_image *image, uint32_t rva, struct ct_fh3 *out)
{
    uint32_t magic = ct_u32(image, rva);
    if (!ct_has(image, rva, CT_FH3_SIZE) || magic < 0x19930520 || magic > 0x19930522) {
        return false;
    }
    *out = (struct ct_fh3){
        .rva = rva,
        .unwind_count = ct_u32(image, rva + 4),
        .unwind_map = ct_u32(image, rva + 8),
        .try_count = ct_u32(image, rva + 12),
        .try_map = ct_u32(image, rva + 16),
        .ip_count = ct_u32(image, rva + 20),
        .ip_map = ct_u32(image, rva + 24),
    };
    return ct_has(image, out->ip_map, 0) && out->ip_count <= (image->size - out->ip_map) / 8;
}

/* The runtime looks for the first entry behind the address that it has: they ascend. */
static bool check_fh3_ips(const struct ct_image *image, const struct ct_fh3 *info, uint64_t *budget)
{
    struct ct_cursor ips = {image, info->ip_map, false};
    uint32_t last = 0;
    for (uint32_t i = 0; i < info->ip_count; i++) {
        uint32_t ip = ct_get_u32(&ips);
        ct_get_u32(&ips); /* state */
        if (ip < last || !spend(budget, &ips)) {
            return false;
        }
        last = ip;
    }
    return true;
}

static bool visit_fh3(const struct ct_image *image, uint32_t data, uint64_t *budget, ct_eh_visit *visit, void *context)
{
    struct ct_fh3 info;
    if (!ct_read_fh3(image, ct_u32(image, data), &info)) {
        return false;
    }
    if (!check_fh3_ips(image, &info, budget)) {
        return false;
    }
    struct ct_cursor unwind = {image, info.unwind_map, false};
    for (uint32_t i = 0; i < info.unwind_count; i++) {
        if (!spend(budget, &unwind)) {
            return false;
        }
        ct_get_u32(&unwind);
        uint32_t action = ct_get_u32(&unwind);
        if (action) {
            visit(context, CT_EH_FUNCLET, action, i);
        }
    }
    struct ct_cursor tries = {image, info.try_map, unwind.bad};
    for (uint32_t i = 0; i < info.try_count; i++) {
        if (!spend(budget, &tries)) {
            return false;
        }
        uint32_t low = ct_get_u32(&tries);
        tries.at += 8; /* tryHigh, catchHigh */
        uint32_t count = ct_get_u32(&tries);
        struct ct_cursor catches = {image, ct_get_u32(&tries), tries.bad};
        for (uint32_t k = 0; k < count; k++) {
            if (!spend(budget, &catches)) {
                return false;
            }
            catches.at += 12; /* adjectives, type, object */
            visit(context, CT_EH_FUNCLET, ct_get_u32(&catches), low);
            ct_get_u32(&catches); /* frame */
        }
        tries.bad |= catches.bad;
    }
    return !tries.bad;
}

/* The innermost try block whose handlers run in `state`, or CT_NONE. */
static uint32_t handling_try(const struct ct_image *image, const struct ct_fh3 *info, uint32_t state, uint64_t *budget)
{
    struct ct_cursor tries = {image, info->try_map, false};
    uint32_t found = CT_NONE, narrowest = UINT32_MAX;
    for (uint32_t i = 0; i < info->try_count && spend(budget, &tries); i++) {
        tries.at += 4; /* tryLow */
        uint32_t high = ct_get_u32(&tries), catch_high = ct_get_u32(&tries);
        tries.at += 8; /* the handlers */
        if (high < state && state <= catch_high && catch_high - high < narrowest) {
            narrowest = catch_high - high;
            found = i;
        }
    }
    return found;
}

/* Is `outer` left when everything is unwound from `state` on? Leaving a state leads to a lower one. */
static bool is_within(const struct ct_image *image, const struct ct_fh3 *info, uint32_t state, uint32_t outer,
                      uint64_t *budget)
{
    struct ct_cursor states = {image, info->unwind_map, false};
    while (state > outer && state < info->unwind_count && spend(budget, &states)) {
        states.at = info->unwind_map + 8 * state;
        uint32_t next = ct_get_u32(&states);
        if (next >= state) {
            return false;
        }
        state = next;
    }
    return state == outer;
}

uint32_t ct_fh3_handler_code(const struct ct_image *image, const struct ct_fh3 *info, uint32_t state, uint64_t *budget)
{
    uint32_t block = handling_try(image, info, state, budget);
    struct ct_cursor ips = {image, info->ip_map, false};
    for (uint32_t i = 0; block != CT_NONE && i < info->ip_count && spend(budget, &ips); i++) {
        uint32_t ip = ct_get_u32(&ips), at = ct_get_u32(&ips);
        if (is_within(image, info, at, state, budget) && handling_try(image, info, at, budget) == block) {
            return ip;
        }
    }
    return 0;
}

/* ---- __CxxFrameHandler4 ---- */

bool ct_read_fh4(const struct ct_image *image, uint32_t rva, struct ct_fh4 *out)
{
    struct ct_cursor cursor = {image, rva, rva == 0};
    *out = (struct ct_fh4){.header = ct_get_u8(&cursor)};
    if (out->header & CT_FH4_BBT) {
        out->bbt_flags = ct_get_compressed(&cursor);
    }
    if (out->header & CT_FH4_UNWIND) {
        out->unwind_map = ct_get_u32(&cursor);
    }
    if (out->header & CT_FH4_TRY) {
        out->try_map = ct_get_u32(&cursor);
    }
    out->ip_map = ct_get_u32(&cursor);
    if (out->header & CT_FH4_CATCH) {
        out->frame = ct_get_compressed(&cursor);
    }
    return !cursor.bad && out->header < 0x80;
}

void ct_get_fh4_catch(struct ct_cursor *cursor, uint32_t begin, struct ct_fh4_catch *out)
{
    *out = (struct ct_fh4_catch){.header = ct_get_u8(cursor)};
    if (out->header & CT_FH4_ADJECTIVES) {
        out->adjectives = ct_get_compressed(cursor);
    }
    if (out->header & CT_FH4_TYPE) {
        out->type = ct_get_u32(cursor);
    }
    if (out->header & CT_FH4_OBJECT) {
        out->object = ct_get_compressed(cursor);
    }
    out->handler = ct_get_u32(cursor);
    out->continuation_count = out->header >> 4 & 3;
    for (uint32_t i = 0; i < out->continuation_count; i++) {
        out->continuation[i] = out->header & CT_FH4_CONT_RVA ? ct_get_u32(cursor) : begin + ct_get_compressed(cursor);
    }
}

static bool visit_fh4_unwind(const struct ct_image *image, uint32_t map, uint64_t *budget, ct_eh_visit *visit,
                             void *context)
{
    struct ct_cursor cursor = {image, map, false};
    uint32_t count = ct_get_compressed(&cursor);
    for (uint32_t i = 0; i < count; i++) {
        if (!spend(budget, &cursor)) {
            return false;
        }
        switch (ct_get_compressed(&cursor) & 3) {
        case 1: /* destructor with the object, or a pointer to it, at a frame offset: called by the runtime, with */
        case 2: /* the object, as any other caller would */
            ct_get_u32(&cursor);
            ct_get_compressed(&cursor);
            break;
        case 3:
            visit(context, CT_EH_FUNCLET, ct_get_u32(&cursor), CT_NONE);
            break;
        default:
            break;
        }
    }
    return !cursor.bad;
}

static bool visit_fh4_tries(const struct ct_image *image, uint32_t map, uint32_t begin, uint64_t *budget,
                            ct_eh_visit *visit, void *context)
{
    struct ct_cursor tries = {image, map, false};
    uint32_t count = ct_get_compressed(&tries);
    for (uint32_t i = 0; i < count; i++) {
        if (!spend(budget, &tries)) {
            return false;
        }
        ct_get_compressed(&tries); /* tryLow */
        ct_get_compressed(&tries); /* tryHigh */
        ct_get_compressed(&tries); /* catchHigh */
        struct ct_cursor catches = {image, ct_get_u32(&tries), tries.bad};
        uint32_t catch_count = ct_get_compressed(&catches);
        for (uint32_t k = 0; k < catch_count; k++) {
            if (!spend(budget, &catches)) {
                return false;
            }
            struct ct_fh4_catch one;
            ct_get_fh4_catch(&catches, begin, &one);
            visit(context, CT_EH_FUNCLET, one.handler, CT_NONE);
            for (uint32_t n = 0; n < one.continuation_count; n++) {
                visit(context, CT_EH_LAND, one.continuation[n], CT_NONE);
            }
        }
        tries.bad |= catches.bad;
    }
    return !tries.bad;
}

/* The IP-to-state map of the function that starts at `begin`: its positions must ascend and stay inside. */
static bool check_fh4_ips(const struct ct_image *image, uint32_t map, uint32_t begin, uint32_t end, uint64_t *budget)
{
    struct ct_cursor cursor = {image, map, !ct_has(image, map, 1) || ct_exec(image, map)};
    uint32_t count = ct_get_compressed(&cursor);
    uint64_t ip = begin;
    for (uint32_t i = 0; i < count; i++) {
        if (!spend(budget, &cursor)) {
            return false;
        }
        ip += ct_get_compressed(&cursor);
        ct_get_compressed(&cursor); /* state + 1 */
        if (ip > end) {
            return false;
        }
    }
    return !cursor.bad;
}

static bool visit_fh4(const struct ct_image *image, uint32_t data, uint32_t begin, uint32_t end, uint64_t *budget,
                      ct_eh_visit *visit, void *context)
{
    struct ct_fh4 info;
    uint32_t rva = ct_u32(image, data);
    if (rva < HEADERS_END || !ct_has(image, rva, 8) || ct_exec(image, rva) || !ct_read_fh4(image, rva, &info)) {
        return false;
    }
    if (info.header & CT_FH4_SEPARATED) {
        struct ct_cursor parts = {image, info.ip_map, false};
        uint32_t count = ct_get_compressed(&parts);
        for (uint32_t i = 0; i < count; i++) {
            if (!spend(budget, &parts)) {
                return false;
            }
            uint32_t start = ct_get_u32(&parts), map = ct_get_u32(&parts);
            if (parts.bad || !check_fh4_ips(image, map, start, image->size, budget)) {
                return false;
            }
        }
        if (parts.bad) {
            return false;
        }
    } else if (!check_fh4_ips(image, info.ip_map, begin, end, budget)) {
        return false;
    }
    return (!(info.header & CT_FH4_UNWIND) || visit_fh4_unwind(image, info.unwind_map, budget, visit, context)) &&
           (!(info.header & CT_FH4_TRY) || visit_fh4_tries(image, info.try_map, begin, budget, visit, context));
}

/* ---- gcc ---- */

enum { DW_EH_PE_absptr = 0x00, DW_EH_PE_uleb128 = 0x01, DW_EH_PE_udata4 = 0x03, DW_EH_PE_omit = 0xFF };

unsigned ct_lsda_type_size(uint8_t encoding)
{
    switch (encoding & 0x0F) {
    case 0x00: /* absptr */
    case 0x04: /* udata8 */
    case 0x0C: /* sdata8 */
        return 8;
    case 0x03: /* udata4 */
    case 0x0B: /* sdata4 */
        return 4;
    default:
        return 0;
    }
}

bool ct_read_lsda(const struct ct_image *image, uint32_t rva, uint32_t begin, struct ct_lsda *out)
{
    struct ct_cursor cursor = {image, rva, false};
    *out = (struct ct_lsda){.pads = begin};
    if (ct_get_u8(&cursor) != DW_EH_PE_omit) { /* gcc writes no explicit LPStart for SEH targets */
        return false;
    }
    out->type_encoding = ct_get_u8(&cursor);
    if (out->type_encoding != DW_EH_PE_omit) {
        if (!ct_lsda_type_size(out->type_encoding) || (out->type_encoding & 0x60)) {
            return false;
        }
        uint64_t offset = ct_get_uleb(&cursor);
        if (offset > image->size || !ct_has(image, cursor.at, (uint32_t)offset)) {
            return false;
        }
        out->types = cursor.at + (uint32_t)offset;
    }
    out->call_encoding = ct_get_u8(&cursor);
    if (out->call_encoding != DW_EH_PE_uleb128 && out->call_encoding != DW_EH_PE_udata4) {
        return false;
    }
    uint64_t length = ct_get_uleb(&cursor);
    if (cursor.bad || length > image->size || !ct_has(image, cursor.at, (uint32_t)length)) {
        return false;
    }
    out->calls = cursor.at;
    out->calls_end = cursor.at + (uint32_t)length;
    return true;
}

void ct_get_lsda_call(struct ct_cursor *cursor, const struct ct_lsda *lsda, uint32_t begin, struct ct_lsda_call *out)
{
    uint64_t value[3];
    for (unsigned i = 0; i < 3; i++) {
        value[i] = lsda->call_encoding == DW_EH_PE_uleb128 ? ct_get_uleb(cursor) : ct_get_u32(cursor);
    }
    out->action = ct_get_uleb(cursor);
    out->begin = begin + (uint32_t)value[0];
    out->end = out->begin + (uint32_t)value[1];
    out->pad = value[2] ? lsda->pads + (uint32_t)value[2] : 0;
    if (value[0] > cursor->image->size || value[1] > cursor->image->size || value[2] > cursor->image->size) {
        cursor->bad = true;
    }
}

/* One chain of actions, from `action` (counted from 1, in bytes) on. */
static bool follow_chain(const struct ct_image *image, const struct ct_lsda *lsda, uint64_t action, uint64_t *budget,
                         struct ct_lsda_reach *out)
{
    for (unsigned steps = 0; action && action < image->size; steps++) {
        struct ct_cursor cursor = {image, lsda->calls_end + (uint32_t)action - 1, false};
        int64_t filter = ct_get_sleb(&cursor);
        uint32_t next_at = cursor.at;
        int64_t next = ct_get_sleb(&cursor);
        if (steps == 1024 || !spend(budget, &cursor)) {
            return false;
        }
        out->actions_end = cursor.at > out->actions_end ? cursor.at : out->actions_end;
        if (filter > 0 && filter < 0x10000 && (uint32_t)filter > out->types) {
            out->types = (uint32_t)filter;
        } else if (filter < 0 && filter > -0x10000) {
            struct ct_cursor spec = {image, lsda->types + (uint32_t)(-filter - 1), false};
            while (ct_get_uleb(&spec)) {
                if (!spend(budget, &spec)) {
                    return false;
                }
            }
            out->specs_end = spec.at > out->specs_end ? spec.at : out->specs_end;
        }
        action = next ? (uint64_t)((int64_t)next_at + next - lsda->calls_end + 1) : 0;
    }
    return true;
}

bool ct_lsda_follow(const struct ct_image *image, const struct ct_lsda *lsda, uint32_t begin, uint64_t *budget,
                    struct ct_lsda_reach *out)
{
    *out = (struct ct_lsda_reach){lsda->calls_end, 0, lsda->types};
    struct ct_cursor calls = {image, lsda->calls, false};
    while (calls.at < lsda->calls_end && !calls.bad) {
        struct ct_lsda_call call;
        ct_get_lsda_call(&calls, lsda, begin, &call);
        if (!follow_chain(image, lsda, call.action, budget, out)) {
            return false;
        }
    }
    /* all of this is copied, whether in use or not */
    uint64_t copied =
        (uint64_t)(out->actions_end - lsda->calls_end) + (out->specs_end - lsda->types) + 8ull * out->types;
    return spend_much(budget, copied);
}

static bool visit_lsda(const struct ct_image *image, uint32_t data, uint32_t begin, uint32_t end, uint64_t *budget,
                       ct_eh_visit *visit, void *context)
{
    struct ct_lsda lsda;
    if (!ct_read_lsda(image, data, begin, &lsda)) {
        return false;
    }
    struct ct_cursor cursor = {image, lsda.calls, false};
    while (cursor.at < lsda.calls_end) {
        struct ct_lsda_call call;
        if (!spend(budget, &cursor)) {
            return false;
        }
        ct_get_lsda_call(&cursor, &lsda, begin, &call);
        if (cursor.bad || call.end > end || (call.pad && !ct_exec(image, call.pad))) {
            return false;
        }
        if (call.pad) {
            visit(context, CT_EH_LAND, call.pad, CT_NONE);
        }
    }
    struct ct_lsda_reach ignored;
    return cursor.at == lsda.calls_end && ct_lsda_follow(image, &lsda, begin, budget, &ignored);
}

/* ---- all kinds ---- */

bool ct_handler_visit(const struct ct_image *image, enum ct_handler kind, uint32_t data, uint32_t begin, uint32_t end,
                      uint64_t *budget, ct_eh_visit *visit, void *context)
{
    switch (kind) {
    case CT_HANDLER_NONE:
    case CT_HANDLER_LABELS:
    case CT_HANDLER_GS:
        return true;
    case CT_HANDLER_SCOPE:
        return visit_scope(image, data, budget, visit, context);
    case CT_HANDLER_FH3:
        return visit_fh3(image, data, budget, visit, context);
    case CT_HANDLER_FH4:
        return visit_fh4(image, data, begin, end, budget, visit, context);
    case CT_HANDLER_LSDA:
        return visit_lsda(image, data, begin, end, budget, visit, context);
    case CT_HANDLER_OTHER:
        break;
    }
    return false;
}

static void ignore(void *context, enum ct_eh_what what, uint32_t rva, uint32_t state)
{
    (void)context;
    (void)what;
    (void)rva;
    (void)state;
}

bool ct_handler_fits(const struct ct_image *image, enum ct_handler kind, uint32_t data, uint32_t begin, uint32_t end,
                     uint64_t *budget)
{
    uint32_t first = ct_u32(image, data);
    if (kind == CT_HANDLER_LABELS) {
        return ct_exec(image, first);
    }
    if (kind == CT_HANDLER_GS) {
        /* GSHandlerData: a frame offset with three flag bits below it */
        return ct_has(image, data, 4) && (int32_t)first > -0x100000 && (int32_t)first < 0x100000 &&
               !(begin <= first && first < end);
    }
    return ct_handler_visit(image, kind, data, begin, end, budget, ignore, NULL);
}
