/* The user's breakpoints in functions that run as copies.
 *
 * While the target stands still every breakpoint is where its user has set it: whatever he or the engine does then
 * needs to know of nothing. Just before the target runs each is moved to where its instruction runs now, and back when
 * the target has stopped; wherever else that instruction may run, a hidden breakpoint stands for it (its "mirror").
 */
#ifndef CALLTRACE_BREAKPOINTS_H
#define CALLTRACE_BREAKPOINTS_H

#include "extension.h"

enum { CT_PLACES = 8 };

/* Where an instruction runs: up to CT_PLACES addresses, the usual one first. Returns how many. */
typedef ULONG ct_find_places(ULONG64 address, ULONG64 *places);

/* From now on let the breakpoints of process `process` (the system's id) follow what `find` tells, until it is NULL.
 * `find` is called on the engine's thread while the target stands still. To be called while a command runs. */
CT_EXPORT HRESULT ct_breakpoints_follow(ULONG process, ct_find_places *find);

#endif
