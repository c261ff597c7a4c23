/* A stand-in for x64dbg, where that is not at hand: x64dbg.dll with what our plugin and gui.c use of it, and of
 * x64bridge.dll and TitanEngine.dll, which forward to it.
 *
 * It loads the one plugin, holds what that passes to what the SDK's documentation says, and debugs a process as x64dbg
 * does: by software breakpoints that stay in memory, on a thread of its own, which waits inside a callback while the
 * target stands still. Whatever is not as it should be ends it with a line on the standard error.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#include <dbghelp.h>

#define EXPORT __declspec(dllexport)
#define SDK_FUNCTION EXPORT
#include "sdk.h"

/* What sizes and offsets have in the debugger: of the SDK's own headers, by a compiler. */
#define HAS_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#define LIES_AT(type, member, offset) _Static_assert(offsetof(type, member) == (offset), #type "." #member)
HAS_SIZE(PLUG_INITSTRUCT, 268);
LIES_AT(PLUG_INITSTRUCT, pluginName, 12);
HAS_SIZE(PLUG_SETUPSTRUCT, 40);
LIES_AT(PLUG_SETUPSTRUCT, hMenu, 8);
LIES_AT(PLUG_SETUPSTRUCT, hMenuSymmod, 32);
HAS_SIZE(PLUG_CB_DEBUGEVENT, 8);
HAS_SIZE(PLUG_CB_MENUENTRY, 4);
HAS_SIZE(ICONDATA, 16);
HAS_SIZE(SELECTIONDATA, 16);
HAS_SIZE(BPMAP, 16);
HAS_SIZE(BRIDGEBP, 1824);
LIES_AT(BRIDGEBP, addr, 8);
LIES_AT(BRIDGEBP, active, 18);
LIES_AT(BRIDGEBP, slot, 532);
LIES_AT(BRIDGEBP, typeEx, 534);
LIES_AT(BRIDGEBP, hitCount, 536);
LIES_AT(BRIDGEBP, breakCondition, 542);
HAS_SIZE(THREADINFO, 296);
LIES_AT(THREADINFO, ThreadId, 16);
HAS_SIZE(THREADALLINFO, 352);
LIES_AT(THREADALLINFO, ThreadCip, 296);
LIES_AT(THREADALLINFO, Cycles, 344);
HAS_SIZE(THREADLIST, 24);
LIES_AT(THREADLIST, CurrentThread, 16);
HAS_SIZE(struct label_info, 528);
LIES_AT(struct label_info, manual, 520);
HAS_SIZE(struct list_info, 24);

enum { GUI_SET_DEBUG_STATE = 1, GUI_ADD_MSG_TO_LOG = 2, GUI_MENU_ADD = 39, GUI_MENU_ADD_ENTRY = 40 };
enum {
    GUI_MENU_ADD_SEPARATOR = 41,
    GUI_SELECTION_GET = 43,
    GUI_GETLINE_WINDOW = 45,
    GUI_REF_INITIALIZE = 58,
    GUI_MENU_SET_ENTRY_HOTKEY = 92
};
enum { GUI_REF_ADDCOLUMN = 22, GUI_REF_SETROWCOUNT = 23, GUI_REF_SETCELLCONTENT = 26 };
enum { GUI_REF_RELOADDATA = 28, GUI_REF_SETPROGRESS = 30 };
enum { STATE_PAUSED = 1, STATE_STOPPED = 3, PLUGIN = 7, CALLBACKS = 32, MENUS = 7, ENTRIES = 64 };
enum { MOST = 64, LINE = 1024, TRAP = 0x100, INT3 = 0xcc };

static void *(*gui_sendmessage)(int type, void *first, void *second);
static int (*gui_init)(int argc, char **argv);

static HMODULE plugin;
static bool setting_up; /* pluginit or plugsetup runs */
static CBPLUGIN callbacks[CALLBACKS];
static char command_name[256];
static CBPLUGINCOMMAND command;
static int menus[MENUS];
static struct {
    int given, shown; /* by the plugin, by the window */
} entries[ENTRIES];
static int entry_count;

static HANDLE queue_filled, queue_lock, may_run;
static char queue[MOST][LINE];
static int queue_count;

static volatile bool debugging;
static volatile LONG skip_exceptions;
static DEBUG_EVENT event;
static DWORD continue_status;
static HANDLE process;
static uint64_t image_base;
static char program[LINE];
static DWORD chosen_thread;
static struct {
    DWORD id;
    HANDLE handle;
} threads[MOST];
static int thread_count;
static struct {
    uint64_t address;
    unsigned char original;
    bool active, never_stops; /* since its condition is 0 */
    char name[LINE], log[LINE];
} points[MOST];
static int point_count;

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "stand-in: %s\n", what);
        fflush(stderr);
        ExitProcess(5);
    }
}

