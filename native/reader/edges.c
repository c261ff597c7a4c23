/* Who calls a function, and what it calls: calls and times by calling context.
 *
 * The path holds the open frames, and below each frame that was entered by a jump those that it replaced. A context
 * is a chosen frame with up to `depth` others: its callers, or one of the chains of calls that it makes. Contexts are
 * nodes of a tree. Each frame of the path has the nodes that it counts for: of level 0, it being a chosen one itself,
 * and of each further level, one at most.
 *
 * A call site whose callee is a function that records itself is no level of its own. Whether it is, is known when the
 * function is entered right behind it; else the call counts when it ends, or when something else is entered.
 *
 * A context is also one of the part of the trace in which its last call was made: that of the chosen function by its
 * callers, or that of the callee.
 *
 * A frame entered by a jump that a fiber comes back to has lost the ones it replaced.
 */
#include "machine.h"
#include "sites.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_PER_RUN (1u << 20)
#define NO_NODE CT_NONE

struct place { /* on the path */
    uint32_t id;
    uint32_t depth; /* of its frame */
    uint32_t part;  /* of the trace in which it was entered */
    uint8_t kind;
    bool tail;    /* replaced the place below by a jump */
    bool told;    /* its nodes are known */
    bool counts;  /* it has any */
    bool through; /* a call site, whose callee stands for it */
};

struct ct_edges {
    struct ct_machine machine;
    struct ct_totals totals;
    struct ct_edge_options options;
    uint8_t *functions, *sites; /* copies of the options' bits */
    struct ct_sites known;      /* of call sites */
    uint32_t *parts;            /* copy of the options' */
    uint32_t part;              /* of what comes next */

    struct place *path;
    uint64_t path_room;
    uint32_t path_count;
    uint32_t *nodes; /* (depth + 1) of each place that counts */
    uint64_t nodes_room;

    struct ct_edge *edges;
    uint32_t *active; /* by node: open frames that count for it */
    uint64_t edge_room, active_room;
    uint32_t edge_count;
    uint32_t *slots; /* hash table of node + 1 */
    uint64_t slot_count;
};

static uint8_t *copy_bits(const uint8_t *bits, uint32_t count)
{
    uint8_t *copy = calloc(count / 8 + 1u, 1);
    if (copy && count)
        memcpy(copy, bits, (count + 7) / 8);
    return copy;
}

static bool bit(const uint8_t *bits, uint32_t count, uint32_t at)
{
    return at < count && bits[at / 8] >> at % 8 & 1;
}

struct ct_edges *ct_reader_edges_open(struct ct_reader *reader, const struct ct_edge_options *options)
{
    struct ct_edges *edges = calloc(1, sizeof *edges);
    if (!edges)
        return NULL;
    edges->options = *options;
    if (edges->options.depth > CT_EDGE_LEVELS)
        edges->options.depth = CT_EDGE_LEVELS;
    ct_machine_start(&edges->machine, reader, options->first_thread, options->thread_count, &edges->totals);
    edges->functions = copy_bits(options->functions, options->function_bits);
    edges->sites = copy_bits(options->sites, options->site_bits);
    edges->slot_count = 1024;
    edges->slots = calloc(edges->slot_count, sizeof *edges->slots);
    if (options->parts) {
        edges->parts = malloc(options->part_count * sizeof *edges->parts + 1);
        if (edges->parts && options->part_count)
            memcpy(edges->parts, options->parts, options->part_count * sizeof *edges->parts);
    }
    if ((edges->parts || !options->parts) && edges->functions && edges->sites && edges->slots &&
        ct_read_sites(&edges->known, reader, options->through, options->through_bits))
        return edges;
    ct_reader_edges_close(edges);
    return NULL;
}

void ct_reader_edges_close(struct ct_edges *edges)
{
    ct_machine_free(&edges->machine);
    free(edges->functions);
    free(edges->sites);
    ct_free_sites(&edges->known);
    free(edges->parts);
    free(edges->path);
    free(edges->nodes);
    free(edges->edges);
    free(edges->active);
    free(edges->slots);
    free(edges);
}

