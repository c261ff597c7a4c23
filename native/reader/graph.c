/* Recordings without events: what blocks of units say is counted while they come, and they are given back.
 *
 * What counts for what is as in edges.c and summary.c, by the same machine; the numbers are those that they would give
 * for a file with all the units in it. This is done in two steps, for each thread:
 *
 *   1. how often frames were closed, and how long they were open, by context (contexts.h)
 *   2. contexts are folded into a table of nodes, when it is written down, or when there are too many of them
 *
 * so that next to nothing is to be done for a unit: real programs are in few contexts, again and again. What a frame
 * counts for can be told of its context alone. A node is
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
#include "contexts.h"
#include "machine.h"
#include "sites.h"

#include <stdlib.h>
#include <string.h>

#define POOL 256u               /* nodes that are allocated together */
#define CONTEXTS (1u << 12)     /* before they are folded; more for stacks that alone have as many */
#define BLOCKS_PER_TAKE 16u     /* before somebody who waits for room is told */
#define THREAD_LIMIT (1u << 20) /* no writer has more */
#define JUMPS CT_GRAPH_BY_JUMPS
#define STACK CT_GRAPH_BY_STACK

struct node {
    uint32_t key;       /* of kind, id and whether a jump leads to it: a function's is its id */
    uint32_t active;    /* contexts being folded that count for it, an edge in both views */
    struct node *place; /* an edge's own */
    struct ct_graph_count both;

    struct node *caller; /* an edge's; NULL: this is a place, or a call site */
    uint64_t hash;
    uint32_t position, views;
    uint32_t only_active[CT_GRAPH_VIEWS]; /* in one view, and not in the other */
    struct ct_graph_count only[CT_GRAPH_VIEWS];
};

struct folded {                                  /* a context that is being folded, or one below it */
    struct node *place, *edge;                   /* of a call that something stands for: its caller's */
    struct node *stack_edge;                     /* in the other view; NULL: the same */
    struct node *caller, *stack_caller, *jumper; /* under whom it counts; a jumper's edge is one of its own */
    struct node *site;                           /* a call's */
    uint64_t inside;                             /* time in the contexts above it */
};

struct thread {
    struct ct_machine machine;
    struct ct_totals totals;
    struct ct_graph_thread about;
    bool begun; /* a step was given */
    struct ct_contexts contexts;
    struct ct_context *top;  /* that of the open frames */
    struct ct_context *left; /* what was closed last, if by a jump */
    uint32_t context_limit;
    struct folded *folded; /* by depth */
    uint64_t folded_room;
    struct node **pools;
    uint64_t pool_room;
    struct node **slots; /* hash table */
    uint32_t node_count, slot_count;
    struct node *nobody;
};

struct ct_graph {
    struct ct_reader *reader; /* of the modules that are known so far */
    struct ct_budget *budget; /* NULL: nothing goes into the file */
    struct ct_sites sites;
    struct thread **threads; /* by index; NULL: nothing was seen of it */
    uint64_t thread_room;
};

/* ---- nodes ---- */

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
    thread->node_count++;
    thread->slots[slot] = node;
    if (caller && !(node->place = node_of(thread, NULL, key & ~key_of(0, 0, true))))
        return NULL;
    return node;
}

/* An edge below a place, for frames that count in these views. NULL: no memory. */
static struct node *edge_of(struct thread *thread, struct node *caller, uint32_t key, uint32_t views)
{
    struct node *edge = node_of(thread, caller, key);
    if (!edge)
        return NULL;
    edge->views |= views;
    edge->place->views |= views & 1u << JUMPS;
    return edge;
}

/* ---- from contexts to nodes ---- */

/* Finds the nodes that frames of a place count for. False: no memory. */
static bool tell(struct thread *thread, struct folded *folded, uint8_t kind, uint32_t id)
{
    uint32_t key = key_of(kind, id, false);
    struct node *jumper = folded->jumper;
    if (!jumper && folded->caller == folded->stack_caller) {
        folded->edge = edge_of(thread, folded->caller, key, 1u << JUMPS | 1u << STACK);
        if (!folded->edge)
            return false;
        folded->edge->active++;
    } else {
        folded->edge = edge_of(thread, jumper ? jumper : folded->caller, key_of(kind, id, jumper), 1u << JUMPS);
        folded->stack_edge = edge_of(thread, folded->stack_caller, key, 1u << STACK);
        if (!folded->edge || !folded->stack_edge)
            return false;
        folded->edge->only_active[JUMPS]++;
        folded->stack_edge->only_active[STACK]++;
    }
    folded->place = folded->edge->place;
    folded->place->active++;
    return true;
}

