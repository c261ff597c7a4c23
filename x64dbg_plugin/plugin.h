/* The x64dbg plugin: what it exports to Python, for ctypes. Names begin with ct_. */
#ifndef CALLTRACE_X64DBG_PLUGIN_H
#define CALLTRACE_X64DBG_PLUGIN_H

#include "sdk.h"

#define CT_EXPORT __declspec(dllexport)

/* Show text in the debugger's log: what a command was asked for, what else there is to say, or why it failed. */
CT_EXPORT void ct_print(const char *text);
CT_EXPORT void ct_print_note(const char *text);
CT_EXPORT void ct_print_error(const char *text);

/* For scripts (calltrace_client.py): run what a user types after `calltrace`, on this thread. What was asked for, and
 * why it failed, is handed over in pieces instead of being logged. False, and nothing is done, if a command of another
 * thread is running. */
typedef void ct_take(bool is_error, const char *text);
CT_EXPORT bool ct_run(const char *line, ct_take *take);

/* Whether there is a target. */
CT_EXPORT bool ct_is_debugging(void);

/* Whether the user has asked for the running command's end since this was last asked. On any thread. */
CT_EXPORT bool ct_interrupted(void);

enum { CT_HITS, CT_TRACED }; /* how often a function was called; whether it is, or was, recorded */

/* Answers what an expression asks of the code at an address. On any thread. */
typedef uint64_t ct_answer(uint32_t what, uint64_t address);
CT_EXPORT void ct_answer_with(ct_answer *answers);

/* Called when the target has ended or was let go, unless a command runs; on the debug loop's thread. */
typedef void ct_target_gone(void);
CT_EXPORT void ct_tell_target_gone(ct_target_gone *told);

/* The target is gone. */
void plugin_target_gone(void);

#endif
