/* Budgets: the file gets the first calls of each function and of each call site in each thread. Later ones are muted:
 * units say how many there were.
 *
 * All units of a thread go through here in order, a piece at a time, while graph.c counts what they say. What is left
 * of them is units again, and the machine finds in these the frames that it would find in all, with their times and
 * callers, but for those that were muted:
 *
 *   A frame beyond its budget is held back. If anything is written while it is open, it goes first, with its own time;
 *   else it was muted when it ends. So the frames held back lie above those that were written.
 *
 *   A frame that left by a jump stays with those held back, as long as it can be the one that led to the frame above
 *   it, and is one of the last few: they are written together, or muted together. Where a jump leads that was written
 *   is written, too, but for what that one leads to.
 *
 *   All else is written as it is, all that was held back before it: what has no end of its own, or ends more than the
 *   frame on top, is the machine's to find out. From there on it is known of no frame that it is open, until the next
 *   one is opened.
 *
 * Most units are entries and exits of what is muted: mute() takes those.
 */
#include "budget.h"

#include <stdlib.h>
#include <string.h>

#define OPEN_LIMIT (1u << 16)   /* frames that are followed, the last ones opened */
#define THREAD_LIMIT (1u << 20) /* no writer has more */
#define LEFT_LIMIT 4u           /* frames held back that left by a jump, one to the other */
#define TOLD 4u                 /* of what was muted at a place, one by one or together */
#define SHORT_TIME (UINT64_C(1) << 39)
#define FAR_TIME (UINT64_C(1) << 47)
#define MANY_UNITS (1u << 30)

struct called {
    uint32_t calls; /* written, or to be; the budget at most */
    uint32_t muted; /* since it was told last */
};

struct open {
    uint64_t time, left_time, sp;
    uint32_t id;
    uint8_t event; /* CT_ENTER or CT_CALL; 0: was muted */
    bool has_sp : 1;
    bool left : 1;   /* by a jump; of what is held back only */
    bool led : 1;    /* held back; right behind a CT_TAIL that was written */
    bool forced : 1; /* written beyond its budget, since a jump led to it */
};

struct made { /* a block on its way into the file */
    struct made *next;
    uint64_t place;   /* where it is there; 0: nowhere yet */
    uint32_t written; /* units that are there; CT_NONE: it is not itself */
    uint32_t units;
    struct ct_events head; /* units follow, CT_BLOCK bytes in all */
};

/* What most units have to do with; mute() has it in registers. */
struct held {
    struct called *of[2]; /* by id: functions, and call sites */
    uint32_t *touched;    /* of which some were muted since it was told: id << 1 | 1 of a site */
    uint32_t touched_count;
    struct open *open; /* frames that are followed: first those written, then those held back */
    uint32_t depth, written;
};

struct thread {
    struct held held;
    uint32_t index, id;
    uint64_t position;     /* of the next unit that is written */
    uint64_t time;         /* of the last unit that came, as the machine has it */
    uint64_t written_time; /* of the last one written */
    uint32_t ids;          /* there is room for in `held.of` */
    uint32_t unspoken;     /* units muted since it was told */
    uint64_t open_room;
    uint32_t quiet;  /* where no frame is followed: calls in this function close no frame; CT_NONE: that is not known */
    bool forced;     /* what is entered or called next is written */
    bool after_jump; /* the unit before was a CT_TAIL, and was written */
    bool leads;      /* ... and where that leads is written */
    bool switching;  /* it may be on another stack */
    bool behind_tail; /* the last unit written is a CT_TAIL */
    bool behind_gap;  /* ... says that units are missing */
    bool has_sp;      /* a CT_FRAME came and waits for what it belongs to */
    uint64_t sp;
    struct made *block; /* being filled */
};

struct ct_budget {
    uint32_t calls;
    uint32_t unit_size;
    const struct ct_reader *reader;
    struct thread **threads; /* by index */
    uint64_t thread_room;
    struct made *full, *last_full;
    uint64_t *muted[2]; /* by id: functions, and call sites */
    uint64_t muted_room[2];
};

/* ---- blocks ---- */