/* False: no memory. */
static bool begin_context(const struct ct_graph *graph, struct thread *thread, const struct ct_context *context)
{
    struct folded *folded = &thread->folded[context->depth], *below = folded - 1;
    const struct ct_opened *what = &context->what;
    *folded = (struct folded){.caller = below->place, .stack_caller = below->place};
    if (context->parent->what.state == CT_CALL_THROUGH)
        folded->caller = below->jumper ? below->jumper : below->caller;
    if (what->jumper != CT_NONE && !(folded->jumper = node_of(thread, NULL, what->jumper)))
        return false;
    if (what->kind != CT_NODE_CALL)
        return tell(thread, folded, what->kind, what->id);
    folded->site = node_of(thread, NULL, key_of(CT_GRAPH_SITE, what->id, false));
    if (!folded->site)
        return false;
    folded->site->active++;
    if (what->state != CT_CALL_THROUGH)
        return tell(thread, folded, CT_NODE_CALL, ct_same_site(&graph->sites, what->id));
    folded->place = below->place;
    folded->edge = below->edge;
    folded->stack_edge = below->stack_edge;
    return true;
}

static void add(struct ct_graph_count *count, uint64_t calls, uint64_t self, uint64_t total)
{
    count->calls += calls;
    count->self += self;
    count->total += total;
}

/* What counted for a node in one view only. */
static void leave_only(struct node *node, int view, uint64_t calls, uint64_t self, uint64_t time)
{
    bool outermost = !--node->only_active[view] && !node->active;
    add(&node->only[view], calls, self, outermost ? time : 0);
}

/* For an edge in both views. */
static void leave_edge(struct node *edge, uint64_t calls, uint64_t self, uint64_t time)
{
    bool alone = !(edge->only_active[JUMPS] | edge->only_active[STACK]);
    bool outermost = !--edge->active;
    add(&edge->both, calls, self, outermost && alone ? time : 0);
    for (int view = 0; view < CT_GRAPH_VIEWS && outermost && !alone; view++)
        if (!edge->only_active[view])
            edge->only[view].total += time;
}

static void end_context(struct thread *thread, const struct ct_context *context)
{
    struct folded *folded = &thread->folded[context->depth], *below = folded - 1;
    uint64_t calls = context->what.resumed ? 0 : context->closed;
    uint64_t time = context->time, self = time - folded->inside;
    below->inside += time;
    if (folded->site)
        add(&folded->site->both, calls, self, --folded->site->active ? 0 : time);
    if (context->what.state == CT_CALL_THROUGH) { /* the time between the call and what it calls is its caller's */
        struct node *edge = below->stack_edge ? below->stack_edge : below->edge;
        if (edge) {
            below->place->only[STACK].self += self;
            edge->only[STACK].self += self;
        }
        return;
    }
    if (!--folded->place->active)
        folded->place->both.total += time;
    if (folded->stack_edge) {
        leave_only(folded->edge, JUMPS, calls, self, time);
        leave_only(folded->stack_edge, STACK, calls, self, time);
    } else {
        leave_edge(folded->edge, calls, self, time);
    }
}

/* Of contexts beside each other, this one or the next that there is something to tell of. */
static const struct ct_context *used(const struct ct_context *context)
{
    while (context && !context->closed && !context->first_above)
        context = context->beside;
    return context;
}

/* Adds what is in the contexts to the nodes: the time of open frames is still missing there. False: no memory. */
static bool fold(const struct ct_graph *graph, struct thread *thread)
{
    if (!ct_reserve_items((void **)&thread->folded, &thread->folded_room, thread->totals.max_depth + 1u,
                          sizeof *thread->folded))
        return false;
    thread->folded[0] = (struct folded){.place = thread->nobody};
    const struct ct_context *root = thread->contexts.root, *context = root, *next = used(root->first_above);
    while (next || context != root) {
        if (next) {
            context = next;
            if (!begin_context(graph, thread, context))
                return false;
            next = used(context->first_above);
        } else {
            end_context(thread, context);
            next = used(context->beside);
            context = context->parent;
        }
    }
    return true;
}

/* Opens contexts once more, in an empty tree: the innermost comes first. False: no memory. */
static bool reopen(struct thread *thread, const struct ct_context *open, uint32_t count)
{
    struct ct_context *top = thread->contexts.root;
    for (uint32_t at = count; at--;) {
        struct ct_context *context = ct_context_of(&thread->contexts, top, &open[at].what);
        if (!context)
            return false;
        context->opening = open[at].opening;
        top = context;
    }
    thread->top = top;
    return true;
}

