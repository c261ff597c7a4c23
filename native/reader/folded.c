/* Stacks and what was spent in the innermost frame of each, a line "outer;inner WEIGHT" each.
 *
 * The stacks of a thread are a tree. When there are too many they are written out, and all but those of the open
 * frames forgotten.
 */
#include <stdlib.h>

#include "export.h"

#define DEEPEST 1000u

void ct_folded_free(struct ct_folded *folded)
{
    free(folded->stacks);
    free(folded->slots);
    free(folded->path);
    free(folded->line.data);
    free(folded->line_stacks);
    free(folded->line_ends);
}

/* ---- the tree ---- */

static uint64_t slot_of(const struct ct_folded *folded, uint32_t parent, uint32_t node)
{
    uint64_t hash = ((uint64_t)parent << 32 | node) * 0x9E3779B97F4A7C15u;
    uint64_t slot = (hash ^ hash >> 29) & (folded->slot_count - 1);
    while (folded->slots[slot]) {
        const struct ct_folded_stack *stack = &folded->stacks[folded->slots[slot] - 1];
        if (stack->parent == parent && stack->node == node)
            break;
        slot = (slot + 1) & (folded->slot_count - 1);
    }
    return slot;
}

/* Empties the table, which gets `count` slots. False: no memory. */
static bool make_slots(struct ct_folded *folded, uint64_t count)
{
    uint32_t *slots = calloc(count, sizeof *slots);
    if (!slots)
        return false;
    free(folded->slots);
    folded->slots = slots;
    folded->slot_count = count;
    return true;
}

static bool grow_slots(struct ct_folded *folded)
{
    if (!make_slots(folded, folded->slot_count * 2))
        return false;
    for (uint32_t stack = 1; stack < folded->count; stack++)
        folded->slots[slot_of(folded, folded->stacks[stack].parent, folded->stacks[stack].node)] = stack + 1;
    return true;
}

/* Nothing but the empty stack. False: no memory. */
static bool clear(struct ct_folded *folded)
{
    if (!ct_reserve_items((void **)&folded->stacks, &folded->room, 1, sizeof *folded->stacks) ||
        !make_slots(folded, 1024))
        return false;
    folded->stacks[0] = (struct ct_folded_stack){0};
    folded->count = 1;
    folded->line_depth = 0;
    return true;
}

/* The stack of a frame that was called in `parent`; 0: no memory. */
static uint32_t within(struct ct_folded *folded, uint32_t parent, uint32_t node)
{
    uint64_t slot = slot_of(folded, parent, node);
    if (folded->slots[slot])
        return folded->slots[slot] - 1;
    if (!ct_reserve_items((void **)&folded->stacks, &folded->room, folded->count + 1u, sizeof *folded->stacks))
        return 0;
    uint32_t stack = folded->count++;
    folded->stacks[stack] =
        (struct ct_folded_stack){.parent = parent, .depth = folded->stacks[parent].depth + 1, .node = node};
    folded->slots[slot] = folded->count;
    if (folded->count > folded->slot_count / 2 && !grow_slots(folded))
        return 0;
    return stack;
}

/* Opens a frame of `node` at `depth`. False: no memory. */
static bool push(struct ct_folded *folded, uint32_t depth, uint32_t node)
{
    if (!ct_reserve_items((void **)&folded->path, &folded->path_room, depth + 1u, sizeof *folded->path))
        return false;
    uint32_t below = depth ? folded->path[depth - 1] : 0;
    folded->path[depth] = depth < DEEPEST ? within(folded, below, node) : below;
    return folded->path[depth];
}

/* Only the stacks of the lowest `depth` open frames, without weight. False: no memory. */
static bool keep_open(struct ct_folded *folded, uint32_t depth)
{
    uint32_t kept = depth < DEEPEST ? depth : DEEPEST;
    uint32_t nodes[DEEPEST];
    for (uint32_t at = 0; at < kept; at++)
        nodes[at] = folded->stacks[folded->path[at]].node;
    if (!clear(folded))
        return false;
    for (uint32_t at = 0; at < depth; at++)
        if (!push(folded, at, at < kept ? nodes[at] : 0))
            return false;
    return true;
}

/* ---- writing ---- */

