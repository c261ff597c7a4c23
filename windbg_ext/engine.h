/* What the Python port asks of the debugger's engine, exported by the extension DLL for ctypes. All of it is to be
 * called on the engine's own thread while a command runs, but for ct_engine_break_in. */
#ifndef CALLTRACE_ENGINE_H
#define CALLTRACE_ENGINE_H

#include "extension.h"

/* Where the session stands. */
struct ct_engine_state {
    ULONG status;       /* DEBUG_STATUS_ value: DEBUG_STATUS_BREAK while the target is stopped; else the rest is 0 */
    ULONG process;      /* system's id of the process of the last event; 0 in a kernel's session, as the thread */
    ULONG thread;       /* system's id of its thread */
    ULONG event;        /* DEBUG_EVENT_ value */
    ULONG code;         /* of an exception */
    ULONG first_chance; /* of an exception: is it? */
};

/* The last event. */
CT_EXPORT HRESULT ct_engine_state(struct ct_engine_state *state);

/* System's ids of the threads of the last event's process: the first `room` of them; `count` is how many there are. */
CT_EXPORT HRESULT ct_engine_threads(ULONG *threads, ULONG room, ULONG *count);

/* The registers of a thread, by the system's id, as the engine and its user see them. CONTEXT is 16-byte aligned. The
 * engine's current thread stays what it is. */
CT_EXPORT HRESULT ct_engine_context(ULONG thread, CONTEXT *context);
CT_EXPORT HRESULT ct_engine_set_context(ULONG thread, CONTEXT *context);

/* The engine's current thread, by the system's id: what the user sees, and may have chosen. */
CT_EXPORT HRESULT ct_engine_current(ULONG *thread);
CT_EXPORT HRESULT ct_engine_select(ULONG thread);

/* Run a command line of the debugger; what it prints goes to `take`, and nowhere else. */
CT_EXPORT HRESULT ct_engine_execute(const char *command, void (*take)(const char *text));

/* From now on the user sees nothing but what the target itself says; or everything again. */
CT_EXPORT HRESULT ct_engine_mute(BOOL muted);

/* Let the target run to its next event; the exception it stands at has been handled, or not. */
CT_EXPORT HRESULT ct_engine_go(BOOL handled);

/* Stop the running target. From any thread. */
CT_EXPORT HRESULT ct_engine_break_in(void);

#endif
