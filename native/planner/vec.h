/* Growing arrays: VEC(type) with items, count, room. A failed growth is remembered in *oom and the push ignored, so
 * that a long computation checks once at its end. */
#ifndef CALLTRACE_VEC_H
#define CALLTRACE_VEC_H

#include <stdbool.h>
#include <stdlib.h>

#define VEC(type)                                                                                                      \
    struct {                                                                                                           \
        type *items;                                                                                                   \
        uint32_t count, room;                                                                                          \
    }

static inline bool vec_grow(void **items, uint32_t *room, uint32_t need, size_t size, bool *oom)
{
    uint64_t wanted = need + (uint64_t)need / 2 + 16;
    void *grown = wanted > UINT32_MAX ? NULL : realloc(*items, (size_t)wanted * size);
    if (!grown) {
        *oom = true;
        return false;
    }
    *items = grown;
    *room = (uint32_t)wanted;
    return true;
}

#define vec_push(vec, oom, ...)                                                                                        \
    do {                                                                                                               \
        if ((vec)->count < (vec)->room ||                                                                              \
            vec_grow((void **)&(vec)->items, &(vec)->room, (vec)->count + 1, sizeof *(vec)->items, (oom))) {           \
            (vec)->items[(vec)->count++] = (__VA_ARGS__);                                                              \
        }                                                                                                              \
    } while (0)

#define vec_free(vec) free((vec)->items)

#endif
