/* Calling contexts of one thread: a frame's is its own function or call, and the context of the frame below it. */
#ifndef CALLTRACE_READER_CONTEXTS_H
#define CALLTRACE_READER_CONTEXTS_H

#include "index.h"

/* Of a call, if there is a question: is what is entered first in it what it calls? */
enum ct_call_state {
    CT_CALL_SHOWN = 0,   /* no. Functions too */
    CT_CALL_ASKED = 1,   /* nothing was entered yet */
    CT_CALL_THROUGH = 2, /* yes: that stands for it */
};

/* What tells a context from others above the same one. */
struct ct_opened {
    uint32_t id;
    uint32_t jumper; /* who has left by a jump to it, as ct_jumper() tells; CT_NONE: nobody */
    uint8_t kind;    /* enum ct_node_kind */
    uint8_t state;   /* enum ct_call_state */
    bool resumed;    /* was open before, until the thread left its stack */
};

/* While it is open; no context is open twice at a time. */
struct ct_opening {
    uint64_t begin;
    uint64_t sp; /* at entry, plus CT_HAS_SP; plus CT_IN_MACHINE. Its own low bits are zero */
};

#define CT_NO_UNIT UINT64_MAX
#define CT_HAS_SP UINT64_C(1)
#define CT_IN_MACHINE UINT64_C(2) /* the machine's frames have it */

/* What was opened after a context, the last of it first, by the code of the unit and what had happened before. */
struct ct_after {
    uint32_t codes[2];
    struct ct_context *contexts[2];
};

#define CT_AFTER_BITS 2

struct ct_context {
    uint64_t closing; /* the unit, without its time, that closes it; CT_NO_UNIT: none does by itself */
    struct ct_context *parent;
    struct ct_opening opening;
    uint64_t closed;                           /* times */
    uint64_t time;                             /* in all of these */
    struct ct_after after[1 << CT_AFTER_BITS]; /* by a hash of the code */
    struct ct_context *first_above, *beside;
    struct ct_opened what;
    uint32_t depth; /* frames that are open with it; 0: none, the root */
};

struct ct_contexts {
    struct ct_context **pools;
    uint64_t pool_room;
    struct ct_context **slots; /* hash table */
    uint32_t count, slot_count;
    struct ct_context *root;
};

static inline uint32_t ct_jumper(const struct ct_context *context)
{
    return (uint32_t)context->what.kind << 24 | context->what.id;
}

/* The context of a place above another one. NULL: no memory. */
struct ct_context *ct_context_of(struct ct_contexts *contexts, struct ct_context *parent,
                                 const struct ct_opened *place);

/* Forgets all but the root, which is made if there is none. False: no memory. */
bool ct_contexts_clear(struct ct_contexts *contexts);

void ct_contexts_free(struct ct_contexts *contexts);

#endif
