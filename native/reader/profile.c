/* Call stacks and columns of time, both of bounded size: see profile.h. */
#include "profile.h"

#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "nodes.h"

#define STEPS_PER_RUN (1u << 22)
#define LEVEL_LIMIT 64u
#define CELL_LIMIT (1u << 26) /* no more memory than a picture may take, whatever the options say */

/* One level of the thread that is read: what filled the column so far. */
struct level {
    uint64_t *spent; /* by node */
    uint64_t room;
    uint32_t *met; /* the nodes that have spent anything */
    uint64_t met_room;
    uint32_t met_count;
    uint32_t column;
    uint64_t until; /* frames of a level follow one another */
};

struct ct_profile {
    struct ct_machine machine;
    struct ct_totals totals;
    struct ct_profile_options options;
    uint8_t *shown; /* copy of the options' */

    struct ct_profile_stack *stacks;
    uint64_t stack_room;
    uint32_t stack_count;
    uint32_t *slots; /* hash table of position + 1 */
    uint64_t slot_count;
    uint32_t *path; /* by depth: the stacks of the open frames */
    uint64_t path_room;
    uint32_t thread, depth;
    uint32_t root; /* the thread's own stack, in which no frame is open */

    struct ct_nodes nodes;
    struct level levels[LEVEL_LIMIT];
    struct ct_profile_cell *cells;
    uint64_t cell_room;
    uint32_t cell_count;
    struct ct_profile_column *columns;
    uint64_t column_room;
    uint32_t column_count;
};

struct ct_profile *ct_reader_profile_open(struct ct_reader *reader, const struct ct_profile_options *options)
{
    struct ct_profile *profile = calloc(1, sizeof *profile);
    if (!profile)
        return NULL;
    profile->options = *options;
    if (profile->options.level_count > LEVEL_LIMIT)
        profile->options.level_count = LEVEL_LIMIT;
    ct_machine_start(&profile->machine, reader, 0, UINT32_MAX, &profile->totals);
    profile->slot_count = 1024;
    profile->slots = calloc(profile->slot_count, sizeof *profile->slots);
    profile->shown = calloc(options->shown_bits / 8 + 1u, 1);
    if (profile->shown && options->shown_bits)
        memcpy(profile->shown, options->shown, (options->shown_bits + 7) / 8);
    if (profile->slots && profile->shown)
        return profile;
    ct_reader_profile_close(profile);
    return NULL;
}

void ct_reader_profile_close(struct ct_profile *profile)
{
    ct_machine_free(&profile->machine);
    free(profile->shown);
    free(profile->stacks);
    free(profile->slots);
    free(profile->path);
    ct_nodes_free(&profile->nodes);
    for (uint32_t at = 0; at < LEVEL_LIMIT; at++) {
        free(profile->levels[at].spent);
        free(profile->levels[at].met);
    }
    free(profile->cells);
    free(profile->columns);
    free(profile);
}

/* ---- stacks ---- */

static uint64_t slot_of(const struct ct_profile *profile, const struct ct_profile_stack *key)
{
    uint64_t hash = ((uint64_t)key->parent << 32 | key->id) * 0x9E3779B97F4A7C15u;
    hash ^= key->kind * 0xC2B2AE3D27D4EB4Fu;
    uint64_t slot = (hash ^ hash >> 29) & (profile->slot_count - 1);
    while (profile->slots[slot]) {
        const struct ct_profile_stack *other = &profile->stacks[profile->slots[slot] - 1];
        if (other->parent == key->parent && other->id == key->id && other->kind == key->kind)
            break;
        slot = (slot + 1) & (profile->slot_count - 1);
    }
    return slot;
}

