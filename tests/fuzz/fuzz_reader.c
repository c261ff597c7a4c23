/* libFuzzer's target for the trace reader.
 *
 * Trace files are mostly zeros, so an input is a packed one: two bytes of options, then for each block of the file a
 * length of two bytes and the block's first bytes. Whatever the file holds, the reader must stay within it, and what
 * it tells must be consistent in itself.
 */
#include "limit.h"

#include <stdbool.h>
#include <string.h>

#include "profile.h"
#include "reader.h"
#include "trace_format.h"

#define BLOCK_LIMIT 24
#define BATCH 64

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

struct input {
    uint8_t *file; /* exactly `size` bytes, so that a byte read behind it is noticed */
    size_t size;
    uint8_t options[2];
};

static bool unpack(const uint8_t *data, size_t size, struct input *input)
{
    if (size < 2)
        return false;
    memcpy(input->options, data, 2);
    size_t at = 2, blocks = 0, last = 0;
    uint8_t *file = calloc(BLOCK_LIMIT, CT_BLOCK);
    CHECK(file);
    for (; at + 2 <= size && blocks < BLOCK_LIMIT; blocks++) {
        size_t length = data[at] | (size_t)data[at + 1] << 8;
        at += 2;
        last = length < size - at ? length : size - at;
        memcpy(file + blocks * CT_BLOCK, data + at, last);
        at += last;
    }
    bool cut = input->options[0] & 1;
    input->size = blocks ? (blocks - 1) * CT_BLOCK + (cut ? last : CT_BLOCK) : 0;
    input->file = malloc(input->size ? input->size : 1);
    CHECK(input->file);
    memcpy(input->file, file, input->size);
    free(file);
    return true;
}

static void read_entries(struct ct_reader *reader, const struct input *input, struct ct_index *index)
{
    ct_reader_index(reader, index);
    for (uint32_t at = 0; at < index->modules; at++) {
        struct ct_module_entry module;
        ct_reader_module(reader, at, &module);
        CHECK(module.functions + 16ull * module.function_count == module.sites);
        CHECK(module.sites + 16ull * module.site_count == module.json);
        CHECK(module.json + module.json_size <= input->size);
    }
    for (uint32_t at = 0; at < index->infos; at++) {
        struct ct_span span;
        ct_reader_info(reader, at, &span);
        CHECK(span.offset <= input->size && span.size <= input->size - span.offset);
    }
    uint64_t units = 0, lost = 0;
    for (uint32_t at = 0; at < index->threads; at++) {
        struct ct_thread_entry thread;
        ct_reader_thread(reader, at, &thread);
        units += thread.units;
        lost += thread.lost;
    }
    CHECK(units == index->units && lost == index->lost);
}

/* Frames nest, and each is closed once. */
static void read_steps(struct ct_reader *reader, const struct ct_index *index)
{
    struct ct_steps *steps = ct_reader_steps_open(reader, 0, index->threads);
    CHECK(steps);
    struct ct_step batch[BATCH];
    uint32_t pull = CT_PULL_MORE;
    uint64_t depth = 0, time = 0;
    while (pull == CT_PULL_MORE) {
        uint32_t count = ct_reader_steps_next(steps, batch, BATCH, &pull);
        CHECK(pull != CT_PULL_NO_MEMORY);
        for (uint32_t at = 0; at < count; at++) {
            const struct ct_step *step = &batch[at];
            if (step->type == CT_STEP_THREAD) {
                CHECK(depth == 0);
                time = 0;
            }
            CHECK(step->time >= time && step->thread < index->threads && step->kind < CT_NODE_KINDS);
            time = step->time;
            if (step->type == CT_STEP_OPEN)
                CHECK(step->depth == depth++);
            else if (step->type == CT_STEP_CLOSE)
                CHECK(step->depth == --depth && step->cause && step->self <= step->time - step->begin);
            else
                CHECK(step->depth == depth);
        }
    }
    CHECK(depth == 0);
    ct_reader_steps_close(steps);
}

