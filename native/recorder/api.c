/* The C API of calltrace.h. */
#define CALLTRACE_BUILDING
#include "calltrace.h"
#include "session.h"

static enum calltrace_result record(enum ct_ext kind, const void *first, const void *second)
{
    bool recorded = ct_record(kind, (uint64_t)(uintptr_t)first, (uint64_t)(uintptr_t)second);
    return recorded ? CALLTRACE_OK : CALLTRACE_NOT_RECORDING;
}

enum calltrace_result calltrace_function_enter(const void *function, const void *call_site)
{
    return record(CT_EXT_ENTER, function, call_site);
}

enum calltrace_result calltrace_function_exit(const void *function)
{
    return record(CT_EXT_EXIT, function, NULL);
}

enum calltrace_result calltrace_function_call(const void *target, const void *call_site)
{
    return record(CT_EXT_CALL, target, call_site);
}

enum calltrace_result calltrace_function_ret(const void *target, const void *call_site)
{
    return record(CT_EXT_RET, target, call_site);
}

enum calltrace_result calltrace_function_goto(const void *target, const void *call_site)
{
    return record(CT_EXT_GOTO, target, call_site);
}

enum calltrace_result calltrace_mark(uint64_t number)
{
    return record(CT_EXT_MARK, (const void *)(uintptr_t)number, NULL);
}

enum calltrace_result calltrace_reset_stack_trace(void)
{
    return record(CT_EXT_RESET, NULL, NULL);
}
