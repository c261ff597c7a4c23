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
#include "machine.h"
#include "sites.h"

#include <stdlib.h>
#include <string.h>

#define POOL 256u           /* nodes that are allocated together */
#define TAIL_CACHE 4096u    /* power of two */
#define BLOCKS_PER_TAKE 16u /* before somebody who waits for room is told */
#define JUMPS CT_GRAPH_BY_JUMPS
#define STACK CT_GRAPH_BY_STACK

enum { LAST_FUNCTION, LAST_CALL, LAST_TAIL, LASTS };

struct node {
    struct node *caller;      /* an edge's; NULL: this is a place, or a call site */
    struct node *place;       /* an edge's own */
    struct node *last[LASTS]; /* of a place: the edge below it that was met last. Of a call's edge: its site */
    uint64_t hash;
    struct ct_graph_row row;
    uint32_t active[CT_GRAPH_VIEWS]; /* open frames that count for it */
};

struct opened { /* beside each frame of the machine */
    struct node *place;
    struct node *callers[CT_GRAPH_VIEWS], *edges[CT_GRAPH_VIEWS];
    struct node *site; /* of a call */
    bool told;         /* place and edges are known, and count it */
    bool through;      /* a call site, whose callee stands for it */
    bool tail;         /* the first caller has left by a jump to it */
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
    struct ct_sites sites;
    struct thread **threads; /* by index; NULL: nothing was seen of it */
    uint64_t thread_room;
    struct tail_known tails[TAIL_CACHE];
};

/* ---- nodes ---- */

static const struct node no_node = {.row = {.kind = 0xFF}};

static struct node *node_at(const struct thread *thread, uint32_t at)
{
    return &thread->pools[at / POOL][at % POOL];
}

