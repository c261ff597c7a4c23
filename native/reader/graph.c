/* Recordings without events: what blocks of units say is counted while they come, and they are given back.
 *
 * What counts for what is as in edges.c and summary.c, by the same machine; the numbers are those that they would give
 * for a file with all the units in it. Each thread has one table of nodes:
 *
 *   a place             a function, a call or what the C API names: whatever opens frames
 *   an edge             below the place of its caller; nobody's is a place too
 *   a call site         for itself: its place is that of all sites of the same import
 *
 * A frame counts for two edges, which are one unless a jump led to it: below the one that jumped, and below who is
 * under it on the stack.
 *
 * Most units are entries and exits that nothing is to be thought about: run() takes those, and leaves the others to the
 * machine's steps.
 */
#include "budget.h"
#include "machine.h"
#include "sites.h"

#include <stdlib.h>
#include <string.h>

#define POOL 256u               /* nodes that are allocated together */
#define TAIL_CACHE 4096u        /* power of two */
#define BLOCKS_PER_TAKE 16u     /* before somebody who waits for room is told */
#define THREAD_LIMIT (1u << 20) /* no writer has more */
#define JUMPS CT_GRAPH_BY_JUMPS
#define STACK CT_GRAPH_BY_STACK

/* Of a place: edges below it that were met last, some in both views, some in one of them. */
enum { LAST_FUNCTIONS = 8, LAST_CALL = LAST_FUNCTIONS, LAST_BY_JUMPS, LAST_BY_STACK, LASTS };

struct node {
    uint32_t key;       /* of kind, id and whether a jump leads to it: a function's is its id */
    uint32_t active;    /* open frames that count for it in both views; a function's place does not tell */
    struct node *place; /* an edge's own */
    struct ct_graph_count both;
    struct node *last[LASTS];

    struct node *caller; /* an edge's; NULL: this is a place, or a call site */
    uint64_t hash;
    uint32_t position, views;
    uint32_t only_active[CT_GRAPH_VIEWS]; /* in one view, and not in the other */
    struct ct_graph_count only[CT_GRAPH_VIEWS];
};

struct opened { /* beside each frame of the machine */
    struct node *place, *edge;
    struct node *stack_edge; /* in the other view; NULL: the same */
    bool told;               /* place and edges are known, and count it */
    bool through;            /* a call site, whose callee stands for it */
    /* Of a call: */
    struct node *site;
    struct node *caller, *stack_caller, *jumper; /* for tell() */
};

struct thread {
    struct ct_machine machine;
    struct ct_totals totals;
    struct ct_graph_thread about;
    bool begun; /* a step was given */
    bool left;  /* the frame opened last was left by a jump, and is still to be seen in `opened` */
    struct opened *opened;
    uint64_t opened_room;
    struct node **pools;
    uint64_t pool_room;
    struct node **slots; /* hash table */
    uint32_t node_count, slot_count;
    struct node *nobody;
};

struct tail_known {
    uint32_t from, to;
    bool known, may;
};

struct ct_graph {
    struct ct_reader *reader; /* of the modules that are known so far */
    struct ct_budget *budget; /* NULL: nothing goes into the file */
    struct ct_sites sites;
    struct thread **threads; /* by index; NULL: nothing was seen of it */
    uint64_t thread_room;
    struct tail_known tails[TAIL_CACHE];
};

/* ---- nodes ---- */

static struct node no_node = {.key = CT_NONE}; /* is never written to */

static uint32_t key_of(uint8_t kind, uint32_t id, bool tail)
{
    return (uint32_t)kind << 24 | (uint32_t)tail << 23 | id;
}

static struct node *node_at(const struct thread *thread, uint32_t at)
{
    return &thread->pools[at / POOL][at % POOL];
}