static void read_tree(struct ct_reader *reader, const struct ct_index *index, const uint8_t *options)
{
    uint8_t bits[4];
    memset(bits, options[1], sizeof bits);
    struct ct_tree_options chosen = {
        .thread_count = index->threads,
        .max_depth = options[0] >> 1 & 3,
        .window = options[1] & 15,
        .limit = options[0] >> 3 & 7,
        .lookahead = options[1] >> 4,
        .functions = options[0] & 64 ? bits : NULL,
        .sites = options[0] & 128 ? bits : NULL,
        .function_bits = options[0] & 64 ? 8 * sizeof bits : 0,
        .site_bits = options[0] & 128 ? 8 * sizeof bits : 0,
    };
    struct ct_tree *tree = ct_reader_tree_open(reader, &chosen);
    CHECK(tree);
    struct ct_line batch[BATCH];
    uint32_t pull = CT_PULL_MORE;
    uint64_t lines = 0;
    while (pull == CT_PULL_MORE) {
        uint32_t count = ct_reader_tree_next(tree, batch, BATCH, &pull);
        CHECK(pull != CT_PULL_NO_MEMORY);
        for (uint32_t at = 0; at < count; at++) {
            CHECK(batch[at].count && batch[at].type >= CT_LINE_THREAD && batch[at].type <= CT_LINE_GAP);
            bool named_mark = batch[at].type == CT_LINE_MARK && batch[at].id;
            CHECK(!chosen.max_depth || batch[at].depth < chosen.max_depth + named_mark);
        }
        lines += count;
    }
    CHECK(!chosen.limit || lines <= chosen.limit);
    CHECK(pull != CT_PULL_LIMIT || lines == chosen.limit);
    ct_reader_tree_close(tree);
}

static void read_summary(struct ct_reader *reader)
{
    struct ct_summary *summary = ct_reader_summary_open(reader, 0, UINT32_MAX);
    CHECK(summary);
    uint32_t pull = CT_PULL_MORE;
    while (pull == CT_PULL_MORE)
        pull = ct_reader_summary_run(summary);
    CHECK(pull == CT_PULL_END);
    struct ct_totals totals;
    ct_reader_summary_totals(summary, &totals);
    uint64_t frames = 0, closed = 0, calls = 0;
    for (uint32_t kind = 0; kind < CT_NODE_KINDS; kind++) {
        uint32_t count;
        const struct ct_stat *stats = ct_reader_summary_stats(summary, kind, &count);
        frames += totals.frames[kind];
        for (uint32_t id = 0; id < count; id++) {
            calls += stats[id].calls;
            if (stats[id].calls && kind >= CT_NODE_API_FUNCTION)
                ct_reader_address(reader, id);
        }
    }
    for (uint32_t cause = 0; cause < CT_CAUSES; cause++)
        closed += totals.causes[cause];
    CHECK(frames == closed && frames == calls);
    ct_reader_summary_close(summary);
}

static void read_stacks(struct ct_reader *reader, const struct ct_index *index)
{
    struct ct_stacks *stacks = ct_reader_stacks_open(reader, 0, UINT32_MAX);
    CHECK(stacks);
    uint32_t pull = CT_PULL_MORE, threads = 0;
    struct ct_stack stack;
    while (pull == CT_PULL_MORE) {
        if (!ct_reader_stacks_next(stacks, &stack, &pull))
            continue;
        CHECK(stack.thread == threads++);
        struct ct_stack_frame *frames = malloc(stack.depth * sizeof *frames + 1);
        CHECK(frames);
        ct_reader_stacks_frames(stacks, &stack, frames);
        for (uint32_t at = 0; at < stack.depth; at++)
            CHECK(frames[at].kind < CT_NODE_KINDS && (!at || frames[at].begin <= frames[at - 1].begin));
        free(frames);
    }
    CHECK(pull == CT_PULL_END && threads == index->threads);
    ct_reader_stacks_close(stacks);
}