/* Folds the contexts, and forgets all but those of open frames. False: no memory. */
static bool start_over(const struct ct_graph *graph, struct thread *thread)
{
    uint32_t depth = thread->top->depth, count = 0;
    struct ct_context *open = malloc((depth + 1u) * sizeof *open);
    if (!open || !fold(graph, thread)) {
        free(open);
        return false;
    }
    for (const struct ct_context *context = thread->top; context->depth; context = context->parent)
        open[count++] = *context;
    struct ct_context *left = thread->left;
    struct ct_opened what = left ? left->what : (struct ct_opened){0};
    bool memory = ct_contexts_clear(&thread->contexts) && reopen(thread, open, count) &&
                  (!left || (thread->left = ct_context_of(&thread->contexts, thread->top, &what)));
    thread->context_limit = depth < CONTEXTS / 4 ? CONTEXTS : depth * 4;
    free(open);
    return memory;
}

/* ---- units ---- */

/* The context of a frame that is opened above `parent`. NULL: no memory. */
static struct ct_context *opened_in(const struct ct_graph *graph, struct thread *thread, struct ct_context *parent,
                                    struct ct_opened what)
{
    const struct ct_sites *sites = &graph->sites;
    if (parent->what.state == CT_CALL_ASKED) {
        struct ct_opened call = parent->what;
        bool through = what.kind == CT_NODE_FUNCTION && ct_site_calls(sites, ct_same_site(sites, call.id), what.id);
        call.state = through ? CT_CALL_THROUGH : CT_CALL_SHOWN;
        parent = ct_context_of(&thread->contexts, parent->parent, &call);
        if (!parent)
            return NULL;
    }
    if (what.kind == CT_NODE_CALL && ct_site_callee(sites, ct_same_site(sites, what.id)) != CT_NONE)
        what.state = CT_CALL_ASKED;
    return ct_context_of(&thread->contexts, parent, &what);
}

/* What is entered first in a call tells which of the call's contexts is open. */
static inline void answer(struct ct_context *call, struct ct_context *entered)
{
    if (entered->parent != call)
        entered->parent->opening = call->opening;
}

static inline void close_context(struct ct_context *context, uint64_t time)
{
    context->closed++;
    context->time += time - context->opening.begin;
}

/* False: no memory. */
static bool take(const struct ct_graph *graph, struct thread *thread, const struct ct_step *step)
{
    if (!thread->begun)
        thread->totals.first_time = step->time;
    thread->begun = true;
    if (step->type == CT_STEP_OPEN) {
        const struct ct_frame *frame = &thread->machine.frames[step->depth];
        bool jumped = step->flags & CT_STEP_TAIL_CALLEE && thread->left;
        struct ct_opened what = {
            .id = step->id,
            .jumper = jumped ? ct_jumper(thread->left) : CT_NONE,
            .kind = step->kind,
            .resumed = step->flags & CT_STEP_RESUMED,
        };
        struct ct_context *context = opened_in(graph, thread, thread->top, what);
        if (!context)
            return false;
        answer(thread->top, context);
        context->opening = (struct ct_opening){step->time, frame->sp | (frame->has_sp ? CT_HAS_SP : 0) | CT_IN_MACHINE};
        thread->top = context;
        thread->left = NULL;
    } else if (step->type == CT_STEP_CLOSE) {
        close_context(thread->top, step->time);
        thread->left = step->cause == CT_CAUSE_TAIL ? thread->top : NULL;
        thread->top = thread->top->parent;
    }
    return true;
}

static inline uint64_t load_unit(const uint8_t *at, uint32_t unit_size)
{
    uint64_t unit = 0;
    memcpy(&unit, at, unit_size);
    return unit;
}

/* What happened to the context before the unit that opens a frame: it was opened itself, which changes nothing in the
 * unit's code, or closed. Then the code becomes one of no unit that opens a frame. */
enum { OPENED = 0, JUMPED = CT_ENTER ^ CT_TAIL, RETURNED = CT_ENTER ^ CT_EXT };

static inline struct ct_after *after_of(struct ct_context *context, uint32_t code)
{
    return &context->after[code * 0x9E3779B1u >> (32 - CT_AFTER_BITS)];
}

/* What a unit opens above `top`, once that `happened` to the context before. NULL: more than a frame that is opened
 * follows from the unit, or there is no room, or too many contexts. */