static void check_text(const char *text, const char *what)
{
    check(text && *text && MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, NULL, 0), what);
}

static void log_text(const char *text)
{
    gui_sendmessage(GUI_ADD_MSG_TO_LOG, (void *)text, NULL);
}

static void tell(CBTYPE type, void *info)
{
    if (callbacks[type])
        callbacks[type](type, info);
}

/* The plugin's functions */

void _plugin_registercallback(int handle, CBTYPE type, CBPLUGIN callback)
{
    check(handle == PLUGIN && setting_up, "_plugin_registercallback: the plugin's own handle, while it is loaded");
    check((unsigned)type < CALLBACKS && callback, "_plugin_registercallback: an event of the SDK, and a function");
    callbacks[type] = callback;
}

bool _plugin_registercommand(int handle, const char *name, CBPLUGINCOMMAND function, bool only_when_debugging)
{
    (void)only_when_debugging;
    check(handle == PLUGIN && setting_up, "_plugin_registercommand: the plugin's own handle, while it is loaded");
    check_text(name, "_plugin_registercommand: a name in UTF-8");
    check(function && !command, "_plugin_registercommand: a function, once");
    snprintf(command_name, sizeof command_name, "%s", name);
    command = function;
    return true;
}

static struct {
    char name[LINE];
    CBPLUGINEXPRFUNCTION function;
} functions[MOST];
static int function_count;

bool _plugin_registerexprfunction(int handle, const char *name, int count, CBPLUGINEXPRFUNCTION function,
                                  void *userdata)
{
    (void)userdata;
    check(handle == PLUGIN && setting_up, "_plugin_registerexprfunction: the plugin's own handle, while it is loaded");
    check_text(name, "_plugin_registerexprfunction: a name in UTF-8");
    check(function && count == 1 && function_count < MOST, "_plugin_registerexprfunction: of one value");
    snprintf(functions[function_count].name, LINE, "%s", name);
    functions[function_count++].function = function;
    return true;
}

void _plugin_logprint(const char *text)
{
    check(text && MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, NULL, 0), "_plugin_logprint: UTF-8");
    check(strlen(text) < 16384, "_plugin_logprint: no more than the debugger prints");
    log_text(text);
}

static bool is_menu(int menu)
{
    for (int i = 0; i < MENUS; i++)
        if (menus[i] == menu)
            return true;
    return false;
}

bool _plugin_menuaddentry(int menu, int entry, const char *title)
{
    check(setting_up && is_menu(menu), "_plugin_menuaddentry: a menu of the plugin, in plugsetup");
    check_text(title, "_plugin_menuaddentry: a title in UTF-8");
    check(entry != -1 && entry_count < ENTRIES, "_plugin_menuaddentry: any handle but -1");
    for (int i = 0; i < entry_count; i++)
        check(entries[i].given != entry, "_plugin_menuaddentry: a handle of its own");
    int shown = (int)(INT_PTR)gui_sendmessage(GUI_MENU_ADD_ENTRY, (void *)(INT_PTR)menu, (void *)title);
    entries[entry_count].given = entry;
    entries[entry_count++].shown = shown;
    return true;
}

bool _plugin_menuaddseparator(int menu)
{
    check(setting_up && is_menu(menu), "_plugin_menuaddseparator: a menu of the plugin, in plugsetup");
    return true;
}

void _plugin_menuseticon(int menu, const ICONDATA *icon)
{
    check(setting_up && is_menu(menu), "_plugin_menuseticon: a menu of the plugin, in plugsetup");
    check(icon && icon->size > 8 && memcmp(icon->data, "\x89PNG\r\n\x1a\n", 8) == 0, "_plugin_menuseticon: a PNG");
}

void _plugin_menuentrysethotkey(int handle, int entry, const char *keys)
{
    check(handle == PLUGIN, "_plugin_menuentrysethotkey: the plugin's own handle");
    check_text(keys, "_plugin_menuentrysethotkey: keys");
    bool known = false;
    for (int i = 0; i < entry_count; i++)
        known |= entries[i].given == entry;
    check(known, "_plugin_menuentrysethotkey: an entry that was added");
}

static void pause_here(void)
{
    ResetEvent(may_run);
    gui_sendmessage(GUI_SET_DEBUG_STATE, (void *)STATE_PAUSED, NULL);
    skip_exceptions = false;
    void *reserved = NULL;
    tell(CB_PAUSEDEBUG, &reserved);
    WaitForSingleObject(may_run, INFINITE);
}

