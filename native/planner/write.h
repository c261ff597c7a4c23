/* The writer: keeps where bytes go apart from where they will run. Without a buffer it only counts, so that one
 * walk over the code both measures and writes. */
#ifndef CALLTRACE_WRITE_H
#define CALLTRACE_WRITE_H

#include "image.h"

struct ct_writer {
    uint8_t *bytes;  /* NULL: only count */
    uint32_t at;     /* offset in the region */
    uint32_t size;   /* of the buffer */
    uint32_t region; /* RVA that offset 0 will have */
};

void ct_put(struct ct_writer *writer, const void *bytes, uint32_t size);
/* Opcode bytes, then a rel32 to the RVA `target`. */
void ct_put_rel32(struct ct_writer *writer, const void *opcode, uint32_t size, uint32_t target);
/* Overwrites 32 bits at an offset already written. */
void ct_fix_u32(struct ct_writer *writer, uint32_t at, uint32_t value);
/* Overwrites a rel32 at an offset already written, whose instruction ends behind it. */
void ct_fix_rel32(struct ct_writer *writer, uint32_t at, uint32_t target);
/* int3 up to a multiple of `alignment`. */
void ct_align(struct ct_writer *writer, uint32_t alignment);

#endif
