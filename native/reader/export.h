/* Inside the reader: what the formats of an export have in common. */
#ifndef CALLTRACE_READER_EXPORT_H
#define CALLTRACE_READER_EXPORT_H

#include "machine.h"
#include "nodes.h"
#include "output.h"

enum ct_taken {
    CT_TAKEN,
    CT_TAKE_AGAIN, /* the same step once more */
    CT_RESTS,      /* the same, but it may have taken a while */
    CT_WANTS_TEXT,
    CT_SPLITS, /* the same step, in a new file */
    CT_TAKES_MEMORY,
};

struct ct_text {
    const char *data; /* null: not known yet */
    uint32_t size;
};

/* A stack of functions: one more than its parent. */
struct ct_folded_stack {
    uint64_t weight;
    uint32_t parent, depth;
    uint32_t node; /* its innermost */
};

/* The stacks of one thread, as a tree; 0 is the empty stack. */
struct ct_folded {
    struct ct_folded_stack *stacks;
    uint64_t room;
    uint32_t count;
    uint32_t *slots; /* hash table of number + 1 */
    uint64_t slot_count;
    uint32_t *path; /* by depth: the open frames' stacks */
    uint64_t path_room;
    uint32_t written; /* while stacks are written: how many are */
    bool writing;
    /* The line of the stack written last, and by depth: that stack, and where its name ends. */
    struct ct_output line;
    uint32_t *line_stacks;
    size_t *line_ends;
    uint32_t line_depth;
};

struct ct_perfetto {
    uint64_t file_size; /* of the file under way, without what repeats what was said before */
    uint32_t file;      /* its number, from 1 on; 0: none yet */
    uint32_t sequence;  /* number of this thread in this file, over all files */
    uint32_t *interned; /* by node: the sequence that has its name */
    uint64_t interned_room;
    uint32_t told_depth; /* of the frames that are open where a file begins: those told again */
    bool splitting, telling;
};

struct ct_lines {
    struct ct_tree *tree;
    struct ct_line *of;
    uint32_t count, next, pull;
};

struct ct_export {
    struct ct_machine machine;
    struct ct_totals totals;
    struct ct_export_options options;
    struct ct_time time;
    struct ct_step step;
    bool held; /* `step` was not taken yet */
    bool done;
    struct ct_nodes nodes;
    struct ct_text *texts; /* by number of their node */
    uint64_t texts_room;
    struct ct_node wanted;
    struct ct_output output;
    char thread[96]; /* what each event repeats of its thread */
    uint32_t thread_size;
    /* Speedscope: of the profile under way. */
    struct {
        bool open, empty;
        uint64_t first, last; /* ticks */
    } profile;
    struct ct_folded folded;
    struct ct_perfetto perfetto;
    struct ct_lines lines;
};

/* Null: it must be asked for first, or there is no memory: `taken` says which. */
const struct ct_text *ct_text_of(struct ct_export *made, uint32_t kind, uint32_t id, enum ct_taken *taken);

enum ct_taken ct_folded_take(struct ct_export *made);
void ct_folded_free(struct ct_folded *folded);
enum ct_taken ct_perfetto_take(struct ct_export *made);

/* A line of a tree instead of a step. */
enum ct_taken ct_line_take(struct ct_export *made);

#endif