static DWORD loop_thread;

void _plugin_debugpause(void)
{
    check(GetCurrentThreadId() == loop_thread, "_plugin_debugpause: in a callback about an event");
    pause_here();
}

bool _dbg_addrinfoget(uint64_t address, SEGMENTREG segment, BRIDGE_ADDRINFO *info)
{
    check(address && segment == SEG_DEFAULT && info && info->flags, "_dbg_addrinfoget: what is asked");
    return false;
}

/* TitanEngine.dll */

EXPORT DEBUG_EVENT *GetDebugData(void)
{
    return &event;
}

EXPORT void SetNextDbgContinueStatus(DWORD status)
{
    check(status == (DWORD)DBG_CONTINUE || status == (DWORD)DBG_EXCEPTION_NOT_HANDLED, "SetNextDbgContinueStatus");
    continue_status = status;
}

static void (*after_exception)(void *record);

EXPORT void SetCustomHandler(DWORD which, void (*handler)(void *record))
{
    check(which == UE_CH_AFTEREXCEPTIONPROCESSING, "SetCustomHandler: one that the debugger does not use itself");
    after_exception = handler;
}

static bool poke(uint64_t address, unsigned char byte)
{
    DWORD old;
    SIZE_T done;
    if (!VirtualProtectEx(process, (void *)address, 1, PAGE_EXECUTE_READWRITE, &old))
        return false;
    bool written = WriteProcessMemory(process, (void *)address, &byte, 1, &done);
    VirtualProtectEx(process, (void *)address, 1, old, &old);
    return written;
}

static unsigned char peek(uint64_t address)
{
    unsigned char byte = 0;
    ReadProcessMemory(process, (void *)address, &byte, 1, NULL);
    return byte;
}

static int find_point(uint64_t address)
{
    for (int i = 0; i < point_count; i++)
        if (points[i].address == address)
            return i;
    return -1;
}

EXPORT bool IsBPXEnabled(uint64_t address)
{
    int at = find_point(address);
    return at >= 0 && points[at].active && peek(address) == INT3;
}

EXPORT bool EnableBPX(uint64_t address)
{
    int at = find_point(address);
    if (at < 0 || points[at].active)
        return false;
    points[at].original = peek(address);
    points[at].active = true;
    return poke(address, INT3);
}

EXPORT bool DisableBPX(uint64_t address)
{
    int at = find_point(address);
    if (at < 0 || !points[at].active)
        return false;
    points[at].active = false;
    return poke(address, points[at].original);
}

EXPORT bool MemoryReadSafe(HANDLE of, uint64_t address, void *data, size_t size, size_t *done)
{
    check(of && address && data && size && done, "MemoryReadSafe: what is to be read");
    if (!ReadProcessMemory(of, (void *)address, data, size, done))
        return false;
    for (int i = 0; i < point_count; i++)
        if (points[i].active && points[i].address - address < size)
            ((unsigned char *)data)[points[i].address - address] = points[i].original;
    return true;
}

EXPORT bool MemoryWriteSafe(HANDLE of, uint64_t address, const void *data, size_t size, size_t *done)
{
    check(of && address && data && size && done, "MemoryWriteSafe: what is to be written");
    bool active[MOST];
    for (int i = 0; i < point_count; i++) {
        active[i] = points[i].active && points[i].address - address < size;
        if (active[i])
            DisableBPX(points[i].address);
    }
    bool written = WriteProcessMemory(of, (void *)address, data, size, done);
    for (int i = 0; i < point_count; i++)
        if (active[i])
            EnableBPX(points[i].address);
    return written;
}

/* The debug loop */

static void move_thread(LONG64 by, bool trap)
{
    HANDLE thread = OpenThread(THREAD_ALL_ACCESS, FALSE, event.dwThreadId);
    CONTEXT context;
    context.ContextFlags = CONTEXT_CONTROL;
    GetThreadContext(thread, &context);
    context.Rip += (DWORD64)by;
    if (trap)
        context.EFlags |= TRAP;
    SetThreadContext(thread, &context);
    CloseHandle(thread);
}

static uint64_t to_reset; /* the breakpoint that a thread has just left */
static bool at_start, asked_to_stop;

