/* The rules by which units become frames: see trace_format.h for the units, reader.h for the steps. */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

#define NOT_CLOSING 0xFFFFFFFFu
#define DEPTH_LIMIT (1u << 22)
#define SUSPENDED_LIMIT (1u << 16) /* stacks; their frames: DEPTH_LIMIT */

void ct_machine_start(struct ct_machine *machine, struct ct_reader *reader, uint32_t first, uint32_t count,
                      struct ct_totals *totals)
{
    *machine = (struct ct_machine){.reader = reader, .close_to = NOT_CLOSING, .totals = totals};
    machine->pages.file = reader->mapped ? reader->file : NULL;
    machine->pages.size = reader->index.file_size;
    uint32_t threads = reader->index.threads;
    machine->thread = first < threads ? first : threads;
    machine->thread_end = count < threads - machine->thread ? machine->thread + count : threads;
}

static void forget_suspended(struct ct_machine *machine)
{
    for (uint32_t i = 0; i < machine->suspended_count; i++)
        free(machine->suspended[i].frames);
    free(machine->resuming.frames);
    machine->resuming = (struct ct_suspended){0};
    machine->suspended_count = machine->resumed = 0;
    machine->suspended_frames = 0;
}

void ct_machine_free(struct ct_machine *machine)
{
    ct_release_blocks(&machine->pages);
    forget_suspended(machine);
    free(machine->suspended);
    free(machine->frames);
    free(machine->block);
    for (int kind = 0; kind < CT_NODE_KINDS; kind++)
        free(machine->tops[kind].of);
}

static uint32_t top_of(const struct ct_machine *machine, uint8_t kind, uint32_t id)
{
    const struct ct_tops *tops = &machine->tops[kind];
    return id < tops->count ? tops->of[id] : 0;
}

static void pend(struct ct_machine *machine, uint8_t type, uint8_t kind, uint32_t id, uint64_t value)
{
    machine->pending = (struct ct_step){.type = type, .kind = kind, .id = id, .value = value};
}

static void pend_open(struct ct_machine *machine, uint8_t kind, uint32_t id, uint64_t call_site)
{
    pend(machine, CT_STEP_OPEN, kind, id, call_site);
    if (machine->after_tail && (kind != CT_NODE_FUNCTION || machine->tail_from == CT_NONE ||
                                ct_may_tail(machine->reader, machine->tail_from, id)))
        machine->pending.flags = CT_STEP_TAIL_CALLEE;
    machine->pending_has_sp = machine->has_sp && (kind == CT_NODE_FUNCTION || kind == CT_NODE_CALL);
    machine->pending_sp = machine->sp;
}

/* Closes every frame above the lowest `depth`. */
static void close_to(struct ct_machine *machine, uint32_t depth, uint8_t cause, uint8_t last_cause)
{
    if (machine->depth <= depth)
        return;
    machine->close_to = depth;
    machine->close_cause = cause;
    machine->last_cause = last_cause;
}

static void close_all(struct ct_machine *machine, uint8_t cause)
{
    close_to(machine, 0, cause, cause);
}

/* `units` cannot be had: nothing open is known to be open behind them. */
static void lose(struct ct_machine *machine, uint64_t units)
{
    machine->has_sp = machine->after_tail = false;
    machine->totals->gaps++;
    machine->totals->lost += units;
    close_all(machine, CT_CAUSE_GAP);
    pend(machine, CT_STEP_GAP, 0, 0, units);
}

static bool push(struct ct_machine *machine, struct ct_step *step)
{
    struct ct_tops *tops = &machine->tops[step->kind];
    if (!ct_reserve_items((void **)&machine->frames, &machine->frame_room, machine->depth + 1u,
                          sizeof(struct ct_frame)) ||
        !ct_reserve_items((void **)&tops->of, &tops->count, step->id + 1u, sizeof *tops->of))
        return false;
    struct ct_frame *frame = &machine->frames[machine->depth++];
    *frame = (struct ct_frame){
        .begin = machine->time,
        .sp = machine->pending_sp,
        .id = step->id,
        .below = tops->of[step->id],
        .kind = step->kind,
        .has_sp = machine->pending_has_sp,
        .resumed = step->flags & CT_STEP_RESUMED,
    };
    tops->of[step->id] = machine->depth;
    machine->api_frames += step->kind == CT_NODE_API_FUNCTION;
    machine->totals->frames[step->kind] += !frame->resumed;
    machine->switching = step->kind == CT_NODE_CALL && frame->has_sp && !frame->resumed;
    if (machine->depth > machine->totals->max_depth)
        machine->totals->max_depth = machine->depth;
    return true;
}