static void read_edges(struct ct_reader *reader, const uint8_t *options)
{
    uint8_t bits[4];
    memset(bits, options[1], sizeof bits);
    struct ct_edge_options chosen = {
        .thread_count = UINT32_MAX,
        .depth = options[0] & 7,
        .callees = options[0] >> 3 & 1,
        .functions = bits,
        .sites = bits,
        .through = bits,
        .function_bits = 8 * sizeof bits,
        .site_bits = 8 * sizeof bits,
        .through_bits = options[0] >> 4,
        .flags = options[1] & (CT_EDGES_ALL | CT_EDGES_BY_STACK),
        .limit = options[1] >> 6,
    };
    const uint32_t parts[] = {1, 0, CT_NONE, 1};
    if (options[1] & 4) {
        chosen.parts = parts;
        chosen.part_count = options[1] >> 4 & 3;
    }
    struct ct_edges *edges = ct_reader_edges_open(reader, &chosen);
    CHECK(edges);
    uint32_t pull = CT_PULL_MORE, count;
    while (pull == CT_PULL_MORE)
        pull = ct_reader_edges_run(edges);
    const struct ct_edge *edge = ct_reader_edges_of(edges, &count);
    CHECK(pull == CT_PULL_END || (pull == CT_PULL_LIMIT && count == chosen.limit));
    CHECK(!chosen.limit || count <= chosen.limit);
    for (uint32_t at = 0; at < count; at++)
        CHECK((edge[at].parent < at || edge[at].parent == CT_NONE) && edge[at].kind <= CT_NODE_NOBODY);
    ct_reader_edges_close(edges);
}

static void read_moments(struct ct_reader *reader, const struct ct_index *index, const uint8_t *options)
{
    const uint64_t times[] = {options[0], 256u + options[1], UINT64_MAX};
    enum { TIMES = sizeof times / sizeof *times };
    struct ct_moments *moments = ct_reader_moments_open(reader, times, TIMES);
    CHECK(moments);
    uint32_t pull = CT_PULL_MORE, count;
    while (pull == CT_PULL_MORE)
        pull = ct_reader_moments_run(moments);
    CHECK(pull == CT_PULL_END);
    const struct ct_program_mark *marks = ct_reader_moments_marks(moments, &count);
    for (uint32_t at = 1; at < count; at++)
        CHECK(marks[at].thread != marks[at - 1].thread || marks[at].position > marks[at - 1].position);
    const uint64_t *positions = ct_reader_moments_positions(moments);
    for (uint32_t at = 0; at < index->threads * TIMES; at++)
        CHECK(at % TIMES == 0 || positions[at] >= positions[at - 1]);
    ct_reader_moments_close(moments);
}

/* Each format in turn, to its end. Texts are asked for once each, files split as often as may be. */
static void read_exports(struct ct_reader *reader, const struct ct_index *index, const uint8_t *options)
{
    struct ct_tree_options tree = {.thread_count = index->threads, .window = 16};
    for (uint32_t format = 0; format < CT_EXPORT_FORMATS; format++) {
        struct ct_export_options chosen = {
            .format = format,
            .process_id = options[0],
            .start = (uint64_t)options[1] << (options[0] & 63),
            .hz = options[0] & 1 ? (uint64_t)options[1] << (options[0] >> 2) : 0,
            .limit = index->units > 512 ? 1u << 20 : options[1], /* what begins again costs by depth */
            .timed = options[0] >> 1 & 1,
        };
        bool of_tree = format == CT_EXPORT_TREE;
        struct ct_export *made = ct_reader_export_open(reader, &chosen, of_tree ? &tree : NULL);
        CHECK(made);
        uint32_t pull = CT_PULL_MORE, wants = 0;
        while (pull != CT_PULL_END) {
            const char *out;
            uint64_t size;
            struct ct_node wanted;
            pull = ct_reader_export_run(made, &out, &size, &wanted);
            CHECK(pull != CT_PULL_NO_MEMORY && pull != CT_PULL_LIMIT);
            CHECK(!size || memchr(out, out[size - 1], size));
            if (pull == CT_PULL_TEXT) {
                CHECK(wanted.kind < CT_TEXT_KINDS && wants++ < 1u << 20);
                CHECK(ct_reader_export_text(made, &wanted, "a text", options[1] % 7));
            }
        }
        ct_reader_export_close(made);
    }
}

static void take_block(struct ct_graph *graph, const void *block)
{
    void *slot = malloc(CT_BLOCK);
    CHECK(slot);
    memcpy(slot, block, CT_BLOCK);
    for (uint32_t what = CT_GRAPH_FULL; what <= CT_GRAPH_LAST; what++) {
        uint32_t status;
        ct_graph_take(graph, &slot, 1, what, &status);
        CHECK(status == CT_READER_OK);
    }
    free(slot);
}

