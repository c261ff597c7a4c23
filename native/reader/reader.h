/* The trace reader: what a trace file holds, and the call tree it tells.
 *
 *   ct_reader_open      index: every chunk of the file, each thread's blocks in order
 *   ct_reader_snapshot  before that, of a trace that is still being recorded: what its threads are filling
 *   ct_reader_steps_*   pull: what happened, in order, frame by frame
 *   ct_reader_tree_*    pull: lines of a call tree, repeated leaf calls folded
 *   ct_reader_summary_* all threads, or one, in numbers
 *   ct_reader_stacks_*  pull: each thread's stack at its end
 *   ct_reader_edges_*   callers or callees of some functions, in numbers
 *   ct_reader_export_*  pull: a whole trace as the bytes of another format
 *   ct_reader_columns_* pull: a whole trace as columns
 *   ct_graph_*          while it is recorded: callers and callees of all, in numbers
 *   ct_budget_*         beside that: the first calls of each function as events
 *
 * The file is a read-only array of bytes, possibly hostile or cut off anywhere; it must stay mapped until
 * ct_reader_close. Layout: trace_format.h. No call here touches the system but for memory. One reader and what was
 * opened from it belong to one thread at a time. `mapped`: the array is a mapping of a file, and what has been read of
 * it need not stay in memory; 0: it is not.
 *
 * Times are time stamp counter ticks in traces with a clock, else positions (units this thread recorded before).
 */
#ifndef CALLTRACE_READER_H
#define CALLTRACE_READER_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define CT_READER_EXPORT __declspec(dllexport)
#else
#define CT_READER_EXPORT __attribute__((visibility("default")))
#endif

#define CT_READER_ABI 9u

enum ct_reader_status {
    CT_READER_OK = 0,
    CT_READER_NO_MEMORY = 1,
    CT_READER_NOT_A_TRACE = 2, /* too small for a header, or another magic */
    CT_READER_VERSION = 3,     /* a version this reader does not know */
    CT_READER_BAD_HEADER = 4,  /* sizes in the header that no writer gives */
};

/* Whose frame. Each kind numbers its ids by itself. */
enum ct_node_kind {
    CT_NODE_FUNCTION = 0,     /* id = function */
    CT_NODE_CALL = 1,         /* id = site */
    CT_NODE_API_FUNCTION = 2, /* id = address, see ct_reader_address: entered through the C API */
    CT_NODE_API_CALL = 3,     /* id = address of what is called through the C API */
    CT_NODE_KINDS = 4,
    CT_NODE_NOBODY = 4, /* of a struct ct_edge: no recorded frame has called */
};

/* How a frame was closed. From CT_CAUSE_UNWOUND on: without an event of its own. */
enum ct_cause {
    CT_CAUSE_NONE = 0, /* not closed (yet) */
    CT_CAUSE_RETURN = 1,
    CT_CAUSE_TAIL = 2,        /* by a jump; the next frame at this depth may be where to */
    CT_CAUSE_UNWOUND = 3,     /* a frame below it goes on after an exception or longjmp */
    CT_CAUSE_INFERRED = 4,    /* a frame below it closed; its own end was not recorded */
    CT_CAUSE_THREAD_EXIT = 5, /* open when its thread ended */
    CT_CAUSE_PROCESS_END = 6, /* open when the process ended */
    CT_CAUSE_RUNNING = 7,     /* open when recording was stopped */
    CT_CAUSE_CUT = 8,         /* open where the trace breaks off */
    CT_CAUSE_GAP = 9,         /* open where events were lost */
    CT_CAUSE_STOPPED = 10,    /* open when recording of its thread was stopped */
    CT_CAUSE_RESET = 11,      /* forgotten on request of the C API */
    CT_CAUSE_TOO_DEEP = 12,   /* more frames open than this reader follows */
    CT_CAUSE_SWITCHED = 13,   /* the thread went on with another stack (fiber); may be opened again: CT_STEP_RESUMED */
    CT_CAUSES = 14,
};