static void pop(struct ct_machine *machine, struct ct_step *step)
{
    const struct ct_frame *frame = &machine->frames[--machine->depth];
    machine->tops[frame->kind].of[frame->id] = frame->below;
    machine->api_frames -= frame->kind == CT_NODE_API_FUNCTION;
    uint64_t duration = machine->time - frame->begin;
    if (machine->depth)
        machine->frames[machine->depth - 1].children += duration;
    bool last = machine->depth == machine->close_to;
    *step = (struct ct_step){
        .time = machine->time,
        .begin = frame->begin,
        .self = duration - frame->children,
        .position = machine->told_position,
        .id = frame->id,
        .depth = machine->depth,
        .thread = machine->thread,
        .type = CT_STEP_CLOSE,
        .kind = frame->kind,
        .cause = last ? machine->last_cause : machine->close_cause,
        .flags = (frame->below ? 0 : CT_STEP_OUTERMOST) | (frame->resumed ? CT_STEP_RESUMED : 0),
    };
    machine->switching = false;
    machine->totals->causes[step->cause]++;
    if (!last)
        return;
    machine->close_to = NOT_CLOSING;
    if (step->cause == CT_CAUSE_TAIL) {
        step->value = machine->goto_target;
        machine->goto_target = 0;
    }
}

/* Gives the pending step; an OPEN opens its frame. False: no memory. */
static bool give_pending(struct ct_machine *machine, struct ct_step *step)
{
    *step = machine->pending;
    machine->pending.type = 0;
    step->time = machine->time;
    step->depth = machine->depth;
    step->position = machine->told_position;
    step->thread = machine->thread;
    return step->type != CT_STEP_OPEN || push(machine, step);
}

static void orphan(struct ct_machine *machine, uint8_t kind, uint32_t id, uint8_t event)
{
    machine->totals->orphans++;
    pend(machine, CT_STEP_ORPHAN, kind, id, event);
}

/* The end of a frame was recorded: whatever is open above it must have ended too. */
static void close_frame(struct ct_machine *machine, uint8_t kind, uint32_t id, uint8_t cause, uint8_t event)
{
    uint32_t top = top_of(machine, kind, id);
    if (top)
        close_to(machine, top - 1, CT_CAUSE_INFERRED, cause);
    else
        orphan(machine, kind, id, event);
}

/* ---- fibers: a thread with several stacks ---- */

static bool is_call(const struct ct_frame *frame, uint32_t site, uint64_t sp)
{
    return frame->kind == CT_NODE_CALL && frame->has_sp && frame->id == site && frame->sp == sp;
}

/* The suspended stack that was left by this call; suspended_count if there is none. */
static uint32_t find_suspended(const struct ct_machine *machine, uint32_t site, uint64_t sp)
{
    uint32_t at = 0;
    while (at < machine->suspended_count &&
           !is_call(&machine->suspended[at].frames[machine->suspended[at].depth - 1], site, sp))
        at++;
    return at;
}

static struct ct_suspended take_suspended(struct ct_machine *machine, uint32_t at)
{
    struct ct_suspended stack = machine->suspended[at];
    machine->suspended[at] = machine->suspended[--machine->suspended_count];
    machine->suspended_frames -= stack.depth;
    return stack;
}

/* Keeps the open frames, the call on top of them, for the time when that returns. What is beyond the limits is not
 * kept: its return will be an orphan. False: no memory. */