static uint64_t hash_of(const struct node *caller, uint32_t key)
{
    uint64_t hash = ((uint64_t)(caller ? caller->position + 1 : 0) << 32 | key) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

/* False: no memory. */
static bool grow_slots(struct thread *thread)
{
    uint32_t count = thread->slot_count ? thread->slot_count * 2 : 256;
    struct node **grown = calloc(count, sizeof *grown);
    if (!grown)
        return false;
    for (uint32_t at = 0; at < thread->node_count; at++) {
        struct node *node = node_at(thread, at);
        uint64_t slot = node->hash & (count - 1);
        while (grown[slot])
            slot = (slot + 1) & (count - 1);
        grown[slot] = node;
    }
    free(thread->slots);
    thread->slots = grown;
    thread->slot_count = count;
    return true;
}

static void forget_last(struct node *node)
{
    for (int last = 0; last < LASTS; last++)
        node->last[last] = &no_node;
}

/* The node of this key; NULL: no memory. */
static struct node *node_of(struct thread *thread, struct node *caller, uint32_t key)
{
    uint64_t hash = hash_of(caller, key);
    if (thread->node_count * 2 >= thread->slot_count && !grow_slots(thread))
        return NULL;
    uint64_t slot = hash & (thread->slot_count - 1);
    for (struct node *node; (node = thread->slots[slot]); slot = (slot + 1) & (thread->slot_count - 1))
        if (node->caller == caller && node->key == key)
            return node;
    uint32_t at = thread->node_count;
    if (!ct_reserve_items((void **)&thread->pools, &thread->pool_room, at / POOL + 1u, sizeof *thread->pools))
        return NULL;
    if (!thread->pools[at / POOL] && !(thread->pools[at / POOL] = calloc(POOL, sizeof **thread->pools)))
        return NULL;
    struct node *node = node_at(thread, at);
    *node = (struct node){.key = key, .caller = caller, .hash = hash, .position = at};
    forget_last(node);
    thread->node_count++;
    thread->slots[slot] = node;
    if (caller && !(node->place = node_of(thread, NULL, key & ~key_of(0, 0, true))))
        return NULL;
    return node;
}

/* An edge below a place, for frames that count in these views. NULL: no memory. */
static inline struct node *edge_of(struct thread *thread, struct node *caller, uint32_t key, uint32_t last,
                                   uint32_t views)
{
    struct node *edge = caller->last[last];
    if (edge->key == key)
        return edge;
    edge = node_of(thread, caller, key);
    if (!edge)
        return NULL;
    edge->views |= views;
    edge->place->views |= views & 1u << JUMPS;
    return caller->last[last] = edge;
}

/* ---- frames ---- */

/* Makes the frame count. `jumper`: the place that has left by a jump to it; NULL: there is none. False: no memory. */
static inline __attribute__((always_inline)) bool tell(struct thread *thread, struct opened *opened, uint8_t kind,
                                                       uint32_t id, struct node *caller, struct node *stack_caller,
                                                       struct node *jumper)
{
    uint32_t key = key_of(kind, id, false);
    if (!jumper && caller == stack_caller) {
        uint32_t last = kind == CT_NODE_CALL ? LAST_CALL : id % LAST_FUNCTIONS;
        opened->edge = edge_of(thread, caller, key, last, 1u << JUMPS | 1u << STACK);
        opened->stack_edge = NULL;
        if (!opened->edge)
            return false;
        opened->edge->active++;
    } else {
        opened->edge = edge_of(thread, jumper ? jumper : caller, key_of(kind, id, jumper), LAST_BY_JUMPS, 1u << JUMPS);
        opened->stack_edge = edge_of(thread, stack_caller, key, LAST_BY_STACK, 1u << STACK);
        if (!opened->edge || !opened->stack_edge)
            return false;
        opened->edge->only_active[JUMPS]++;
        opened->stack_edge->only_active[STACK]++;
    }
    opened->place = opened->edge->place;
    if (kind == CT_NODE_CALL)
        opened->place->active++;
    opened->told = true;
    return true;
}

static bool tell_call(const struct ct_graph *graph, struct thread *thread, struct opened *opened, uint32_t site)
{
    return tell(thread, opened, CT_NODE_CALL, ct_same_site(&graph->sites, site), opened->caller, opened->stack_caller,
                opened->jumper);
}

/* The frame at `depth`, for which there is room in `opened`, has been pushed. False: no memory. */
static inline __attribute__((always_inline)) bool open_frame(const struct ct_graph *graph, struct thread *thread,
                                                             uint32_t depth, uint8_t kind, uint32_t id, bool jumped)
{
    struct opened *opened = &thread->opened[depth], *below = depth ? opened - 1 : NULL;
    struct node *jumper = jumped && thread->left ? opened->place : NULL;
    struct node *caller = thread->nobody, *stack_caller = caller;
    thread->left = false;
    if (depth && !below->told && !below->through) {
        uint32_t site = thread->machine.frames[depth - 1].id;
        below->through =
            kind == CT_NODE_FUNCTION && ct_site_calls(&graph->sites, ct_same_site(&graph->sites, site), id);
        if (!below->through && !tell_call(graph, thread, below, site))
            return false;
    }
    if (depth && below->through) {
        caller = below->jumper ? below->jumper : below->caller;
        stack_caller = below->stack_caller;
    } else if (depth) {
        caller = stack_caller = below->place;
    }
    opened->told = opened->through = false;
    if (kind != CT_NODE_CALL)
        return tell(thread, opened, kind, id, caller, stack_caller, jumper);
    opened->caller = caller;
    opened->stack_caller = stack_caller;
    opened->jumper = jumper;
    opened->site = node_of(thread, NULL, key_of(CT_GRAPH_SITE, id, false));
    bool open_question = ct_site_callee(&graph->sites, ct_same_site(&graph->sites, id)) != CT_NONE;
    return opened->site && (open_question || tell_call(graph, thread, opened, id));
}

static void add(struct ct_graph_count *count, bool first, uint64_t self, uint64_t total)
{
    count->calls += first;
    count->self += self;
    count->total += total;
}

/* The frame counts no longer for what it has in one view only. */
static void leave_only(struct node *node, int view, bool first, uint64_t self, uint64_t duration)
{
    bool last = !--node->only_active[view] && !node->active;
    add(&node->only[view], first, self, last ? duration : 0);
}

/* Nor for an edge in both views. */
static inline void leave_edge(struct node *edge, bool first, uint64_t self, uint64_t duration)
{
    edge->both.calls += first;
    edge->both.self += self;
    if (--edge->active)
        return;
    if (!(edge->only_active[JUMPS] | edge->only_active[STACK])) {
        edge->both.total += duration;
        return;
    }
    for (int view = 0; view < CT_GRAPH_VIEWS; view++)
        if (!edge->only_active[view])
            edge->only[view].total += duration;
}

/* Nor for what it counts for in any way. `outermost`: no other frame of its function is open. */
static inline void leave(struct opened *opened, uint8_t kind, bool outermost, bool first, uint64_t self,
                         uint64_t duration)
{
    if (kind == CT_NODE_CALL)
        outermost = !--opened->place->active;
    if (outermost)
        opened->place->both.total += duration;
    if (opened->stack_edge) {
        leave_only(opened->edge, JUMPS, first, self, duration);
        leave_only(opened->stack_edge, STACK, first, self, duration);
    } else {
        leave_edge(opened->edge, first, self, duration);
    }
}

/* The frame at `depth` is closed. False: no memory. */
static bool close_frame(const struct ct_graph *graph, struct thread *thread, uint32_t depth,
                        const struct ct_frame *frame, uint64_t self, uint64_t duration)
{
    struct opened *opened = &thread->opened[depth];
    bool first = !frame->resumed;
    if (frame->kind == CT_NODE_CALL) {
        add(&opened->site->both, first, self, frame->below ? 0 : duration);
        if (opened->through) { /* the time between the call and what it calls is its caller's */
            if (depth) {
                struct node *edge = opened[-1].stack_edge ? opened[-1].stack_edge : opened[-1].edge;
                opened[-1].place->only[STACK].self += self;
                edge->only[STACK].self += self;
            }
            return true;
        }
        if (!opened->told && !tell_call(graph, thread, opened, frame->id))
            return false;
    }
    leave(opened, frame->kind, !frame->below, first, self, duration);
    return true;
}

/* ---- units ---- */

/* False: no memory. */
static bool take(struct ct_graph *graph, struct thread *thread, const struct ct_step *step)
{
    if (!thread->begun)
        thread->totals.first_time = step->time;
    thread->begun = true;
    if (step->type == CT_STEP_OPEN)
        return ct_reserve_items((void **)&thread->opened, &thread->opened_room, step->depth + 1u,
                                sizeof *thread->opened) &&
               open_frame(graph, thread, step->depth, step->kind, step->id, step->flags & CT_STEP_TAIL_CALLEE);
    if (step->type != CT_STEP_CLOSE)
        return true;
    struct ct_frame frame = {
        .id = step->id,
        .kind = step->kind,
        .below = !(step->flags & CT_STEP_OUTERMOST),
        .resumed = step->flags & CT_STEP_RESUMED,
    };
    thread->left = step->cause == CT_CAUSE_TAIL;
    return close_frame(graph, thread, step->depth, &frame, step->self, step->time - step->begin);
}

static bool may_tail(struct ct_graph *graph, uint32_t from, uint32_t to)
{
    struct tail_known *tail = &graph->tails[(from * 31 + to) & (TAIL_CACHE - 1)];
    if (!tail->known || tail->from != from || tail->to != to)
        *tail = (struct tail_known){from, to, true, ct_may_tail(graph->reader, from, to)};
    return tail->may;
}

static inline uint64_t load_unit(const uint8_t *at, uint32_t unit_size)
{
    uint64_t unit = 0;
    memcpy(&unit, at, unit_size);
    return unit;
}

/* Takes units as long as each opens or closes one frame, and nothing else follows from it: as the machine does, and
 * counts. */
static inline __attribute__((always_inline)) void run(struct ct_graph *graph, struct thread *thread,
                                                      const uint32_t unit_size)
{
    struct ct_machine *machine = &thread->machine;
    struct ct_frame *const frames = machine->frames;
    const struct ct_tops functions = machine->tops[CT_NODE_FUNCTION], calls = machine->tops[CT_NODE_CALL];
    uint64_t room = machine->frame_room < thread->opened_room ? machine->frame_room : thread->opened_room;
    const uint8_t *at = machine->unit, *const begin = at, *const end = machine->unit_end;
    const uint64_t position = machine->position;
    uint64_t events[8] = {0}, wholes = 0, time = machine->time;
    uint32_t depth = machine->depth, deepest = machine->totals->max_depth, tail_from = machine->tail_from;
    bool after_tail = machine->after_tail, memory = true;
    while (at < end && memory) {
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
        if ((whole && (event != CT_ENTER || unit >> 24 != CT_WHOLE >> 24)) ||
            (has_sp && (whole || event != CT_ENTER || ct_is_funclet(machine, id))))
            break;
        uint64_t now = unit_size == 4 ? position + (uint64_t)(here - begin) / 4 : ct_ticked(time, unit);
        struct ct_frame *next = frames + depth, *top = depth ? next - 1 : NULL;
        struct opened *opened = thread->opened + depth;
        if (event == CT_ENTER) {
            if (id >= functions.count || depth >= room)
                break;
            bool jumped = after_tail && may_tail(graph, tail_from, id);
            memory = open_frame(graph, thread, depth, CT_NODE_FUNCTION, id, jumped);
            deepest = depth >= deepest ? depth + 1 : deepest;
            uint64_t last = here + unit_size < end && !whole ? load_unit(here + unit_size, unit_size) : 0;
            if (whole) {
                if (memory)
                    leave(opened, CT_NODE_FUNCTION, false, true, 0, 0);
                wholes++;
                for (; here + 4 < end && load_unit(here + 4, 4) == unit && !opened->stack_edge; here += 4) {
                    opened->edge->both.calls++;
                    events[CT_ENTER]++;
                    wholes++;
                }
                now = position + (uint64_t)(here - begin) / 4;
            } else if ((last & 0xFFFFFF) == (id << 3 | CT_LEAVE) && (unit_size == 8 || last < 1u << 24)) {
                here += unit_size; /* calls nothing: as if it had been pushed, and popped again */
                uint64_t then = now;
                now = unit_size == 4 ? then + 1 : ct_ticked(then, last);
                if (memory)
                    leave(opened, CT_NODE_FUNCTION, !functions.of[id], true, now - then, now - then);
                if (depth)
                    top->children += now - then;
                events[CT_LEAVE]++;
            } else {
                *next =
                    (struct ct_frame){.begin = now, .sp = sp, .id = id, .below = functions.of[id], .has_sp = has_sp};
                functions.of[id] = ++depth;
            }
        } else if (event == CT_LEAVE || event == CT_TAIL) {
            if (!depth || top->id != id || top->kind != CT_NODE_FUNCTION)
                break;
            uint64_t duration = now - top->begin;
            leave(opened - 1, CT_NODE_FUNCTION, !top->below, !top->resumed, duration - top->children, duration);
            functions.of[id] = top->below;
            if (--depth)
                top[-1].children += duration;
            thread->left = event == CT_TAIL;
        } else if (event == CT_CALL) {
            if (after_tail || !depth || id >= calls.count || depth >= room || id >= machine->reader->id_count ||
                top->kind != CT_NODE_FUNCTION || top->id != machine->reader->holders[id])
                break;
            *next = (struct ct_frame){.begin = now, .id = id, .below = calls.of[id], .kind = CT_NODE_CALL};
            memory = open_frame(graph, thread, depth, CT_NODE_CALL, id, false);
            calls.of[id] = ++depth;
            deepest = depth > deepest ? depth : deepest;
        } else if (event == CT_RETURN) {
            if (!depth || top->id != id || top->kind != CT_NODE_CALL)
                break;
            uint64_t duration = now - top->begin;
            memory = close_frame(graph, thread, depth - 1, top, duration - top->children, duration);
            calls.of[id] = top->below;
            if (--depth)
                top[-1].children += duration;
            thread->left = false;
        } else {
            break;
        }
        events[CT_FRAME] += has_sp;
        events[event]++;
        after_tail = event == CT_TAIL;
        tail_from = id;
        time = now;
        at = here + unit_size;
    }
    machine->unit = at;
    machine->position += (uint64_t)(at - begin) / unit_size;
    machine->time = time;
    machine->depth = depth;
    machine->after_tail = after_tail;
    machine->tail_from = tail_from;
    machine->no_memory |= !memory;
    struct ct_totals *totals = machine->totals;
    totals->max_depth = deepest;
    totals->units += (uint64_t)(at - begin) / unit_size;
    totals->frames[CT_NODE_FUNCTION] += events[CT_ENTER];
    totals->frames[CT_NODE_CALL] += events[CT_CALL];
    events[CT_LEAVE] += wholes;
    totals->causes[CT_CAUSE_RETURN] += events[CT_LEAVE] + events[CT_RETURN];
    totals->causes[CT_CAUSE_TAIL] += events[CT_TAIL];
    for (int event = 0; event < 8; event++)
        totals->events[event] += events[event];
}

/* What the machine was given, to its end. False: no memory. */
static bool take_steps(struct ct_graph *graph, struct thread *thread)
{
    struct ct_machine *machine = &thread->machine;
    struct ct_step step;
    do {
        if (thread->begun && thread->opened && ct_machine_is_plain(machine)) {
            if (graph->reader->header.unit_size == 4)
                run(graph, thread, 4);
            else
                run(graph, thread, 8);
        }
        if (machine->no_memory || !ct_machine_next(machine, &step))
            return !machine->no_memory;
    } while (take(graph, thread, &step));
    return false;
}

static struct thread *thread_of(struct ct_graph *graph, const struct ct_events *block)
{
    uint32_t index = block->thread_index;
    if (!ct_reserve_items((void **)&graph->threads, &graph->thread_room, index + 1u, sizeof *graph->threads))
        return NULL;
    struct thread *thread = graph->threads[index];
    if (thread)
        return thread;
    thread = graph->threads[index] = calloc(1, sizeof *thread);
    if (!thread)
        return NULL;
    thread->about = (struct ct_graph_thread){.index = index, .id = block->thread_id, .open_tsc = block->open_tsc};
    ct_machine_start_fed(&thread->machine, graph->reader, &thread->totals);
    thread->nobody = node_of(thread, NULL, key_of(CT_NODE_NOBODY, 0, false));
    return thread->nobody ? thread : NULL;
}

/* The units of a block from the thread's position on, or all. False: no memory. */
static bool fold(struct ct_graph *graph, struct thread *thread, const struct ct_events *block, uint32_t units)
{
    uint64_t position = thread->machine.position;
    uint32_t known = position > block->first_unit ? (uint32_t)(position - block->first_unit) : 0;
    if (known >= units)
        return true;
    struct ct_piece piece = {
        .units_at = (const uint8_t *)(block + 1) + (size_t)known * graph->reader->header.unit_size,
        .open_tsc = block->open_tsc,
        .close_tsc = block->close_tsc,
        .units = units - known,
        .thread_index = block->thread_index,
        .thread_id = block->thread_id,
    };
    uint64_t missing = ct_machine_skip_to(&thread->machine, block->first_unit + known);
    thread->about.units += piece.units;
    thread->about.lost += missing;
    if (!take_steps(graph, thread) || (graph->budget && !ct_budget_take(graph->budget, graph->reader, &piece, missing)))
        return false;
    ct_machine_feed(&thread->machine, &piece);
    return take_steps(graph, thread);
}

/* ---- blocks ---- */

static uint32_t units_in(const struct ct_graph *graph, const struct ct_events *block)
{
    uint32_t unit_size = graph->reader->header.unit_size, room = CT_BLOCK - (uint32_t)sizeof *block;
    uint64_t used = block->chunk.payload_size;
    return used && used <= room ? (uint32_t)used / unit_size
                                : ct_open_units((const uint8_t *)(block + 1), room, unit_size);
}

/* The slot that is to be counted next, one of each thread after the other. NULL: there is none. */
static struct ct_events *next_block(const struct ct_graph *graph, struct ct_events *const *slots, uint32_t count,
                                    enum ct_graph_taken what)
{
    struct ct_events *found = NULL;
    for (uint32_t at = 0; at < count; at++) {
        struct ct_events *block = slots[at];
        if (__atomic_load_n(&block->chunk.kind, __ATOMIC_ACQUIRE) != CT_CHUNK_EVENTS)
            continue;
        bool full = __atomic_load_n(&block->chunk.flags, __ATOMIC_ACQUIRE) & CT_EVENTS_FULL;
        uint32_t index = block->thread_index;
        const struct thread *thread = index < graph->thread_room ? graph->threads[index] : NULL;
        uint64_t position = thread ? thread->machine.position : 0;
        if (index >= THREAD_LIMIT || block->first_unit > CT_NUMBER_LIMIT)
            continue;
        bool ready = what == CT_GRAPH_LAST || (block->first_unit <= position && full == (what == CT_GRAPH_FULL));
        if (what == CT_GRAPH_LOOK && ready)
            ready = block->first_unit + units_in(graph, block) > position;
        if (ready && (!found || block->first_unit < found->first_unit))
            found = block;
    }
    return found;
}

uint32_t ct_graph_take(struct ct_graph *graph, void *const *slots, uint32_t count, uint32_t what, uint32_t *status)
{
    uint32_t taken = 0;
    *status = CT_READER_OK;
    while (taken < BLOCKS_PER_TAKE || what == CT_GRAPH_LAST) {
        struct ct_events *block = next_block(graph, (struct ct_events *const *)slots, count, what);
        if (!block)
            break;
        struct thread *thread = thread_of(graph, block);
        if (!thread || !fold(graph, thread, block, units_in(graph, block))) {
            *status = CT_READER_NO_MEMORY;
            break;
        }
        taken++;
        if (what == CT_GRAPH_LOOK)
            continue;
        /* The target takes it for its own again as soon as it has no kind. */
        memset((uint8_t *)block + sizeof block->chunk.kind, 0, CT_BLOCK - sizeof block->chunk.kind);
        __atomic_store_n(&block->chunk.kind, CT_CHUNK_HOLE, __ATOMIC_RELEASE);
    }
    return taken;
}

/* ---- from outside ---- */

struct ct_graph *ct_graph_open(void)
{
    return calloc(1, sizeof(struct ct_graph));
}

void ct_graph_set_budget(struct ct_graph *graph, struct ct_budget *budget)
{
    graph->budget = budget;
}

uint32_t ct_graph_set_reader(struct ct_graph *graph, struct ct_reader *reader, const uint8_t *through,
                             uint32_t through_bits)
{
    struct ct_sites sites = {0};
    if (!ct_read_sites(&sites, reader, through, through_bits)) {
        ct_free_sites(&sites);
        return 0;
    }
    ct_free_sites(&graph->sites);
    graph->sites = sites;
    if (graph->reader) { /* addresses keep their numbers */
        struct ct_addresses fresh = reader->addresses;
        reader->addresses = graph->reader->addresses;
        graph->reader->addresses = fresh;
    }
    graph->reader = reader;
    memset(graph->tails, 0, sizeof graph->tails);
    for (uint64_t at = 0; at < graph->thread_room; at++)
        if (graph->threads[at])
            graph->threads[at]->machine.reader = reader;
    return 1;
}

/* A thread's table, so that it can be as it was. */
struct kept {
    struct node *nodes;
    struct opened *opened;
    uint32_t node_count;
};

static bool keep(const struct thread *thread, struct kept *kept)
{
    uint32_t depth = thread->machine.depth;
    kept->node_count = thread->node_count;
    kept->nodes = malloc((kept->node_count + 1u) * sizeof *kept->nodes);
    kept->opened = malloc((depth + 1u) * sizeof *kept->opened);
    for (uint32_t at = 0; at < kept->node_count && kept->nodes; at++)
        kept->nodes[at] = *node_at(thread, at);
    if (depth && kept->opened)
        memcpy(kept->opened, thread->opened, depth * sizeof *kept->opened);
    return kept->nodes && kept->opened;
}

static void restore(struct thread *thread, struct kept *kept)
{
    for (uint32_t at = 0; at < thread->node_count; at++) {
        struct node *node = node_at(thread, at);
        if (at < kept->node_count) {
            *node = kept->nodes[at];
            continue;
        }
        node->active = node->views = 0;
        node->both = (struct ct_graph_count){0};
        memset(node->only_active, 0, sizeof node->only_active);
        memset(node->only, 0, sizeof node->only);
        forget_last(node);
    }
    if (thread->machine.depth)
        memcpy(thread->opened, kept->opened, thread->machine.depth * sizeof *kept->opened);
}

/* Counts the open frames as if they ended now. False: no memory. */
static bool close_all(struct ct_graph *graph, struct thread *thread)
{
    const struct ct_machine *machine = &thread->machine;
    uint64_t inside = 0;
    for (uint32_t depth = machine->depth; depth--;) {
        const struct ct_frame *frame = &machine->frames[depth];
        uint64_t duration = machine->time - frame->begin;
        if (!close_frame(graph, thread, depth, frame, duration - frame->children - inside, duration))
            return false;
        inside = duration;
    }
    return true;
}

struct bytes {
    void *data;
    uint64_t size, room;
};

static bool put(struct bytes *bytes, const void *data, size_t size)
{
    if (!ct_reserve_items(&bytes->data, &bytes->room, bytes->size + size, 1))
        return false;
    memcpy((uint8_t *)bytes->data + bytes->size, data, size);
    bytes->size += size;
    return true;
}

static bool put_thread(struct bytes *bytes, const struct thread *thread, uint32_t cause)
{
    const struct ct_machine *machine = &thread->machine;
    struct ct_graph_thread about = thread->about;
    about.rows = thread->node_count;
    about.totals = thread->totals;
    about.totals.last_time = machine->time;
    about.totals.causes[cause] += machine->depth;
    if (machine->piece_close_tsc > machine->time)
        about.totals.short_times += machine->piece_close_tsc - machine->time > CT_CLOCK_MASK;
    struct ct_graph_row *rows = calloc(thread->node_count, sizeof *rows);
    for (uint32_t at = 0; at < thread->node_count && rows; at++) {
        const struct node *node = node_at(thread, at);
        struct ct_graph_row *row = &rows[at];
        row->position = at;
        row->caller = node->caller ? node->caller->position : CT_NONE;
        row->id = node->key & (CT_ID_LIMIT - 1);
        row->kind = (uint8_t)(node->key >> 24);
        row->tail = node->key & key_of(0, 0, true) ? 1 : 0;
        row->views = (uint8_t)node->views;
        for (int view = 0; view < CT_GRAPH_VIEWS; view++) {
            add(&row->counts[view], false, node->only[view].self, node->both.total + node->only[view].total);
            row->counts[view].calls += node->both.calls + node->only[view].calls;
            row->counts[view].self += node->both.self;
        }
    }
    for (uint32_t at = 0; at < thread->node_count && rows; at++) { /* a place has what leads to it */
        const struct node *edge = node_at(thread, at);
        for (int view = 0; view < CT_GRAPH_VIEWS && edge->place; view++) {
            struct ct_graph_count *count = &rows[edge->place->position].counts[view];
            add(count, false, edge->both.self + edge->only[JUMPS].self, 0);
            count->calls += edge->both.calls + edge->only[JUMPS].calls;
        }
    }
    bool memory = rows && put(bytes, &about, sizeof about) && put(bytes, rows, thread->node_count * sizeof *rows);
    free(rows);
    return memory;
}

void *ct_graph_write(struct ct_graph *graph, uint32_t cause, uint64_t *size)
{
    struct bytes bytes = {0};
    struct ct_addresses none = {0};
    const struct ct_addresses *addresses = graph->reader ? &graph->reader->addresses : &none;
    struct ct_graph_header header = {
        .thread_size = sizeof(struct ct_graph_thread),
        .row_size = sizeof(struct ct_graph_row),
        .addresses = addresses->count,
    };
    for (uint64_t at = 0; at < graph->thread_room; at++)
        header.threads += graph->threads[at] && graph->threads[at]->begun;
    bool memory = put(&bytes, &header, sizeof header) &&
                  (!header.addresses || put(&bytes, addresses->values, header.addresses * sizeof *addresses->values));
    for (uint64_t at = 0; at < graph->thread_room && memory; at++) {
        struct thread *thread = graph->threads[at];
        if (!thread || !thread->begun)
            continue;
        struct kept kept = {0};
        memory = keep(thread, &kept);
        if (memory) {
            memory = close_all(graph, thread) && put_thread(&bytes, thread, cause);
            restore(thread, &kept);
        }
        free(kept.nodes);
        free(kept.opened);
    }
    *size = bytes.size;
    if (memory)
        return bytes.data;
    free(bytes.data);
    return NULL;
}

void ct_graph_free(void *bytes)
{
    free(bytes);
}

void ct_graph_close(struct ct_graph *graph)
{
    for (uint64_t at = 0; at < graph->thread_room; at++) {
        struct thread *thread = graph->threads[at];
        if (!thread)
            continue;
        ct_machine_free(&thread->machine);
        for (uint64_t pool = 0; pool < thread->pool_room; pool++)
            free(thread->pools[pool]);
        free(thread->pools);
        free(thread->slots);
        free(thread->opened);
        free(thread);
    }
    free(graph->threads);
    ct_free_sites(&graph->sites);
    free(graph);
}