static __attribute__((noinline)) struct ct_context *look_up(const struct ct_graph *graph, struct thread *thread,
                                                            struct ct_context *top, struct ct_context *before,
                                                            uint32_t code, uint32_t happened)
{
    const struct ct_machine *machine = &thread->machine;
    const struct ct_reader *reader = machine->reader;
    uint32_t id = (code & 0xFFFFFF) >> 3, event = code & 7, flags = code >> 24;
    uint8_t kind = event == CT_CALL ? CT_NODE_CALL : CT_NODE_FUNCTION;
    if (id >= machine->tops[kind].count || top->depth >= machine->frame_room ||
        thread->contexts.count >= thread->context_limit)
        return NULL;
    if (flags && (event != CT_ENTER || flags != CT_WHOLE >> 24))
        return NULL;
    if (event == CT_CALL && (happened == JUMPED || top->what.kind != CT_NODE_FUNCTION || id >= reader->id_count ||
                             reader->holders[id] != top->what.id))
        return NULL;
    bool led = happened == JUMPED && ct_may_tail(reader, before->what.id, id);
    struct ct_opened what = {.id = id, .jumper = led ? ct_jumper(before) : CT_NONE, .kind = kind};
    struct ct_context *context = opened_in(graph, thread, top, what);
    if (!context)
        return NULL;
    if (context->depth > thread->totals.max_depth)
        thread->totals.max_depth = context->depth;
    struct ct_after *after = after_of(before, code);
    *after = (struct ct_after){{code ^ happened, after->codes[0]}, {context, after->contexts[0]}};
    return context;
}

/* Gives the machine the frames that are open, once units were taken without it. */
static void tell_machine(struct thread *thread)
{
    struct ct_machine *machine = &thread->machine;
    struct ct_context *context = thread->top;
    while (!(context->opening.sp & CT_IN_MACHINE))
        context = context->parent;
    uint32_t known = context->depth, depth = thread->top->depth;
    while (machine->depth > known) {
        const struct ct_frame *frame = &machine->frames[--machine->depth];
        machine->tops[frame->kind].of[frame->id] = frame->below;
    }
    for (context = thread->top; context->depth > known; context = context->parent) {
        machine->frames[context->depth - 1] = (struct ct_frame){
            .begin = context->opening.begin,
            .sp = context->opening.sp & ~CT_HAS_SP,
            .id = context->what.id,
            .kind = context->what.kind,
            .has_sp = context->opening.sp & CT_HAS_SP,
        };
        context->opening.sp |= CT_IN_MACHINE;
    }
    while (machine->depth < depth) {
        struct ct_frame *frame = &machine->frames[machine->depth++];
        uint32_t *top = &machine->tops[frame->kind].of[frame->id];
        frame->below = *top;
        *top = machine->depth;
    }
}

/* Takes units as long as each opens or closes one frame, and nothing else follows from it: as the machine does, and
 * counts. */