static bool suspend(struct ct_machine *machine)
{
    const struct ct_frame *call = &machine->frames[machine->depth - 1];
    uint32_t stale = find_suspended(machine, call->id, call->sp); /* a fiber that ended: its memory is in use again */
    if (stale < machine->suspended_count)
        free(take_suspended(machine, stale).frames);
    if (machine->suspended_count == SUSPENDED_LIMIT || machine->suspended_frames + machine->depth > DEPTH_LIMIT)
        return true;
    struct ct_frame *frames = malloc(machine->depth * sizeof *frames);
    if (!frames || !ct_reserve_items((void **)&machine->suspended, &machine->suspended_room,
                                     machine->suspended_count + 1u, sizeof *machine->suspended)) {
        free(frames);
        return false;
    }
    memcpy(frames, machine->frames, machine->depth * sizeof *frames);
    machine->suspended[machine->suspended_count++] = (struct ct_suspended){frames, machine->depth};
    machine->suspended_frames += machine->depth;
    return true;
}

/* Before a unit is taken: does it belong to another stack than the one whose frames are open? Then these are closed
 * for now, and those of the other one opened again, before it is looked at once more. False: no memory. */
static bool switch_stack(struct ct_machine *machine, uint32_t event, uint32_t id, bool *switched)
{
    bool returns = event == CT_RETURN && machine->has_sp;
    *switched = false;
    if (returns && machine->depth && is_call(&machine->frames[machine->depth - 1], id, machine->sp))
        return true;
    uint32_t to = returns ? find_suspended(machine, id, machine->sp) : machine->suspended_count;
    bool known = to < machine->suspended_count;
    if (!known && !machine->switching)
        return true;
    if (known)
        machine->resuming = take_suspended(machine, to);
    if (machine->switching && !suspend(machine))
        return false;
    machine->switching = false;
    close_all(machine, CT_CAUSE_SWITCHED);
    *switched = true;
    return true;
}

/* Opens the next frame of the stack that is gone on with. */
static void resume_frame(struct ct_machine *machine)
{
    const struct ct_frame *frame = &machine->resuming.frames[machine->resumed++];
    pend(machine, CT_STEP_OPEN, frame->kind, frame->id, 0);
    machine->pending.flags = CT_STEP_RESUMED;
    machine->pending_has_sp = frame->has_sp;
    machine->pending_sp = frame->sp;
    machine->totals->causes[CT_CAUSE_SWITCHED]--;
    if (machine->resumed == machine->resuming.depth) {
        free(machine->resuming.frames);
        machine->resuming = (struct ct_suspended){0};
        machine->resumed = 0;
    }
}

/* Is stack pointer `a` above `b`? Of the 32 bits kept in small units, the difference is what counts. */
static bool above(const struct ct_machine *machine, uint64_t a, uint64_t b)
{
    if (machine->reader->header.unit_size == 4)
        return (int32_t)(uint32_t)(a - b) > 0;
    return (int64_t)(a - b) > 0;
}

/* Goes on in the topmost frame of `function` that lies above the stack pointer. A funclet's is the establisher frame of
 * the function it belongs to: a funclet nested in it is entered with the same. */
static bool land(struct ct_machine *machine, uint32_t function, uint64_t sp)
{
    uint32_t at = top_of(machine, CT_NODE_FUNCTION, function);
    bool may_be_equal = ct_is_funclet(machine, function);
    while (at) {
        const struct ct_frame *frame = &machine->frames[at - 1];
        if (frame->has_sp && (may_be_equal ? !above(machine, sp, frame->sp) : above(machine, frame->sp, sp))) {
            close_to(machine, at, CT_CAUSE_UNWOUND, CT_CAUSE_UNWOUND);
            return true;
        }
        at = frame->below;
    }
    return false;
}

static void enter(struct ct_machine *machine, uint32_t function)
{
    pend_open(machine, CT_NODE_FUNCTION, function, 0);
    if (machine->has_sp && ct_is_funclet(machine, function))
        land(machine, machine->reader->parents[function], machine->sp);
}

/* The topmost open frame of the function that holds a call site, plus 1; 0 = none. */
static uint32_t holder_of(const struct ct_machine *machine, uint32_t site)
{
    const struct ct_reader *reader = machine->reader;
    return site < reader->id_count ? top_of(machine, CT_NODE_FUNCTION, reader->holders[site]) : 0;
}

