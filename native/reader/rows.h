/* Inside the reader: steps as rows of a table, which CSV and columns have in common. */
#ifndef CALLTRACE_READER_ROWS_H
#define CALLTRACE_READER_ROWS_H

#include <stdbool.h>

#include "reader.h"

enum ct_row ct_row_of(const struct ct_step *step);

/* Does the step name a frame, or a named mark? `node` gets which. */
bool ct_row_node(const struct ct_step *step, struct ct_node *node);

/* Has the row a value? It is the step's. */
bool ct_row_has_value(const struct ct_step *step);

#endif
