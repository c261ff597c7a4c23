#if !defined(_WIN32)
#define _DEFAULT_SOURCE /* madvise */
#endif
#include "pages.h"

#include "trace_format.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

#define BLOCKS_KEPT 64 /* some milliseconds of reading */

#if defined(_WIN32)

/* Unlocking pages that nobody has locked takes them out of the working set, and fails (Microsoft, VirtualUnlock). */
static void release(const uint8_t *at, uint64_t size)
{
    VirtualUnlock((void *)(uintptr_t)at, (SIZE_T)size);
}

static void ask_for(const uint8_t *at, uint64_t size)
{
    (void)at, (void)size; /* they come one by one */
}

#else

static void advise(const uint8_t *at, uint64_t size, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)at & ~(page - 1);
    madvise((void *)begin, (size_t)((uintptr_t)at + size - begin), advice);
}

static void release(const uint8_t *at, uint64_t size)
{
    advise(at, size, MADV_DONTNEED);
}

static void ask_for(const uint8_t *at, uint64_t size)
{
    advise(at, size, MADV_WILLNEED);
}

#endif

void ct_release_blocks(struct ct_pages *pages)
{
    if (!pages->blocks)
        return;
    /* The system has mapped what lies around the bytes that were read, too. */
    uint64_t begin = pages->begin < CT_BLOCK ? 0 : pages->begin - CT_BLOCK;
    uint64_t end = pages->end + CT_BLOCK;
    release(pages->file + begin, (end < pages->size ? end : pages->size) - begin);
    pages->blocks = 0;
}

void ct_read_block(struct ct_pages *pages, uint64_t offset)
{
    if (!pages->file)
        return;
    if (pages->blocks == BLOCKS_KEPT)
        ct_release_blocks(pages);
    uint64_t end = offset + CT_BLOCK;
    if (!pages->blocks++) {
        pages->begin = offset;
        pages->end = end;
    }
    if (offset < pages->begin)
        pages->begin = offset;
    if (end > pages->end)
        pages->end = end;
}

void ct_read_header(struct ct_pages *pages, uint64_t offset)
{
    ct_read_block(pages, offset);
    if (!pages->file || offset < pages->expected)
        return;
    /* Of a file that is not in memory several at a time are read sooner than one after the other. */
    pages->expected = offset;
    for (uint32_t at = 0; at < BLOCKS_KEPT && pages->expected < pages->size; at++, pages->expected += CT_BLOCK)
        ask_for(pages->file + pages->expected, 1);
}