static uint32_t block_units(const struct ct_budget *budget)
{
    return (CT_BLOCK - (uint32_t)sizeof(struct ct_events)) / budget->unit_size;
}

static void end_block(struct ct_budget *budget, struct thread *thread)
{
    struct made *made = thread->block;
    if (!made)
        return;
    made->head.chunk.payload_size = (uint64_t)made->units * budget->unit_size;
    made->head.close_tsc = thread->written_time;
    thread->block = NULL;
    if (budget->last_full)
        budget->last_full->next = made;
    else
        budget->full = made;
    budget->last_full = made;
}

/* Where units that belong together go; NULL: no memory. */
static uint8_t *room_for(struct ct_budget *budget, struct thread *thread, uint32_t units, uint64_t time)
{
    if (thread->block && thread->block->units + units > block_units(budget))
        end_block(budget, thread);
    struct made *made = thread->block;
    if (!made) {
        made = thread->block = calloc(1, sizeof *made - sizeof made->head + CT_BLOCK);
        if (!made)
            return NULL;
        made->written = CT_NONE;
        made->head.chunk = (struct ct_chunk){.kind = CT_CHUNK_EVENTS, .length = CT_BLOCK};
        made->head.thread_index = thread->index;
        made->head.thread_id = thread->id;
        made->head.first_unit = thread->position;
        made->head.open_tsc = time;
    }
    uint8_t *at = (uint8_t *)(&made->head + 1) + (size_t)made->units * budget->unit_size;
    made->units += units;
    thread->position += units;
    thread->written_time = time;
    return at;
}

static bool tell_time(struct ct_budget *budget, struct thread *thread, uint64_t time);
static bool catch_up(struct ct_budget *budget, struct thread *thread, uint64_t time);

/* An event, with the stack pointer that belongs to it and the values that follow it. False: no memory. */
static bool put(struct ct_budget *budget, struct thread *thread, const uint64_t *sp, uint32_t code, uint64_t time,
                const void *values, uint32_t value_units)
{
    if (thread->behind_gap && sp && !(uint32_t)*sp && !tell_time(budget, thread, time))
        return false; /* it would be taken for a part of the gap */
    uint32_t size = budget->unit_size;
    uint8_t *at =
        catch_up(budget, thread, time) ? room_for(budget, thread, (sp != NULL) + 1 + value_units, time) : NULL;
    if (!at)
        return false;
    if (sp) {
        memcpy(at, sp, size);
        at += size;
    }
    uint64_t unit = size == 4 ? code : (code & 0xFFFFFF) | (time & CT_CLOCK_MASK) << 24;
    memcpy(at, &unit, size);
    if (value_units)
        memcpy(at + size, values, (size_t)value_units * size);
    thread->behind_tail = (code & 7) == CT_TAIL;
    thread->behind_gap = false;
    return true;
}

static bool tell_muted(struct ct_budget *budget, struct thread *thread, uint32_t kind, uint32_t id, uint64_t calls,
                       uint64_t time)
{
    uint64_t value = ct_muted(kind, id, calls);
    return put(budget, thread, NULL, CT_EXT_MUTED << 3 | CT_EXT, time, &value, 8 / budget->unit_size);
}

static bool tell_time(struct ct_budget *budget, struct thread *thread, uint64_t time)
{
    return tell_muted(budget, thread, CT_MUTED_OTHERS, 0, 0, time);
}

/* By the 40 bits of a unit a time may be taken for an earlier one, if nothing tells of what lies between. False: no
 * memory. */
static bool catch_up(struct ct_budget *budget, struct thread *thread, uint64_t time)
{
    if (budget->unit_size == 4)
        return true;
    while (thread->block && ct_ticked(thread->written_time, time << 24) != time)
        if (thread->behind_tail || time - thread->written_time > FAR_TIME)
            end_block(budget, thread); /* each has a time of its own */
        else if (!tell_time(budget, thread, thread->written_time + SHORT_TIME))
            return false;
    return true;
}

/* ---- what was muted ---- */

static struct called *touched_at(const struct held *held, uint32_t at)
{
    return &held->of[held->touched[at] & 1][held->touched[at] >> 1];
}