enum ct_step_type {
    CT_STEP_THREAD = 1, /* the steps of `thread` follow */
    CT_STEP_OPEN = 2,
    CT_STEP_CLOSE = 3,
    CT_STEP_LAND = 4,   /* the frame of function `id`, now on top, goes on */
    CT_STEP_MARK = 5,   /* value = the number given to mark(); or id = the number of a named mark */
    CT_STEP_GAP = 6,    /* value = units lost */
    CT_STEP_ORPHAN = 7, /* an end without its beginning; value = enum ct_event of the unit */
    CT_STEP_THREAD_START = 8,
    CT_STEP_THREAD_EXIT = 9,
    CT_STEP_STOP = 10,
    CT_STEP_RESET = 11,
    CT_STEP_MUTED = 12, /* value = calls that are not in the file, by the frame on top or deeper beneath it */
};

enum ct_step_flags {
    CT_STEP_TAIL_CALLEE = 1, /* OPEN: entered by the jump that closed the frame before it */
    CT_STEP_OUTERMOST = 2,   /* CLOSE: no other frame of the same kind and id is open */
    CT_STEP_RESUMED = 4,     /* OPEN, CLOSE: goes on after CT_CAUSE_SWITCHED; no new call */
    CT_STEP_OTHERS = 8,      /* MUTED: of several, and id is how many; else kind and id tell of what */
};

struct ct_step {
    uint64_t time;
    uint64_t begin;    /* CLOSE: when it was opened */
    uint64_t self;     /* CLOSE: time spent in it and in none of its children */
    uint64_t value;    /* OPEN of the C API: call-site VA; CLOSE by goto: target VA; else see enum ct_step_type */
    uint64_t position; /* units of this thread before the unit that told */
    uint32_t id;
    uint32_t depth;  /* OPEN, CLOSE: frames open below this one; else: frames open */
    uint32_t thread; /* position among the reader's threads */
    uint8_t type;    /* enum ct_step_type */
    uint8_t kind;    /* enum ct_node_kind */
    uint8_t cause;   /* CLOSE: enum ct_cause */
    uint8_t flags;   /* enum ct_step_flags */
};

enum ct_line_type {
    CT_LINE_THREAD = 1,
    CT_LINE_FRAME = 2,
    CT_LINE_CLOSE = 3, /* the end of a frame whose line was given out, too many lines ago, while it was open */
    CT_LINE_MARK = 4,
    CT_LINE_GAP = 5,
    CT_LINE_MUTED = 6, /* count = calls */
};

enum ct_line_flags {
    CT_LINE_TAIL_CALLEE = 1,
    CT_LINE_TAIL_KNOWN = 2, /* cause is CT_CAUSE_TAIL, and tail_kind and tail_id say where to */
    CT_LINE_RESUMED = 4,    /* goes on after CT_CAUSE_SWITCHED; no new call */
    CT_LINE_OTHERS = 8,     /* as CT_STEP_OTHERS */
};

struct ct_line {
    uint64_t begin;
    uint64_t end;
    uint64_t duration; /* of all `count` calls */
    uint64_t count;    /* calls folded into this line */
    uint64_t value;    /* as in the step */
    uint32_t id;
    uint32_t depth; /* below the top of what is shown */
    uint32_t thread;
    uint32_t tail_id;
    uint8_t type; /* enum ct_line_type */
    uint8_t kind;
    uint8_t cause; /* CT_CAUSE_NONE: its end comes later (a CT_LINE_CLOSE) or lies behind what was looked at */
    uint8_t flags; /* enum ct_line_flags */
    uint8_t tail_kind;
    uint8_t reserved[3];
};

struct ct_tree_options {
    uint32_t first_thread, thread_count; /* positions among the reader's threads */
    uint32_t max_depth;                  /* levels shown; 0 = all */
    uint32_t window;                     /* lines held back until their end is known */
    uint64_t limit;                      /* lines; 0 = all */
    uint64_t lookahead;                  /* steps looked at behind the limit for the ends of frames shown */
    /* What is shown, with everything inside it: one bit per id. Both null: everything. */
    const uint8_t *functions;
    const uint8_t *sites;
    uint32_t function_bits, site_bits;
};

enum ct_pull { /* what a pull found besides what it wrote */
               CT_PULL_MORE = 0,
               CT_PULL_END = 1,
               CT_PULL_LIMIT = 2, /* ended by the limit: there would be more lines */
               CT_PULL_NO_MEMORY = 3,
               CT_PULL_TEXT = 4,  /* an export goes on when it has been given the text that it wants */
               CT_PULL_SPLIT = 5, /* what follows belongs into another file */
};

