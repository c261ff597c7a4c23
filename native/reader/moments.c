/* Moments in a trace: where the program marked them itself, and where its threads were at a time. */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_PER_RUN 1000000u /* some milliseconds */

struct ct_moments {
    struct ct_machine machine;
    struct ct_totals totals;
    uint32_t mark_count, mark_room;
    struct ct_program_mark *marks;
    uint32_t thread, found; /* positions[thread * time_count + found] is looked for */
    uint32_t time_count;
    uint64_t *positions, times[];
};

struct ct_moments *ct_reader_moments_open(struct ct_reader *reader, const uint64_t *times, uint32_t count)
{
    size_t positions = (size_t)reader->index.threads * count + 1;
    struct ct_moments *moments = calloc(1, sizeof *moments + count * sizeof *times);
    if (!moments)
        return NULL;
    moments->positions = malloc(positions * sizeof *moments->positions);
    if (!moments->positions) {
        free(moments);
        return NULL;
    }
    moments->time_count = count;
    if (count)
        memcpy(moments->times, times, count * sizeof *times);
    for (size_t at = 0; at < positions; at++)
        moments->positions[at] = UINT64_MAX;
    ct_machine_start(&moments->machine, reader, 0, reader->index.threads, &moments->totals);
    return moments;
}

/* False: no memory. */
static bool add_mark(struct ct_moments *moments, const struct ct_step *step)
{
    if (moments->mark_count == moments->mark_room) {
        uint32_t room = moments->mark_room ? moments->mark_room * 2 : 64;
        struct ct_program_mark *marks = realloc(moments->marks, room * sizeof *marks);
        if (!marks)
            return false;
        moments->marks = marks;
        moments->mark_room = room;
    }
    moments->marks[moments->mark_count++] = (struct ct_program_mark){
        .number = step->value,
        .time = step->time,
        .position = step->position,
        .thread = moments->machine.reader->threads[step->thread].entry.index,
    };
    return true;
}

uint32_t ct_reader_moments_run(struct ct_moments *moments)
{
    struct ct_machine *machine = &moments->machine;
    struct ct_step step;
    for (uint32_t count = 0; count < STEPS_PER_RUN; count++) {
        uint64_t before = machine->position; /* what is read behind it belongs to the step */
        if (!ct_machine_next(machine, &step))
            return machine->no_memory ? CT_PULL_NO_MEMORY : CT_PULL_END;
        if (step.type == CT_STEP_THREAD) {
            moments->thread = step.thread;
            moments->found = 0;
            before = 0;
        }
        while (moments->found < moments->time_count && step.time >= moments->times[moments->found])
            moments->positions[(size_t)moments->thread * moments->time_count + moments->found++] = before;
        if (step.type == CT_STEP_MARK && !step.id && !add_mark(moments, &step))
            return CT_PULL_NO_MEMORY;
    }
    return CT_PULL_MORE;
}

const struct ct_program_mark *ct_reader_moments_marks(const struct ct_moments *moments, uint32_t *count)
{
    *count = moments->mark_count;
    return moments->marks;
}

const uint64_t *ct_reader_moments_positions(const struct ct_moments *moments)
{
    return moments->positions;
}

void ct_reader_moments_close(struct ct_moments *moments)
{
    ct_machine_free(&moments->machine);
    free(moments->marks);
    free(moments->positions);
    free(moments);
}
