/* The second file of lto.c. */
#include "lto_callees.h"

volatile unsigned zero;

APART unsigned scaled(unsigned value, unsigned factor)
{
    return value * factor;
}

APART void accumulate(struct totals *totals, unsigned scaled_value, unsigned value)
{
    totals->count++;
    if (scaled_value > totals->largest)
        totals->largest = scaled_value;
    totals->sum += value;
}
