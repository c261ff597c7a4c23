/* Lines of a call tree.
 *
 * A frame's line comes before its children's and tells how and when the frame ended, so lines are held back in a
 * ring until that is known. A frame that outlasts the ring gives its line out open, and a CT_LINE_CLOSE later.
 *
 * Behind the limit one further line is begun, provisionally: it may turn out to be one more of the calls that the
 * last line folds.
 */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

#define NO_LINE UINT64_MAX
#define STEPS_PER_PULL (1u << 22)
#define LINES_PER_STEP 2u

struct ct_tree {
    struct ct_machine machine;
    struct ct_totals totals;
    struct ct_tree_options options;
    uint8_t *functions, *sites; /* copies of the options' bits */
    struct ct_line *ring;
    uint64_t head, next; /* line numbers: the first held back, the next to be made */
    uint64_t *line_of;   /* by depth: the line of the open frame, or NO_LINE */
    uint64_t line_of_room;
    uint64_t open_lines; /* lines below the limit whose frames are open */
    uint64_t behind;     /* steps taken behind the limit */
    uint64_t tail_line;  /* the line of the frame that was just left by a jump */
    uint32_t root;       /* depth of the topmost frame shown */
    bool shown;          /* inside a frame that is to be shown with its children */
    bool thread_told;
    bool full, done;
};

static uint8_t *copy_bits(const uint8_t *bits, uint32_t count)
{
    uint8_t *copy = malloc(count / 8 + 1u);
    if (copy && bits)
        memcpy(copy, bits, (count + 7) / 8);
    return copy;
}

struct ct_tree *ct_reader_tree_open(struct ct_reader *reader, const struct ct_tree_options *options)
{
    struct ct_tree *tree = calloc(1, sizeof *tree);
    if (!tree)
        return NULL;
    tree->options = *options;
    if (tree->options.window < 2 * LINES_PER_STEP)
        tree->options.window = 2 * LINES_PER_STEP;
    if (!tree->options.limit)
        tree->options.limit = UINT64_MAX - LINES_PER_STEP;
    tree->tail_line = NO_LINE;
    ct_machine_start(&tree->machine, reader, options->first_thread, options->thread_count, &tree->totals);
    tree->ring = malloc(tree->options.window * sizeof *tree->ring);
    bool filtered = options->functions || options->sites;
    if (filtered) {
        tree->functions = copy_bits(options->functions, options->functions ? options->function_bits : 0);
        tree->sites = copy_bits(options->sites, options->sites ? options->site_bits : 0);
    }
    if (!tree->ring || (filtered && (!tree->functions || !tree->sites))) {
        ct_reader_tree_close(tree);
        return NULL;
    }
    if (!options->functions)
        tree->options.function_bits = 0;
    if (!options->sites)
        tree->options.site_bits = 0;
    return tree;
}

void ct_reader_tree_close(struct ct_tree *tree)
{
    ct_machine_free(&tree->machine);
    free(tree->functions);
    free(tree->sites);
    free(tree->ring);
    free(tree->line_of);
    free(tree);
}

static struct ct_line *line_at(struct ct_tree *tree, uint64_t number)
{
    return &tree->ring[number % tree->options.window];
}

static bool held(const struct ct_tree *tree, uint64_t number)
{
    return number != NO_LINE && number >= tree->head;
}

/* The limit is reached: a provisional line is taken back. */
static void go_full(struct ct_tree *tree)
{
    uint64_t limit = tree->options.limit;
    if (tree->next > limit && line_at(tree, limit)->cause == CT_CAUSE_NONE)
        tree->open_lines--;
    tree->full = true;
    tree->next = limit;
}

/* Null: behind the limit. */
static struct ct_line *add_line(struct ct_tree *tree, const struct ct_step *step, uint8_t type, uint32_t depth)
{
    if (tree->next > tree->options.limit || (tree->next == tree->options.limit && type != CT_LINE_FRAME)) {
        go_full(tree);
        return NULL;
    }
    struct ct_line *line = line_at(tree, tree->next++);
    *line = (struct ct_line){
        .begin = step->time,
        .end = step->time,
        .count = 1,
        .value = step->value,
        .id = step->id,
        .depth = depth,
        .thread = step->thread,
        .type = type,
        .kind = step->kind,
        .cause = step->cause,
    };
    return line;
}