static void on_exception(void)
{
    const EXCEPTION_RECORD *record = &event.u.Exception.ExceptionRecord;
    uint64_t address = (uint64_t)(uintptr_t)record->ExceptionAddress;
    continue_status = DBG_EXCEPTION_NOT_HANDLED;
    char text[2 * LINE];
    void *nothing = NULL;
    int at = find_point(address);
    if (record->ExceptionCode == EXCEPTION_BREAKPOINT && at >= 0 && points[at].active) {
        continue_status = DBG_CONTINUE;
        poke(address, points[at].original);
        move_thread(-1, true);
        tell(CB_BREAKPOINT, &nothing);
        if (*points[at].log)
            snprintf(text, sizeof text, "%s\n", points[at].log);
        else
            snprintf(text, sizeof text, "INT3 breakpoint at <%s> (%016llX)!\n", points[at].name,
                     (unsigned long long)address);
        log_text(text);
        if (!points[at].never_stops)
            pause_here();
        DisableBPX(address);
        to_reset = address;
    } else if (record->ExceptionCode == EXCEPTION_BREAKPOINT && (at_start || asked_to_stop)) {
        continue_status = DBG_CONTINUE;
        if (at_start)
            log_text("System breakpoint reached!\n");
        at_start = asked_to_stop = false;
        pause_here();
    } else if (record->ExceptionCode == EXCEPTION_SINGLE_STEP && to_reset) {
        continue_status = DBG_CONTINUE;
        EnableBPX(to_reset);
        to_reset = 0;
    } else {
        snprintf(text, sizeof text, "First chance exception on %016llX (%08lX)!\n", (unsigned long long)address,
                 record->ExceptionCode);
        log_text(text);
        if (!skip_exceptions || !event.u.Exception.dwFirstChance)
            pause_here();
    }
}

static void forget_thread(DWORD id)
{
    for (int i = 0; i < thread_count; i++)
        if (threads[i].id == id)
            threads[i] = threads[--thread_count];
}

static DWORD WINAPI debug_loop(void *line)
{
    STARTUPINFOA start = {.cb = sizeof start};
    PROCESS_INFORMATION made;
    loop_thread = GetCurrentThreadId();
    check(CreateProcessA(NULL, line, NULL, NULL, FALSE, DEBUG_ONLY_THIS_PROCESS | CREATE_NEW_CONSOLE, NULL, NULL,
                         &start, &made),
          "the program cannot be started");
    process = made.hProcess;
    at_start = debugging = true;
    char text[LINE];
    while (debugging && WaitForDebugEvent(&event, INFINITE)) {
        PLUG_CB_DEBUGEVENT info = {&event};
        chosen_thread = event.dwThreadId;
        continue_status = DBG_CONTINUE;
        tell(CB_DEBUGEVENT, &info);
        switch (event.dwDebugEventCode) {
        case CREATE_PROCESS_DEBUG_EVENT:
            image_base = (uint64_t)(uintptr_t)event.u.CreateProcessInfo.lpBaseOfImage;
            threads[thread_count].handle = event.u.CreateProcessInfo.hThread;
            threads[thread_count++].id = event.dwThreadId;
            break;
        case CREATE_THREAD_DEBUG_EVENT:
            check(thread_count < MOST, "too many threads");
            threads[thread_count].handle = event.u.CreateThread.hThread;
            threads[thread_count++].id = event.dwThreadId;
            break;
        case EXIT_THREAD_DEBUG_EVENT:
            forget_thread(event.dwThreadId);
            break;
        case EXCEPTION_DEBUG_EVENT:
            on_exception();
            if (after_exception)
                after_exception(&event.u.Exception.ExceptionRecord);
            break;
        case EXIT_PROCESS_DEBUG_EVENT:
            snprintf(text, sizeof text, "Process stopped with exit code 0x%lX (%ld)\n", event.u.ExitProcess.dwExitCode,
                     event.u.ExitProcess.dwExitCode);
            log_text(text);
            debugging = false;
            break;
        }
        ContinueDebugEvent(event.dwProcessId, event.dwThreadId, continue_status);
    }
    CloseHandle(process);
    thread_count = point_count = 0;
    void *reserved = NULL;
    tell(CB_STOPDEBUG, &reserved);
    gui_sendmessage(GUI_SET_DEBUG_STATE, (void *)STATE_STOPPED, NULL);
    return 0;
}

/* Commands */

/* FUNCTION(EXPRESSION) of the plugin's, MODULE:FUNCTION of the program or of a system library, or a hexadecimal number.
 */