/* A call is made by the function that holds the site, so that runs: frames above it have ended unrecorded. Frames of
 * the C API may belong to any code, and say nothing. */
static void call(struct ct_machine *machine, uint32_t site)
{
    uint32_t holder = holder_of(machine, site);
    pend_open(machine, CT_NODE_CALL, site, 0);
    if (holder && machine->frames[machine->depth - 1].kind < CT_NODE_API_FUNCTION)
        close_to(machine, holder, CT_CAUSE_INFERRED, CT_CAUSE_INFERRED);
}

/* A call that has returned already returns once more when longjmp goes back to where setjmp was called. */
static void returned(struct ct_machine *machine, uint32_t site)
{
    uint32_t holder = holder_of(machine, site);
    if (holder && !top_of(machine, CT_NODE_CALL, site)) {
        close_to(machine, holder, CT_CAUSE_UNWOUND, CT_CAUSE_UNWOUND);
        pend(machine, CT_STEP_LAND, CT_NODE_FUNCTION, machine->reader->holders[site], 0);
    } else {
        close_frame(machine, CT_NODE_CALL, site, CT_CAUSE_RETURN, CT_RETURN);
    }
}

/* An address of the C API. False: no memory. */
static bool api_event(struct ct_machine *machine, uint32_t kind, uint64_t va, uint64_t site)
{
    uint32_t id;
    if (!ct_address_id(&machine->reader->addresses, va, &id))
        return false;
    switch (kind) {
    case CT_EXT_ENTER:
        pend_open(machine, CT_NODE_API_FUNCTION, id, site);
        break;
    case CT_EXT_CALL:
        pend_open(machine, CT_NODE_API_CALL, id, site);
        break;
    case CT_EXT_EXIT:
        close_frame(machine, CT_NODE_API_FUNCTION, id, CT_CAUSE_RETURN, CT_EXT);
        break;
    case CT_EXT_RET:
        close_frame(machine, CT_NODE_API_CALL, id, CT_CAUSE_RETURN, CT_EXT);
        break;
    default: /* CT_EXT_GOTO leaves the innermost open function of the C API */
        if (!machine->api_frames) {
            orphan(machine, CT_NODE_API_FUNCTION, id, CT_EXT);
            break;
        }
        uint32_t at = machine->depth;
        while (machine->frames[at - 1].kind != CT_NODE_API_FUNCTION)
            at--;
        close_to(machine, at - 1, CT_CAUSE_INFERRED, CT_CAUSE_TAIL);
        machine->goto_target = va;
        machine->after_tail = true;
        machine->tail_from = CT_NONE;
    }
    return true;
}

static void muted(struct ct_machine *machine, uint64_t value)
{
    uint32_t id = value & (CT_ID_LIMIT - 1), kind = value >> 21 & 7;
    if (!(value >> 24))
        return;
    pend(machine, CT_STEP_MUTED, kind == CT_MUTED_SITE ? CT_NODE_CALL : CT_NODE_FUNCTION, id, value >> 24);
    if (kind > CT_MUTED_SITE)
        machine->pending.flags = CT_STEP_OTHERS;
}