static uint64_t hash_of(const struct node *caller, uint8_t kind, uint32_t id, bool tail)
{
    uint64_t hash = ((uint64_t)(caller ? caller->row.position + 1 : 0) << 32 | id) * 0x9E3779B97F4A7C15u;
    hash ^= (uint64_t)(kind << 1 | tail) * 0xC2B2AE3D27D4EB4Fu;
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

/* The node of this key; NULL: no memory. */
static struct node *node_of(struct thread *thread, struct node *caller, uint8_t kind, uint32_t id, bool tail)
{
    uint64_t hash = hash_of(caller, kind, id, tail);
    if (thread->node_count * 2 >= thread->slot_count && !grow_slots(thread))
        return NULL;
    uint64_t slot = hash & (thread->slot_count - 1);
    for (struct node *node; (node = thread->slots[slot]); slot = (slot + 1) & (thread->slot_count - 1))
        if (node->hash == hash && node->caller == caller && node->row.id == id && node->row.kind == kind &&
            node->row.tail == tail)
            return node;
    uint32_t at = thread->node_count;
    if (!ct_reserve_items((void **)&thread->pools, &thread->pool_room, at / POOL + 1u, sizeof *thread->pools))
        return NULL;
    if (!thread->pools[at / POOL] && !(thread->pools[at / POOL] = calloc(POOL, sizeof **thread->pools)))
        return NULL;
    struct node *node = node_at(thread, at);
    node->hash = hash;
    node->caller = caller;
    node->row = (struct ct_graph_row){
        .position = at,
        .caller = caller ? caller->row.position : CT_NONE,
        .id = id,
        .kind = kind,
        .tail = tail,
    };
    for (int last = 0; last < LASTS; last++)
        node->last[last] = (struct node *)&no_node; /* which is equal to none, and never written to */
    thread->node_count++;
    thread->slots[slot] = node;
    if (caller && !(node->place = node_of(thread, NULL, kind, id, false)))
        return NULL;
    return node;
}

/* An edge below a place. NULL: no memory. */
static inline struct node *edge_of(struct thread *thread, struct node *caller, uint8_t kind, uint32_t id, bool tail)
{
    struct node **last = &caller->last[tail ? LAST_TAIL : kind == CT_NODE_CALL ? LAST_CALL : LAST_FUNCTION];
    if ((*last)->row.id == id && (*last)->row.kind == kind)
        return *last;
    struct node *edge = node_of(thread, caller, kind, id, tail);
    if (edge)
        *last = edge;
    return edge;
}

/* ---- frames ---- */

/* Makes the frame count. False: no memory. */
static inline bool tell(struct thread *thread, struct opened *opened, uint8_t kind, uint32_t id)
{
    struct node *edge = edge_of(thread, opened->callers[JUMPS], kind, id, opened->tail), *on_stack = edge;
    if (opened->tail || opened->callers[JUMPS] != opened->callers[STACK])
        on_stack = edge_of(thread, opened->callers[STACK], kind, id, false);
    if (!edge || !on_stack)
        return false;
    opened->edges[JUMPS] = edge;
    opened->edges[STACK] = on_stack;
    opened->place = edge->place;
    opened->told = true;
    opened->place->row.views |= 1u << JUMPS;
    opened->place->active[JUMPS]++;
    edge->row.views |= 1u << JUMPS;
    edge->active[JUMPS]++;
    on_stack->row.views |= 1u << STACK;
    on_stack->active[STACK]++;
    return true;
}

/* The frame at `depth` has been pushed. False: no memory. */
static bool open_frame(struct ct_graph *graph, struct thread *thread, uint32_t depth, uint8_t kind, uint32_t id,
                       bool jumped)
{
    if (!ct_reserve_items((void **)&thread->opened, &thread->opened_room, depth + 1u, sizeof *thread->opened))
        return false;
    struct opened *opened = &thread->opened[depth], *below = depth ? opened - 1 : NULL, fresh = {0};
    if (below && !below->told && !below->through) {
        uint32_t site = ct_same_site(&graph->sites, thread->machine.frames[depth - 1].id);
        below->through = kind == CT_NODE_FUNCTION && ct_site_calls(&graph->sites, site, id);
        if (!below->through && !tell(thread, below, CT_NODE_CALL, site))
            return false;
    }
    for (int view = 0; view < CT_GRAPH_VIEWS; view++)
        fresh.callers[view] = !below ? thread->nobody : below->through ? below->callers[view] : below->place;
    fresh.tail = jumped && thread->left;
    if (fresh.tail)
        fresh.callers[JUMPS] = opened->place;
    thread->left = false;
    *opened = fresh;
    if (kind != CT_NODE_CALL)
        return tell(thread, opened, kind, id);
    opened->site = node_of(thread, NULL, CT_GRAPH_SITE, id, false);
    uint32_t place = ct_same_site(&graph->sites, id);
    return opened->site && (ct_site_callee(&graph->sites, place) != CT_NONE || tell(thread, opened, kind, place));
}

static inline void count(struct node *node, int view, bool first, uint64_t self, uint64_t duration)
{
    struct ct_graph_count *count = &node->row.counts[view];
    count->calls += first;
    count->self += self;
    if (!--node->active[view])
        count->total += duration;
}

/* The frame at `depth` is closed. False: no memory. */
static inline bool close_frame(struct ct_graph *graph, struct thread *thread, uint32_t depth,
                               const struct ct_frame *frame, uint64_t self, uint64_t duration)
{
    struct opened *opened = &thread->opened[depth];
    if (frame->kind == CT_NODE_CALL) {
        struct ct_graph_count *site = &opened->site->row.counts[JUMPS];
        site->calls += !frame->resumed;
        site->self += self;
        if (!frame->below)
            site->total += duration;
        if (opened->through) { /* the time between the call and what it calls is its caller's */
            if (depth) {
                opened[-1].place->row.counts[STACK].self += self;
                opened[-1].edges[STACK]->row.counts[STACK].self += self;
            }
            return true;
        }
        if (!opened->told && !tell(thread, opened, CT_NODE_CALL, ct_same_site(&graph->sites, frame->id)))
            return false;
    }
    count(opened->place, JUMPS, !frame->resumed, self, duration);
    count(opened->edges[JUMPS], JUMPS, !frame->resumed, self, duration);
    count(opened->edges[STACK], STACK, !frame->resumed, self, duration);
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
        return open_frame(graph, thread, step->depth, step->kind, step->id, step->flags & CT_STEP_TAIL_CALLEE);
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

static inline bool is_top(const struct ct_machine *machine, uint8_t kind, uint32_t id)
{
    const struct ct_frame *frame = &machine->frames[machine->depth - 1];
    return machine->depth && frame->kind == kind && frame->id == id;
}

/* Opens a frame as the machine does that nothing else follows from. False: it is left to the machine. */
static inline bool quick_open(struct ct_graph *graph, struct thread *thread, uint8_t kind, uint32_t id, uint64_t sp,
                              bool has_sp, bool jumped)
{
    struct ct_machine *machine = &thread->machine;
    struct ct_tops *tops = &machine->tops[kind];
    uint32_t depth = machine->depth;
    if (id >= tops->count || depth >= machine->frame_room || depth >= thread->opened_room)
        return false;
    machine->frames[machine->depth++] = (struct ct_frame){
        .begin = machine->time, .sp = sp, .id = id, .below = tops->of[id], .kind = kind, .has_sp = has_sp};
    tops->of[id] = machine->depth;
    machine->totals->frames[kind]++;
    if (machine->depth > machine->totals->max_depth)
        machine->totals->max_depth = machine->depth;
    machine->no_memory = !open_frame(graph, thread, depth, kind, id, jumped);
    return true;
}

/* Closes the frame on top. */
static inline void quick_close(struct ct_graph *graph, struct thread *thread, uint8_t cause)
{
    struct ct_machine *machine = &thread->machine;
    const struct ct_frame *frame = &machine->frames[--machine->depth];
    uint64_t duration = machine->time - frame->begin;
    machine->tops[frame->kind].of[frame->id] = frame->below;
    if (machine->depth)
        machine->frames[machine->depth - 1].children += duration;
    machine->totals->causes[cause]++;
    thread->left = cause == CT_CAUSE_TAIL;
    machine->no_memory = !close_frame(graph, thread, machine->depth, frame, duration - frame->children, duration);
}

/* Takes units as long as they are such that each opens or closes one frame. */
static inline __attribute__((always_inline)) void run(struct ct_graph *graph, struct thread *thread,
                                                      const uint32_t unit_size)
{
    struct ct_machine *machine = &thread->machine;
    while (machine->unit < machine->unit_end && !machine->no_memory) {
        const uint8_t *at = machine->unit;
        uint64_t unit = load_unit(at, unit_size), sp = 0;
        bool has_sp = (unit & 7) == CT_FRAME;
        if (has_sp) {
            sp = unit;
            at += unit_size;
            if (!sp || at >= machine->unit_end)
                return;
            unit = load_unit(at, unit_size);
        }
        uint32_t event = unit & 7, id = (uint32_t)(unit & 0xFFFFFF) >> 3;
        bool whole = unit_size == 4 && unit & CT_WHOLE, jumped = false;
        uint64_t before = machine->time;
        if (unit_size == 4 && unit >> 24 && !(event == CT_ENTER && unit >> 24 == CT_WHOLE >> 24 && !has_sp))
            return;
        if (has_sp && (event != CT_ENTER || ct_is_funclet(machine, id)))
            return;
        uint64_t position = machine->position + has_sp;
        ct_tick(machine, unit, position);
        switch (event) {
        case CT_ENTER:
            jumped = machine->after_tail && may_tail(graph, machine->tail_from, id);
            if (!quick_open(graph, thread, CT_NODE_FUNCTION, id, sp, has_sp, jumped))
                goto not_mine;
            if (whole && !machine->no_memory) {
                machine->totals->events[CT_LEAVE]++;
                quick_close(graph, thread, CT_CAUSE_RETURN);
            }
            break;
        case CT_LEAVE:
        case CT_TAIL:
            if (!is_top(machine, CT_NODE_FUNCTION, id))
                goto not_mine;
            quick_close(graph, thread, event == CT_TAIL ? CT_CAUSE_TAIL : CT_CAUSE_RETURN);
            break;
        case CT_CALL:
            if (machine->after_tail || id >= machine->reader->id_count ||
                !is_top(machine, CT_NODE_FUNCTION, machine->reader->holders[id]) ||
                !quick_open(graph, thread, CT_NODE_CALL, id, 0, false, false))
                goto not_mine;
            break;
        case CT_RETURN:
            if (!is_top(machine, CT_NODE_CALL, id))
                goto not_mine;
            quick_close(graph, thread, CT_CAUSE_RETURN);
            break;
        default:
            goto not_mine;
        }
        machine->unit = at + unit_size;
        machine->position = position + 1;
        machine->totals->units += 1 + has_sp;
        machine->totals->events[CT_FRAME] += has_sp;
        machine->totals->events[event]++;
        machine->after_tail = event == CT_TAIL;
        machine->tail_from = id;
        continue;
    not_mine:
        machine->time = before;
        return;
    }
}

/* What the machine was given, to its end. False: no memory. */
static bool take_steps(struct ct_graph *graph, struct thread *thread)
{
    struct ct_machine *machine = &thread->machine;
    struct ct_step step;
    do {
        if (thread->begun && ct_machine_is_plain(machine)) {
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
    thread->nobody = node_of(thread, NULL, CT_NODE_NOBODY, 0, false);
    return thread->nobody ? thread : NULL;
}

/* One block, whose units are behind it. False: no memory. */
static bool fold(struct ct_graph *graph, struct thread *thread, const struct ct_events *block, uint32_t units)
{
    struct ct_piece piece = {
        .units_at = (const uint8_t *)(block + 1),
        .first_unit = block->first_unit,
        .open_tsc = block->open_tsc,
        .close_tsc = block->close_tsc,
        .units = units,
    };
    thread->about.units += units;
    thread->about.lost += ct_machine_skip_to(&thread->machine, piece.first_unit);
    if (!take_steps(graph, thread))
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

/* The slot that is to be counted next: of each thread one after the other. NULL: there is none. */
static struct ct_events *next_block(const struct ct_graph *graph, struct ct_events *const *slots, uint32_t count,
                                    bool last)
{
    struct ct_events *found = NULL;
    for (uint32_t at = 0; at < count; at++) {
        struct ct_events *block = slots[at];
        bool full = __atomic_load_n(&block->chunk.flags, __ATOMIC_ACQUIRE) & CT_EVENTS_FULL;
        if (__atomic_load_n(&block->chunk.kind, __ATOMIC_ACQUIRE) != CT_CHUNK_EVENTS || !(full || last))
            continue;
        uint32_t index = block->thread_index;
        const struct thread *thread = index < graph->thread_room ? graph->threads[index] : NULL;
        uint64_t position = thread ? thread->machine.position : 0;
        if (block->first_unit == position || last)
            if (!found || block->first_unit < found->first_unit)
                found = block;
    }
    return found;
}

uint32_t ct_graph_take(struct ct_graph *graph, void *const *slots, uint32_t count, uint32_t last, uint32_t *status)
{
    uint32_t taken = 0;
    *status = CT_READER_OK;
    while (taken < BLOCKS_PER_TAKE || last) {
        struct ct_events *block = next_block(graph, (struct ct_events *const *)slots, count, last);
        if (!block)
            break;
        struct thread *thread = thread_of(graph, block);
        if (!thread || !fold(graph, thread, block, units_in(graph, block))) {
            *status = CT_READER_NO_MEMORY;
            break;
        }
        taken++;
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
        memset(node->row.counts, 0, sizeof node->row.counts);
        memset(node->active, 0, sizeof node->active);
        node->row.views = 0;
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
    bool memory = put(bytes, &about, sizeof about);
    for (uint32_t at = 0; at < thread->node_count && memory; at++) {
        struct ct_graph_row row = node_at(thread, at)->row;
        if (row.caller == CT_NONE) { /* of a place only what jumps make different is kept apart */
            row.counts[STACK].calls = row.counts[JUMPS].calls;
            row.counts[STACK].self += row.counts[JUMPS].self;
            row.counts[STACK].total = row.counts[JUMPS].total;
        }
        memory = put(bytes, &row, sizeof row);
    }
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
