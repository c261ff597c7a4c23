/* Inside the reader: frames' functions and calls, and other things that have an id, numbered as they are met. */
#ifndef CALLTRACE_READER_NODES_H
#define CALLTRACE_READER_NODES_H

#include "index.h"

struct ct_nodes {
    struct {
        uint32_t *numbers; /* by id: the number, plus 1 */
        uint64_t room;
    } kinds[CT_TEXT_KINDS];
    struct ct_node *of; /* by number */
    uint64_t room;
    uint32_t count;
};

/* The node's number; CT_NONE: no memory. */
uint32_t ct_node_number(struct ct_nodes *nodes, struct ct_node node);

void ct_nodes_free(struct ct_nodes *nodes);

#endif
