#include "output.h"

#include <stdlib.h>

#include "reader.h"

char *ct_output_room(struct ct_output *output, size_t more)
{
    if (more > output->room - output->size) {
        size_t room = output->room ? output->room : 1u << 16;
        while (room - output->size < more) {
            if (room > SIZE_MAX / 2)
                return NULL;
            room *= 2;
        }
        char *grown = realloc(output->data, room);
        if (!grown)
            return NULL;
        output->data = grown;
        output->room = room;
    }
    return output->data + output->size;
}

/* `number` with at least `digits` digits. */
static char *put_padded(char *at, uint64_t number, uint32_t digits)
{
    char text[20];
    uint32_t count = 0;
    while (number >= 100) {
        uint32_t two = (uint32_t)(number % 100);
        number /= 100;
        text[count++] = (char)('0' + two % 10);
        text[count++] = (char)('0' + two / 10);
    }
    text[count++] = (char)('0' + number % 10);
    if (number >= 10)
        text[count++] = (char)('0' + number / 10);
    for (; digits > count; digits--)
        *at++ = '0';
    while (count)
        *at++ = text[--count];
    return at;
}

char *ct_put_number(char *at, uint64_t number)
{
    return put_padded(at, number, 1);
}

char *ct_put_signed(char *at, int64_t number)
{
    if (number < 0)
        *at++ = '-';
    return put_padded(at, number < 0 ? 0 - (uint64_t)number : (uint64_t)number, 1);
}

char *ct_put_count(char *at, uint64_t number)
{
    char text[20];
    size_t digits = (size_t)(put_padded(text, number, 1) - text);
    for (size_t i = 0; i < digits; i++) {
        if (i && (digits - i) % 3 == 0)
            *at++ = ',';
        *at++ = text[i];
    }
    return at;
}

void ct_time_start(struct ct_time *time, uint64_t start, uint64_t hz)
{
    *time = (struct ct_time){.start = start, .hz = hz, .tenths_per_tick = (double)CT_TENTHS / (double)hz};
}

struct ct_moment ct_moment_at(struct ct_time *time, uint64_t ticks)
{
    bool negative = ticks < time->start;
    uint64_t passed = negative ? time->start - ticks : ticks - time->start;
    if (passed < time->second_ticks || passed - time->second_ticks >= time->hz) {
        time->second = passed / time->hz;
        time->second_ticks = time->second * time->hz;
    }
    struct ct_moment moment = {.seconds = time->second, .negative = negative};
    moment.tenths = (uint64_t)((double)(passed - time->second_ticks) * time->tenths_per_tick + 0.5);
    if (moment.tenths >= CT_TENTHS) {
        moment.seconds++;
        moment.tenths = 0;
    }
    return moment;
}

/* `digits`: those of the tenths that lie before the point. */
static char *put_moment(char *at, struct ct_moment moment, uint64_t divisor, uint32_t digits)
{
    if (moment.negative && (moment.seconds || moment.tenths))
        *at++ = '-';
    if (moment.seconds)
        at = ct_put_number(at, moment.seconds);
    at = put_padded(at, moment.tenths / divisor, moment.seconds ? digits : 1);
    *at++ = '.';
    return put_padded(at, moment.tenths % divisor, 10 - digits);
}

char *ct_put_nanoseconds(char *at, struct ct_moment moment)
{
    return put_moment(at, moment, 10, 9);
}

char *ct_put_microseconds(char *at, struct ct_moment moment)
{
    return put_moment(at, moment, 10000, 6);
}

char *ct_put_duration(char *at, uint64_t ticks, uint64_t hz)
{
    static const struct {
        uint64_t per_second;
        uint32_t decimals, scale; /* 10 to the power of decimals */
        const char *name;
    } units[] = {
        {1, 3, 1000, " s"},
        {1000, 3, 1000, " ms"},
        {1000000, 2, 100, " \xC2\xB5s"},
        {1000000000, 0, 1, " ns"},
    };
    if (!hz)
        return CT_PUT(ct_put_count(at, ticks), " ticks");
    uint32_t unit = 0;
    while (unit < 3 && (unsigned __int128)ticks * units[unit].per_second < hz)
        unit++;
    uint64_t factor = units[unit].per_second * units[unit].scale, scale = units[unit].scale, whole, rest;
    if (ticks <= (UINT64_MAX - hz / 2) / factor) {
        uint64_t value = (ticks * factor + hz / 2) / hz;
        whole = value / scale;
        rest = value % scale;
    } else {
        unsigned __int128 value = ((unsigned __int128)ticks * factor + hz / 2) / hz;
        whole = (uint64_t)(value / scale);
        rest = (uint64_t)(value % scale);
    }
    at = ct_put_count(at, whole);
    if (units[unit].decimals) {
        *at++ = '.';
        at = put_padded(at, rest, units[unit].decimals);
    }
    return ct_put(at, units[unit].name, strlen(units[unit].name));
}

uint32_t ct_reader_duration(uint64_t ticks, uint64_t hz, char *out)
{
    return (uint32_t)(ct_put_duration(out, ticks, hz) - out);
}
