/* Bounds-checked reads from a mapped image. Reading outside gives zero and sets nothing: callers that must know
 * ask ct_has() first. */
#ifndef CALLTRACE_IMAGE_H
#define CALLTRACE_IMAGE_H

#include <string.h>

#include "plan.h"

static inline bool ct_has(const struct ct_image *image, uint32_t rva, uint32_t size)
{
    return rva <= image->size && size <= image->size - rva;
}

static inline uint8_t ct_u8(const struct ct_image *image, uint32_t rva)
{
    return ct_has(image, rva, 1) ? image->bytes[rva] : 0;
}

static inline uint16_t ct_u16(const struct ct_image *image, uint32_t rva)
{
    uint16_t value = 0;
    if (ct_has(image, rva, sizeof value)) {
        memcpy(&value, image->bytes + rva, sizeof value);
    }
    return value;
}

static inline uint32_t ct_u32(const struct ct_image *image, uint32_t rva)
{
    uint32_t value = 0;
    if (ct_has(image, rva, sizeof value)) {
        memcpy(&value, image->bytes + rva, sizeof value);
    }
    return value;
}

static inline uint64_t ct_u64(const struct ct_image *image, uint32_t rva)
{
    uint64_t value = 0;
    if (ct_has(image, rva, sizeof value)) {
        memcpy(&value, image->bytes + rva, sizeof value);
    }
    return value;
}

/* The executable section that holds rva, or NULL. */
static inline const struct ct_range *ct_exec(const struct ct_image *image, uint32_t rva)
{
    for (uint32_t i = 0; i < image->exec_count; i++) {
        if (image->exec[i].begin <= rva && rva < image->exec[i].end) {
            return &image->exec[i];
        }
    }
    return NULL;
}

#endif
