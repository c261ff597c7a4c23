/* The C API of calltrace.dll: for mods, plugins and other instrumenters that want their own functions, calls and
 * marks in a trace that calltrace records. Plain C, usable from C++.
 *
 * calltrace.dll is in a process only while that process is traced, so do not link against it. Look it up:
 *
 *     HMODULE recorder = GetModuleHandleW(L"calltrace.dll");
 *     calltrace_function_enter_t *enter =
 *         recorder ? (calltrace_function_enter_t *)GetProcAddress(recorder, "calltrace_function_enter") : NULL;
 *
 * Every function may be called on any thread and at any time. It concerns the calling thread only, keeps the thread's
 * last error, and costs a few nanoseconds. While nothing is recorded it does nothing and says so in its result.
 *
 * An address is the virtual address of code. A call site is the address of the call instruction; NULL if not known.
 */
#ifndef CALLTRACE_H
#define CALLTRACE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef CALLTRACE_BUILDING
#define CALLTRACE_API __declspec(dllexport)
#else
#define CALLTRACE_API
#endif

enum calltrace_result {
    CALLTRACE_OK = 0,
    CALLTRACE_NOT_RECORDING = 1, /* nothing was recorded: no recording, or it was stopped */
    CALLTRACE_CUT = 2,           /* export_stack_trace: the outermost frames are missing */
};

#define CALLTRACE_NO_ID 0xFFFFFFFFu

/* One open frame: a function that was entered and not left, or a call outward that has not come back. */
struct calltrace_frame {
    const void *function;  /* entered, or called outward; NULL if the frame has an id instead */
    const void *call_site; /* NULL if not known */
    uint32_t function_id;  /* of a function instrumented by calltrace, as in the trace file; else CALLTRACE_NO_ID */
    uint32_t call_site_id; /* likewise of the call site */
};

/* The function at `function` begins, called from `call_site`. */
typedef enum calltrace_result calltrace_function_enter_t(const void *function, const void *call_site);
CALLTRACE_API calltrace_function_enter_t calltrace_function_enter;

/* The function entered as `function` returns. Frames above it that did not say so are closed with it. */
typedef enum calltrace_result calltrace_function_exit_t(const void *function);
CALLTRACE_API calltrace_function_exit_t calltrace_function_exit;

/* `target`, which need not be traced itself, is about to be called from `call_site`, */
typedef enum calltrace_result calltrace_function_call_t(const void *target, const void *call_site);
CALLTRACE_API calltrace_function_call_t calltrace_function_call;

/* and has come back to it. */
typedef enum calltrace_result calltrace_function_ret_t(const void *target, const void *call_site);
CALLTRACE_API calltrace_function_ret_t calltrace_function_ret;

/* The innermost open function leaves by a jump to `target`; `call_site` is the jump. Entering the target is an event of
 * its own. */
typedef enum calltrace_result calltrace_function_goto_t(const void *target, const void *call_site);
CALLTRACE_API calltrace_function_goto_t calltrace_function_goto;

/* Puts `number` into the trace, at this point of this thread. `calltrace diff FILE@7` is about what ran from the first
 * mark of 7 to the next mark; other threads are parted there by time, for which the trace needs a clock. */
typedef enum calltrace_result calltrace_mark_t(uint64_t number);
CALLTRACE_API calltrace_mark_t calltrace_mark;

/* Writes the calling thread's open frames, innermost first, to `frames`, at most `capacity` of them, and their number
 * to `count`. They are worked out from what the thread recorded, going back over a million events or so:
 * CALLTRACE_CUT says that there were, or may have been, more frames further out than were written. */
typedef enum calltrace_result calltrace_export_stack_trace_t(struct calltrace_frame *frames, uint32_t capacity,
                                                             uint32_t *count);
CALLTRACE_API calltrace_export_stack_trace_t calltrace_export_stack_trace;

/* Every open frame of the calling thread is forgotten: after a context switch of your own, or a longjmp. */
typedef enum calltrace_result calltrace_reset_stack_trace_t(void);
CALLTRACE_API calltrace_reset_stack_trace_t calltrace_reset_stack_trace;

#ifdef __cplusplus
}
#endif

#endif
