#include "nodes.h"

#include <stdlib.h>

uint32_t ct_node_number(struct ct_nodes *nodes, struct ct_node node)
{
    uint32_t **numbers = &nodes->kinds[node.kind].numbers;
    if (!ct_reserve_items((void **)numbers, &nodes->kinds[node.kind].room, (uint64_t)node.id + 1, sizeof **numbers))
        return CT_NONE;
    uint32_t *number = &(*numbers)[node.id];
    if (!*number) {
        if (!ct_reserve_items((void **)&nodes->of, &nodes->room, nodes->count + 1u, sizeof node))
            return CT_NONE;
        nodes->of[nodes->count++] = node;
        *number = nodes->count;
    }
    return *number - 1;
}

void ct_nodes_free(struct ct_nodes *nodes)
{
    for (uint32_t kind = 0; kind < CT_TEXT_KINDS; kind++)
        free(nodes->kinds[kind].numbers);
    free(nodes->of);
}