/* What was counted is sound, each frame once; how many there were of each kind. */
static void check_counts(struct ct_graph *graph, uint64_t frames[CT_NODE_KINDS])
{
    uint64_t size;
    uint8_t *written = ct_graph_write(graph, CT_CAUSE_CUT, &size);
    CHECK(written);
    const struct ct_graph_header *header = (const void *)written;
    uint64_t at = sizeof *header + 8ull * header->addresses;
    for (uint32_t thread = 0; thread < header->threads; thread++) {
        struct ct_graph_thread about;
        memcpy(&about, written + at, sizeof about);
        at += sizeof about;
        uint64_t open = 0, calls[CT_GRAPH_VIEWS] = {0, 0};
        for (uint32_t kind = 0; kind < CT_NODE_KINDS; kind++) {
            frames[kind] += about.totals.frames[kind];
            open += about.totals.frames[kind];
        }
        for (uint32_t row = 0; row < about.rows; row++, at += sizeof(struct ct_graph_row)) {
            struct ct_graph_row edge;
            memcpy(&edge, written + at, sizeof edge);
            CHECK(edge.position == row && (edge.caller == CT_NONE || edge.caller < about.rows));
            for (uint32_t view = 0; view < CT_GRAPH_VIEWS && edge.caller != CT_NONE; view++)
                calls[view] += edge.counts[view].calls;
        }
        for (uint32_t cause = 0; cause < CT_CAUSES; cause++)
            open -= about.totals.causes[cause];
        CHECK(open == 0 && calls[CT_GRAPH_BY_JUMPS] == calls[CT_GRAPH_BY_STACK]);
    }
    CHECK(at == size);
    ct_graph_free(written);
}

/* All blocks as if they were slots, looked at before they are taken; behind some of them counts are written down, and
 * the modules become known once more. Of each frame it is either told that it was muted, or it is found again in what
 * is written. */
static void count_blocks(struct ct_reader *reader, const struct input *input)
{
    struct ct_graph *graph = ct_graph_open(), *again = ct_graph_open();
    struct ct_budget *budget = ct_budget_open(1 + input->options[1] % 4);
    CHECK(graph && again && budget);
    CHECK(ct_graph_set_reader(graph, reader, NULL, 0));
    ct_graph_set_budget(graph, budget);
    for (size_t at = 0; at < input->size / CT_BLOCK; at++) {
        take_block(graph, input->file + at * CT_BLOCK);
        CHECK(!(input->options[1] & 4) || ct_budget_settle(budget, 0));
        if (input->options[1] >> at % 8 & 1) {
            check_counts(graph, (uint64_t[CT_NODE_KINDS]){0});
            CHECK(ct_graph_set_reader(graph, reader, NULL, 0));
        }
    }
    uint64_t frames[CT_NODE_KINDS] = {0}, left[CT_NODE_KINDS] = {0}, place;
    check_counts(graph, frames);
    CHECK(ct_budget_settle(budget, 1));
    CHECK(ct_graph_set_reader(again, reader, NULL, 0));
    for (const void *block; (block = ct_budget_block(budget, 1, &place)); ct_budget_written(budget, block, 1))
        take_block(again, block);
    check_counts(again, left);
    for (uint32_t kind = 0; kind < CT_NODE_KINDS; kind++) {
        uint32_t count = 0;
        const uint64_t *muted = kind <= CT_NODE_CALL ? ct_budget_muted(budget, kind, &count) : NULL;
        for (uint32_t id = 0; id < count; id++)
            left[kind] += muted[id];
        CHECK(left[kind] == frames[kind]);
    }
    ct_graph_close(graph);
    ct_graph_close(again);
    ct_budget_close(budget);
}

#define ROWS 64

static void read_columns(struct ct_reader *reader)
{
    static uint32_t thread[ROWS], depth[ROWS], node[ROWS];
    static uint64_t position[ROWS], value[ROWS], duration[ROWS], self[ROWS];
    static int64_t time[ROWS];
    static uint8_t event[ROWS], cause[ROWS], has_node[ROWS / 8], has_value[ROWS / 8], closes[ROWS / 8];
    struct ct_columns out = {thread, position, time,  depth,    node,      value,  duration,
                             self,   event,    cause, has_node, has_value, closes, 1000};
    struct ct_column_reader *columns = ct_reader_columns_open(reader);
    CHECK(columns);
    uint32_t pull = CT_PULL_MORE;
    while (pull == CT_PULL_MORE) {
        uint32_t rows = ct_reader_columns_next(columns, &out, ROWS, &pull), count;
        CHECK(pull != CT_PULL_NO_MEMORY && rows <= ROWS);
        ct_reader_columns_nodes(columns, &count);
        for (uint32_t row = 0; row < rows; row++) {
            CHECK(ct_reader_row_name(event[row]) && cause[row] < CT_CAUSES);
            CHECK(!(has_node[row / 8] >> row % 8 & 1) || node[row] < count);
        }
    }
    ct_reader_columns_close(columns);
}