/* Brings those that were muted most often to the front. */
static void find_most(struct held *held, uint32_t count)
{
    for (uint32_t to = 0; to < count; to++) {
        uint32_t most = to;
        for (uint32_t at = to + 1; at < held->touched_count; at++)
            if (touched_at(held, at)->muted > touched_at(held, most)->muted)
                most = at;
        uint32_t found = held->touched[most];
        held->touched[most] = held->touched[to];
        held->touched[to] = found;
    }
}

/* Says what was muted since that was said last. False: no memory. */
static bool tell(struct ct_budget *budget, struct thread *thread, uint64_t time)
{
    struct held *held = &thread->held;
    uint32_t told = held->touched_count <= TOLD ? held->touched_count : TOLD - 1;
    uint64_t others = 0;
    find_most(held, told);
    for (uint32_t at = 0; at < held->touched_count; at++) {
        uint32_t kind = held->touched[at] & 1, id = held->touched[at] >> 1;
        struct called *called = touched_at(held, at);
        if (!ct_reserve_items((void **)&budget->muted[kind], &budget->muted_room[kind], id + 1u,
                              sizeof *budget->muted[kind]) ||
            (at < told && !tell_muted(budget, thread, kind, id, called->muted, time)))
            return false;
        budget->muted[kind][id] += called->muted;
        others += at < told ? 0 : called->muted;
        called->muted = 0;
    }
    bool memory = !others || tell_muted(budget, thread, CT_MUTED_OTHERS, held->touched_count - told, others, time);
    held->touched_count = thread->unspoken = 0;
    return memory;
}

static inline void count_muted(struct held *held, uint32_t kind, uint32_t id)
{
    if (!held->of[kind][id].muted++)
        held->touched[held->touched_count++] = id << 1 | kind;
}

static inline void mute_top(struct held *held)
{
    const struct open *open = &held->open[--held->depth];
    count_muted(held, open->event == CT_CALL ? CT_MUTED_SITE : CT_MUTED_FUNCTION, open->id);
}

/* What left by a jump, and led to nothing that is still open. */
static inline void mute_left(struct held *held)
{
    while (held->depth > held->written && held->open[held->depth - 1].left)
        mute_top(held);
}

/* Is the frame on top held back, and does this event open such ones? */
static inline bool is_held(const struct held *held, uint32_t event, uint32_t id)
{
    if (held->depth == held->written)
        return false;
    const struct open *top = &held->open[held->depth - 1];
    return top->id == id && top->event == event;
}

/* The frame on top, which is held back, leaves by a jump: of many that did so, one to the other, the first is muted. */
static inline void leave_held(struct held *held, uint64_t time)
{
    struct open *top = &held->open[held->depth - 1];
    uint32_t others = 0;
    top->left = true;
    top->left_time = time;
    while (others < LEFT_LIMIT && held->depth - 1 - others > held->written && top[-1 - (int)others].left)
        others++;
    if (others < LEFT_LIMIT)
        return;
    struct open *first = top - LEFT_LIMIT;
    count_muted(held, CT_MUTED_FUNCTION, first->id);
    memmove(first, first + 1, LEFT_LIMIT * sizeof *first);
    held->depth--;
}

/* The frame on top, which is held back, ends. */
static inline void end_held(struct held *held, bool left, uint64_t time)
{
    if (left) {
        leave_held(held, time);
    } else {
        mute_top(held);
        mute_left(held);
    }
}

/* ---- frames ---- */

static void forget_open(struct thread *thread)
{
    thread->held.depth = thread->held.written = 0;
    thread->quiet = CT_NONE;
}

/* Mutes those, of what left by a jump, from which that led to nothing that is written; an event that is about to be
 * written may be what the last one led to (0: it cannot). */
static void drop_left(const struct ct_budget *budget, struct thread *thread, uint32_t end, uint32_t event, uint32_t id)
{
    bool leads_on = event != 0;
    for (uint32_t at = end; at-- > thread->held.written;) {
        struct open *open = &thread->held.open[at];
        uint32_t own = open->event;
        if (!open->left) {
            leads_on = true;
        } else if (!leads_on || (event == CT_ENTER && !ct_may_tail(budget->reader, open->id, id))) {
            leads_on = false;
            count_muted(&thread->held, CT_MUTED_FUNCTION, open->id); /* no call leaves by a jump */
            open->event = 0;
        }
        event = own;
        id = open->id;
    }
}

