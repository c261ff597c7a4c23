/* The steps of a machine in batches. */
#include "machine.h"

#include <stdlib.h>

struct ct_steps {
    struct ct_machine machine;
    struct ct_totals totals;
};

struct ct_steps *ct_reader_steps_open(struct ct_reader *reader, uint32_t first_thread, uint32_t thread_count)
{
    struct ct_steps *steps = calloc(1, sizeof *steps);
    if (steps)
        ct_machine_start(&steps->machine, reader, first_thread, thread_count, &steps->totals);
    return steps;
}

uint32_t ct_reader_steps_next(struct ct_steps *steps, struct ct_step *out, uint32_t capacity, uint32_t *pull)
{
    uint32_t count = 0;
    while (count < capacity && ct_machine_next(&steps->machine, &out[count]))
        count++;
    *pull = count == capacity ? CT_PULL_MORE : CT_PULL_END;
    if (steps->machine.no_memory)
        *pull = CT_PULL_NO_MEMORY;
    return count;
}

void ct_reader_steps_close(struct ct_steps *steps)
{
    ct_machine_free(&steps->machine);
    free(steps);
}
