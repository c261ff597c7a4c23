/* Inside the reader: what of a recording's units goes into the file when functions have budgets. */
#ifndef CALLTRACE_READER_BUDGET_H
#define CALLTRACE_READER_BUDGET_H

#include "machine.h"

/* Takes a thread's next units, behind `missing` lost ones; `reader` has the modules. The piece tells of the thread,
 * and of its position the first time. False: no memory. */
bool ct_budget_take(struct ct_budget *budget, const struct ct_reader *reader, const struct ct_piece *piece,
                    uint64_t missing);

#endif