/* Fills the table anew, with `count` slots. False: no memory. */
static bool make_slots(struct ct_profile *profile, uint64_t count)
{
    uint32_t *slots = calloc(count, sizeof *slots);
    if (!slots)
        return false;
    free(profile->slots);
    profile->slots = slots;
    profile->slot_count = count;
    for (uint32_t at = 0; at < profile->stack_count; at++)
        slots[slot_of(profile, &profile->stacks[at])] = at + 1;
    return true;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Takes out the smaller half of the stacks, but none of an open frame or thread. False: no memory. */
static bool take_out(struct ct_profile *profile)
{
    uint32_t count = profile->stack_count, kept = 0;
    struct ct_profile_stack *stacks = profile->stacks;
    uint64_t *whole = malloc((size_t)count * 2 * sizeof *whole);
    uint32_t *moved = malloc((size_t)count * sizeof *moved); /* to this position; CT_NONE: taken out */
    if (!whole || !moved) {
        free(whole);
        free(moved);
        return false;
    }
    memset(whole, 0, (size_t)count * sizeof *whole);
    for (uint32_t at = count; at--;) {
        whole[at] += stacks[at].self + stacks[at].hidden;
        if (stacks[at].parent != CT_NONE)
            whole[stacks[at].parent] += whole[at];
    }
    uint64_t *sorted = whole + count;
    memcpy(sorted, whole, (size_t)count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_size);
    uint64_t middle = sorted[count / 2];
    for (uint32_t at = 0; at < count; at++)
        moved[at] = whole[at] > middle || stacks[at].parent == CT_NONE ? 0 : CT_NONE;
    for (uint32_t depth = 0; depth < profile->depth; depth++)
        moved[profile->path[depth]] = 0;
    /* A stack holds at least what those within it do, and is open if one of them is: where it goes, so do they. */
    for (uint32_t at = 0; at < count; at++) {
        struct ct_profile_stack stack = stacks[at];
        uint32_t parent = stack.parent == CT_NONE ? CT_NONE : moved[stack.parent];
        if (moved[at] != CT_NONE) {
            moved[at] = kept;
            stack.parent = parent;
            stacks[kept++] = stack;
        } else if (parent != CT_NONE) {
            stacks[parent].hidden += whole[at];
        }
    }
    profile->root = moved[profile->root];
    for (uint32_t depth = 0; depth < profile->depth; depth++)
        profile->path[depth] = moved[profile->path[depth]];
    profile->stack_count = kept;
    free(whole);
    free(moved);
    return make_slots(profile, profile->slot_count);
}

/* The stack of a frame; CT_NONE: no memory. */
static uint32_t stack_of(struct ct_profile *profile, uint32_t parent, uint8_t kind, uint32_t id)
{
    struct ct_profile_stack key = {.parent = parent, .id = id, .kind = kind};
    uint64_t slot = slot_of(profile, &key);
    if (profile->slots[slot])
        return profile->slots[slot] - 1;
    if (!ct_reserve_items((void **)&profile->stacks, &profile->stack_room, profile->stack_count + 1u, sizeof key))
        return CT_NONE;
    profile->stacks[profile->stack_count] = key;
    profile->slots[slot] = ++profile->stack_count;
    if (profile->stack_count > profile->slot_count / 2 && !make_slots(profile, profile->slot_count * 2))
        return CT_NONE;
    return profile->stack_count - 1;
}

/* False: no memory. */
static bool open_frame(struct ct_profile *profile, const struct ct_step *step)
{
    profile->depth = step->depth;
    if (profile->stack_count >= (uint64_t)profile->options.stack_limit + step->depth && !take_out(profile))
        return false;
    if (!ct_reserve_items((void **)&profile->path, &profile->path_room, step->depth + 1ull, sizeof *profile->path))
        return false;
    uint32_t below = step->depth ? profile->path[step->depth - 1] : profile->root;
    uint32_t stack =
        step->depth < profile->options.depth_limit ? stack_of(profile, below, step->kind, step->id) : below;
    if (stack == CT_NONE)
        return false;
    profile->path[step->depth] = stack;
    profile->depth = step->depth + 1;
    return true;
}

static void close_frame(struct ct_profile *profile, const struct ct_step *step)
{
    struct ct_profile_stack *stack = &profile->stacks[profile->path[step->depth]];
    uint32_t calls = !(step->flags & CT_STEP_RESUMED);
    uint64_t weight = profile->options.by_calls ? calls : step->self;
    profile->depth = step->depth;
    if (step->depth >= profile->options.depth_limit) {
        stack->hidden += weight;
    } else {
        stack->calls += calls;
        stack->self += weight;
    }
}

/* ---- columns ---- */

static bool is_shown(const struct ct_profile *profile)
{
    return profile->thread < profile->options.shown_bits &&
           profile->shown[profile->thread / 8] >> profile->thread % 8 & 1;
}

static uint32_t column_of(const struct ct_profile *profile, uint64_t time)
{
    uint64_t column =
        time < profile->options.first_time ? 0 : (time - profile->options.first_time) / profile->options.column_ticks;
    return column < profile->options.column_count ? (uint32_t)column : profile->options.column_count - 1;
}

/* False: no memory. */
static bool give_cell(struct ct_profile *profile, uint32_t at, uint32_t column, uint32_t node, uint64_t time)
{
    if (profile->cell_count == CELL_LIMIT || !ct_reserve_items((void **)&profile->cells, &profile->cell_room,
                                                               profile->cell_count + 1u, sizeof *profile->cells))
        return false;
    profile->cells[profile->cell_count++] = (struct ct_profile_cell){
        .time = time,
        .thread = profile->thread,
        .column = column,
        .id = profile->nodes.of[node].id,
        .level = (uint8_t)at,
        .kind = profile->nodes.of[node].kind,
    };
    return true;
}

/* What a column held is known: nothing more comes into it. False: no memory. */
static bool end_column(struct ct_profile *profile, uint32_t at)
{
    struct level *level = &profile->levels[at];
    uint32_t most = CT_NONE;
    uint64_t time = 0;
    for (uint32_t met = 0; met < level->met_count; met++) {
        uint32_t node = level->met[met];
        if (level->spent[node] > time) { /* of equal ones that which came first */
            most = node;
            time = level->spent[node];
        }
        level->spent[node] = 0;
    }
    level->met_count = 0;
    return most == CT_NONE || give_cell(profile, at, level->column, most, time);
}

static bool spend(struct level *level, uint32_t node, uint64_t time)
{
    if (!ct_reserve_items((void **)&level->spent, &level->room, node + 1ull, sizeof *level->spent))
        return false;
    if (!level->spent[node]) {
        if (!ct_reserve_items((void **)&level->met, &level->met_room, level->met_count + 1ull, sizeof *level->met))
            return false;
        level->met[level->met_count++] = node;
    }
    level->spent[node] += time;
    return true;
}

/* A frame of one of the levels has ended. False: no memory. */
static bool fill_columns(struct ct_profile *profile, const struct ct_step *step)
{
    struct level *level = &profile->levels[step->depth];
    uint64_t begin = step->begin > level->until ? step->begin : level->until;
    if (begin < profile->options.first_time)
        begin = profile->options.first_time;
    if (begin >= step->time)
        return true;
    uint32_t node = ct_node_number(&profile->nodes, (struct ct_node){step->id, step->kind});
    uint32_t last = profile->options.column_count - 1;
    if (node == CT_NONE)
        return false;
    level->until = step->time;
    while (begin < step->time) {
        uint32_t column = column_of(profile, begin);
        if (column != level->column && !end_column(profile, step->depth))
            return false;
        level->column = column;
        uint64_t end = step->time;
        if (column < last) {
            uint64_t limit = profile->options.first_time + (column + 1ull) * profile->options.column_ticks;
            end = limit < end ? limit : end;
        }
        if (!spend(level, node, end - begin))
            return false;
        begin = end;
    }
    return true;
}

/* False: no memory. */
static bool count_call(struct ct_profile *profile, const struct ct_step *step)
{
    uint32_t column = column_of(profile, step->time), last = profile->column_count;
    bool same = last && profile->columns[last - 1].thread == profile->thread;
    if (same && column < profile->columns[last - 1].column)
        column = profile->columns[last - 1].column;
    if (!same || column != profile->columns[last - 1].column) {
        if (!ct_reserve_items((void **)&profile->columns, &profile->column_room, last + 1ull, sizeof *profile->columns))
            return false;
        profile->columns[profile->column_count++] =
            (struct ct_profile_column){.thread = profile->thread, .column = column};
    }
    profile->columns[profile->column_count - 1].calls++;
    return true;
}

static bool end_thread(struct ct_profile *profile)
{
    for (uint32_t at = 0; at < profile->options.level_count; at++) {
        if (!end_column(profile, at))
            return false;
        profile->levels[at].until = 0;
        profile->levels[at].column = 0;
    }
    return true;
}

/* False: no memory. */
static bool take(struct ct_profile *profile, const struct ct_step *step)
{
    switch (step->type) {
    case CT_STEP_THREAD:
        if (!end_thread(profile))
            return false;
        profile->thread = step->thread;
        profile->depth = 0;
        profile->root = stack_of(profile, CT_NONE, CT_NODE_NOBODY, step->thread);
        return profile->root != CT_NONE;
    case CT_STEP_OPEN:
        return open_frame(profile, step) &&
               (!is_shown(profile) || step->flags & CT_STEP_RESUMED || count_call(profile, step));
    case CT_STEP_CLOSE:
        close_frame(profile, step);
        return step->depth >= profile->options.level_count || !is_shown(profile) || fill_columns(profile, step);
    default:
        return true;
    }
}

uint32_t ct_reader_profile_run(struct ct_profile *profile)
{
    for (uint32_t count = 0; count < STEPS_PER_RUN; count++) {
        struct ct_step step;
        if (!ct_machine_next(&profile->machine, &step)) {
            if (profile->machine.no_memory || !end_thread(profile))
                return CT_PULL_NO_MEMORY;
            return CT_PULL_END;
        }
        if (!take(profile, &step))
            return CT_PULL_NO_MEMORY;
    }
    return CT_PULL_MORE;
}

const struct ct_profile_stack *ct_reader_profile_stacks(const struct ct_profile *profile, uint32_t *count)
{
    *count = profile->stack_count;
    return profile->stacks;
}

const struct ct_profile_cell *ct_reader_profile_cells(const struct ct_profile *profile, uint32_t *count)
{
    *count = profile->cell_count;
    return profile->cells;
}

const struct ct_profile_column *ct_reader_profile_columns(const struct ct_profile *profile, uint32_t *count)
{
    *count = profile->column_count;
    return profile->columns;
}
