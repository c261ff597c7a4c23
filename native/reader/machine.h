/* Walks the units of one thread after the other and tells what happened, frame by frame. */
#ifndef CALLTRACE_READER_MACHINE_H
#define CALLTRACE_READER_MACHINE_H

#include "index.h"

#include <string.h>

#define CT_CLOCK_MASK ((UINT64_C(1) << 40) - 1)
/* A clock that seems to turn almost once has in truth gone back a little: another core's, or the coarse one. */
#define CT_CLOCK_STEP_BACK (UINT64_C(1) << 34)

struct ct_frame {
    uint64_t begin;
    uint64_t children; /* time spent in closed children */
    uint64_t sp;       /* stack pointer at entry, if has_sp */
    uint32_t id;
    uint32_t below; /* the next lower open frame of the same kind and id, plus 1; 0 = none */
    uint8_t kind;
    bool has_sp;
    bool resumed; /* was open before, until the thread left its stack */
};

/* The frames of a stack (fiber) that the thread has left by a call: it comes back by that call's return. */
struct ct_suspended {
    struct ct_frame *frames; /* the last of them is the call */
    uint32_t depth;
};

/* By id: the topmost open frame, plus 1. */
struct ct_tops {
    uint32_t *of;
    uint64_t count;
};

struct ct_machine {
    struct ct_reader *reader;
    struct ct_pages pages;
    uint32_t thread, thread_end;
    bool inside; /* the thread's first step was given */
    uint64_t piece, piece_end;
    const uint8_t *unit, *unit_end;
    uint32_t mark, mark_end; /* named marks of the thread that are still to come */
    uint64_t piece_close_tsc;
    uint64_t *block;   /* copy of a block that may be overwritten at any time */
    uint64_t position; /* of `unit` in its thread */
    uint64_t time;
    uint64_t told_position; /* of the unit whose steps are being given */
    uint64_t sp;
    bool has_sp; /* a CT_FRAME came and waits for what it belongs to */
    bool whole;  /* the function just entered has also left again */
    uint32_t whole_id;
    bool after_tail;
    uint32_t tail_from; /* the function that was left, if after_tail; CT_NONE: one of the C API */
    bool no_memory;
    bool fed; /* units come by ct_machine_feed */

    struct ct_frame *frames;
    uint64_t frame_room;
    uint32_t depth;
    struct ct_tops tops[CT_NODE_KINDS];
    uint32_t api_frames; /* open frames of CT_NODE_API_FUNCTION */

    bool switching; /* the frame on top is a call that may go on with another stack */
    struct ct_suspended *suspended;
    uint64_t suspended_room;
    uint32_t suspended_count;
    uint64_t suspended_frames;    /* in all of them */
    struct ct_suspended resuming; /* its frames from `resumed` on are being opened again */
    uint32_t resumed;

    /* Frames above `close_to` are being closed, the last of them for a reason of its own; then comes `pending`. */
    uint32_t close_to;
    uint8_t close_cause, last_cause;
    uint64_t goto_target;
    struct ct_step pending;
    uint64_t pending_sp;
    bool pending_has_sp;

    struct ct_totals *totals; /* units and events are counted here */
};

/* Every thread from `first` on, `count` of them. */
void ct_machine_start(struct ct_machine *machine, struct ct_reader *reader, uint32_t first, uint32_t count,
                      struct ct_totals *totals);

/* One thread, whose units come bit by bit; `reader` has the modules. */
void ct_machine_start_fed(struct ct_machine *machine, struct ct_reader *reader, struct ct_totals *totals);

/* What comes next begins at this position: how many units are missing before it. The steps that tell of that are to be
 * taken before it is fed. */
uint64_t ct_machine_skip_to(struct ct_machine *machine, uint64_t position);

/* Units, which are to stay until there are no more steps. */
void ct_machine_feed(struct ct_machine *machine, const struct ct_piece *piece);

/* Does the next step come of the next unit, and belongs that to the stack whose frames are open? */
static inline bool ct_machine_is_plain(const struct ct_machine *machine)
{
    return !(machine->close_to < machine->depth || machine->pending.type || machine->resuming.frames ||
             machine->whole || machine->has_sp || machine->switching);
}

static inline bool ct_is_funclet(const struct ct_machine *machine, uint32_t function)
{
    return function < machine->reader->id_count && machine->reader->parents[function] != CT_NONE;
}

static inline uint64_t ct_unit_at(const uint8_t *at, uint32_t unit_size)
{
    uint64_t unit = 0;
    memcpy(&unit, at, unit_size);
    return unit;
}

static inline bool ct_takes_stack_pointer(uint32_t event)
{
    return event == CT_ENTER || event == CT_LAND || event == CT_CALL || event == CT_RETURN;
}

/* How many units that no writer writes are at `at`: of a block that was torn or overwritten. */
uint32_t ct_senseless_units(const uint8_t *at, const uint8_t *end, uint32_t unit_size);

/* The time of a unit with a clock, behind one at `time`. */
static inline uint64_t ct_ticked(uint64_t time, uint64_t unit)
{
    uint64_t passed = ((unit >> 24) - time) & CT_CLOCK_MASK;
    return passed <= CT_CLOCK_MASK - CT_CLOCK_STEP_BACK && time <= CT_NUMBER_LIMIT ? time + passed : time;
}

/* The next step. False: there is none, or machine->no_memory. */
bool ct_machine_next(struct ct_machine *machine, struct ct_step *step);

void ct_machine_free(struct ct_machine *machine);

#endif