/* Takes a CT_EXT's values and acts on it. False: no memory. */
static bool extended(struct ct_machine *machine, uint32_t kind)
{
    uint32_t unit_size = machine->reader->header.unit_size;
    int count = ct_ext_values(kind);
    size_t units_left = (size_t)(machine->unit_end - machine->unit) / unit_size;
    size_t units = count > 0 ? (size_t)count * (8 / unit_size) : 0;
    if (count < 0 || units > units_left) {
        /* How long it is cannot be known: what follows in this piece is lost with it. */
        machine->unit = machine->unit_end;
        machine->position += units_left;
        lose(machine, units_left + 1);
        return true;
    }
    uint64_t values[2] = {0, 0};
    memcpy(values, machine->unit, (size_t)count * 8);
    machine->unit += units * unit_size;
    machine->position += units;
    machine->totals->ext[kind]++;
    switch (kind) {
    case CT_EXT_THREAD_START:
        pend(machine, CT_STEP_THREAD_START, 0, 0, 0);
        return true;
    case CT_EXT_THREAD_EXIT:
        close_all(machine, CT_CAUSE_THREAD_EXIT);
        pend(machine, CT_STEP_THREAD_EXIT, 0, 0, 0);
        return true;
    case CT_EXT_STOP:
        close_all(machine, CT_CAUSE_STOPPED);
        pend(machine, CT_STEP_STOP, 0, 0, 0);
        return true;
    case CT_EXT_RESET:
        close_all(machine, CT_CAUSE_RESET);
        pend(machine, CT_STEP_RESET, 0, 0, 0);
        return true;
    case CT_EXT_MARK:
        pend(machine, CT_STEP_MARK, 0, 0, values[0]);
        return true;
    case CT_EXT_MUTED:
        muted(machine, values[0]);
        return true;
    default:
        return api_event(machine, kind, values[0], values[1]);
    }
}

/* Does something that takes a stack pointer lie at `at`? */
static bool takes_frame(const uint8_t *at, const uint8_t *end, uint32_t unit_size)
{
    return at >= end || ct_takes_stack_pointer(ct_unit_at(at, unit_size) & 7);
}

/* No writer writes such a unit. One zero in small units may yet be a stack pointer of which 32 bits are kept, if it
 * stands where one can. */
static bool senseless(const uint8_t *at, const uint8_t *end, uint32_t unit_size)
{
    uint64_t unit = ct_unit_at(at, unit_size);
    bool small = unit_size == 4;
    if ((unit & 7) == CT_FRAME)
        return !unit && !(small && takes_frame(at + 4, end, unit_size));
    return small && unit & ~(uint64_t)0xFFFFFF && (unit & ~(uint64_t)0xFFFFF8) != (CT_WHOLE | CT_ENTER);
}

uint32_t ct_senseless_units(const uint8_t *at, const uint8_t *end, uint32_t unit_size)
{
    uint32_t count = 0;
    if (!senseless(at, end, unit_size))
        return 0;
    do {
        at += unit_size;
        count++;
    } while (at < end && (!ct_unit_at(at, unit_size) || senseless(at, end, unit_size)));
    return count;
}

/* One unit. False: no memory. */
static bool take_unit(struct ct_machine *machine)
{
    uint32_t unit_size = machine->reader->header.unit_size;
    uint64_t unit = ct_unit_at(machine->unit, unit_size);
    machine->told_position = machine->position;
    uint32_t senseless_units = ct_senseless_units(machine->unit, machine->unit_end, unit_size);
    if (senseless_units) {
        machine->unit += (size_t)senseless_units * unit_size;
        machine->position += senseless_units;
        lose(machine, senseless_units);
        return true;
    }
    uint32_t event = unit & 7, id = (uint32_t)(unit & 0xFFFFFF) >> 3;
    if (machine->has_sp && !ct_takes_stack_pointer(event) && event != CT_EXT) {
        lose(machine, 1); /* what the stack pointer belonged to is missing */
        return true;
    }
    if ((machine->switching || (machine->has_sp && event == CT_RETURN)) && event != CT_FRAME && event != CT_EXT) {
        bool switched;
        if (!switch_stack(machine, event, id, &switched))
            return false;
        if (switched) {
            machine->after_tail = false;
            return true;
        }
    }
    machine->totals->units++;
    machine->totals->events[event]++;
    if (event == CT_FRAME) {
        machine->unit += machine->reader->header.unit_size;
        machine->position++;
        machine->sp = unit;
        machine->has_sp = true;
        return true;
    }
    bool small = machine->reader->header.unit_size == 4;
    machine->time = small ? machine->position : ct_ticked(machine->time, unit);
    machine->unit += machine->reader->header.unit_size;
    machine->position++;
    bool memory = true;
    bool after_tail = false;
    switch (event) {
    case CT_ENTER:
        enter(machine, id);
        machine->has_sp = false;
        machine->whole = machine->reader->header.unit_size == 4 && unit & CT_WHOLE;
        machine->whole_id = id;
        break;
    case CT_LEAVE:
        close_frame(machine, CT_NODE_FUNCTION, id, CT_CAUSE_RETURN, CT_LEAVE);
        break;
    case CT_TAIL:
        close_frame(machine, CT_NODE_FUNCTION, id, CT_CAUSE_TAIL, CT_TAIL);
        after_tail = machine->close_to != NOT_CLOSING;
        machine->tail_from = id;
        break;
    case CT_CALL:
        call(machine, id);
        machine->has_sp = false;
        break;
    case CT_RETURN:
        returned(machine, id);
        machine->has_sp = false;
        break;
    case CT_LAND:
        if (machine->has_sp && land(machine, id, machine->sp))
            pend(machine, CT_STEP_LAND, CT_NODE_FUNCTION, id, 0);
        else
            orphan(machine, CT_NODE_FUNCTION, id, CT_LAND);
        machine->has_sp = false;
        break;
    default: {
        bool had_tail = machine->after_tail;
        machine->after_tail = false;
        if (id == CT_EXT_ENTER || id == CT_EXT_CALL)
            machine->after_tail = had_tail;
        memory = extended(machine, id);
        after_tail = id == CT_EXT_GOTO && machine->after_tail;
    }
    }
    machine->after_tail = after_tail;
    return memory;
}