/* The chunks of a file. */
struct ct_index {
    uint64_t file_size;
    uint64_t event_chunks;   /* with events, live slots among them */
    uint64_t hole_blocks;    /* steps over CT_CHUNK_HOLE */
    uint64_t unknown_chunks; /* of a kind this version does not know: skipped */
    uint64_t damaged_chunks; /* contradicting themselves or each other: left out */
    uint64_t units;
    uint64_t lost; /* units missing between the chunks of their threads */
    uint32_t modules, infos, threads;
    uint32_t live_slots; /* slots of the LIVE area */
    uint32_t truncated;  /* 1: the file ends before its last chunk does, or before header.append_end */
    uint32_t reserved;
};

struct ct_module_entry { /* offsets are file offsets */
    uint64_t base, load_tsc;
    uint64_t functions, sites, json;
    uint32_t size, index;
    uint32_t first_function, function_count;
    uint32_t first_site, site_count;
    uint32_t json_size, reserved;
};

struct ct_span {
    uint64_t offset, size;
};

struct ct_thread_entry {
    uint32_t index, id; /* the recorder's number, the system's */
    uint64_t units;     /* present in the file */
    uint64_t lost;
    uint64_t open_tsc; /* of its first chunk */
};

/* Where a thread was when its program was marked with a name. */
struct ct_mark {
    uint64_t position; /* units it had recorded */
    uint32_t thread;   /* its index: the recorder's number */
    uint32_t number;   /* of the mark, from 1 on */
};

/* Where a program marked a moment itself: CT_EXT_MARK. */
struct ct_program_mark {
    uint64_t number; /* given to mark() */
    uint64_t time;   /* ticks; without a clock its position */
    uint64_t position;
    uint32_t thread; /* its index */
    uint32_t reserved;
};

struct ct_totals {
    uint64_t units;     /* read, payloads and lost ones not counted */
    uint64_t events[8]; /* by enum ct_event */
    uint64_t ext[16];   /* by enum ct_ext */
    uint64_t frames[CT_NODE_KINDS];
    uint64_t causes[CT_CAUSES];
    uint64_t orphans;
    uint64_t gaps, lost;  /* in the file's order and inside damaged chunks; units */
    uint64_t short_times; /* chunks in which the 40-bit counter turned unseen: later times in them are too early */
    uint64_t first_time, last_time;
    uint32_t max_depth, reserved;
};

struct ct_stat {
    uint64_t calls;
    uint64_t self;
    uint64_t total; /* recursion counted once */
};

/* A thread's stack at the end of what it recorded. */
struct ct_stack {
    uint64_t time; /* of the last thing it did */
    uint32_t thread;
    uint32_t depth;     /* frames */
    uint8_t cause;      /* enum ct_cause: why the frames were not closed; CT_CAUSE_NONE if none is open */
    uint8_t incomplete; /* 1: further frames may be below the outermost, or none be open: events were lost */
    uint8_t reserved[6];
};

struct ct_stack_frame {
    uint64_t begin;
    uint32_t id;
    uint8_t kind; /* enum ct_node_kind */
    uint8_t reserved[3];
};

#define CT_EDGE_LEVELS 64u

enum ct_edge_flags {
    CT_EDGES_ALL = 1,      /* every frame is a chosen one, of whatever kind, whatever the bits say */
    CT_EDGES_BY_STACK = 2, /* what a jump enters is called by the caller of the one that jumped: the frame below it */
};

struct ct_edge_options {
    uint32_t first_thread, thread_count; /* positions among the reader's threads */
    uint32_t depth;                      /* levels of callers or callees; CT_EDGE_LEVELS at most */
    uint32_t callees;                    /* 0: callers */
    /* Bits by id: whose callers or callees; and the sites of imports that traced functions stand for. */
    const uint8_t *functions, *sites, *through;
    uint32_t function_bits, site_bits, through_bits;
    uint32_t flags; /* enum ct_edge_flags */
    /* By the number of the last named mark before a call, from 0 on: the part of the trace that it is counted for.
     * Null: all is part 0; CT_NONE is the part behind further marks. */
    const uint32_t *parts;
    uint32_t part_count;
    uint32_t limit; /* edges; where more are needed, the run ends with CT_PULL_LIMIT. 0: none */
};

