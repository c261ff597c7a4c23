/* The calling thread's open frames, worked out from what it recorded: its events from as far back as we go, oldest
 * first, are followed like a reader of the trace does. */
#define CALLTRACE_BUILDING
#include "calltrace.h"
#include "session.h"

#define CHUNKS 64u     /* of the thread, at most, to go back over */
#define PROBES 4096u   /* blocks of the file, at most, to look into for them */
#define FRAMES 0x4000u /* the innermost frames that are kept */

struct frame {
    struct calltrace_frame shown;
    uint64_t sp;  /* 0 if not recorded */
    bool outward; /* a call, not a function */
};

struct walk {
    uint64_t offsets[CHUNKS]; /* in the file, of the thread's chunks before its own block; newest first */
    uint32_t chunks;
    uint64_t depth; /* frames[depth % FRAMES] is the next to be opened */
    uint64_t floor; /* frames below it were overwritten */
    bool cut;       /* there may be frames that were opened before our first event */
    uint64_t sp;    /* from a CT_FRAME, for the unit after it */
    bool switching; /* the innermost frame is a call that may go on with another stack (fiber) */
    struct frame frames[FRAMES];
    unsigned char block[CT_BLOCK];
};

static struct frame *frame_at(struct walk *walk, uint64_t depth)
{
    return &walk->frames[depth % FRAMES];
}

static void open_frame(struct walk *walk, bool outward, struct calltrace_frame shown)
{
    *frame_at(walk, walk->depth++) = (struct frame){shown, walk->sp, outward};
    if (walk->depth - walk->floor > FRAMES)
        walk->floor = walk->depth - FRAMES;
}

/* Closes frames down to the nearest that was opened by the same function or site; if there is none, no frame. */
static void close_frame(struct walk *walk, bool outward, struct calltrace_frame like)
{
    for (uint64_t depth = walk->depth; depth > walk->floor; depth--) {
        const struct frame *frame = frame_at(walk, depth - 1);
        if (frame->outward == outward && frame->shown.function == like.function &&
            (outward ? frame->shown.call_site_id == like.call_site_id : frame->shown.function_id == like.function_id)) {
            walk->depth = depth - 1;
            return;
        }
    }
}

/* Frames above the topmost one of this function that lies higher on the stack than `sp` were unwound. */
static void land(struct walk *walk, uint32_t function_id, uint32_t unit_size)
{
    for (uint64_t depth = walk->depth; depth > walk->floor; depth--) {
        const struct frame *frame = frame_at(walk, depth - 1);
        uint64_t above = frame->sp - walk->sp;
        bool higher = unit_size == 4 ? (int32_t)above > 0 : (int64_t)above > 0;
        if (!frame->outward && frame->shown.function_id == function_id && frame->sp && higher) {
            walk->depth = depth;
            return;
        }
    }
}

/* Does the thread go on with another stack? Nothing is known here of the frames on that one. */
static void leave_stack(struct walk *walk, uint32_t event, uint32_t id)
{
    if (!walk->switching)
        return;
    walk->switching = false;
    const struct frame *call = frame_at(walk, walk->depth - 1);
    if (event != CT_RETURN || call->shown.call_site_id != id || call->sp != walk->sp) {
        walk->depth = walk->floor = 0;
        walk->cut = true;
    }
}

/* The innermost function is left by a jump, and with it the calls it was making. */
static void jump(struct walk *walk)
{
    while (walk->depth > walk->floor)
        if (!frame_at(walk, --walk->depth)->outward)
            return;
}

