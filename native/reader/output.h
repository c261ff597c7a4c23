/* Inside the reader: bytes on their way into a file, and how numbers and times are written there. */
#ifndef CALLTRACE_READER_OUTPUT_H
#define CALLTRACE_READER_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes that grow; what writes into them reserves first. */
struct ct_output {
    char *data;
    size_t size, room;
};

/* Room for `more` bytes behind those there; null: no memory. */
char *ct_output_room(struct ct_output *output, size_t more);

/* The bytes up to `end`, which was written to behind ct_output_room's, belong to the output now. */
static inline void ct_output_end(struct ct_output *output, const char *end)
{
    output->size = (size_t)(end - output->data);
}

/* What the put functions write, at most. */
#define CT_NUMBER_ROOM 32u

/* Each writes at `at` and tells where it ended. */
static inline char *ct_put(char *at, const char *bytes, size_t size)
{
    memcpy(at, bytes, size);
    return at + size;
}
#define CT_PUT(at, literal) ct_put(at, literal, sizeof(literal) - 1)
char *ct_put_number(char *at, uint64_t number);
char *ct_put_signed(char *at, int64_t number);
char *ct_put_count(char *at, uint64_t number); /* with commas between thousands */

/* A time as it is written: whole seconds and 10^-10 of one. */
#define CT_TENTHS UINT64_C(10000000000) /* tenths of a nanosecond in a second */
struct ct_moment {
    uint64_t seconds;
    uint64_t tenths; /* below CT_TENTHS */
    bool negative;
};

/* Turns ticks into times. What it remembers spares most divisions: times mostly come in order. */
struct ct_time {
    uint64_t start; /* ticks that times count from */
    uint64_t hz;    /* not 0 */
    double tenths_per_tick;
    uint64_t second, second_ticks; /* of the last time told, and where it began */
};

void ct_time_start(struct ct_time *time, uint64_t start, uint64_t hz);
struct ct_moment ct_moment_at(struct ct_time *time, uint64_t ticks);

/* The moment as nanoseconds or microseconds, with decimals to the tenth of a nanosecond. */
char *ct_put_nanoseconds(char *at, struct ct_moment moment);
char *ct_put_microseconds(char *at, struct ct_moment moment);

/* A time span as a user reads it; `hz` 0: its ticks. */
char *ct_put_duration(char *at, uint64_t ticks, uint64_t hz);

#endif
