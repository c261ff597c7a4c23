/* What the host needs while a target records, and Python has no instruction for. */
#include "../include/trace_format.h"
#include "plan.h"

/* The time stamp counter of this processor. */
CT_EXPORT uint64_t ct_tsc(void);
/* Takes `length` bytes at the end of a trace that a target may be appending to; their offset in the file. */
CT_EXPORT uint64_t ct_reserve(struct ct_file_header *header, uint64_t length);

uint64_t ct_tsc(void)
{
    return __builtin_ia32_rdtsc();
}

uint64_t ct_reserve(struct ct_file_header *header, uint64_t length)
{
    return __atomic_fetch_add(&header->append_end, length, __ATOMIC_SEQ_CST);
}