/* A function or call in its context: below `parent`, which it calls, or is called by. */
struct ct_edge {
    uint64_t calls; /* of the chosen function, or of the callee, in this context */
    uint64_t self;
    uint64_t total;  /* recursion within the context counted once */
    uint32_t parent; /* position of another edge before this one; CT_NONE: a chosen function itself */
    uint32_t id;
    uint8_t kind; /* enum ct_node_kind */
    uint8_t tail; /* 1: the callee of the two was entered by a jump that replaced its caller */
    uint8_t reserved[2];
    uint32_t part; /* in which the call was made; others are edges of their own */
};

enum ct_export_format {
    CT_EXPORT_CSV = 0,
    CT_EXPORT_CHROME = 1,
    CT_EXPORT_SPEEDSCOPE = 2,
    CT_EXPORT_FOLDED = 3,
    CT_EXPORT_PERFETTO = 4,
    CT_EXPORT_TREE = 5,
    CT_EXPORT_FORMATS = 6,
};

/* What an export wants the text of, beside the frames of enum ct_node_kind. */
enum ct_text_kind {
    CT_TEXT_MARK = 4,    /* id = the number of a named mark */
    CT_TEXT_CAUSE = 5,   /* id = enum ct_cause */
    CT_TEXT_PROCESS = 6, /* id = 0: the process */
    CT_TEXT_KINDS = 7,
};

struct ct_export_options {
    uint32_t format; /* enum ct_export_format */
    uint32_t process_id;
    uint64_t start; /* ticks that times count from; 0 without a clock */
    uint64_t hz;    /* 0: not known, or no clock: times are written as they are */
    uint64_t limit; /* CT_EXPORT_FOLDED: stacks kept at a time. CT_EXPORT_PERFETTO: bytes of a file, more or less */
    uint32_t timed; /* 0: no clock */
    uint32_t reserved;
    const uint32_t *thread_ids; /* CT_EXPORT_CHROME: one for each thread, by position; null: the system's */
};

/* Something that events name, in the order it was met. */
struct ct_node {
    uint32_t id;
    uint32_t kind; /* enum ct_node_kind, or CT_TEXT_MARK */
};

/* Rows of events, one array a column. Bits: one a row, the first in the lowest bit. */
struct ct_columns {
    uint32_t *thread; /* its index */
    uint64_t *position;
    int64_t *time; /* ticks from `start` on */
    uint32_t *depth;
    uint32_t *node; /* position among the nodes */
    uint64_t *value;
    uint64_t *duration; /* of a frame that is closed */
    uint64_t *self;
    uint8_t *event;     /* enum ct_row */
    uint8_t *cause;     /* enum ct_cause */
    uint8_t *has_node;  /* bits */
    uint8_t *has_value; /* bits */
    uint8_t *closes;    /* bits: duration, self and cause are told */
    uint64_t start;
};

/* What a row of events tells; ct_reader_row_name has its name. */
enum ct_row {
    CT_ROW_OPEN = 0,     /* + enum ct_node_kind */
    CT_ROW_RESUME = 4,   /* a frame is gone on with after CT_CAUSE_SWITCHED */
    CT_ROW_RETURN = 5,   /* + enum ct_node_kind */
    CT_ROW_TAIL = 9,     /* left by a jump */
    CT_ROW_SUSPEND = 10, /* CT_CAUSE_SWITCHED */
    CT_ROW_UNWIND = 11,  /* closed without an event of its own */
    CT_ROW_STEP = 8,     /* + enum ct_step_type: what is neither of a frame nor CT_STEP_ORPHAN */
    CT_ROW_ORPHAN = 20,  /* + enum ct_event */
    CT_ROW_MUTED = 28,
    CT_ROWS = 29,
};

/* What was counted of a recording (CT_POLICY_COUNT), whether there are events or not: the payload of its last
 * CT_CHUNK_GRAPH. The header, the VAs that the ids of CT_NODE_API_FUNCTION and CT_NODE_API_CALL stand for, then each
 * thread with its rows. */
enum ct_graph_view {
    CT_GRAPH_BY_JUMPS = 0, /* what a jump enters is called by the one that jumped */
    CT_GRAPH_BY_STACK = 1, /* ... by who is below it on the stack: CT_EDGES_BY_STACK */
    CT_GRAPH_VIEWS = 2,
};

enum ct_graph_taken {
    CT_GRAPH_FULL = 0, /* full blocks */
    CT_GRAPH_LOOK = 1, /* what the others have so far, which stay as they are */
    CT_GRAPH_LAST = 2, /* all, when nobody writes to them any more */
};