/* Frames that were opened and closed, those that a fiber came back to once. */
static uint64_t calls_in(struct ct_reader *reader)
{
    struct ct_summary *summary = ct_reader_summary_open(reader, 0, UINT32_MAX);
    CHECK(summary);
    while (ct_reader_summary_run(summary) == CT_PULL_MORE)
        ;
    uint64_t calls = 0;
    for (uint32_t kind = 0; kind < CT_NODE_KINDS; kind++) {
        uint32_t count;
        const struct ct_stat *stats = ct_reader_summary_stats(summary, kind, &count);
        for (uint32_t at = 0; at < count; at++)
            calls += stats[at].calls;
    }
    ct_reader_summary_close(summary);
    return calls;
}

/* What stacks weigh is what was spent, or called, however few of them are told apart. */
static void read_profile(struct ct_reader *reader, const uint8_t *options)
{
    struct ct_profile_options chosen = {
        .shown = options,
        .first_time = options[0],
        .column_ticks = 1 + (options[1] & 15) * 1000,
        .shown_bits = 8,
        .column_count = 1 + (options[0] >> 4),
        .level_count = options[1] >> 5,
        .stack_limit = 2 + options[0],
        .depth_limit = 1 + (options[1] & 31),
        .by_calls = 1,
    };
    struct ct_profile *profile = ct_reader_profile_open(reader, &chosen);
    CHECK(profile);
    uint32_t pull = CT_PULL_MORE, count;
    while (pull == CT_PULL_MORE)
        pull = ct_reader_profile_run(profile);
    CHECK(pull == CT_PULL_END);
    uint64_t weight = 0;
    const struct ct_profile_stack *stacks = ct_reader_profile_stacks(profile, &count);
    for (uint32_t at = 0; at < count; at++) {
        CHECK((stacks[at].parent < at) != (stacks[at].kind == CT_NODE_NOBODY));
        weight += stacks[at].self + stacks[at].hidden;
    }
    CHECK(weight == calls_in(reader));
    const struct ct_profile_cell *cells = ct_reader_profile_cells(profile, &count);
    for (uint32_t at = 0; at < count; at++)
        CHECK(cells[at].column < chosen.column_count && cells[at].level < chosen.level_count && cells[at].time &&
              cells[at].kind < CT_NODE_KINDS);
    const struct ct_profile_column *columns = ct_reader_profile_columns(profile, &count);
    for (uint32_t at = 0; at < count; at++)
        CHECK(columns[at].column < chosen.column_count && columns[at].calls);
    ct_reader_profile_close(profile);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input;
    if (!unpack(data, size, &input))
        return 0;
    begin_limit();
    uint32_t status;
    struct ct_file_header header;
    struct ct_snapshot *snapshot = NULL;
    if (input.size >= sizeof header) {
        memcpy(&header, input.file, sizeof header);
        if (header.state == CT_STATE_RECORDING)
            CHECK(snapshot = ct_reader_snapshot(input.file, input.size, 0));
    }
    struct ct_reader *reader = ct_reader_open(input.file, input.size, 0, snapshot, &status);
    CHECK(reader ? status == CT_READER_OK : status != CT_READER_OK && status != CT_READER_NO_MEMORY);
    if (reader) {
        struct ct_index index;
        read_entries(reader, &input, &index);
        struct ct_mark marks[] = {{input.options[0], 1, 2}, {input.options[1], 0, 1}, {input.options[1], 0, 3}};
        CHECK(ct_reader_set_marks(reader, marks, sizeof marks / sizeof *marks));
        read_steps(reader, &index);
        read_tree(reader, &index, input.options);
        read_summary(reader);
        read_stacks(reader, &index);
        read_edges(reader, input.options);
        read_moments(reader, &index, input.options);
        read_profile(reader, input.options);
        read_exports(reader, &index, input.options);
        read_columns(reader);
        count_blocks(reader, &input);
        ct_reader_close(reader);
    } else if (snapshot) {
        ct_reader_snapshot_close(snapshot);
    }
    end_limit();
    free(input.file);
    return 0;
}