/* ---- the tree of contexts ---- */

static uint64_t slot_of(const struct ct_edges *edges, const struct ct_edge *key)
{
    uint64_t hash = ((uint64_t)key->parent << 32 | key->id) * 0x9E3779B97F4A7C15u;
    hash ^= ((uint64_t)key->part << 8 | key->kind << 1 | key->tail) * 0xC2B2AE3D27D4EB4Fu;
    uint64_t slot = (hash ^ hash >> 29) & (edges->slot_count - 1);
    while (edges->slots[slot]) {
        const struct ct_edge *other = &edges->edges[edges->slots[slot] - 1];
        if (other->parent == key->parent && other->id == key->id && other->kind == key->kind &&
            other->tail == key->tail && other->part == key->part)
            break;
        slot = (slot + 1) & (edges->slot_count - 1);
    }
    return slot;
}

/* False: no memory. */
static bool grow_slots(struct ct_edges *edges)
{
    uint32_t *grown = calloc((size_t)edges->slot_count * 2, sizeof *grown);
    if (!grown)
        return false;
    free(edges->slots);
    edges->slots = grown;
    edges->slot_count *= 2;
    for (uint32_t node = 0; node < edges->edge_count; node++)
        edges->slots[slot_of(edges, &edges->edges[node])] = node + 1;
    return true;
}

static bool is_full(const struct ct_edges *edges)
{
    return edges->options.limit && edges->edge_count == edges->options.limit;
}

/* The node of this key; NO_NODE: no memory, or there are too many. */
static uint32_t node_of(struct ct_edges *edges, uint32_t parent, uint32_t part, uint8_t kind, uint32_t id, bool tail)
{
    struct ct_edge key = {.parent = parent, .id = id, .kind = kind, .tail = tail, .part = part};
    uint64_t slot = slot_of(edges, &key);
    if (edges->slots[slot])
        return edges->slots[slot] - 1;
    if (is_full(edges) || edges->edge_count == NO_NODE - 1 ||
        !ct_reserve_items((void **)&edges->edges, &edges->edge_room, edges->edge_count + 1u, sizeof key) ||
        !ct_reserve_items((void **)&edges->active, &edges->active_room, edges->edge_count + 1u, sizeof(uint32_t)))
        return NO_NODE;
    edges->edges[edges->edge_count] = key;
    edges->slots[slot] = ++edges->edge_count;
    if (edges->edge_count > edges->slot_count / 2 && !grow_slots(edges))
        return NO_NODE;
    return edges->edge_count - 1;
}

/* ---- the path ---- */

static uint32_t *nodes_at(const struct ct_edges *edges, uint32_t at)
{
    return &edges->nodes[(uint64_t)at * (edges->options.depth + 1)];
}

/* Who called, or jumped to, the place: at - 1, or below the call site that it stands for. `at` itself if nobody did. */
static uint32_t caller_of(const struct ct_edges *edges, uint32_t at)
{
    uint32_t caller = at;
    do {
        if (!caller)
            return at;
        caller--;
    } while (edges->path[caller].through);
    return caller;
}

static bool chosen(const struct ct_edges *edges, const struct place *place)
{
    if (edges->options.flags & CT_EDGES_ALL)
        return true;
    if (place->kind == CT_NODE_FUNCTION)
        return bit(edges->functions, edges->options.function_bits, place->id);
    return place->kind == CT_NODE_CALL && bit(edges->sites, edges->options.site_bits, place->id);
}

/* Levels 1 and up of a chosen place: its callers. */
static bool tell_callers(struct ct_edges *edges, uint32_t at)
{
    uint32_t *nodes = nodes_at(edges, at), part = edges->path[at].part;
    for (uint32_t level = 1; level <= edges->options.depth; level++) {
        uint32_t caller = caller_of(edges, at);
        if (caller == at) {
            nodes[level] = node_of(edges, nodes[level - 1], part, CT_NODE_NOBODY, 0, false);
            return nodes[level] != NO_NODE;
        }
        const struct place *place = &edges->path[caller];
        nodes[level] = node_of(edges, nodes[level - 1], part, place->kind, place->id, edges->path[at].tail);
        if (nodes[level] == NO_NODE)
            return false;
        at = caller;
    }
    return true;
}