EXPORT uint64_t DbgValFromString(const char *expression)
{
    const char *inner = strchr(expression, '('), *function = strchr(expression, ':');
    for (int i = 0; inner && i < function_count; i++)
        if (strncmp(expression, functions[i].name, strlen(functions[i].name)) == 0) {
            char text[LINE];
            snprintf(text, sizeof text, "%.*s", (int)strcspn(inner + 1, ")"), inner + 1);
            uint64_t value = DbgValFromString(text);
            return functions[i].function(1, &value, NULL);
        }
    if (!function)
        return strtoull(expression, NULL, 16);
    char module[LINE];
    snprintf(module, sizeof module, "%.*s.dll", (int)(function - expression), expression);
    HMODULE library = GetModuleHandleA(module); /* where it is in all processes */
    if (library)
        return (uint64_t)(uintptr_t)GetProcAddress(library, function + 1);
    library = LoadLibraryExA(program, NULL, DONT_RESOLVE_DLL_REFERENCES);
    uint64_t offset = (uint64_t)(uintptr_t)GetProcAddress(library, function + 1) - (uint64_t)(uintptr_t)library;
    FreeLibrary(library);
    return image_base + offset;
}

static void start_target(char *arguments)
{
    static char line[2 * LINE];
    char *path = strtok(arguments, "\""), *rest = path ? strtok(NULL, "\"") : NULL,
         *words = rest ? strtok(NULL, "\"") : "";
    check(path, "init \"PROGRAM\", \"ARGUMENTS\"");
    snprintf(program, sizeof program, "%s", path);
    snprintf(line, sizeof line, "\"%s\" %s", path, words ? words : "");
    SetEvent(may_run);
    CloseHandle(CreateThread(NULL, 0, debug_loop, line, 0, NULL));
    while (!debugging)
        Sleep(1);
}

static bool go_on(bool skip)
{
    if (!debugging || WaitForSingleObject(may_run, 0) == WAIT_OBJECT_0)
        return false;
    skip_exceptions = skip;
    SetEvent(may_run);
    void *reserved = NULL;
    tell(CB_RESUMEDEBUG, &reserved);
    return true;
}

static void set_point(const char *expression)
{
    check(point_count < MOST, "too many breakpoints");
    memset(&points[point_count], 0, sizeof *points);
    points[point_count].address = DbgValFromString(expression);
    snprintf(points[point_count].name, LINE, "%s", expression);
    points[point_count].name[strcspn(expression, ":")] = strchr(expression, ':') ? '.' : 0;
    EnableBPX(points[point_count++].address);
}

static void delete_point(const char *expression)
{
    int at = find_point(DbgValFromString(expression));
    check(at >= 0, "bc: no such breakpoint");
    DisableBPX(points[at].address);
    points[at] = points[--point_count];
}

/* ADDRESS, TEXT */
static void set_point_log(char *rest)
{
    char *text = strstr(rest, ", ");
    check(text, "SetBreakpointLog ADDRESS, TEXT");
    *text = 0;
    int at = find_point(DbgValFromString(rest));
    check(at >= 0, "SetBreakpointLog: no such breakpoint");
    snprintf(points[at].log, LINE, "%s", text + 2);
}

/* ADDRESS, 0 */
static void set_point_condition(char *rest)
{
    char *condition = strstr(rest, ", 0");
    check(condition, "SetBreakpointCondition ADDRESS, 0");
    *condition = 0;
    int at = find_point(DbgValFromString(rest));
    check(at >= 0, "SetBreakpointCondition: no such breakpoint");
    points[at].never_stops = true;
}

static void stop_target(void)
{
    asked_to_stop = true;
    check(DebugBreakProcess(process), "pause");
}

static void load_plugin(void);
static void unload_plugin(void);
static void set_label(const char *arguments);

static bool execute(char *line)
{
    char *rest = line + strcspn(line, " ");
    size_t size = (size_t)(rest - line);
    rest += *rest != 0;
#define IS(name) (size == strlen(name) && strncmp(line, name, size) == 0)
    if (command && IS(command_name)) {
        char *argv[] = {line, NULL};
        return command(1, argv);
    }
    if (IS("log")) {
        char text[LINE];
        snprintf(text, sizeof text, "%.*s\n", (int)strcspn(rest + 1, "\""), rest + 1);
        log_text(text);
    } else if (IS("init"))
        start_target(rest);
    else if (IS("run") || IS("erun"))
        return go_on(IS("erun"));
    else if (IS("pause"))
        stop_target();
    else if (IS("bp"))
        set_point(rest);
    else if (IS("bc"))
        delete_point(rest);
    else if (IS("labelset"))
        set_label(rest);
    else if (IS("SetBreakpointLog"))
        set_point_log(rest);
    else if (IS("SetBreakpointCondition"))
        set_point_condition(rest);
    else if (IS("switchthread"))
        chosen_thread = strtoul(rest, NULL, 16);
    else if (IS("StopDebug")) {
        TerminateProcess(process, 1);
        for (SetEvent(may_run); debugging; Sleep(1))
            SetEvent(may_run);
    } else if (IS("plugunload"))
        unload_plugin();
    else if (IS("plugload"))
        load_plugin();
    else
        log_text("Unknown command\n");
    return true;
}