static void follow_ext(struct walk *walk, uint32_t kind, const uint64_t value[2])
{
    struct calltrace_frame named = {(const void *)(uintptr_t)value[0], (const void *)(uintptr_t)value[1],
                                    CALLTRACE_NO_ID, CALLTRACE_NO_ID};
    switch (kind) {
    case CT_EXT_THREAD_START:
    case CT_EXT_RESET:
        walk->depth = walk->floor = 0;
        walk->cut = false;
        break;
    case CT_EXT_ENTER:
        open_frame(walk, false, named);
        break;
    case CT_EXT_EXIT:
        close_frame(walk, false, named);
        break;
    case CT_EXT_CALL:
        open_frame(walk, true, named);
        break;
    case CT_EXT_RET:
        close_frame(walk, true, named);
        break;
    case CT_EXT_GOTO:
        jump(walk);
        break;
    default:
        break;
    }
}

static void follow_units(struct walk *walk, const unsigned char *at, const unsigned char *end, uint32_t unit_size)
{
    while (at < end) {
        uint64_t unit = 0, value[2] = {0, 0};
        memcpy(&unit, at, unit_size);
        at += unit_size;
        uint32_t id = ((uint32_t)unit & 0xFFFFFF) >> 3, values = ct_values_after((uint32_t)unit & 0xFFFFFF);
        if (values * 8 > (uint64_t)(end - at))
            return;
        memcpy(value, at, 8 * values);
        at += 8 * values;

        struct calltrace_frame function = {NULL, NULL, id, CALLTRACE_NO_ID};
        struct calltrace_frame site = {NULL, NULL, CALLTRACE_NO_ID, id};
        if ((unit & 7) != CT_FRAME && (unit & 7) != CT_EXT)
            leave_stack(walk, unit & 7, id);
        switch (unit & 7) {
        case CT_FRAME:
            walk->sp = unit;
            continue; /* the next unit wants it */
        case CT_ENTER:
            if (unit_size == 8 || !(unit & CT_WHOLE))
                open_frame(walk, false, function);
            break;
        case CT_LEAVE:
        case CT_TAIL:
            close_frame(walk, false, function);
            break;
        case CT_CALL:
            open_frame(walk, true, site);
            walk->switching = walk->sp != 0;
            break;
        case CT_RETURN:
            close_frame(walk, true, site);
            break;
        case CT_LAND:
            land(walk, id, unit_size);
            break;
        default:
            follow_ext(walk, id, value);
            break;
        }
        walk->sp = 0;
    }
}

static bool is_before(const struct session *s, const struct ct_events *block, uint32_t thread_index, uint64_t unit)
{
    return ct_is_events(s, block) && block->thread_index == thread_index && block->first_unit < unit &&
           block->first_unit + block->chunk.payload_size / s->unit_size == unit;
}

/* Where in the file the thread's chunk is that ends with the unit before `unit`; 0 if it is not found. It may still be
 * in a slot. *last is where the one after it was found in the file, or 0: from there both ways, as a thread that writes
 * a block itself may do so before the writer has come to an older one. */
static uint64_t find_before(struct session *s, uint32_t thread_index, uint64_t unit, uint64_t *last, uint32_t *probes)
{
    for (uint32_t i = 0; i < s->live_count; i++)
        if (ct_load32(&s->slots[i].state) != SLOT_NEW && is_before(s, s->slots[i].block, thread_index, unit))
            return s->live_offset + (uint64_t)i * CT_BLOCK;
    uint64_t end = ct_load64(&s->header->append_end); /* not earlier: what has left its slot since lies before it */
    uint64_t below = *last ? *last : end, above = below;
    while (*probes > 0 && (below > s->live_end || above + CT_BLOCK < end)) {
        uint64_t places[2] = {0, 0};
        if (below > s->live_end)
            places[0] = below -= CT_BLOCK;
        if (above + CT_BLOCK < end)
            places[1] = above += CT_BLOCK;
        for (unsigned i = 0; i < 2 && *probes > 0; i++) {
            struct ct_events header;
            if (!places[i])
                continue;
            --*probes;
            if (ct_read(s, places[i], &header, sizeof header) && is_before(s, &header, thread_index, unit)) {
                *last = places[i];
                return places[i];
            }
        }
    }
    return 0;
}