static inline __attribute__((always_inline)) void run(const struct ct_graph *graph, struct thread *thread,
                                                      const uint32_t unit_size)
{
    struct ct_machine *machine = &thread->machine;
    const uint8_t *at = machine->unit, *const begin = at, *const end = machine->unit_end;
    const uint64_t position = machine->position;
    const uint32_t code_bits = unit_size == 4 ? 0xFFFFFFFF : 0xFFFFFF;
    uint64_t events[8] = {0}, wholes = 0, time = machine->time;
    struct ct_context *top = thread->top, *before = top;
    uint32_t happened = OPENED;
    while (at < end) {
        const uint8_t *here = at;
        uint64_t unit = load_unit(here, unit_size), sp = 0;
        uint32_t code = (uint32_t)unit & code_bits;
        uint64_t now = unit_size == 4 ? position + (uint64_t)(here - begin) / 4 : ct_ticked(time, unit);
        if (code == top->closing) {
            close_context(top, now);
            before = top;
            top = top->parent;
            happened = RETURNED;
            events[code & 7]++;
            time = now;
            at += unit_size;
            continue;
        }
        if ((code & 7) == CT_FRAME) {
            here += unit_size;
            if (!unit || here >= end)
                break;
            sp = unit | CT_HAS_SP;
            unit = load_unit(here, unit_size);
            code = (uint32_t)unit & code_bits;
            now = unit_size == 4 ? now + 1 : ct_ticked(time, unit);
            if ((code & 7) != CT_ENTER || code >> 24 || ct_is_funclet(machine, code >> 3))
                break;
        }
        uint32_t event = code & 7;
        if (event == CT_ENTER || event == CT_CALL) {
            const struct ct_after *after = after_of(before, code);
            struct ct_context *entered = after->codes[0] == (code ^ happened) ? after->contexts[0]
                                         : after->codes[1] == (code ^ happened)
                                             ? after->contexts[1]
                                             : look_up(graph, thread, top, before, code, happened);
            if (!entered)
                break;
            answer(top, entered);
            before = top = entered;
            happened = OPENED;
            if (unit_size == 4 && code >> 24) {
                wholes++;
                top->closed++;
                top = top->parent;
                happened = RETURNED;
            } else {
                top->opening = (struct ct_opening){now, sp};
            }
        } else if (event == CT_TAIL && (code ^ CT_TAIL ^ CT_LEAVE) == top->closing) {
            close_context(top, now);
            before = top;
            top = top->parent;
            happened = JUMPED;
        } else {
            break;
        }
        events[CT_FRAME] += here != at;
        events[event]++;
        time = now;
        at = here + unit_size;
    }
    machine->unit = at;
    machine->position += (uint64_t)(at - begin) / unit_size;
    machine->time = time;
    machine->after_tail = happened == JUMPED;
    if (happened == JUMPED)
        machine->tail_from = before->what.id;
    thread->top = top;
    thread->left = happened == JUMPED ? before : NULL;
    tell_machine(thread);
    struct ct_totals *totals = machine->totals;
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
        if (thread->contexts.count >= thread->context_limit && !start_over(graph, thread))
            return false;
        if (thread->begun && ct_machine_is_plain(machine) && !machine->after_tail) {
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
    thread->context_limit = CONTEXTS;
    if (!thread->nobody || !ct_contexts_clear(&thread->contexts))
        return NULL;
    thread->top = thread->contexts.root;
    return thread;
}

/* The units of a block from the thread's position on, or all. False: no memory. */
static bool take_block(struct ct_graph *graph, struct thread *thread, const struct ct_events *block, uint32_t units)
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
        if (!thread || !take_block(graph, thread, block, units_in(graph, block))) {
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
    for (uint64_t at = 0; at < graph->thread_room; at++) /* what contexts count for depends on what is known */
        if (graph->threads[at] && !start_over(graph, graph->threads[at])) {
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
    for (uint64_t at = 0; at < graph->thread_room; at++)
        if (graph->threads[at])
            graph->threads[at]->machine.reader = reader;
    return 1;
}

/* A copy of a thread's nodes, by position. NULL: no memory. */
static struct node *copy_nodes(const struct thread *thread)
{
    struct node *nodes = malloc(thread->node_count * sizeof *nodes);
    for (uint32_t at = 0; at < thread->node_count && nodes; at++)
        nodes[at] = *node_at(thread, at);
    return nodes;
}

/* Makes them as they were; those that came since count nothing. */
static void restore_nodes(struct thread *thread, const struct node *nodes, uint32_t count)
{
    for (uint32_t at = 0; at < thread->node_count; at++) {
        struct node *node = node_at(thread, at);
        if (at < count) {
            *node = nodes[at];
            continue;
        }
        node->active = node->views = 0;
        node->both = (struct ct_graph_count){0};
        memset(node->only_active, 0, sizeof node->only_active);
        memset(node->only, 0, sizeof node->only);
    }
}

/* Counts the open frames as if they ended now, once (1), or no longer (-1). */
static void count_open(struct thread *thread, int once)
{
    for (struct ct_context *context = thread->top; context->depth; context = context->parent) {
        context->closed += (uint64_t)once;
        context->time += (uint64_t)once * (thread->machine.time - context->opening.begin);
    }
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
            add(&row->counts[view], 0, node->only[view].self, node->both.total + node->only[view].total);
            row->counts[view].calls += node->both.calls + node->only[view].calls;
            row->counts[view].self += node->both.self;
        }
    }
    for (uint32_t at = 0; at < thread->node_count && rows; at++) { /* a place has what leads to it */
        const struct node *edge = node_at(thread, at);
        for (int view = 0; view < CT_GRAPH_VIEWS && edge->place; view++) {
            struct ct_graph_count *count = &rows[edge->place->position].counts[view];
            add(count, 0, edge->both.self + edge->only[JUMPS].self, 0);
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
        uint32_t count = thread->node_count;
        struct node *nodes = copy_nodes(thread);
        memory = nodes;
        if (memory) {
            count_open(thread, 1);
            memory = fold(graph, thread) && put_thread(&bytes, thread, cause);
            count_open(thread, -1);
            restore_nodes(thread, nodes, count);
        }
        free(nodes);
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
        ct_contexts_free(&thread->contexts);
        for (uint64_t pool = 0; pool < thread->pool_room; pool++)
            free(thread->pools[pool]);
        free(thread->pools);
        free(thread->slots);
        free(thread->folded);
        free(thread);
    }
    free(graph->threads);
    ct_free_sites(&graph->sites);
    free(graph);
}
