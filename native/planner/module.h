/* What the planner's stages share: the decoded module. Private to native/planner. */
#ifndef CALLTRACE_MODULE_H
#define CALLTRACE_MODULE_H

#include "../include/trace_format.h"
#include "decode.h"
#include "eh.h"
#include "vec.h"

/* One bit set per byte of the image. */
enum ct_mark {
    CT_MARK_START = 1,    /* an instruction was decoded here */
    CT_MARK_TARGET = 2,   /* something may jump or return here, or refers to it: a patch may only begin here */
    CT_MARK_LAND = 4,     /* execution goes on here after unwinding */
    CT_MARK_PAD = 8,      /* int3 or nop between functions */
    CT_MARK_USED = 16,    /* covered by a patch */
    CT_MARK_ENTRY = 32,   /* a direct call or a seed names this address */
    CT_MARK_FUNCLET = 64, /* handler data names this address as a funclet */
    CT_MARK_BODY = 128,   /* part of a decoded instruction or of a jump table */
};

/* A contiguous piece of code that belongs to one function: a RUNTIME_FUNCTION, or a leaf function's extent. */
struct ct_part {
    uint32_t begin, end;
    uint32_t group;          /* CT_NONE: not usable */
    uint32_t first, count;   /* its instructions in ct_plan.insns */
    struct ct_unwind unwind; /* version 0: leaf, without RUNTIME_FUNCTION */
    enum ct_handler handler;
    uint8_t handler_words;         /* of CT_HANDLER_LABELS: words in its data */
    bool settled;                  /* a leaf whose end is known */
    bool returns;                  /* has a ret, an indirect jump, or a jump to code in no part */
    bool runs_out;                 /* goes on behind its end */
    bool dirty;                    /* runs into something that is no instruction */
    bool swept;                    /* what nothing leads to in it was tried once: what is no code stays none */
    uint32_t copy_begin, copy_end; /* offsets in the region */
    uint32_t copy_unwind;          /* RVA of the cloned UNWIND_INFO */
    uint32_t region_unwind;        /* RVA of the one whose chained RUNTIME_FUNCTION counts from the region */
};

/* A function: its entry and its parts. */
struct ct_group {
    struct ct_function function;
    VEC(uint32_t) parts; /* ascending indexes into ct_plan.parts */
    bool whole;          /* nothing can happen between its entry and its ret: one event does for both */
    bool landed_in;      /* its ENTER carries the stack pointer */
    uint32_t parent;     /* the function this one is a funclet of, else CT_NONE */
    bool unresolved;     /* has an indirect jump that may stay inside */
    bool chained;        /* has parts chained to its primary */
    bool tables;         /* and a jump table was found */
    bool joined;         /* became part of another function, or was no function: to be taken out */
    uint8_t patch_size;  /* 5; 2: a short jump to `pad`, which holds the long one; 1: an int3 */
    uint32_t pad;
    struct ct_range copy;   /* offsets in the region: all of the copy, its stubs too; empty if there is none */
    uint32_t copy_entry;    /* offset in the region of what the patch jumps to */
    struct ct_range mapped; /* what the address map of its indirect jumps covers */
    uint32_t map;           /* offset of the map in the region */
};

struct ct_cross {
    uint32_t from; /* part */
    uint32_t to;   /* RVA in another function */
};

/* An array of RUNTIME_FUNCTIONs in plan->data. */
struct ct_table {
    uint32_t at; /* offset */
    uint32_t count;
};

struct ct_plan {
    struct ct_image image;
    struct ct_decoder *decoder;
    bool oom;
    uint8_t *marks;
    bool *named;                       /* per 4 bytes of the image: a lea in a function with jump tables names them */
    VEC(struct ct_part) parts;         /* ascending, disjoint */
    VEC(struct ct_group) groups;       /* functions first in .pdata order, then leaf functions */
    VEC(struct ct_function) functions; /* ct_group.function of each, for the caller */
    VEC(struct ct_extent) extents;     /* parts, for the caller */
    VEC(struct ct_insn) insns;         /* ascending */
    uint32_t *block_insn;              /* for each 64 bytes of the image: the first instruction at or behind them */
    VEC(struct ct_cross) crossings;    /* jumps from one function into another */
    VEC(struct ct_cross) leas;
    VEC(uint32_t) accessed; /* addresses in the code that are read or written, ascending once sorted */
    VEC(uint32_t) jumps;    /* targets in no known function of direct jumps, and of calls by what may be data */
    VEC(uint32_t) work;
    VEC(struct ct_seed) seeds;
    uint32_t seeds_merged; /* so many of them are in order, one for each address */
    uint64_t budget;       /* work that may yet be done: a damaged image cannot take for ever */
    bool sweeping;         /* what is decoded now may be data */
    bool damaged;          /* .pdata contradicts itself: what it leaves out says nothing */

    /* layout */
    struct ct_codegen codegen;
    struct ct_layout layout;
    VEC(struct ct_site) sites;
    uint32_t *branch_label; /* per instruction: offset in the region where a branch to it goes */
    uint32_t *end_label;    /* per instruction: offset behind its copy, before any event that follows it */
    uint32_t *exit_label;   /* per instruction that leaves the function: offset of the stub it leaves through */
    uint8_t *bytes;
    VEC(struct ct_range) switches; /* offsets in the region: stubs that call SwitchToFiber in a tail call's place */
    VEC(struct ct_patch) patches;
    VEC(struct ct_piece) pieces; /* made by ct_plan_copies */
    VEC(struct ct_copied) copied;
    VEC(uint8_t) data; /* unwind data and address maps */
    uint32_t region;   /* RVA; 0 before ct_plan_emit */
};