/* Makes the stack's names the line's, of which those that it begins with are there already. */
static enum ct_taken make_line(struct ct_export *made, uint32_t stack)
{
    struct ct_folded *folded = &made->folded;
    uint32_t missing[DEEPEST], count = 0;
    while (stack && (folded->stacks[stack].depth > folded->line_depth ||
                     folded->line_stacks[folded->stacks[stack].depth - 1] != stack)) {
        missing[count++] = stack;
        stack = folded->stacks[stack].parent;
    }
    folded->line_depth = folded->stacks[stack].depth;
    while (count) {
        stack = missing[--count];
        struct ct_node node = made->nodes.of[folded->stacks[stack].node];
        enum ct_taken taken = CT_TAKEN;
        const struct ct_text *text = ct_text_of(made, node.kind, node.id, &taken);
        if (!text)
            return taken;
        folded->line.size = folded->line_depth ? folded->line_ends[folded->line_depth - 1] : 0;
        char *at = ct_output_room(&folded->line, text->size + 1u);
        if (!at)
            return CT_TAKES_MEMORY;
        *at++ = ';';
        ct_output_end(&folded->line, ct_put(at, text->data, text->size));
        folded->line_stacks[folded->line_depth] = stack;
        folded->line_ends[folded->line_depth++] = folded->line.size;
    }
    return CT_TAKEN;
}

/* Writes the next stack that has a weight. */
static enum ct_taken write_one(struct ct_export *made)
{
    struct ct_folded *folded = &made->folded;
    while (folded->written < folded->count && !folded->stacks[folded->written].weight)
        folded->written++;
    if (folded->written == folded->count) {
        folded->writing = false;
        return CT_TAKEN;
    }
    enum ct_taken taken = make_line(made, folded->written);
    if (taken != CT_TAKEN)
        return taken;
    size_t size = folded->line_depth ? folded->line_ends[folded->line_depth - 1] : 0;
    char *at = ct_output_room(&made->output, made->thread_size + size + CT_NUMBER_ROOM);
    if (!at)
        return CT_TAKES_MEMORY;
    at = ct_put(at, made->thread, made->thread_size);
    if (size)
        at = ct_put(at, folded->line.data, size);
    *at++ = ' ';
    at = ct_put_number(at, folded->stacks[folded->written].weight);
    *at++ = '\n';
    ct_output_end(&made->output, at);
    folded->written++;
    return CT_TAKE_AGAIN;
}

static void name_thread(struct ct_export *made)
{
    const struct ct_thread_entry *thread = &made->machine.reader->threads[made->step.thread].entry;
    char *at = ct_put_number(CT_PUT(made->thread, "thread "), thread->index);
    at = CT_PUT(ct_put_number(CT_PUT(at, " (id "), thread->id), ")");
    made->thread_size = (uint32_t)(at - made->thread);
}

enum ct_taken ct_folded_take(struct ct_export *made)
{
    struct ct_folded *folded = &made->folded;
    const struct ct_step *step = &made->step;
    bool ends = !step->type || step->type == CT_STEP_THREAD;
    if (!folded->line_stacks) {
        folded->line_stacks = malloc(DEEPEST * sizeof *folded->line_stacks);
        folded->line_ends = malloc(DEEPEST * sizeof *folded->line_ends);
        if (!folded->line_stacks || !folded->line_ends || !clear(folded))
            return CT_TAKES_MEMORY;
    }
    bool full = step->type == CT_STEP_OPEN && folded->count > made->options.limit + step->depth + 1;
    if (folded->writing || full || (ends && folded->count > 1)) {
        if (!folded->writing)
            folded->written = 0;
        folded->writing = true;
        enum ct_taken taken = write_one(made);
        if (taken != CT_TAKEN)
            return taken;
        if (!keep_open(folded, ends ? 0 : step->depth))
            return CT_TAKES_MEMORY;
    }
    if (step->type == CT_STEP_THREAD) {
        name_thread(made);
    } else if (step->type == CT_STEP_OPEN) {
        uint32_t node = ct_node_number(&made->nodes, (struct ct_node){step->id, step->kind});
        if (node == CT_NONE || !push(folded, step->depth, node))
            return CT_TAKES_MEMORY;
    } else if (step->type == CT_STEP_CLOSE) {
        folded->stacks[folded->path[step->depth]].weight += step->self;
    }
    return CT_TAKEN;
}