#define CT_GRAPH_SITE 5 /* beside enum ct_node_kind: a call site for itself, whatever other sites call the same */

struct ct_graph_header {
    uint32_t thread_size, row_size; /* bytes: the sizes of the structures below */
    uint32_t threads, addresses;
};

struct ct_graph_thread {
    uint32_t index, id;
    uint64_t units, lost;
    uint64_t open_tsc; /* of its first block */
    uint32_t rows, reserved;
    struct ct_totals totals;
};

struct ct_graph_count {
    uint64_t calls;
    uint64_t self;
    uint64_t total; /* recursion within the row counted once */
};

struct ct_graph_row {
    uint32_t position; /* among the thread's rows */
    uint32_t caller;   /* position of the row of the place that calls; CT_NONE: of a place, or a site, in all */
    uint32_t id;
    uint8_t kind;  /* enum ct_node_kind, or CT_GRAPH_SITE */
    uint8_t tail;  /* as in struct ct_edge */
    uint8_t views; /* bits by enum ct_graph_view: where it counts */
    uint8_t reserved;
    struct ct_graph_count counts[CT_GRAPH_VIEWS];
};

struct ct_snapshot;
struct ct_reader;
struct ct_graph;
struct ct_budget;
struct ct_steps;
struct ct_tree;
struct ct_summary;
struct ct_stacks;
struct ct_edges;
struct ct_export;
struct ct_column_reader;

CT_READER_EXPORT uint32_t ct_reader_abi(void);
/* For a file whose header says CT_STATE_RECORDING, which others may be writing to. Null: no memory. */
CT_READER_EXPORT struct ct_snapshot *ct_reader_snapshot(const void *file, uint64_t size, uint32_t mapped);
CT_READER_EXPORT void ct_reader_snapshot_close(struct ct_snapshot *snapshot);
/* `snapshot`: of the same file, null if it is finished; the reader's from here on, if there is one. It was taken of an
 * earlier mapping: this one must have been made after it, as large as the file was then. */
CT_READER_EXPORT struct ct_reader *ct_reader_open(const void *file, uint64_t size, uint32_t mapped,
                                                  struct ct_snapshot *snapshot, uint32_t *status);
CT_READER_EXPORT void ct_reader_close(struct ct_reader *reader);
CT_READER_EXPORT void ct_reader_index(const struct ct_reader *reader, struct ct_index *out);
/* Each of the three: `out` gets the entry; `at` must lie below the index's count. */
CT_READER_EXPORT void ct_reader_module(const struct ct_reader *reader, uint32_t at, struct ct_module_entry *out);
CT_READER_EXPORT void ct_reader_info(const struct ct_reader *reader, uint32_t at, struct ct_span *out);
CT_READER_EXPORT void ct_reader_thread(const struct ct_reader *reader, uint32_t at, struct ct_thread_entry *out);
/* Between opening and reading: the marks that have names or bound parts, in place of those told before. 0: no memory,
 * and there are none. */
CT_READER_EXPORT uint32_t ct_reader_set_marks(struct ct_reader *reader, const struct ct_mark *marks, uint32_t count);
/* Between opening and reading: ids from 0 on are these VAs, of which the first is 0. 0: no memory. */
CT_READER_EXPORT uint32_t ct_reader_set_addresses(struct ct_reader *reader, const uint64_t *addresses, uint32_t count);
/* The VA behind an id of CT_NODE_API_FUNCTION or CT_NODE_API_CALL; 0: one of too many. */
CT_READER_EXPORT uint64_t ct_reader_address(const struct ct_reader *reader, uint32_t id);

/* How many units have been read by all that was opened from the reader, a block at a time. */
CT_READER_EXPORT uint64_t ct_reader_units_read(const struct ct_reader *reader);

/* Null: no memory. `capacity` is in steps or lines; `pull` gets enum ct_pull. A pull may come back with nothing and
 * CT_PULL_MORE, so that a caller can be interrupted. */
CT_READER_EXPORT struct ct_steps *ct_reader_steps_open(struct ct_reader *reader, uint32_t first_thread,
                                                       uint32_t thread_count);
CT_READER_EXPORT uint32_t ct_reader_steps_next(struct ct_steps *steps, struct ct_step *out, uint32_t capacity,
                                               uint32_t *pull);
