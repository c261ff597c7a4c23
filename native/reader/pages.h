/* What has been read of a mapped file lately: it is let go of again, so that a trace may be larger than memory. */
#ifndef CALLTRACE_READER_PAGES_H
#define CALLTRACE_READER_PAGES_H

#include <stdint.h>

struct ct_pages {
    const uint8_t *file; /* null: the bytes are no mapping of a file, and stay where they are */
    uint64_t size;
    uint64_t begin, end; /* offsets between which blocks have been read since the last were let go of */
    uint32_t blocks;     /* how many */
    uint64_t expected;   /* offset up to which headers have been asked for */
};

/* Before the block at this offset is read: those before it may go. */
void ct_read_block(struct ct_pages *pages, uint64_t offset);

/* The same, of a walk along the headers of a file's blocks. */
void ct_read_header(struct ct_pages *pages, uint64_t offset);

/* All may go. */
void ct_release_blocks(struct ct_pages *pages);

#endif