/* The heading of the thread, before its first line. False: behind the limit. */
static bool tell_thread(struct ct_tree *tree, const struct ct_step *step)
{
    if (tree->thread_told)
        return true;
    tree->thread_told = true;
    return add_line(tree, step, CT_LINE_THREAD, 0);
}

static bool bit(const uint8_t *bits, uint32_t count, uint32_t at)
{
    return at < count && bits[at / 8] >> at % 8 & 1;
}

static bool chosen(const struct ct_tree *tree, const struct ct_step *step)
{
    if (!tree->functions)
        return true;
    if (step->kind == CT_NODE_FUNCTION)
        return bit(tree->functions, tree->options.function_bits, step->id);
    return step->kind == CT_NODE_CALL && bit(tree->sites, tree->options.site_bits, step->id);
}

static void open_frame(struct ct_tree *tree, const struct ct_step *step)
{
    uint64_t *line_number = &tree->line_of[step->depth];
    *line_number = NO_LINE;
    /* where a chosen function goes on by a jump belongs to it */
    bool callee = step->flags & CT_STEP_TAIL_CALLEE && tree->tail_line != NO_LINE;
    if (!tree->shown && (callee || chosen(tree, step))) {
        tree->shown = true;
        tree->root = step->depth;
    }
    if (!tree->shown || tree->full)
        return;
    uint32_t depth = step->depth - tree->root;
    if ((tree->options.max_depth && depth >= tree->options.max_depth) || !tell_thread(tree, step))
        return;
    uint64_t number = tree->next;
    struct ct_line *line = add_line(tree, step, CT_LINE_FRAME, depth);
    if (!line)
        return;
    *line_number = number;
    tree->open_lines++;
    if (step->flags & CT_STEP_RESUMED)
        line->flags = CT_LINE_RESUMED;
    if (step->flags & CT_STEP_TAIL_CALLEE) {
        line->flags = CT_LINE_TAIL_CALLEE;
        if (held(tree, tree->tail_line)) {
            struct ct_line *caller = line_at(tree, tree->tail_line);
            caller->flags |= CT_LINE_TAIL_KNOWN;
            caller->tail_kind = step->kind;
            caller->tail_id = step->id;
        }
    }
    tree->tail_line = NO_LINE;
}

/* A leaf call that repeats the one on the line before it becomes part of that line. */
static bool fold(struct ct_tree *tree, uint64_t number)
{
    if (number + 1 != tree->next || !number || !held(tree, number - 1))
        return false;
    const struct ct_line *line = line_at(tree, number);
    struct ct_line *before = line_at(tree, number - 1);
    if (before->type != CT_LINE_FRAME || before->kind != line->kind || before->id != line->id ||
        before->depth != line->depth || before->thread != line->thread || before->value != line->value ||
        before->cause != CT_CAUSE_RETURN || line->cause != CT_CAUSE_RETURN || before->flags || line->flags)
        return false;
    before->count += line->count;
    before->duration += line->duration;
    before->end = line->end;
    tree->next--;
    return true;
}

static void close_frame(struct ct_tree *tree, const struct ct_step *step)
{
    uint64_t number = tree->line_of[step->depth];
    tree->tail_line = NO_LINE;
    if (number < tree->options.limit || (number == tree->options.limit && !tree->full)) {
        tree->open_lines--;
        struct ct_line *line = NULL;
        if (held(tree, number))
            line = line_at(tree, number);
        else if (!tree->full)
            line = add_line(tree, step, CT_LINE_CLOSE, step->depth - tree->root);
        if (line) {
            line->begin = step->begin;
            line->end = step->time;
            line->duration = step->time - step->begin;
            line->cause = step->cause;
            if (step->cause == CT_CAUSE_TAIL && line->type == CT_LINE_FRAME) {
                line->value = step->value;
                tree->tail_line = number;
            }
            if (line->type == CT_LINE_FRAME && !fold(tree, number) && number == tree->options.limit)
                go_full(tree);
        }
    }
    if (tree->shown && step->depth == tree->root)
        tree->shown = !tree->functions;
}