CT_READER_EXPORT void ct_reader_steps_close(struct ct_steps *steps);

CT_READER_EXPORT struct ct_tree *ct_reader_tree_open(struct ct_reader *reader, const struct ct_tree_options *options);
CT_READER_EXPORT uint32_t ct_reader_tree_next(struct ct_tree *tree, struct ct_line *out, uint32_t capacity,
                                              uint32_t *pull);
CT_READER_EXPORT void ct_reader_tree_close(struct ct_tree *tree);

CT_READER_EXPORT struct ct_summary *ct_reader_summary_open(struct ct_reader *reader, uint32_t first_thread,
                                                           uint32_t thread_count);
/* Reads on for a while: enum ct_pull. */
CT_READER_EXPORT uint32_t ct_reader_summary_run(struct ct_summary *summary);
CT_READER_EXPORT void ct_reader_summary_totals(const struct ct_summary *summary, struct ct_totals *out);
/* By id; valid until the next run or close. */
CT_READER_EXPORT const struct ct_stat *ct_reader_summary_stats(const struct ct_summary *summary, uint32_t kind,
                                                               uint32_t *count);
CT_READER_EXPORT void ct_reader_summary_close(struct ct_summary *summary);

CT_READER_EXPORT struct ct_stacks *ct_reader_stacks_open(struct ct_reader *reader, uint32_t first_thread,
                                                         uint32_t thread_count);
/* Reads on for a while. 1: `out` has the next thread's stack; `pull` gets enum ct_pull. */
CT_READER_EXPORT uint32_t ct_reader_stacks_next(struct ct_stacks *stacks, struct ct_stack *out, uint32_t *pull);
/* The stack->depth frames of the stack that was given last, innermost first. */
CT_READER_EXPORT void ct_reader_stacks_frames(const struct ct_stacks *stacks, const struct ct_stack *stack,
                                              struct ct_stack_frame *out);
CT_READER_EXPORT void ct_reader_stacks_close(struct ct_stacks *stacks);

CT_READER_EXPORT struct ct_edges *ct_reader_edges_open(struct ct_reader *reader, const struct ct_edge_options *options);
/* Reads on for a while: enum ct_pull. */
CT_READER_EXPORT uint32_t ct_reader_edges_run(struct ct_edges *edges);
/* Valid until the next run or close. */
CT_READER_EXPORT const struct ct_edge *ct_reader_edges_of(const struct ct_edges *edges, uint32_t *count);
CT_READER_EXPORT void ct_reader_edges_close(struct ct_edges *edges);

/* Reads all threads for the marks that the program set itself, and for where each was at `times`, ascending ticks.
 * Null: no memory. */
CT_READER_EXPORT struct ct_moments *ct_reader_moments_open(struct ct_reader *reader, const uint64_t *times,
                                                           uint32_t count);
/* Reads on for a while: enum ct_pull. */
CT_READER_EXPORT uint32_t ct_reader_moments_run(struct ct_moments *moments);
/* Thread by thread, in order. Valid until the next run or close. */
CT_READER_EXPORT const struct ct_program_mark *ct_reader_moments_marks(const struct ct_moments *moments,
                                                                       uint32_t *count);
/* For each thread, by its position among the reader's, and each time: the units before its first event of that time or
 * later; UINT64_MAX: there is none. */
CT_READER_EXPORT const uint64_t *ct_reader_moments_positions(const struct ct_moments *moments);
CT_READER_EXPORT void ct_reader_moments_close(struct ct_moments *moments);

/* Counting while it is recorded. Null: no memory. */
CT_READER_EXPORT struct ct_graph *ct_graph_open(void);
/* Before the first take, and whenever a module is added: its ids, and `through`, as in struct ct_edge_options. The
 * reader stays the caller's, until the next one is set. 0: no memory, and what was counted is lost. */
CT_READER_EXPORT uint32_t ct_graph_set_reader(struct ct_graph *graph, struct ct_reader *reader, const uint8_t *through,
                                              uint32_t through_bits);
/* Counts some of what is in these slots of the mapped file, and empties them; how many. `status`: enum
 * ct_reader_status. */
CT_READER_EXPORT uint32_t ct_graph_take(struct ct_graph *graph, void *const *slots, uint32_t count, uint32_t what,
                                        uint32_t *status);
