/* The target run from one debug event to the next by a command, for the port that debugs it. To be called as the
 * functions of engine.h. */
#ifndef CALLTRACE_RUNNING_H
#define CALLTRACE_RUNNING_H

#include "extension.h"

/* What happened in the target. */
struct ct_event {
    ULONG kind;         /* DEBUG_EVENT_ value of an exception, a thread, a module, or of the process's exit */
    ULONG thread;       /* system's id */
    ULONG code;         /* of an exception; exit code */
    ULONG first_chance; /* of an exception: is it? */
    ULONG64 address;    /* VA: of an exception, a thread's first function, a module's base */
};

/* Let the target run, and wait for its next event, `milliseconds` at most; if it runs already, only wait. `handled` is
 * about the exception it stands at. Every event of `process` (system's id) but the exit of a thread ends the run,
 * whatever the user has said about such, and he does not see it. His own breakpoints end it, too. S_FALSE: nothing has,
 * and the target runs. `events` are valid until the next run: exits of threads, and last what ended the run, unless
 * the user's breakpoint did. (From a thread's exit the engine cannot go on under Wine.) */
CT_EXPORT HRESULT ct_run(ULONG process, BOOL handled, ULONG milliseconds, const struct ct_event **events, ULONG *count);

/* Stop the running target, between two calls of ct_run: an exception on a thread that the system makes for it. */
CT_EXPORT HRESULT ct_interrupt(void);

#endif