/* Levels 1 and up of any place: as callee of what its caller counts for. */
static bool tell_callees(struct ct_edges *edges, uint32_t at, uint32_t caller)
{
    uint32_t *nodes = nodes_at(edges, at);
    const struct place *place = &edges->path[at];
    const uint32_t *above = nodes_at(edges, caller);
    for (uint32_t level = 1; level <= edges->options.depth; level++) {
        if (above[level - 1] == NO_NODE)
            continue;
        nodes[level] = node_of(edges, above[level - 1], place->part, place->kind, place->id, place->tail);
        if (nodes[level] == NO_NODE)
            return false;
        edges->path[at].counts = true;
    }
    return true;
}

/* Finds the nodes of a place. False: no memory. */
static bool tell(struct ct_edges *edges, uint32_t at)
{
    struct place *place = &edges->path[at];
    uint32_t *nodes = nodes_at(edges, at), caller = caller_of(edges, at);
    bool is_callee = edges->options.callees && caller != at && edges->path[caller].counts;
    place->told = true;
    place->counts = chosen(edges, place);
    if (!place->counts && !is_callee)
        return true;
    memset(nodes, 0xFF, (edges->options.depth + 1) * sizeof *nodes);
    if (place->counts) {
        nodes[0] = node_of(edges, NO_NODE, place->part, place->kind, place->id, false);
        if (nodes[0] == NO_NODE)
            return false;
    }
    if (edges->options.callees ? is_callee && !tell_callees(edges, at, caller) : !tell_callers(edges, at))
        return false;
    for (uint32_t level = 0; level <= edges->options.depth; level++)
        if (nodes[level] != NO_NODE)
            edges->active[nodes[level]]++;
    return true;
}

/* Is the function that is entered right in this call what the call site calls? */
static bool stands_for(const struct ct_edges *edges, const struct place *call, uint8_t kind, uint32_t id)
{
    return call->kind == CT_NODE_CALL && kind == CT_NODE_FUNCTION && ct_site_calls(&edges->known, call->id, id);
}

/* Of the places that jumps have replaced in one frame no more are kept than can be told of. */
static void forget_oldest_replaced(struct ct_edges *edges)
{
    uint32_t first = edges->path_count;
    while (first && edges->path[first - 1].depth == edges->path[edges->path_count - 1].depth)
        first--;
    uint32_t rest = edges->path_count - first - 1;
    if (rest < edges->options.depth)
        return;
    size_t row = (edges->options.depth + 1) * sizeof *edges->nodes;
    memmove(&edges->path[first], &edges->path[first + 1], rest * sizeof *edges->path);
    memmove(nodes_at(edges, first), nodes_at(edges, first + 1), rest * row);
    edges->path_count--;
}

/* False: no memory. */
static bool open_frame(struct ct_edges *edges, const struct ct_step *step)
{
    while (edges->path_count && edges->path[edges->path_count - 1].depth > step->depth)
        edges->path_count--;
    struct place place = {.id = step->id, .depth = step->depth, .part = edges->part, .kind = step->kind};
    if (place.kind == CT_NODE_CALL)
        place.id = ct_same_site(&edges->known, place.id);
    place.tail = step->flags & CT_STEP_TAIL_CALLEE && !(edges->options.flags & CT_EDGES_BY_STACK) &&
                 edges->path_count && edges->path[edges->path_count - 1].depth == step->depth;
    if (place.tail)
        forget_oldest_replaced(edges);
    while (!place.tail && edges->path_count && edges->path[edges->path_count - 1].depth == step->depth)
        edges->path_count--;
    uint32_t at = edges->path_count, row = edges->options.depth + 1;
    if (at && !place.tail) {
        struct place *below = &edges->path[at - 1];
        if (!below->told && stands_for(edges, below, place.kind, place.id))
            below->through = true;
        else if (!below->told && !below->through && !tell(edges, at - 1))
            return false;
    }
    if (!ct_reserve_items((void **)&edges->path, &edges->path_room, at + 1u, sizeof place) ||
        !ct_reserve_items((void **)&edges->nodes, &edges->nodes_room, (at + 1u) * (uint64_t)row, sizeof *edges->nodes))
        return false;
    edges->path[at] = place;
    edges->path_count++;
    return (place.kind == CT_NODE_CALL && ct_site_callee(&edges->known, place.id) != CT_NONE) || tell(edges, at);
}