static bool write_held(struct ct_budget *budget, struct thread *thread, const struct open *open)
{
    const uint64_t *sp = open->has_sp ? &open->sp : NULL;
    return put(budget, thread, sp, open->id << 3 | open->event, open->time, NULL, 0) &&
           (!open->left || put(budget, thread, NULL, open->id << 3 | CT_TAIL, open->left_time, NULL, 0));
}

/* Writes what was muted and what is held back, up to `end`; the rest stays. False: no memory. */
static bool write_up_to(struct ct_budget *budget, struct thread *thread, uint32_t end)
{
    uint32_t kept = thread->held.written, first = kept;
    const struct open *led = &thread->held.open[kept];
    if (first < end && thread->behind_tail && led->led && led->event && !led->left) {
        if (!write_held(budget, thread, led)) /* what was muted since then was muted in it */
            return false;
        first = ++kept;
    }
    uint64_t time = thread->time;
    for (uint32_t at = thread->held.depth; at-- > first;)
        if (thread->held.open[at].event)
            time = thread->held.open[at].time;
    if (!tell(budget, thread, time))
        return false;
    for (uint32_t at = first; at < end; at++) {
        if (thread->held.open[at].event && !write_held(budget, thread, &thread->held.open[at]))
            return false;
        if (!thread->held.open[at].left)
            thread->held.open[kept++] = thread->held.open[at];
    }
    thread->held.written = kept;
    for (uint32_t at = end; at < thread->held.depth; at++)
        thread->held.open[kept++] = thread->held.open[at];
    thread->held.depth = kept;
    return true;
}

/* Before an event is written: an ENTER, a CALL, a CT_EXT that opens a frame, or 0 for any other. */
static bool write_before(struct ct_budget *budget, struct thread *thread, uint32_t event, uint32_t id)
{
    drop_left(budget, thread, thread->held.depth, event, id);
    return write_up_to(budget, thread, thread->held.depth);
}

/* What is open is in the file, and how long it has been. */
static bool settle(struct ct_budget *budget, struct thread *thread)
{
    uint32_t end = thread->held.depth;
    while (end > thread->held.written && thread->held.open[end - 1].left)
        end--; /* where these led may come yet */
    bool later = end < thread->held.depth;
    drop_left(budget, thread, end, 0, 0);
    return write_up_to(budget, thread, end) &&
           (later || budget->unit_size == 4 || thread->written_time == thread->time || !thread->position ||
            tell_time(budget, thread, thread->time));
}

/* Units are missing. False: no memory. */
static bool lose(struct ct_budget *budget, struct thread *thread, uint64_t units)
{
    if (!write_before(budget, thread, 0, 0) || !settle(budget, thread))
        return false;
    forget_open(thread);
    thread->forced = thread->switching = thread->after_jump = thread->has_sp = false;
    if (units > block_units(budget)) {
        end_block(budget, thread);
        thread->position += units;
        return room_for(budget, thread, 0, thread->time); /* by which a reader sees what is missing */
    }
    if (thread->behind_gap && !tell_time(budget, thread, thread->time))
        return false; /* two gaps stay two */
    thread->behind_gap = true;
    uint8_t *at = room_for(budget, thread, (uint32_t)units, thread->time);
    if (at)
        memset(at, budget->unit_size == 4 ? 0xFF : 0, units * budget->unit_size); /* senseless units */
    return at;
}

static uint32_t holder_of(const struct ct_reader *reader, uint32_t site)
{
    return site < reader->id_count ? reader->holders[site] : CT_NONE;
}

/* Does a call from this site close no frame (machine.c)? */
static inline bool is_quiet(const struct ct_reader *reader, const struct held *held, uint32_t quiet, uint32_t site)
{
    uint32_t holder = holder_of(reader, site), depth = held->depth;
    while (depth > held->written && held->open[depth - 1].left)
        depth--;
    if (holder == CT_NONE)
        return true;
    return depth ? held->open[depth - 1].event == CT_ENTER && held->open[depth - 1].id == holder : quiet == holder;
}

