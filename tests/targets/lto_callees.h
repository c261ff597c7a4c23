/* What lto.c calls. */
#define APART __attribute__((noinline, noclone))

struct totals {
    unsigned count, largest, sum;
};

extern volatile unsigned zero;

unsigned scaled(unsigned value, unsigned factor);
void accumulate(struct totals *totals, unsigned scaled_value, unsigned value);