static DWORD WINAPI command_loop(void *unused)
{
    (void)unused;
    for (;;) {
        char line[LINE];
        WaitForSingleObject(queue_filled, INFINITE);
        WaitForSingleObject(queue_lock, INFINITE);
        memcpy(line, queue[0], LINE);
        memmove(queue[0], queue[1], (size_t)--queue_count * LINE);
        SetEvent(queue_lock);
        execute(line);
    }
    return 0;
}

/* x64bridge.dll */

EXPORT bool DbgCmdExec(const char *line)
{
    check_text(line, "DbgCmdExec: a command in UTF-8");
    check(strlen(line) < LINE && queue_count < MOST, "DbgCmdExec: no more than the debugger takes");
    WaitForSingleObject(queue_lock, INFINITE);
    strcpy(queue[queue_count++], line);
    SetEvent(queue_lock);
    ReleaseSemaphore(queue_filled, 1, NULL);
    return true;
}

EXPORT bool DbgCmdExecDirect(const char *line)
{
    check_text(line, "DbgCmdExecDirect: a command in UTF-8");
    char copy[LINE];
    snprintf(copy, sizeof copy, "%s", line);
    return execute(copy);
}

EXPORT bool DbgIsDebugging(void)
{
    return debugging;
}

EXPORT bool DbgIsRunning(void)
{
    return WaitForSingleObject(may_run, 0) == WAIT_OBJECT_0;
}

EXPORT DWORD DbgGetThreadId(void)
{
    return chosen_thread;
}

static int allocated;

static void *allocate(size_t size)
{
    allocated++;
    return calloc(1, size);
}

EXPORT void BridgeFree(void *memory)
{
    check(memory && allocated-- > 0, "BridgeFree: what the debugger has allocated");
    free(memory);
}

EXPORT void DbgGetThreadList(THREADLIST *list)
{
    check(list, "DbgGetThreadList: a list");
    list->list = allocate(sizeof *list->list * MOST);
    list->count = thread_count;
    for (int i = 0; i < thread_count; i++) {
        list->list[i].BasicInfo.ThreadNumber = i;
        list->list[i].BasicInfo.ThreadId = threads[i].id;
        list->list[i].BasicInfo.Handle = threads[i].handle;
    }
}

EXPORT int DbgGetBpList(BPXTYPE type, BPMAP *list)
{
    check((type == bp_normal || type == bp_hardware) && list, "DbgGetBpList: one kind of breakpoints");
    list->count = type == bp_normal ? point_count : 0;
    if (list->count)
        list->bp = allocate(sizeof *list->bp * MOST);
    for (int i = 0; i < list->count; i++)
        list->bp[i] = (BRIDGEBP){.type = bp_normal, .addr = points[i].address, .enabled = true};
    return list->count;
}

EXPORT bool GuiSelectionGet(GUISELECTIONTYPE window, SELECTIONDATA *selection)
{
    check(window == GUI_DISASSEMBLY && selection, "GuiSelectionGet: of the disassembly");
    return gui_sendmessage(GUI_SELECTION_GET, (void *)(INT_PTR)window, selection) != NULL;
}

/* Settings */

static char setting[GUI_MAX_LINE_SIZE]; /* the only one */

static void check_setting(const char *section, const char *key)
{
    check_text(section, "BridgeSetting: a section");
    check_text(key, "BridgeSetting: a key");
}

EXPORT bool BridgeSettingGet(const char *section, const char *key, char *value)
{
    check_setting(section, key);
    check(value, "BridgeSettingGet: room");
    strcpy(value, setting);
    return *setting != 0;
}

EXPORT bool BridgeSettingSet(const char *section, const char *key, const char *value)
{
    check_setting(section, key);
    check(value && strlen(value) < sizeof setting, "BridgeSettingSet: a value");
    strcpy(setting, value);
    return true;
}

/* Comments and labels */

typedef struct {
    uint64_t address;
    char text[MAX_COMMENT_SIZE];
} note;
static note comments[MOST * MOST], labels[MOST * MOST];

static void check_place(uint64_t address, const char *text, const char *what)
{
    check(address && text, what);
    check(debugging, "comments and labels: of a target");
}

static char *note_at(note *notes, uint64_t address, bool make)
{
    int at = 0;
    while (notes[at].address && notes[at].address != address)
        at++;
    check(at + 1 < MOST * MOST, "too many comments");
    if (make)
        notes[at].address = address;
    return notes[at].address ? notes[at].text : NULL;
}

