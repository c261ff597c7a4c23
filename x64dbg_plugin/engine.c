/* The debugger for the Python port: see engine.h.
 *
 * x64dbg runs its debug loop on a thread of its own, which waits inside a callback while the target stands still; a
 * command lets it go on, and waits for it to come to the next stop.
 */
#include "engine.h"

#include <stdio.h>

#include "breakpoints.h"
#include "copies.h"
#include "titan.h"

enum { PAGE = 0x1000, MOST_BREAKPOINTS = 4096, LOOK_MS = 50 };

static HANDLE paused; /* set whenever the target has stopped or is gone */

/* Of a call in the target: */
static volatile uint64_t call_page; /* 0: none */
static volatile LONG goes_handled;  /* what becomes of the exception that the target stands at */
static volatile bool watching;
static bool run_under_way;          /* by ct_engine_run, which has not told of its end yet */
static struct ct_engine_event told; /* the event of the last run by ct_engine_run */
static uint64_t disabled[MOST_BREAKPOINTS];
static int disabled_count;

const struct titan *find_titan(void)
{
    static struct titan titan;
    HMODULE library = GetModuleHandleW(L"TitanEngine.dll");
    bool found = library != NULL;
#define RESOLVE(result, name, parameters)                                                                              \
    if (found && !titan.name)                                                                                          \
        found = (titan.name = (void *)(uintptr_t)GetProcAddress(library, #name)) != NULL;
    TITAN_FUNCTIONS(RESOLVE)
#undef RESOLVE
    return found ? &titan : NULL;
}

void ct_engine_state(struct ct_engine_state *state)
{
    *state = (struct ct_engine_state){0};
    if (!DbgIsDebugging() || DbgIsRunning() || !find_titan())
        return;
    const DEBUG_EVENT *event = find_titan()->GetDebugData();
    state->stopped = 1;
    state->process = event->dwProcessId;
    state->thread = event->dwThreadId;
    if (event->dwDebugEventCode == EXCEPTION_DEBUG_EVENT) {
        state->code = event->u.Exception.ExceptionRecord.ExceptionCode;
        state->first_chance = event->u.Exception.dwFirstChance;
    }
}

uint32_t ct_engine_threads(struct ct_engine_thread *threads, uint32_t room)
{
    THREADLIST found = {0};
    DbgGetThreadList(&found);
    for (uint32_t i = 0; i < (uint32_t)found.count && i < room; i++) {
        const THREADINFO *info = &found.list[i].BasicInfo;
        threads[i] = (struct ct_engine_thread){info->ThreadId, (uint32_t)info->ThreadNumber};
    }
    if (found.list)
        BridgeFree(found.list);
    return (uint32_t)found.count;
}

uint32_t ct_engine_current(void)
{
    return DbgGetThreadId();
}

bool ct_engine_select(uint32_t thread)
{
    char line[64];
    snprintf(line, sizeof line, "switchthread %x", (unsigned)thread);
    return DbgGetThreadId() == thread || DbgCmdExecDirect(line);
}

bool ct_engine_read(HANDLE process, uint64_t address, void *data, size_t size)
{
    size_t done = 0;
    return find_titan() && find_titan()->MemoryReadSafe(process, address, data, size, &done) && done == size;
}

/* The user's breakpoints in a range, by address: those whose int3 is in the code, or the others. Of what there are more
 * than MOST_BREAKPOINTS is left out. */
static int breakpoints(uint64_t start, uint64_t end, bool in_code, uint64_t *addresses)
{
    int count = 0;
    BPMAP found = {0};
    DbgGetBpList(bp_normal, &found);
    for (int i = 0; i < found.count && count < MOST_BREAKPOINTS; i++) {
        uint64_t address = found.bp[i].addr;
        if (address >= start && address < end && find_titan()->IsBPXEnabled(address) == in_code)
            addresses[count++] = address;
    }
    if (found.count)
        BridgeFree(found.bp);
    return count;
}

bool ct_engine_write(HANDLE process, uint64_t address, const void *data, size_t size)
{
    static uint64_t out[MOST_BREAKPOINTS];
    if (!find_titan())
        return false;
    /* The breakpoint that a thread has just stopped at is out of the code, and would be put in again. */
    int out_count = breakpoints(address, address + size, false, out);
    size_t done = 0;
    bool written = find_titan()->MemoryWriteSafe(process, address, data, size, &done) && done == size;
    for (int i = 0; i < out_count; i++)
        find_titan()->DisableBPX(out[i]);
    return written;
}

void ct_engine_begin_call(uint64_t page)
{
    /* Those of the debugger's own stay: they belong to a step of its user. */
    disabled_count = find_titan() ? breakpoints(0, UINT64_MAX, true, disabled) : 0;
    for (int i = 0; i < disabled_count; i++)
        find_titan()->DisableBPX(disabled[i]);
    breakpoints_rest(true);
    call_page = page;
}

void ct_engine_end_call(void)
{
    call_page = 0;
    breakpoints_rest(false);
    while (disabled_count)
        find_titan()->EnableBPX(disabled[--disabled_count]);
}

/* Give a command that lets the target run, and wait for its next stop; whether there is a target then. */
static bool run_by(const char *command)
{
    ResetEvent(paused);
    if (!DbgCmdExecDirect(command))
        return false;
    /* There are stops of which no plugin is told. */
    while (WaitForSingleObject(paused, LOOK_MS) && DbgIsDebugging() && DbgIsRunning())
        ;
    return DbgIsDebugging();
}

bool ct_engine_go(bool handled)
{
    goes_handled = handled;
    return run_by("erun"); /* exceptions go to the program without a stop of the debugger's own */
}

bool ct_engine_step(void)
{
    return run_by("sti");
}

uint32_t ct_engine_points(uint64_t *addresses, uint32_t room)
{
    uint32_t count = 0;
    BPMAP found = {0};
    DbgGetBpList(bp_normal, &found);
    for (int i = 0; i < found.count; i++) {
        if (found.bp[i].enabled && count < room)
            addresses[count] = found.bp[i].addr;
        count += found.bp[i].enabled;
    }
    if (found.count)
        BridgeFree(found.bp);
    return count;
}

bool ct_engine_point(uint64_t address, bool in)
{
    return in ? find_titan()->EnableBPX(address) : find_titan()->DisableBPX(address);
}

void ct_engine_watch(bool on)
{
    breakpoints_rest(on);
    run_under_way = false;
    watching = on;
}

uint32_t ct_engine_run(bool handled, uint32_t milliseconds, struct ct_engine_event *event)
{
    *event = (struct ct_engine_event){0};
    if (!run_under_way && DbgIsDebugging()) {
        goes_handled = handled;
        told = (struct ct_engine_event){0};
        ResetEvent(paused);
        run_under_way = DbgCmdExecDirect("erun");
    }
    /* There are stops of which no plugin is told. */
    bool stopped = !run_under_way || WaitForSingleObject(paused, milliseconds) == WAIT_OBJECT_0 || !DbgIsRunning();
    if (!DbgIsDebugging()) {
        run_under_way = false;
        return CT_GONE;
    }
    if (!stopped)
        return CT_RUNS;
    run_under_way = false;
    *event = told;
    return CT_STOPPED;
}

void ct_engine_break_in(void)
{
    DbgCmdExecDirect("pause");
}

/* The debugger goes on as after an event that is none of its business. */
static void skip(DEBUG_EVENT *event)
{
    event->dwDebugEventCode = 0;
    find_titan()->SetNextDbgContinueStatus(DBG_CONTINUE);
}

/* Of an exception of the program's let the debugger show where it is in the original. */
static void show_original(EXCEPTION_RECORD *record)
{
    uint64_t address = (uint64_t)(uintptr_t)record->ExceptionAddress;
    bool debuggers = record->ExceptionCode == EXCEPTION_SINGLE_STEP ||
                     (record->ExceptionCode == EXCEPTION_BREAKPOINT && find_titan()->IsBPXEnabled(address));
    if (!debuggers)
        record->ExceptionAddress = (void *)(uintptr_t)copies_original(address);
}

/* Whether an exception is of a breakpoint of the user's, which the debugger deals with. */
static bool is_users(const DEBUG_EVENT *event)
{
    const EXCEPTION_RECORD *record = &event->u.Exception.ExceptionRecord;
    if (record->ExceptionCode == EXCEPTION_BREAKPOINT)
        return find_titan()->IsBPXEnabled((uint64_t)(uintptr_t)record->ExceptionAddress);
    if (record->ExceptionCode != EXCEPTION_SINGLE_STEP)
        return false;
    HANDLE thread = OpenThread(THREAD_ALL_ACCESS, FALSE, event->dwThreadId);
    CONTEXT context;
    context.ContextFlags = CONTEXT_DEBUG_REGISTERS;
    bool hardware = thread && GetThreadContext(thread, &context) && context.Dr6 & 0xf && !(context.Dr6 & 0x4000);
    if (thread)
        CloseHandle(thread);
    return hardware;
}

/* Tell ct_engine_run of an event, and wait until it lets the target go on. The debugger has to hear of all but
 * exceptions, too. */
static void watch(DEBUG_EVENT *event)
{
    struct ct_engine_event now = {.kind = event->dwDebugEventCode, .thread = event->dwThreadId};
    switch (event->dwDebugEventCode) {
    case EXCEPTION_DEBUG_EVENT:
        if (is_users(event))
            return;
        now.code = event->u.Exception.ExceptionRecord.ExceptionCode;
        now.first_chance = event->u.Exception.dwFirstChance;
        now.address = (uint64_t)(uintptr_t)event->u.Exception.ExceptionRecord.ExceptionAddress;
        break;
    case CREATE_THREAD_DEBUG_EVENT:
        now.address = (uint64_t)(uintptr_t)event->u.CreateThread.lpStartAddress;
        break;
    case LOAD_DLL_DEBUG_EVENT:
        now.address = (uint64_t)(uintptr_t)event->u.LoadDll.lpBaseOfDll;
        break;
    case UNLOAD_DLL_DEBUG_EVENT:
        now.address = (uint64_t)(uintptr_t)event->u.UnloadDll.lpBaseOfDll;
        break;
    default:
        return;
    }
    told = now;
    goes_handled = now.code == 0 || now.code == EXCEPTION_BREAKPOINT ||
                   now.code == EXCEPTION_SINGLE_STEP; /* if its user is the one who lets the target go */
    _plugin_debugpause();
    if (now.kind == EXCEPTION_DEBUG_EVENT) {
        event->dwDebugEventCode = 0;
        find_titan()->SetNextDbgContinueStatus(goes_handled ? DBG_CONTINUE : DBG_EXCEPTION_NOT_HANDLED);
    }
}

/* On the debug loop's thread, before it looks at an event. */
static void on_event(CBTYPE type, void *info)
{
    (void)type;
    DEBUG_EVENT *event = ((PLUG_CB_DEBUGEVENT *)info)->DebugEvent;
    if (watching) {
        watch(event);
        return;
    }
    if (event->dwDebugEventCode != EXCEPTION_DEBUG_EVENT)
        return;
    EXCEPTION_RECORD *record = &event->u.Exception.ExceptionRecord;
    if (breakpoints_ignore(event)) {
        skip(event);
        return;
    }
    if (!call_page) {
        breakpoints_translate(event);
        show_original(record);
        return;
    }
    bool ours = (uint64_t)(uintptr_t)record->ExceptionAddress - call_page < PAGE;
    /* Breakpoints and steps elsewhere are the debugger's to tell from the program's. */
    if (!ours && (record->ExceptionCode == EXCEPTION_BREAKPOINT || record->ExceptionCode == EXCEPTION_SINGLE_STEP))
        return;
    goes_handled = ours; /* if its user is the one who lets the target go */
    _plugin_debugpause();
    /* What the debugger has to do about the breakpoint that the thread stood at before the call is still to come. */
    if (goes_handled)
        skip(event);
    breakpoints_in(); /* if its user has let the target go */
}

static void on_stop(CBTYPE type, void *info)
{
    (void)info;
    if (type == CB_STOPDEBUG) {
        watching = false;
        breakpoints_forget();
        copies_forget();
        plugin_target_gone();
    } else {
        breakpoints_out();
    }
    if (type == CB_STOPDEBUG || type == CB_PAUSEDEBUG)
        SetEvent(paused);
}

/* After the debug loop was told: the target may have stopped again. */
static void on_run(CBTYPE type, void *info)
{
    (void)type, (void)info;
    if (DbgIsRunning())
        breakpoints_in();
}

void engine_register(int plugin)
{
    if (!paused)
        paused = CreateEventW(NULL, TRUE, FALSE, NULL);
    breakpoints_begin();
    copies_begin(plugin);
    _plugin_registercallback(plugin, CB_DEBUGEVENT, on_event);
    _plugin_registercallback(plugin, CB_BREAKPOINT, on_stop); /* its conditions hold, its commands are still to run */
    _plugin_registercallback(plugin, CB_PAUSEDEBUG, on_stop);
    _plugin_registercallback(plugin, CB_DETACH, on_stop);
    _plugin_registercallback(plugin, CB_STOPDEBUG, on_stop);
    _plugin_registercallback(plugin, CB_RESUMEDEBUG, on_run);
}
