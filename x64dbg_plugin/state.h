/* What is kept with the database that the debugger has of each program: how it was last recorded and where that trace
 * is, and which breakpoints the debugger would take for those of another program. */
#ifndef CALLTRACE_X64DBG_STATE_H
#define CALLTRACE_X64DBG_STATE_H

#include "plugin.h"

enum { CT_STATE_TEXT = 4096 }; /* bytes, with the end */

/* Remember a recording: the words behind `start`, and the path of the trace. What is too long is not remembered. */
CT_EXPORT void ct_state_recorded(const char *words, const char *trace);

/* The recording remembered of this target, into CT_STATE_TEXT each; false if there is none. */
CT_EXPORT bool ct_state_last(char *words, char *trace);

/* The user's enabled breakpoints that lie where traced functions begin now: forget all, add one. The debugger remembers
 * of each what code it stands on, which is no more there when the program is started again. */
void state_forget_entries(void);
void state_add_entry(const BRIDGEBP *point);

/* Registers for what the debugger saves and loads. */
void state_register(int plugin);

#endif
