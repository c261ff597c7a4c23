/* What the Python port asks of the debugger, exported by the plugin for ctypes: on the thread of a running command. */
#ifndef CALLTRACE_X64DBG_ENGINE_H
#define CALLTRACE_X64DBG_ENGINE_H

#include "plugin.h"

/* Where the target stands. */
struct ct_engine_state {
    uint32_t stopped; /* is there one, and does it stand still? else the rest is 0 */
    uint32_t process; /* system's id of the process of the last event */
    uint32_t thread;  /* system's id of its thread */
    uint32_t code;    /* of an exception */
    uint32_t first_chance;
};

CT_EXPORT void ct_engine_state(struct ct_engine_state *state);

/* A thread by the system's id, and by the number that the debugger shows for it. */
struct ct_engine_thread {
    uint32_t id, number;
};

/* The threads, the first `room` of them; how many there are. */
CT_EXPORT uint32_t ct_engine_threads(struct ct_engine_thread *threads, uint32_t room);

/* The thread that the user has chosen. */
CT_EXPORT uint32_t ct_engine_current(void);
CT_EXPORT bool ct_engine_select(uint32_t thread);

/* Read or write the target's memory as if there were no breakpoints of the debugger in it, which stay. `process` is a
 * handle. False if the system refuses some of it. */
CT_EXPORT bool ct_engine_read(HANDLE process, uint64_t address, void *data, size_t size);
CT_EXPORT bool ct_engine_write(HANDLE process, uint64_t address, const void *data, size_t size);

/* Until the end: the user's breakpoints are out of the code, and the target stops at each exception, those on the page
 * at VA `page` among them, which it does not get to see. */
CT_EXPORT void ct_engine_begin_call(uint64_t page);
CT_EXPORT void ct_engine_end_call(void);

/* Let the target run to its next stop; the exception it stands at has been handled, or not. False if it does not run,
 * or has ended. */
CT_EXPORT bool ct_engine_go(bool handled);

/* A step of the debugger's own, into calls. */
CT_EXPORT bool ct_engine_step(void);

/* The user's enabled software breakpoints, the first `room` of them, by address; how many there are. */
CT_EXPORT uint32_t ct_engine_points(uint64_t *addresses, uint32_t room);

/* Take the user's breakpoint at an address out of the code, or put it in again, without his being told. */
CT_EXPORT bool ct_engine_point(uint64_t address, bool in);

/* While this is on, runs by ct_engine_run end at each event that is none of the user's breakpoints or steps, and
 * exceptions are not shown. It is off when the target is gone. */
CT_EXPORT void ct_engine_watch(bool on);

/* An event: dwDebugEventCode of a DEBUG_EVENT, and what is in it. */
struct ct_engine_event {
    uint32_t kind, thread, code, first_chance; /* kind 0: a stop for the user */
    uint64_t address;                          /* of an exception, a module, or a thread's first function */
};

enum { CT_RUNS, CT_STOPPED, CT_GONE };

/* Let the target run on if it does not, and look that long whether it stops; its exception has been handled, or not. */
CT_EXPORT uint32_t ct_engine_run(bool handled, uint32_t milliseconds, struct ct_engine_event *event);

/* Stop the running target. From any thread. */
CT_EXPORT void ct_engine_break_in(void);

/* Register for the debugger's events. */
void engine_register(int plugin);

#endif
