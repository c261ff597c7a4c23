/* The user's breakpoints in functions that run as copies.
 *
 * The debugger's own stay where their user has set them. While the target runs there is an int3 of ours wherever else
 * the instruction runs; a thread that comes to it is, for the debugger, one that came to the user's breakpoint, and
 * goes on where it was. While the target stands still ours are out of the code.
 */
#ifndef CALLTRACE_X64DBG_BREAKPOINTS_H
#define CALLTRACE_X64DBG_BREAKPOINTS_H

#include "plugin.h"

enum { CT_PLACES = 8 };

/* Where an instruction runs: up to CT_PLACES addresses, the usual one first. Returns how many. `in_jump` tells whether
 * a jump to a copy is where it was. */
typedef uint32_t ct_find_places(uint64_t address, uint64_t *places, bool *in_jump);

/* From the next run on let the breakpoints in the process (a handle) follow what `find` tells, until that is NULL. It
 * is called on the debug loop's and on the command's thread. False if the debugger's engine is not to be had. */
CT_EXPORT bool ct_breakpoints_follow(HANDLE process, ct_find_places *find);

/* Around runs of the target; on any thread. */
void breakpoints_in(void);
void breakpoints_out(void);

/* From now on a run is none of the user's, for which ours stay out; or is one again. */
void breakpoints_rest(bool rest);

/* On the debug loop's thread, before the debugger looks at an exception. */
void breakpoints_translate(DEBUG_EVENT *event);

/* Whether an exception is nothing to the debugger, and the thread is to go on: asked before breakpoints_translate. It
 * is of an int3 that was taken out of the code after the thread had come to it, while another was dealt with; or of a
 * hardware breakpoint on the jump to a copy, where its instruction is not. */
bool breakpoints_ignore(const DEBUG_EVENT *event);

/* The target is gone. */
void breakpoints_forget(void);

/* When the plugin is loaded, for the first time or again. */
void breakpoints_begin(void);

#endif
