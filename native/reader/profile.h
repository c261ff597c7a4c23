/* A trace in a picture's size, whatever its length: its call stacks as one tree, and what ran when in each thread.
 *
 * Stacks: no more than `stack_limit` are told apart at a time. When there would be more, the smaller half of them is
 * taken out: what they weigh is `hidden` in the one they were called from. So is all that lies deeper than
 * `depth_limit`. The sums stay exact: the whole of a stack is its own, what is hidden, and that of its children.
 *
 * Columns: equal parts of the time from `first_time` on, of `column_ticks` each. In each column each of a thread's
 * outermost `level_count` levels belongs to the frame that fills most of it.
 */
#ifndef CALLTRACE_READER_PROFILE_H
#define CALLTRACE_READER_PROFILE_H

#include "reader.h"

struct ct_profile_options {
    const uint8_t *shown; /* one bit per position among the reader's threads: those that columns are made of */
    uint64_t first_time;
    uint64_t column_ticks; /* at least 1 */
    uint32_t shown_bits;
    uint32_t column_count; /* what comes later is in the last one */
    uint32_t level_count;
    uint32_t stack_limit; /* at least 2; those of threads and open frames are kept beyond it */
    uint32_t depth_limit; /* at least 1 */
    uint32_t by_calls;    /* 1: a stack weighs as many as its calls; 0: the time spent */
};

/* The frames of one function or call that were entered on the same stack; after its parent. */
struct ct_profile_stack {
    uint64_t calls;
    uint64_t self;   /* what these frames weigh themselves */
    uint64_t hidden; /* and such within them as are not told apart */
    uint32_t parent; /* position of the stack below; CT_NONE: it is that of a whole thread */
    uint32_t id;     /* of a thread its position among the reader's */
    uint8_t kind;    /* enum ct_node_kind; CT_NODE_NOBODY: a thread */
    uint8_t reserved[7];
};

struct ct_profile_cell {
    uint64_t time; /* of the column that it fills */
    uint32_t thread;
    uint32_t column;
    uint32_t id;
    uint8_t level; /* 0: the outermost */
    uint8_t kind;
    uint8_t reserved[2];
};

struct ct_profile_column {
    uint64_t calls; /* begun in it */
    uint32_t thread;
    uint32_t column;
};

struct ct_profile;

/* Null: no memory. Every thread is read. */
CT_READER_EXPORT struct ct_profile *ct_reader_profile_open(struct ct_reader *reader,
                                                           const struct ct_profile_options *options);
/* Reads on for a while: enum ct_pull. */
CT_READER_EXPORT uint32_t ct_reader_profile_run(struct ct_profile *profile);
/* Each of the three: valid until the next run or close. */
CT_READER_EXPORT const struct ct_profile_stack *ct_reader_profile_stacks(const struct ct_profile *profile,
                                                                         uint32_t *count);
/* Of each thread and level in the order of their columns. */
CT_READER_EXPORT const struct ct_profile_cell *ct_reader_profile_cells(const struct ct_profile *profile,
                                                                       uint32_t *count);
/* Those in which anything was called. */
CT_READER_EXPORT const struct ct_profile_column *ct_reader_profile_columns(const struct ct_profile *profile,
                                                                           uint32_t *count);
CT_READER_EXPORT void ct_reader_profile_close(struct ct_profile *profile);

#endif
