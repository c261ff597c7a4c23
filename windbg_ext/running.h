/* The target run from one debug event to the next by a command, for the port that debugs it. To be called as the
 * functions of engine.h. */
#ifndef CALLTRACE_RUNNING_H
#define CALLTRACE_RUNNING_H

#include "extension.h"

/* What a run ended with. */
struct ct_event {
    ULONG kind;   /* DEBUG_EVENT_ value of an exception, a thread's start, a module, or the process's exit; 0: none */
    ULONG thread; /* system's id */
    ULONG code;   /* of an exception; exit code */
    ULONG first_chance; /* of an exception: is it? */
    ULONG64 address;    /* VA: of an exception, a thread's first function, a module's base */
};

/* Let the target run, and wait for its next event, `milliseconds` at most; if it runs already, only wait. `handled` is
 * about the exception it stands at. Every event of `process` (system's id) but the exit of a thread ends the run,
 * whatever the user has said about such, and he does not see it; `event` has none if a breakpoint of his did. S_FALSE:
 * nothing has, and the target runs. (Of a thread's exit we ask the engine nothing: under Wine it then fails to read
 * that thread's registers, and does not go on.) */
CT_EXPORT HRESULT ct_run_target(ULONG process, BOOL handled, ULONG milliseconds, struct ct_event *event);

/* Stop the running target, between two calls of ct_run_target: an exception on a thread that the system makes for it.
 */
CT_EXPORT HRESULT ct_interrupt(void);

#endif