EXPORT bool DbgGetCommentAt(uint64_t address, char *text)
{
    check_place(address, text, "DbgGetCommentAt: an address and room");
    const char *there = note_at(comments, address, false);
    memset(text, 0, MAX_COMMENT_SIZE);
    if (there)
        strcpy(text, there);
    return there != NULL;
}

EXPORT bool DbgSetAutoCommentAt(uint64_t address, const char *text)
{
    check_place(address, text, "DbgSetAutoCommentAt: an address and a text");
    check_text(text, "DbgSetAutoCommentAt: UTF-8");
    check(strlen(text) < MAX_COMMENT_SIZE - 1, "DbgSetAutoCommentAt: no more than the debugger takes");
    snprintf(note_at(comments, address, true), MAX_COMMENT_SIZE, "\1%s", text);
    return true;
}

EXPORT bool DbgGetLabelAt(uint64_t address, SEGMENTREG segment, char *text)
{
    check_place(address, text, "DbgGetLabelAt: an address and room");
    check(segment == SEG_DEFAULT, "DbgGetLabelAt: a segment register");
    const char *there = note_at(labels, address, false);
    memset(text, 0, MAX_LABEL_SIZE);
    if (there)
        strcpy(text, there);
    return there != NULL;
}

static void set_label(const char *arguments)
{
    char place[LINE];
    const char *comma = strchr(arguments, ',');
    check(comma != NULL, "labelset: an address and a text");
    snprintf(place, sizeof place, "%.*s", (int)(comma - arguments), arguments);
    snprintf(note_at(labels, DbgValFromString(place), true), MAX_LABEL_SIZE, "%s", comma + 1 + strspn(comma + 1, " "));
}

EXPORT bool DbgSetAutoLabelAt(uint64_t address, const char *text)
{
    check_place(address, text, "DbgSetAutoLabelAt: an address and a text");
    check_text(text, "DbgSetAutoLabelAt: UTF-8");
    check(strlen(text) < MAX_LABEL_SIZE, "DbgSetAutoLabelAt: no more than the debugger takes");
    snprintf(note_at(labels, address, true), MAX_LABEL_SIZE, "%s", text);
    return true;
}

/* The references view */

static int view_columns, view_rows;

EXPORT void GuiReferenceInitialize(const char *name)
{
    check_text(name, "GuiReferenceInitialize: a title in UTF-8");
    view_columns = 0;
    gui_sendmessage(GUI_REF_INITIALIZE, (void *)name, NULL);
}

EXPORT void GuiReferenceAddColumn(int width, const char *title)
{
    check_text(title, "GuiReferenceAddColumn: a title in UTF-8");
    check(width >= 0, "GuiReferenceAddColumn: a width");
    view_columns++;
    gui_sendmessage(GUI_REF_ADDCOLUMN, (void *)(INT_PTR)width, (void *)title);
}

EXPORT void GuiReferenceSetRowCount(int count)
{
    check(count >= 0, "GuiReferenceSetRowCount: a count");
    view_rows = count;
    gui_sendmessage(GUI_REF_SETROWCOUNT, (void *)(INT_PTR)count, NULL);
}

EXPORT void GuiReferenceSetCellContent(int row, int column, const char *text)
{
    struct {
        int row, column;
        const char *text;
    } cell = {row, column, text};
    check(row >= 0 && row < view_rows && column >= 0 && column < view_columns, "GuiReferenceSetCellContent: a cell");
    check_text(text, "GuiReferenceSetCellContent: UTF-8");
    gui_sendmessage(GUI_REF_SETCELLCONTENT, &cell, NULL);
}

EXPORT void GuiReferenceSetProgress(int percent)
{
    check(percent >= 0 && percent <= 100, "GuiReferenceSetProgress: per cent");
    gui_sendmessage(GUI_REF_SETPROGRESS, (void *)(INT_PTR)percent, NULL);
}

EXPORT void GuiReferenceReloadData(void)
{
    gui_sendmessage(GUI_REF_RELOADDATA, NULL, NULL);
}

EXPORT void GuiUpdateAllViews(void)
{
    check(!setting_up, "GuiUpdateAllViews: when the window is there");
}

EXPORT bool GuiGetLineWindow(const char *title, char *text)
{
    check_text(title, "GuiGetLineWindow: a title in UTF-8");
    memset(text, 0, GUI_MAX_LINE_SIZE); /* as much as may come */
    return gui_sendmessage(GUI_GETLINE_WINDOW, (void *)title, text) != NULL;
}

EXPORT uint64_t DbgModBaseFromName(const char *name)
{
    check_text(name, "DbgModBaseFromName: a name in UTF-8");
    return debugging ? image_base : 0;
}