/* Follows the chunk of this thread that starts with *unit; false if it is not there any more. */
static bool follow_chunk(struct session *s, struct walk *walk, uint64_t offset, uint32_t thread_index, uint64_t *unit)
{
    const struct ct_events *header = (const struct ct_events *)walk->block;
    if (!ct_read(s, offset, walk->block, CT_BLOCK) || !ct_is_events(s, header) ||
        header->thread_index != thread_index || header->first_unit != *unit)
        return false;
    *unit = header->first_unit + header->chunk.payload_size / s->unit_size;
    const unsigned char *units = walk->block + sizeof *header;
    follow_units(walk, units, units + header->chunk.payload_size, s->unit_size);
    return true;
}

/* False if a chunk went from where it was found: the writer moves them. */
static bool walk_thread(struct session *s, struct walk *walk, const struct ct_events *own, uint64_t cursor)
{
    uint32_t thread_index = own->thread_index, probes = PROBES;
    uint64_t last = 0, unit = own->first_unit;
    walk->chunks = 0;
    walk->depth = walk->floor = 0;
    walk->switching = false;
    walk->cut = true; /* until the thread's start, or a reset, is met */
    while (unit > 0 && walk->chunks < CHUNKS) {
        uint64_t offset = find_before(s, thread_index, unit, &last, &probes);
        struct ct_events header;
        if (!offset)
            break;
        if (!ct_read(s, offset, &header, sizeof header) || !is_before(s, &header, thread_index, unit))
            return false;
        walk->offsets[walk->chunks++] = offset;
        unit = header.first_unit;
    }
    for (uint32_t i = walk->chunks; i > 0; i--)
        if (!follow_chunk(s, walk, walk->offsets[i - 1], thread_index, &unit))
            return false;
    follow_units(walk, (const unsigned char *)(own + 1), (const unsigned char *)(uintptr_t)cursor, s->unit_size);
    return true;
}

static enum calltrace_result export_stack_trace(struct session *s, struct calltrace_frame *frames, uint32_t capacity,
                                                uint32_t *count)
{
    uint64_t cursor = ct_room(s, s->unit_size);
    if (!cursor)
        return CALLTRACE_NOT_RECORDING;
    const struct ct_events *own = ct_block_of(cursor);
    struct walk *walk = ct_allocate(sizeof *walk);
    if (!walk)
        return CALLTRACE_CUT;
    ct_set_cursor(s->cursor, ct_units_of(ct_busy_block)); /* what is called here may be traced itself */
    for (int attempts = 3; attempts > 0 && !walk_thread(s, walk, own, cursor); attempts--)
        walk->depth = walk->floor = 0;
    ct_move_cursor(s, cursor);

    bool cut = walk->cut || walk->floor > 0;
    bool was_function = false; /* the frame further in is a function without a call site of its own */
    for (uint64_t depth = walk->depth; depth > walk->floor; depth--) {
        const struct frame *frame = frame_at(walk, depth - 1);
        if (frame->outward && was_function) { /* it is the call that led there */
            struct calltrace_frame *callee = &frames[*count - 1];
            callee->call_site = frame->shown.call_site;
            callee->call_site_id = frame->shown.call_site_id;
            was_function = false;
            continue;
        }
        if (*count == capacity) {
            cut = true;
            break;
        }
        frames[(*count)++] = frame->shown;
        was_function = !frame->outward && !frame->shown.call_site;
    }
    ct_free(walk);
    return cut ? CALLTRACE_CUT : CALLTRACE_OK;
}

enum calltrace_result calltrace_export_stack_trace(struct calltrace_frame *frames, uint32_t capacity, uint32_t *count)
{
    *count = 0;
    struct session *s = ct_acquire();
    if (!s)
        return CALLTRACE_NOT_RECORDING;
    enum calltrace_result result = export_stack_trace(s, frames, capacity, count);
    ct_release(s);
    return result;
}