/* The payload of a CT_CHUNK_GRAPH, for ct_graph_free; frames that are open count as closed for `cause`, and stay open.
 * Null: no memory. */
CT_READER_EXPORT void *ct_graph_write(struct ct_graph *graph, uint32_t cause, uint64_t *size);
CT_READER_EXPORT void ct_graph_free(void *bytes);
CT_READER_EXPORT void ct_graph_close(struct ct_graph *graph);
/* From the first take on; what of the units goes into the file is in `budget`, the caller's, which must outlast it. */
CT_READER_EXPORT void ct_graph_set_budget(struct ct_graph *graph, struct ct_budget *budget);

/* Budgets: each thread's first `calls` of each function, and of each call site, go into the file. Null: no memory. */
CT_READER_EXPORT struct ct_budget *ct_budget_open(uint32_t calls);
/* What is open in each thread is to be seen in the file, and what was muted so far; `last`: nothing comes any more. 0:
 * no memory. */
CT_READER_EXPORT uint32_t ct_budget_settle(struct ct_budget *budget, uint32_t last);
/* The next block that is to be written, a whole CT_CHUNK_EVENTS; `place`: where it was before, when it was not full;
 * else 0. With `all` also of those that are not full. Null: there is none. Valid until ct_budget_written. */
CT_READER_EXPORT const void *ct_budget_block(struct ct_budget *budget, uint32_t all, uint64_t *place);
/* That block is in the file, at `place`; 0: there was no room for it. How many units are lost if it is not there. */
CT_READER_EXPORT uint32_t ct_budget_written(struct ct_budget *budget, const void *block, uint64_t place);
/* By id how many calls were muted and told; `kind`: enum ct_muted_kind. Valid until the next take. */
CT_READER_EXPORT const uint64_t *ct_budget_muted(const struct ct_budget *budget, uint32_t kind, uint32_t *count);
CT_READER_EXPORT void ct_budget_close(struct ct_budget *budget);
/* The payloads of the file's CT_CHUNK_GRAPH: `out` gets the last one; 0: there is none. */
CT_READER_EXPORT uint32_t ct_reader_graph(const struct ct_reader *reader, struct ct_span *out);

/* `tree`: what CT_EXPORT_TREE shows; null for all other formats. */
CT_READER_EXPORT struct ct_export *ct_reader_export_open(struct ct_reader *reader,
                                                         const struct ct_export_options *options,
                                                         const struct ct_tree_options *tree);
/* Reads on for a while: enum ct_pull. `out` gets `size` bytes, valid until the next run or close, which come before
 * whatever the result asks for. With CT_PULL_TEXT `wanted` tells of what. */
CT_READER_EXPORT uint32_t ct_reader_export_run(struct ct_export *made, const char **out, uint64_t *size,
                                               struct ct_node *wanted);
/* The text that was wanted, fit for the format: it is written as it is; in CT_EXPORT_SPEEDSCOPE the number of the
 * frame's name. 0: no memory. */
CT_READER_EXPORT uint32_t ct_reader_export_text(struct ct_export *made, const struct ct_node *wanted, const char *text,
                                                uint32_t size);
CT_READER_EXPORT void ct_reader_export_close(struct ct_export *made);

CT_READER_EXPORT struct ct_column_reader *ct_reader_columns_open(struct ct_reader *reader);
/* Up to `capacity` rows, a multiple of 8. */
CT_READER_EXPORT uint32_t ct_reader_columns_next(struct ct_column_reader *columns, const struct ct_columns *out,
                                                 uint32_t capacity, uint32_t *pull);
CT_READER_EXPORT const struct ct_node *ct_reader_columns_nodes(const struct ct_column_reader *columns, uint32_t *count);
/* By node; those of no frame have none. Valid until the next run or close. */
CT_READER_EXPORT const struct ct_stat *ct_reader_columns_stats(const struct ct_column_reader *columns, uint32_t *count);
CT_READER_EXPORT void ct_reader_columns_close(struct ct_column_reader *columns);

/* Of an enum ct_row; null: there is none such. */
CT_READER_EXPORT const char *ct_reader_row_name(uint32_t row);

/* A time span as a user reads it, into 32 bytes; how many it has. `hz` 0: its ticks. */
CT_READER_EXPORT uint32_t ct_reader_duration(uint64_t ticks, uint64_t hz, char *out);

#endif