/* Where what is shown is open, and, of what is to be shown itself, anywhere. */
static void tell_muted(struct ct_tree *tree, const struct ct_step *step)
{
    bool others = step->flags & CT_STEP_OTHERS;
    if (tree->full || !(tree->shown || (chosen(tree, step) && !others)) || !tell_thread(tree, step))
        return;
    uint32_t depth = tree->shown ? step->depth - tree->root : 0;
    if (tree->options.max_depth && depth >= tree->options.max_depth)
        return;
    struct ct_line *line = add_line(tree, step, CT_LINE_MUTED, depth);
    if (!line)
        return;
    line->count = step->value;
    line->flags = others ? CT_LINE_OTHERS : 0;
}

/* False: no memory. */
static bool take(struct ct_tree *tree, const struct ct_step *step)
{
    switch (step->type) {
    case CT_STEP_THREAD:
        tree->thread_told = false;
        tree->tail_line = NO_LINE;
        break;
    case CT_STEP_OPEN:
        if (!ct_reserve_items((void **)&tree->line_of, &tree->line_of_room, step->depth + 1u, sizeof *tree->line_of))
            return false;
        open_frame(tree, step);
        break;
    case CT_STEP_CLOSE:
        close_frame(tree, step);
        break;
    case CT_STEP_MARK:
    case CT_STEP_GAP:
        if (tree->full || (tree->functions && !tree->shown) || !tell_thread(tree, step))
            break;
        uint32_t depth = step->depth - (tree->shown ? tree->root : 0);
        if (step->id && tree->options.max_depth && depth > tree->options.max_depth)
            depth = tree->options.max_depth; /* a named mark is for all to see */
        if (!tree->options.max_depth || depth < tree->options.max_depth || step->id)
            add_line(tree, step, step->type == CT_STEP_MARK ? CT_LINE_MARK : CT_LINE_GAP, depth);
        break;
    case CT_STEP_MUTED:
        tell_muted(tree, step);
        break;
    default:
        break;
    }
    return true;
}

/* May the first line held back be given out? Not the last line but one, which the last may become part of, nor one
 * that may still find out where it jumped. */
static bool ready(struct ct_tree *tree)
{
    if (tree->head == tree->next)
        return false;
    if (tree->done || tree->next - tree->head + LINES_PER_STEP > tree->options.window)
        return true;
    const struct ct_line *line = line_at(tree, tree->head);
    bool ended = line->type != CT_LINE_FRAME || line->cause != CT_CAUSE_NONE;
    return ended && tree->head + 2 < tree->next && tree->head != tree->tail_line;
}

uint32_t ct_reader_tree_next(struct ct_tree *tree, struct ct_line *out, uint32_t capacity, uint32_t *pull)
{
    uint32_t count = 0;
    *pull = CT_PULL_MORE;
    for (uint32_t steps = 0; steps < STEPS_PER_PULL;) {
        if (ready(tree)) {
            if (count == capacity)
                return count;
            out[count++] = *line_at(tree, tree->head++);
            continue;
        }
        if (tree->done) {
            *pull = tree->full ? CT_PULL_LIMIT : CT_PULL_END;
            return count;
        }
        if (tree->full && (!tree->open_lines || tree->behind++ >= tree->options.lookahead)) {
            tree->done = true;
            continue;
        }
        struct ct_step step;
        steps++;
        if (!ct_machine_next(&tree->machine, &step)) {
            if (tree->machine.no_memory)
                break;
            tree->done = true;
        } else if (!take(tree, &step)) {
            *pull = CT_PULL_NO_MEMORY;
            return count;
        }
    }
    if (tree->machine.no_memory)
        *pull = CT_PULL_NO_MEMORY;
    return count;
}
