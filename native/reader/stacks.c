/* Each thread's call stack at the end of what it recorded.
 *
 * The outermost frames of a thread are as old as the thread, so its events are read from the first to the last: the
 * machine knows every way in which a frame may end.
 */
#include "machine.h"

#include <stdlib.h>

#define STEPS_PER_RUN (1u << 22)

struct ct_stacks {
    struct ct_machine machine;
    struct ct_totals totals;
    struct ct_stack stack; /* of the thread whose steps are read */
    bool inside;
    bool exited; /* the thread; what still runs then are the callbacks of its end */
};

struct ct_stacks *ct_reader_stacks_open(struct ct_reader *reader, uint32_t first_thread, uint32_t thread_count)
{
    struct ct_stacks *stacks = calloc(1, sizeof *stacks);
    if (stacks)
        ct_machine_start(&stacks->machine, reader, first_thread, thread_count, &stacks->totals);
    return stacks;
}

void ct_reader_stacks_close(struct ct_stacks *stacks)
{
    ct_machine_free(&stacks->machine);
    free(stacks);
}

/* Is this how frames are closed behind the last that a thread recorded? */
static bool ends_thread(uint8_t cause)
{
    return cause == CT_CAUSE_THREAD_EXIT || cause == CT_CAUSE_PROCESS_END || cause == CT_CAUSE_RUNNING ||
           cause == CT_CAUSE_CUT || cause == CT_CAUSE_STOPPED;
}

static void take(struct ct_stacks *stacks, const struct ct_step *step)
{
    struct ct_stack *stack = &stacks->stack;
    uint8_t unless_open = stacks->exited ? CT_CAUSE_THREAD_EXIT : CT_CAUSE_NONE;
    stack->time = step->time;
    switch (step->type) {
    case CT_STEP_CLOSE:
        if (!ends_thread(step->cause)) {
            stack->depth = 0;
            stack->cause = unless_open;
            stack->incomplete |= step->cause == CT_CAUSE_TOO_DEEP;
        } else if (!stack->depth) {
            stack->depth = step->depth + 1; /* the innermost is closed first */
            stack->cause = step->cause;
        }
        break;
    case CT_STEP_OPEN:
        stack->depth = 0;
        stack->cause = unless_open;
        break;
    case CT_STEP_GAP:
        stack->incomplete = 1;
        break;
    case CT_STEP_THREAD_EXIT:
        stack->cause = CT_CAUSE_THREAD_EXIT;
        stacks->exited = true;
        break;
    case CT_STEP_STOP:
        stack->cause = CT_CAUSE_STOPPED;
        break;
    default:
        break;
    }
}

/* The stack of the thread read so far, if there was one. */
static uint32_t give(struct ct_stacks *stacks, struct ct_stack *out)
{
    if (!stacks->inside)
        return 0;
    *out = stacks->stack;
    stacks->inside = false;
    return 1;
}

uint32_t ct_reader_stacks_next(struct ct_stacks *stacks, struct ct_stack *out, uint32_t *pull)
{
    *pull = CT_PULL_MORE;
    for (uint32_t count = 0; count < STEPS_PER_RUN; count++) {
        struct ct_step step;
        if (!ct_machine_next(&stacks->machine, &step)) {
            *pull = stacks->machine.no_memory ? CT_PULL_NO_MEMORY : CT_PULL_END;
            return *pull == CT_PULL_END ? give(stacks, out) : 0;
        }
        if (step.type != CT_STEP_THREAD) {
            take(stacks, &step);
            continue;
        }
        uint32_t given = give(stacks, out);
        stacks->stack = (struct ct_stack){.thread = step.thread, .time = step.time};
        stacks->inside = true;
        stacks->exited = false;
        if (given)
            return given;
    }
    return 0;
}

void ct_reader_stacks_frames(const struct ct_stacks *stacks, const struct ct_stack *stack, struct ct_stack_frame *out)
{
    /* Closed frames lie where they were until another one is opened. */
    for (uint32_t at = 0; at < stack->depth; at++) {
        const struct ct_frame *frame = &stacks->machine.frames[stack->depth - 1 - at];
        out[at] = (struct ct_stack_frame){.begin = frame->begin, .id = frame->id, .kind = frame->kind};
    }
}