/* The time between a call and the function that stands for it is its caller's. */
static void give_to_caller(struct ct_edges *edges, uint32_t at, uint64_t time)
{
    uint32_t caller = caller_of(edges, at);
    if (caller == at || !edges->path[caller].counts)
        return;
    const uint32_t *nodes = nodes_at(edges, caller);
    for (uint32_t level = 0; level <= edges->options.depth; level++)
        if (nodes[level] != NO_NODE)
            edges->edges[nodes[level]].self += time;
}

/* False: no memory. */
static bool close_frame(struct ct_edges *edges, const struct ct_step *step)
{
    while (edges->path[edges->path_count - 1].depth > step->depth)
        edges->path_count--;
    uint32_t at = edges->path_count - 1;
    if (!edges->path[at].told && !edges->path[at].through && !tell(edges, at))
        return false;
    if (edges->path[at].through && edges->options.flags & CT_EDGES_BY_STACK)
        give_to_caller(edges, at, step->self);
    const uint32_t *nodes = nodes_at(edges, at);
    for (uint32_t level = 0; level <= edges->options.depth && edges->path[at].counts; level++) {
        if (nodes[level] == NO_NODE)
            continue;
        struct ct_edge *edge = &edges->edges[nodes[level]];
        edge->calls += !(step->flags & CT_STEP_RESUMED);
        edge->self += step->self;
        if (!--edges->active[nodes[level]])
            edge->total += step->time - step->begin;
    }
    /* What was left by a jump stays for the one that it leads to. */
    while (step->cause != CT_CAUSE_TAIL && edges->path_count && edges->path[edges->path_count - 1].depth == step->depth)
        edges->path_count--;
    return true;
}

/* The part that begins with named mark `number`; 0: with the trace. */
static uint32_t part_behind(const struct ct_edges *edges, uint32_t number)
{
    if (!edges->parts)
        return 0;
    return number < edges->options.part_count ? edges->parts[number] : CT_NONE;
}

/* A thread begins behind the last mark that does not know it. */
static void begin_thread(struct ct_edges *edges)
{
    const struct ct_machine *machine = &edges->machine;
    uint32_t next = edges->options.part_count;
    for (uint32_t at = machine->mark; at < machine->mark_end; at++)
        if (machine->reader->marks[at].number < next)
            next = machine->reader->marks[at].number;
    edges->path_count = 0;
    edges->part = part_behind(edges, next ? next - 1 : 0);
}

uint32_t ct_reader_edges_run(struct ct_edges *edges)
{
    struct ct_step step;
    for (uint32_t count = 0; count < STEPS_PER_RUN; count++) {
        if (!ct_machine_next(&edges->machine, &step))
            return edges->machine.no_memory ? CT_PULL_NO_MEMORY : CT_PULL_END;
        bool memory = true;
        if (step.type == CT_STEP_THREAD)
            begin_thread(edges);
        else if (step.type == CT_STEP_MARK && step.id)
            edges->part = part_behind(edges, step.id);
        else if (step.type == CT_STEP_OPEN)
            memory = open_frame(edges, &step);
        else if (step.type == CT_STEP_CLOSE)
            memory = close_frame(edges, &step);
        if (!memory)
            return is_full(edges) ? CT_PULL_LIMIT : CT_PULL_NO_MEMORY;
    }
    return CT_PULL_MORE;
}

const struct ct_edge *ct_reader_edges_of(const struct ct_edges *edges, uint32_t *count)
{
    *count = edges->edge_count;
    return edges->edges;
}