static inline void ct_mark(struct ct_plan *plan, uint32_t rva, uint32_t size, uint8_t bits)
{
    for (uint32_t i = 0; i < size && rva < plan->image.size; i++, rva++) {
        plan->marks[rva] |= bits;
    }
}

static inline bool ct_marked(const struct ct_plan *plan, uint32_t rva, uint8_t bits)
{
    return rva < plan->image.size && plan->marks[rva] & bits;
}

/* Takes `amount` from the work budget. false: it is spent. */
static inline bool ct_spend(struct ct_plan *plan, uint64_t amount)
{
    plan->budget -= amount < plan->budget ? amount : plan->budget;
    return plan->budget;
}

/* Appends to plan->data. */
static inline void put_u8(struct ct_plan *plan, uint8_t value)
{
    vec_push(&plan->data, &plan->oom, value);
}

/* Where they are, until more is appended; NULL: no memory. */
static inline uint8_t *put_zeros(struct ct_plan *plan, uint32_t size)
{
    if (size > plan->data.room - plan->data.count &&
        !vec_grow((void **)&plan->data.items, &plan->data.room, plan->data.count + size, 1, &plan->oom)) {
        return NULL;
    }
    plan->data.count += size;
    return memset(plan->data.items + plan->data.count - size, 0, size);
}

static inline void put_u32(struct ct_plan *plan, uint32_t value)
{
    for (unsigned shift = 0; shift < 32; shift += 8) {
        put_u8(plan, (uint8_t)(value >> shift));
    }
}

/* The part that holds rva, or NULL. */
struct ct_part *ct_part_at(const struct ct_plan *plan, uint32_t rva);
/* Index of the instruction that starts at rva, or CT_NONE. */
uint32_t ct_insn_at(const struct ct_plan *plan, uint32_t rva);
/* Index into image.imports of the address table slot at rva, or CT_NONE. */
uint32_t ct_import_at(const struct ct_plan *plan, uint32_t rva);
/* The function that starts at rva, or NULL. */
struct ct_group *ct_group_starting(const struct ct_plan *plan, uint32_t rva);

/* pdata.c: parts into ascending order. */
void ct_sort_parts(struct ct_plan *plan);
/* handler_code.c: what a handler's instructions show. */
struct ct_handler_code {
    bool names_code; /* takes addresses of code, or could not be read */
    uint8_t words;   /* 32-bit words that it reads of its data, as far as that is seen */
};
struct ct_handler_code ct_read_handler_code(struct ct_plan *plan, uint32_t handler);
/* pdata.c: fills parts and groups from the exception directory. */
void ct_read_pdata(struct ct_plan *plan);
/* What a run of instructions has in its registers: addresses of code that a lea took. */
struct ct_taken {
    uint32_t registers; /* one bit each */
    uint32_t rva[16];
};
/* accessed.c: after each instruction of a run, in order; `taken` starts as all zeros. */
void ct_note_accesses(struct ct_plan *plan, const struct ct_insn *insn, struct ct_taken *taken);
/* accessed.c: before ct_is_accessed. */
void ct_sort_accesses(struct ct_plan *plan);
/* accessed.c: does something take [rva, rva + size), or part of it, for data? */
bool ct_is_accessed(const struct ct_plan *plan, uint32_t rva, uint32_t size);
/* discover.c: decodes all of it, joins separated parts, finds leaf functions. */
void ct_discover(struct ct_plan *plan);
/* discover.c: where the padding ends that begins at `at`; at most `end`. */
uint32_t ct_skip_padding(const struct ct_plan *plan, uint32_t at, uint32_t end);
/* discover.c: does the instruction before `at` jump to `to`? Padding between them then parts two functions. */
bool ct_jumps_over(const struct ct_plan *plan, uint32_t at, uint32_t to);
/* gaps.c: leaf functions that nothing names, or only a jump, into plan->seeds, which are sorted. false: none. */
bool ct_read_gaps(struct ct_plan *plan);
/* known.c: marks calls of functions that return twice or switch stacks. */
void ct_mark_known(struct ct_plan *plan);
/* gaps.c: where the leaf function ends that starts at `begin`; `end` if it is not seen to be one. */
uint32_t ct_leaf_end(struct ct_plan *plan, uint32_t begin, uint32_t end);
/* gaps.c: does what stands at rva begin as code does that is called? */
bool ct_may_be_entered(struct ct_plan *plan, uint32_t rva, uint32_t end);
/* entry.c: decides how each function's entry is patched. */
void ct_choose_entries(struct ct_plan *plan);
/* clone.c: unwind data of every copy into plan->data, which will lie at RVA data_base, for plan->region: a table that
 * counts from the module's base, and one that counts from the region's. */
void ct_clone_unwind(struct ct_plan *plan, uint32_t data_base, struct ct_table *table, struct ct_table *by_region);
/* headers.c: PE headers into the start of plan->bytes; the table's offset is that in the region. */
void ct_put_headers(struct ct_plan *plan, struct ct_table by_region);
/* clone.c: can the unwind data of this function be cloned, its copy lying where it does? */
enum ct_status ct_check_unwind(const struct ct_plan *plan, const struct ct_group *group, uint32_t *at);
/* compose.c: is this function's code copied? */
bool ct_is_copied(const struct ct_group *group);
bool ct_starts_with_int3(const struct ct_group *group);
/* compose.c: where execution goes on after unwinding to rva: in the copy, with a LAND, if there is one. */
uint32_t ct_landing(const struct ct_plan *plan, uint32_t region, uint32_t rva);
/* compose.c: where in the region (offset) an original address of `part` is, to the unwinder's eyes. */
uint32_t ct_unwind_label(const struct ct_plan *plan, const struct ct_part *part, uint32_t rva);

#endif