static uint8_t end_cause(const struct ct_machine *machine)
{
    const struct ct_reader *reader = machine->reader;
    if (reader->index.truncated && !reader->threads[machine->thread].ends_live)
        return CT_CAUSE_CUT;
    switch (reader->header.state) {
    case CT_STATE_EXITED:
    case CT_STATE_KILLED:
        return CT_CAUSE_PROCESS_END;
    case CT_STATE_STOPPED:
        return CT_CAUSE_RUNNING;
    default:
        return CT_CAUSE_CUT;
    }
}

/* The file's oldest blocks may be overwritten while they are read: reads a copy. False: the piece is lost. */
static bool open_piece(struct ct_machine *machine, const struct ct_piece *piece)
{
    const struct ct_reader *reader = machine->reader;
    machine->unit = piece->units_at;
    if (!piece->copied)
        ct_read_block(&machine->pages, (uint64_t)(piece->units_at - sizeof(struct ct_events) - reader->file));
    if (reader->snapshot && reader->header.policy == CT_POLICY_DROP_OLDEST && !piece->copied) {
        const uint8_t *block = piece->units_at - sizeof(struct ct_events);
        if (!machine->block)
            machine->block = malloc(CT_BLOCK);
        machine->no_memory = !machine->block;
        if (machine->no_memory || reader->index.file_size - (uint64_t)(block - reader->file) < CT_BLOCK ||
            !ct_copy_block(block, machine->block))
            return false;
        const struct ct_events *copy = (const void *)machine->block;
        if (copy->thread_index != piece->thread_index || copy->first_unit != piece->first_unit)
            return false;
        machine->unit = (const uint8_t *)(copy + 1);
    }
    machine->unit_end = machine->unit + (size_t)piece->units * reader->header.unit_size;
    return true;
}

static void find_marks(struct ct_machine *machine, uint32_t thread_index)
{
    const struct ct_reader *reader = machine->reader;
    machine->mark = 0;
    while (machine->mark < reader->mark_count && reader->marks[machine->mark].thread < thread_index)
        machine->mark++;
    machine->mark_end = machine->mark;
    while (machine->mark_end < reader->mark_count && reader->marks[machine->mark_end].thread == thread_index)
        machine->mark_end++;
}

/* Is what comes next behind a named mark? Not in the middle of an event. */
static bool at_mark(const struct ct_machine *machine)
{
    return machine->mark < machine->mark_end && !machine->has_sp &&
           machine->reader->marks[machine->mark].position <= machine->position;
}

static void begin_piece(struct ct_machine *machine, const struct ct_piece *piece)
{
    if (machine->reader->header.unit_size != 8)
        return;
    machine->piece_close_tsc = piece->close_tsc;
    if (piece->open_tsc > machine->time)
        machine->time = piece->open_tsc;
}