/* ---- units ---- */

static inline uint64_t load_unit(const uint8_t *at, uint32_t unit_size)
{
    uint64_t unit = 0;
    memcpy(&unit, at, unit_size);
    return unit;
}

/* Takes units as long as all of them can be muted, or held back; where the first one is that cannot. */
static inline __attribute__((always_inline)) const uint8_t *mute(const struct ct_budget *budget, struct thread *thread,
                                                                 const uint8_t *at, const uint8_t *end,
                                                                 const uint32_t unit_size)
{
    const uint32_t calls = budget->calls, ids = thread->ids, quiet = thread->quiet;
    const uint64_t room = thread->open_room;
    const struct ct_reader *const reader = budget->reader;
    const uint32_t *const parents = reader->parents;
    const uint8_t *const begin = at;
    struct held held = thread->held;
    uint64_t time = thread->time;
    while (at < end) {
        const uint8_t *here = at;
        uint64_t unit = load_unit(here, unit_size), sp = 0;
        bool has_sp = (unit & 7) == CT_FRAME;
        if (has_sp) {
            sp = unit;
            here += unit_size;
            if (!sp || here >= end)
                break;
            unit = load_unit(here, unit_size);
        }
        uint32_t event = unit & 7, id = (uint32_t)(unit & 0xFFFFFF) >> 3;
        bool whole = unit_size == 4 && unit >> 24;
        if (id >= ids || ((has_sp || whole) && event != CT_ENTER))
            break;
        uint64_t now = unit_size == 8 ? ct_ticked(time, unit) : 0;
        if (event == CT_ENTER) {
            if (held.of[CT_MUTED_FUNCTION][id].calls < calls || (has_sp && (whole || parents[id] != CT_NONE)) ||
                (whole && unit >> 24 != CT_WHOLE >> 24))
                break;
            uint64_t last = here + unit_size < end ? load_unit(here + unit_size, unit_size) : 0;
            if (whole || (unit_size == 4 ? last : last & 0xFFFFFF) == (id << 3 | CT_LEAVE)) {
                count_muted(&held, CT_MUTED_FUNCTION, id);
                mute_left(&held);
                if (!whole) {
                    here += unit_size;
                    now = unit_size == 8 ? ct_ticked(now, last) : 0;
                }
            } else if (held.depth < room) {
                held.open[held.depth++] =
                    (struct open){.time = now, .sp = sp, .id = id, .event = CT_ENTER, .has_sp = has_sp};
            } else {
                break;
            }
        } else if (event == CT_LEAVE || event == CT_TAIL || event == CT_RETURN) {
            mute_left(&held);
            if (!is_held(&held, event == CT_RETURN ? CT_CALL : CT_ENTER, id))
                break;
            end_held(&held, event == CT_TAIL, now);
        } else if (event == CT_CALL) {
            if (held.of[CT_MUTED_SITE][id].calls < calls || held.depth >= room || !is_quiet(reader, &held, quiet, id))
                break;
            held.open[held.depth++] = (struct open){.time = now, .id = id, .event = CT_CALL};
        } else {
            break;
        }
        time = now;
        at = here + unit_size;
    }
    thread->held = held;
    if (unit_size == 8)
        thread->time = time;
    thread->unspoken += (uint32_t)(at - begin) / unit_size;
    return at;
}

/* Is it one of the first, which are written? */
static bool is_within(const struct ct_budget *budget, struct thread *thread, uint32_t kind, uint32_t id)
{
    if (id >= thread->ids)
        return true;
    struct called *called = &thread->held.of[kind][id];
    bool within = called->calls < budget->calls;
    called->calls += within;
    return within;
}