/* Of a call of a function, and of one by a pointer behind the instruction. */
EXPORT uint64_t DbgGetBranchDestination(uint64_t address)
{
    unsigned char code[6];
    int32_t distance;
    uint64_t target = 0;
    check(address, "DbgGetBranchDestination: an address");
    if (!ReadProcessMemory(process, (void *)address, code, sizeof code, NULL))
        return 0;
    bool by_pointer = code[0] == 0xff && code[1] == 0x15;
    size_t size = by_pointer ? 6 : 5;
    memcpy(&distance, code + size - 4, 4);
    if (by_pointer)
        ReadProcessMemory(process, (void *)(address + size + (int64_t)distance), &target, sizeof target, NULL);
    else if (code[0] == 0xe8)
        target = address + size + (uint64_t)(int64_t)distance;
    return target;
}

EXPORT bool DbgGetModuleAt(uint64_t address, char *name)
{
    check(name, "DbgGetModuleAt: room");
    const char *file = strrchr(program, '\\');
    if (!debugging || address - image_base >= 1 << 20)
        return false;
    snprintf(name, MAX_MODULE_SIZE, "%.*s", (int)strcspn(file + 1, "."), file + 1);
    return true;
}

EXPORT void DbgMenuEntryClicked(int shown)
{
    for (int i = 0; i < entry_count; i++)
        if (entries[i].shown == shown) {
            PLUG_CB_MENUENTRY info = {entries[i].given};
            tell(CB_MENUENTRY, &info);
        }
}

static void load_plugin(void)
{
    plugin = LoadLibraryA("plugins\\calltrace.dp64");
    check(plugin, "the plugin cannot be loaded");
    bool (*init)(PLUG_INITSTRUCT *) = (void *)(uintptr_t)GetProcAddress(plugin, "pluginit");
    void (*setup)(PLUG_SETUPSTRUCT *) = (void *)(uintptr_t)GetProcAddress(plugin, "plugsetup");
    PLUG_INITSTRUCT told = {.pluginHandle = PLUGIN};
    setting_up = true;
    check(init && init(&told), "pluginit");
    check(told.sdkVersion == PLUG_SDKVERSION, "pluginit: the SDK's version");
    check_text(told.pluginName, "pluginit: a name");
    char text[2 * LINE];
    snprintf(text, sizeof text, "[PLUGIN, %s] Command \"%s\" registered!\n[PLUGIN] %s v%d Loaded!\n", told.pluginName,
             command_name, told.pluginName, told.pluginVersion);
    log_text(text);
    for (int i = 0; i < MENUS; i++)
        menus[i] = (int)(INT_PTR)gui_sendmessage(GUI_MENU_ADD, (void *)(INT_PTR)i, told.pluginName);
    PLUG_SETUPSTRUCT given = {GetDesktopWindow(), menus[0], menus[1], menus[2], menus[3], menus[4], menus[5], menus[6]};
    if (setup)
        setup(&given);
    setting_up = false;
}

static void unload_plugin(void)
{
    bool (*stop)(void) = (void *)(uintptr_t)GetProcAddress(plugin, "plugstop");
    check(stop && stop(), "plugstop");
    memset(callbacks, 0, sizeof callbacks);
    command = NULL;
    entry_count = function_count = 0;
    FreeLibrary(plugin);
}

EXPORT const char *DbgInit(void)
{
    void *volatile walks = (void *)(uintptr_t)StackWalk64; /* which the debugger imports for its call stack */
    (void)walks;
    queue_filled = CreateSemaphoreW(NULL, 0, MOST, NULL);
    queue_lock = CreateEventW(NULL, FALSE, TRUE, NULL);
    may_run = CreateEventW(NULL, TRUE, TRUE, NULL);
    load_plugin();
    CloseHandle(CreateThread(NULL, 0, command_loop, NULL, 0, NULL));
    return NULL;
}

EXPORT void DbgExit(void)
{
    if (debugging)
        TerminateProcess(process, 1);
    check(!allocated, "BridgeFree: all that the debugger has allocated");
}

EXPORT const wchar_t *BridgeInit(void)
{
    HMODULE gui = LoadLibraryW(L"x64gui.dll");
    gui_sendmessage = (void *)(uintptr_t)GetProcAddress(gui, "_gui_sendmessage");
    gui_init = (void *)(uintptr_t)GetProcAddress(gui, "_gui_guiinit");
    return gui_sendmessage && gui_init ? NULL : L"x64gui.dll";
}

EXPORT const wchar_t *BridgeStart(void)
{
    LoadLibraryW(L"TitanEngine.dll");
    return gui_init(0, NULL) ? L"the window" : NULL;
}