static void end_piece(struct ct_machine *machine)
{
    if (machine->piece_close_tsc <= machine->time)
        return;
    machine->totals->short_times += machine->piece_close_tsc - machine->time > CT_CLOCK_MASK;
    machine->piece_close_tsc = 0;
}

void ct_machine_start_fed(struct ct_machine *machine, struct ct_reader *reader, struct ct_totals *totals)
{
    *machine = (struct ct_machine){.reader = reader, .close_to = NOT_CLOSING, .totals = totals, .fed = true};
}

uint64_t ct_machine_skip_to(struct ct_machine *machine, uint64_t position)
{
    uint64_t missing = position - machine->position;
    if (missing) {
        machine->told_position = machine->position;
        machine->position = position;
        lose(machine, missing);
    }
    return missing;
}

void ct_machine_feed(struct ct_machine *machine, const struct ct_piece *piece)
{
    end_piece(machine);
    machine->unit = piece->units_at;
    machine->unit_end = piece->units_at + (size_t)piece->units * machine->reader->header.unit_size;
    begin_piece(machine, piece);
}

/* To the next piece or thread. False: there is none. */
static bool advance(struct ct_machine *machine)
{
    struct ct_reader *reader = machine->reader;
    if (machine->thread == machine->thread_end)
        return false;
    if (!machine->inside) {
        const struct ct_reader_thread *thread = &reader->threads[machine->thread];
        machine->inside = true;
        machine->piece = thread->first_piece;
        machine->piece_end = thread->first_piece + thread->piece_count;
        machine->position = machine->told_position = 0;
        machine->time = reader->header.unit_size == 8 ? thread->entry.open_tsc : 0;
        find_marks(machine, thread->entry.index);
        pend(machine, CT_STEP_THREAD, 0, 0, thread->entry.index);
        return true;
    }
    end_piece(machine);
    if (machine->piece < machine->piece_end) {
        const struct ct_piece *piece = &reader->pieces[machine->piece];
        if (piece->first_unit != machine->position) {
            uint64_t missing = piece->first_unit - machine->position;
            machine->told_position = machine->position;
            machine->position = piece->first_unit;
            lose(machine, missing);
            return true;
        }
        machine->piece++;
        reader->units_read += piece->units;
        if (!open_piece(machine, piece)) {
            machine->unit = machine->unit_end;
            machine->told_position = machine->position;
            machine->position += piece->units;
            lose(machine, piece->units);
            return !machine->no_memory;
        }
        begin_piece(machine, piece);
        return true;
    }
    machine->told_position = machine->position;
    if (machine->has_sp) { /* ends in the middle of an event, behind which a mark may be */
        machine->has_sp = false;
        return true;
    }
    if (machine->depth) {
        close_all(machine, end_cause(machine));
        return true;
    }
    machine->after_tail = machine->inside = false;
    forget_suspended(machine);
    machine->thread++;
    return true;
}

bool ct_machine_next(struct ct_machine *machine, struct ct_step *step)
{
    for (;;) {
        if (machine->close_to < machine->depth) {
            pop(machine, step);
            return true;
        }
        if (machine->pending.type == CT_STEP_OPEN && machine->depth == DEPTH_LIMIT) {
            close_all(machine, CT_CAUSE_TOO_DEEP);
            continue;
        }
        if (machine->pending.type) {
            machine->no_memory |= !give_pending(machine, step);
            return !machine->no_memory;
        }
        if (machine->resuming.frames) {
            resume_frame(machine);
        } else if (machine->whole) {
            machine->whole = false;
            machine->totals->events[CT_LEAVE]++;
            close_frame(machine, CT_NODE_FUNCTION, machine->whole_id, CT_CAUSE_RETURN, CT_LEAVE);
        } else if (at_mark(machine)) {
            machine->told_position = machine->position;
            pend(machine, CT_STEP_MARK, 0, machine->reader->marks[machine->mark++].number, 0);
        } else if (machine->unit < machine->unit_end) {
            machine->no_memory = !take_unit(machine);
            if (machine->no_memory)
                return false;
        } else if (machine->fed || !advance(machine)) {
            return false;
        }
    }
}