static bool push(struct thread *thread, uint32_t event, uint32_t id, bool written, bool forced)
{
    if (thread->held.depth == OPEN_LIMIT) /* then all of them are written */
        forget_open(thread);
    if (!ct_reserve_items((void **)&thread->held.open, &thread->open_room, thread->held.depth + 1u,
                          sizeof *thread->held.open))
        return false;
    thread->held.open[thread->held.depth++] = (struct open){
        .time = thread->time,
        .sp = thread->sp,
        .id = id,
        .event = (uint8_t)event,
        .has_sp = thread->has_sp,
        .led = thread->after_jump && !written,
        .forced = forced,
    };
    thread->held.written += written;
    return true;
}

/* False: no memory. */
static bool enter(struct ct_budget *budget, struct thread *thread, uint32_t unit)
{
    uint32_t id = (unit & 0xFFFFFF) >> 3;
    bool whole = budget->unit_size == 4 && unit & CT_WHOLE;
    bool funclet = thread->has_sp && id < budget->reader->id_count && budget->reader->parents[id] != CT_NONE;
    bool within = is_within(budget, thread, CT_MUTED_FUNCTION, id);
    bool held = !within && !funclet && !thread->forced && thread->held.depth < OPEN_LIMIT;
    if (held && !whole)
        return push(thread, CT_ENTER, id, false, false);
    if (held) {
        count_muted(&thread->held, CT_MUTED_FUNCTION, id);
        mute_left(&thread->held);
        return true;
    }
    if (!write_before(budget, thread, CT_ENTER, id) ||
        !put(budget, thread, thread->has_sp ? &thread->sp : NULL, unit, thread->time, NULL, 0))
        return false;
    if (funclet)
        forget_open(thread); /* what the exception has ended */
    return whole || push(thread, CT_ENTER, id, true, !within && thread->forced);
}

/* A call; with a stack pointer the thread may go on with another stack. False: no memory. */
static bool call(struct ct_budget *budget, struct thread *thread, uint32_t site)
{
    bool quiet = is_quiet(budget->reader, &thread->held, thread->quiet, site);
    bool held = !is_within(budget, thread, CT_MUTED_SITE, site) && quiet && !thread->forced && !thread->has_sp &&
                thread->held.depth < OPEN_LIMIT;
    if (held)
        return push(thread, CT_CALL, site, false, false);
    if (!write_before(budget, thread, CT_CALL, site) ||
        !put(budget, thread, thread->has_sp ? &thread->sp : NULL, site << 3 | CT_CALL, thread->time, NULL, 0))
        return false;
    if (!quiet || thread->has_sp)
        forget_open(thread);
    if (thread->has_sp)
        return true;
    if (!quiet)
        thread->quiet = holder_of(budget->reader, site);
    return push(thread, CT_CALL, site, true, false);
}

/* The end of a frame. False: no memory. */
static bool end(struct ct_budget *budget, struct thread *thread, uint32_t event, uint32_t id)
{
    struct held *held = &thread->held;
    uint32_t opened = event == CT_RETURN ? CT_CALL : CT_ENTER;
    mute_left(held);
    if (is_held(held, opened, id)) {
        end_held(held, event == CT_TAIL, thread->time);
        return true;
    }
    bool on_top = held->depth && held->depth == held->written && !thread->has_sp &&
                  held->open[held->depth - 1].id == id && held->open[held->depth - 1].event == opened;
    if (!write_before(budget, thread, 0, 0) ||
        !put(budget, thread, thread->has_sp ? &thread->sp : NULL, id << 3 | event, thread->time, NULL, 0))
        return false;
    thread->leads = !on_top || !held->open[held->depth - 1].forced;
    if (on_top) {
        held->written = --held->depth;
    } else {
        forget_open(thread);
        if (event == CT_RETURN) /* the function that made the call is on top now, or not open at all */
            thread->quiet = holder_of(budget->reader, id);
    }
    return true;
}

static bool land(struct ct_budget *budget, struct thread *thread, uint32_t id)
{
    bool written = write_before(budget, thread, 0, 0) &&
                   put(budget, thread, thread->has_sp ? &thread->sp : NULL, id << 3 | CT_LAND, thread->time, NULL, 0);
    forget_open(thread);
    return written;
}

