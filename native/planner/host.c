/* What the host needs while a target records, and Python has no instruction for. */
#include "../include/trace_format.h"
#include "plan.h"

struct ct_span {
    uint64_t start, end;
};

/* The time stamp counter of this processor. */
CT_EXPORT uint64_t ct_tsc(void);
/* Takes `length` bytes at the end of a trace that a target may be appending to; their offset in the file. */
CT_EXPORT uint64_t ct_reserve(struct ct_file_header *header, uint64_t length);
/* Those taken at `offset` are not used; nothing happens if others were taken behind them. */
CT_EXPORT void ct_give_back(struct ct_file_header *header, uint64_t offset, uint64_t length);
/* So many units found no room in the trace. */
CT_EXPORT void ct_add_lost(struct ct_file_header *header, uint64_t units);

/* Which of `words` lie in one of the spans: their indexes go to `found`, which has room for all. How many they are. */
CT_EXPORT uint32_t ct_find_values(const uint64_t *words, uint32_t count, const struct ct_span *spans,
                                  uint32_t span_count, uint32_t *found);

uint64_t ct_tsc(void)
{
    return __builtin_ia32_rdtsc();
}

uint64_t ct_reserve(struct ct_file_header *header, uint64_t length)
{
    return __atomic_fetch_add(&header->append_end, length, __ATOMIC_SEQ_CST);
}

void ct_give_back(struct ct_file_header *header, uint64_t offset, uint64_t length)
{
    uint64_t end = offset + length;
    __atomic_compare_exchange_n(&header->append_end, &end, offset, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

void ct_add_lost(struct ct_file_header *header, uint64_t units)
{
    __atomic_fetch_add(&header->units_lost, units, __ATOMIC_SEQ_CST);
}

uint32_t ct_find_values(const uint64_t *words, uint32_t count, const struct ct_span *spans, uint32_t span_count,
                        uint32_t *found)
{
    uint64_t low = UINT64_MAX, high = 0;
    for (uint32_t i = 0; i < span_count; i++) {
        low = spans[i].start < low ? spans[i].start : low;
        high = spans[i].end > high ? spans[i].end : high;
    }
    uint32_t written = 0;
    for (uint32_t at = 0; at < count; at++) {
        if (words[at] - low >= high - low) {
            continue;
        }
        for (uint32_t i = 0; i < span_count; i++) {
            if (words[at] - spans[i].start < spans[i].end - spans[i].start) {
                found[written++] = at;
                break;
            }
        }
    }
    return written;
}
