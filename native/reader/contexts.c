/* Calling contexts: a tree whose nodes are found by a hash table. */
#include "contexts.h"

#include <stdlib.h>
#include <string.h>

#define POOL 64u /* contexts that are allocated together; they never move */

static struct ct_context *context_at(const struct ct_contexts *contexts, uint32_t at)
{
    return &contexts->pools[at / POOL][at % POOL];
}

static uint64_t hash_of(const struct ct_context *parent, const struct ct_opened *place)
{
    uint64_t hash = (uint64_t)(uintptr_t)parent + ((uint64_t)place->id << 32 | place->jumper);
    hash = (hash + (place->kind << 4 | place->state << 1 | place->resumed)) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

static bool is_same(const struct ct_opened *a, const struct ct_opened *b)
{
    return a->id == b->id && a->jumper == b->jumper && a->kind == b->kind && a->state == b->state &&
           a->resumed == b->resumed;
}

/* False: no memory. */
static bool grow_slots(struct ct_contexts *contexts)
{
    uint32_t count = contexts->slot_count ? contexts->slot_count * 2 : 256;
    struct ct_context **grown = calloc(count, sizeof *grown);
    if (!grown)
        return false;
    for (uint32_t at = 1; at < contexts->count; at++) {
        struct ct_context *context = context_at(contexts, at);
        uint64_t slot = hash_of(context->parent, &context->what) & (count - 1);
        while (grown[slot])
            slot = (slot + 1) & (count - 1);
        grown[slot] = context;
    }
    free(contexts->slots);
    contexts->slots = grown;
    contexts->slot_count = count;
    return true;
}

static struct ct_context *add(struct ct_contexts *contexts, struct ct_context context)
{
    uint32_t at = contexts->count;
    if (!ct_reserve_items((void **)&contexts->pools, &contexts->pool_room, at / POOL + 1u, sizeof *contexts->pools))
        return NULL;
    if (!contexts->pools[at / POOL] && !(contexts->pools[at / POOL] = malloc(POOL * sizeof **contexts->pools)))
        return NULL;
    contexts->count++;
    *context_at(contexts, at) = context;
    return context_at(contexts, at);
}

struct ct_context *ct_context_of(struct ct_contexts *contexts, struct ct_context *parent, const struct ct_opened *place)
{
    if (contexts->count * 2 >= contexts->slot_count && !grow_slots(contexts))
        return NULL;
    uint64_t slot = hash_of(parent, place) & (contexts->slot_count - 1);
    for (struct ct_context *known; (known = contexts->slots[slot]); slot = (slot + 1) & (contexts->slot_count - 1))
        if (known->parent == parent && is_same(&known->what, place))
            return known;
    struct ct_context *context = add(contexts, (struct ct_context){
                                                   .closing = CT_NO_UNIT,
                                                   .depth = parent->depth + 1,
                                                   .parent = parent,
                                                   .what = *place,
                                                   .beside = parent->first_above,
                                               });
    if (!context)
        return NULL;
    if (place->kind == CT_NODE_FUNCTION)
        context->closing = place->id << 3 | CT_LEAVE;
    else if (place->kind == CT_NODE_CALL)
        context->closing = place->id << 3 | CT_RETURN;
    contexts->slots[slot] = context;
    return parent->first_above = context;
}

bool ct_contexts_clear(struct ct_contexts *contexts)
{
    if (contexts->slots)
        memset(contexts->slots, 0, contexts->slot_count * sizeof *contexts->slots);
    contexts->count = 0;
    contexts->root = add(contexts, (struct ct_context){
                                       .closing = CT_NO_UNIT,
                                       .opening = {.sp = CT_IN_MACHINE},
                                       .what = {.jumper = CT_NONE, .kind = CT_NODE_NOBODY},
                                   });
    return contexts->root;
}

void ct_contexts_free(struct ct_contexts *contexts)
{
    for (uint64_t pool = 0; pool < contexts->pool_room; pool++)
        free(contexts->pools[pool]);
    free(contexts->pools);
    free(contexts->slots);
}