/* A CT_EXT, at whose values `at` is. False: no memory. */
static bool extended(struct ct_budget *budget, struct thread *thread, uint32_t kind, const uint8_t **at,
                     const uint8_t *end)
{
    uint32_t units_left = (uint32_t)((size_t)(end - *at) / budget->unit_size);
    int values = ct_ext_values(kind);
    uint32_t units = values > 0 ? (uint32_t)values * (8 / budget->unit_size) : 0;
    if (values < 0 || units > units_left) {
        *at = end;
        return lose(budget, thread, units_left + 1u);
    }
    bool opens = kind == CT_EXT_ENTER || kind == CT_EXT_CALL;
    if (!write_before(budget, thread, opens ? CT_EXT : 0, 0) ||
        !put(budget, thread, NULL, kind << 3 | CT_EXT, thread->time, *at, units))
        return false;
    *at += (size_t)units * budget->unit_size;
    thread->forced |= kind == CT_EXT_GOTO;
    thread->after_jump = false;
    if (kind != CT_EXT_THREAD_START && kind != CT_EXT_MARK && kind != CT_EXT_MUTED)
        forget_open(thread);
    return true;
}

/* Takes one unit as the machine does. False: no memory. */
static bool take_unit(struct ct_budget *budget, struct thread *thread, const uint8_t **at, const uint8_t *units_end)
{
    uint32_t size = budget->unit_size;
    uint32_t senseless = ct_senseless_units(*at, units_end, size);
    if (senseless) {
        *at += (size_t)senseless * size;
        return lose(budget, thread, senseless);
    }
    uint64_t unit = load_unit(*at, size);
    uint32_t event = unit & 7, id = (uint32_t)(unit & 0xFFFFFF) >> 3;
    if (thread->has_sp && !ct_takes_stack_pointer(event) && event != CT_EXT && !lose(budget, thread, 1))
        return false;
    *at += size;
    if (event == CT_FRAME) {
        thread->has_sp = true;
        thread->sp = unit;
        return true;
    }
    /* Frames that are left for those of another stack are left before this unit. */
    bool may_switch = event != CT_EXT && (thread->switching || (thread->has_sp && event == CT_RETURN));
    if (may_switch && !(write_before(budget, thread, 0, 0) && settle(budget, thread)))
        return false;
    if (size == 8)
        thread->time = ct_ticked(thread->time, unit);
    if (event == CT_EXT)
        return extended(budget, thread, id, at, units_end);
    bool memory;
    thread->switching = event == CT_CALL && thread->has_sp;
    if (event == CT_ENTER)
        memory = enter(budget, thread, (uint32_t)unit);
    else if (event == CT_CALL)
        memory = call(budget, thread, id);
    else if (event == CT_LAND)
        memory = land(budget, thread, id);
    else
        memory = end(budget, thread, event, id);
    thread->after_jump = event == CT_TAIL && thread->held.depth == thread->held.written;
    thread->forced = thread->switching || (thread->after_jump && thread->leads);
    thread->has_sp = false;
    return memory;
}

/* ---- threads ---- */

/* Room for all ids that there are by now. False: no memory. */
static bool know_ids(struct thread *thread, uint32_t ids)
{
    if (ids <= thread->ids)
        return true;
    struct called *of[2] = {calloc(ids, sizeof *of[0]), calloc(ids, sizeof *of[1])};
    uint32_t *touched = malloc(2 * (size_t)ids * sizeof *touched);
    if (!of[0] || !of[1] || !touched) {
        free(of[0]);
        free(of[1]);
        free(touched);
        return false;
    }
    for (int kind = 0; kind < 2; kind++) {
        if (thread->ids)
            memcpy(of[kind], thread->held.of[kind], thread->ids * sizeof *of[kind]);
        free(thread->held.of[kind]);
        thread->held.of[kind] = of[kind];
    }
    if (thread->held.touched_count)
        memcpy(touched, thread->held.touched, thread->held.touched_count * sizeof *touched);
    free(thread->held.touched);
    thread->held.touched = touched;
    thread->ids = ids;
    return true;
}

static struct thread *thread_of(struct ct_budget *budget, const struct ct_piece *piece)
{
    uint32_t index = piece->thread_index;
    if (index >= THREAD_LIMIT ||
        !ct_reserve_items((void **)&budget->threads, &budget->thread_room, index + 1u, sizeof *budget->threads))
        return NULL;
    if (!budget->threads[index]) {
        struct thread *thread = budget->threads[index] = calloc(1, sizeof *thread);
        if (!thread)
            return NULL;
        *thread = (struct thread){.index = index, .id = piece->thread_id, .quiet = CT_NONE};
        if (!ct_reserve_items((void **)&thread->held.open, &thread->open_room, 1, sizeof *thread->held.open))
            return NULL;
    }
    return know_ids(budget->threads[index], budget->reader->id_count) ? budget->threads[index] : NULL;
}

bool ct_budget_take(struct ct_budget *budget, const struct ct_reader *reader, const struct ct_piece *piece,
                    uint64_t missing)
{
    budget->reader = reader;
    budget->unit_size = reader->header.unit_size;
    struct thread *thread = thread_of(budget, piece);
    if (!thread || (missing && !lose(budget, thread, missing)))
        return false;
    if (piece->open_tsc > thread->time)
        thread->time = piece->open_tsc;
    const uint8_t *at = piece->units_at, *end = at + (size_t)piece->units * budget->unit_size;
    while (at < end) {
        if (!thread->forced && !thread->after_jump && !thread->has_sp)
            at = budget->unit_size == 4 ? mute(budget, thread, at, end, 4) : mute(budget, thread, at, end, 8);
        if (at < end && !take_unit(budget, thread, &at, end))
            return false;
    }
    return thread->unspoken < MANY_UNITS || tell(budget, thread, thread->written_time);
}

/* ---- from outside ---- */

struct ct_budget *ct_budget_open(uint32_t calls)
{
    struct ct_budget *budget = calloc(1, sizeof *budget);
    if (budget)
        budget->calls = calls;
    return budget;
}

uint32_t ct_budget_settle(struct ct_budget *budget, uint32_t last)
{
    for (uint64_t index = 0; index < budget->thread_room; index++) {
        struct thread *thread = budget->threads[index];
        if (thread && ((last && !write_before(budget, thread, 0, 0)) || !settle(budget, thread)))
            return 0;
        if (thread && last)
            end_block(budget, thread);
    }
    return 1;
}

const void *ct_budget_block(struct ct_budget *budget, uint32_t all, uint64_t *place)
{
    struct made *made = budget->full;
    for (uint64_t index = 0; !made && all && index < budget->thread_room; index++) {
        struct thread *thread = budget->threads[index];
        if (thread && thread->block && thread->block->written != thread->block->units)
            made = thread->block;
    }
    if (!made)
        return NULL;
    made->head.chunk.payload_size = (uint64_t)made->units * budget->unit_size;
    *place = made->place;
    return &made->head;
}

uint32_t ct_budget_written(struct ct_budget *budget, const void *block, uint64_t place)
{
    struct made *made = budget->full;
    if (made && &made->head == block) {
        budget->full = made->next;
        if (!budget->full)
            budget->last_full = NULL;
        uint32_t units = made->units;
        free(made);
        return units;
    }
    const struct ct_events *head = block;
    made = budget->threads[head->thread_index]->block;
    made->place = place;
    made->written = made->units;
    return 0;
}

const uint64_t *ct_budget_muted(const struct ct_budget *budget, uint32_t kind, uint32_t *count)
{
    *count = (uint32_t)budget->muted_room[kind];
    return budget->muted[kind];
}

void ct_budget_close(struct ct_budget *budget)
{
    for (struct made *made = budget->full, *next; made; made = next) {
        next = made->next;
        free(made);
    }
    for (uint64_t index = 0; index < budget->thread_room; index++) {
        struct thread *thread = budget->threads[index];
        if (!thread)
            continue;
        free(thread->held.of[0]);
        free(thread->held.of[1]);
        free(thread->held.touched);
        free(thread->held.open);
        free(thread->block);
        free(thread);
    }
    free(budget->threads);
    free(budget->muted[0]);
    free(budget->muted[1]);
    free(budget);
}
