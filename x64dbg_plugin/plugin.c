/* calltrace.dp64: the command `calltrace` and a menu in x64dbg.
 *
 * The command line goes to Python as it is; Python prints, and sees the target, through the functions exported here and
 * in engine.c. Menu entries are command lines, so that what they do can also be typed. Only what works without Python
 * is told from here.
 */
#include "engine.h"

#include <stdio.h>
#include <string.h>

#include "hosting/hosting.h"
#include "state.h"

enum { LINE_SIZE = 1024 }; /* of a command, which the debugger takes with its end */

static const char command_name[] = "calltrace";
/* What of the selection in the disassembly is put behind the line of a menu entry. */
typedef enum {
    NOTHING,
    ADDRESS,
    API,    /* the address that a selected call or jump leads to, or its own */
    MODULE, /* that the address is in */
    LAST,   /* of no selection: the words with which the target was recorded last */
} selected;

/* A menu entry and the line it stands for. */
typedef struct {
    bool in_disassembly; /* in the disassembly's context menu, too? */
    const char *title;   /* NULL: a line between entries */
    const char *line;    /* NULL: none, it is done here */
    selected rest;
    bool asks; /* for what else is to be in the line */
} menu_entry;

static const char start_line[] = "calltrace start "; /* to which the settings belong */
static const menu_entry menu[] = {
    {true, "Start on this module", "calltrace start ", MODULE, false},
    {true, "Trace this function", "calltrace start ", ADDRESS, false},
    {false, "Start with options...", "calltrace start ", NOTHING, true},
    {false, "Start as last time", "calltrace start ", LAST, false},
    {false, "Stop", "calltrace stop", NOTHING, false},
    {false, NULL, NULL, NOTHING, false},
    {false, "Stacks", "calltrace stacks", NOTHING, false},
    {false, "Tree", "calltrace tree", NOTHING, false},
    {false, "Top", "calltrace top", NOTHING, false},
    {true, "Callers of this", "calltrace callers ", ADDRESS, false},
    {true, "Callees of this", "calltrace callees ", ADDRESS, false},
    {true, "Loop from here", "calltrace loop ", ADDRESS, false},
    {false, "Loop from selected API...", "calltrace loop ", API, true},
    {false, "Export...", "calltrace export ", NOTHING, true},
    {false, NULL, NULL, NOTHING, false},
    {false, "Settings...", NULL, NOTHING, true},
    {false, "Cancel the running command", NULL, NOTHING, false},
    {false, "Help", "calltrace help", NOTHING, false},
};
enum { MENU_SIZE = sizeof menu / sizeof *menu };
static const char cancel_keys[] = "Ctrl+Pause";

static HMODULE library;
static int handle; /* the debugger's, of this plugin */
static volatile LONG interrupted;
static CRITICAL_SECTION running; /* a command */

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH) {
        library = self;
        InitializeCriticalSection(&running);
        DisableThreadLibraryCalls(self);
    }
    return TRUE;
}

static ct_take *taken_by; /* what the running command prints; NULL: the log */

static void print(bool is_error, const char *text)
{
    if (taken_by)
        taken_by(is_error, text);
    else
        _plugin_logprint(text);
}

void ct_print(const char *text)
{
    print(false, text);
}

void ct_print_error(const char *text)
{
    print(true, text);
}

void ct_print_note(const char *text)
{
    _plugin_logprint(text);
}

bool ct_is_debugging(void)
{
    return DbgIsDebugging();
}

bool ct_interrupted(void)
{
    return InterlockedExchange(&interrupted, 0) != 0;
}

static ct_answer *answer; /* NULL: no command was given yet, and nothing recorded */

void ct_answer_with(ct_answer *answers)
{
    answer = answers;
}

static ct_target_gone *tell_target_gone; /* NULL: as `answer` */

void ct_tell_target_gone(ct_target_gone *told)
{
    tell_target_gone = told;
}

void plugin_target_gone(void)
{
    if (!tell_target_gone || !TryEnterCriticalSection(&running))
        return;
    tell_target_gone();
    LeaveCriticalSection(&running);
}

static uint64_t ask_hits(int count, const uint64_t *values, void *unused)
{
    (void)count, (void)unused;
    return answer ? answer(CT_HITS, values[0]) : 0;
}

static uint64_t ask_traced(int count, const uint64_t *values, void *unused)
{
    (void)count, (void)unused;
    return answer ? answer(CT_TRACED, values[0]) : 0;
}

static void fail(const wchar_t *text)
{
    char bytes[3 * CT_TEXT];
    if (WideCharToMultiByte(CP_UTF8, 0, text, -1, bytes, sizeof bytes, NULL, NULL))
        ct_print_error(bytes);
}

static void run(const char *line)
{
    int size = MultiByteToWideChar(CP_UTF8, 0, line, -1, NULL, 0);
    WCHAR *wide = HeapAlloc(GetProcessHeap(), 0, sizeof *wide * (size_t)size);
    if (!wide) {
        ct_print_error("calltrace: not enough memory for the command\n");
        return;
    }
    MultiByteToWideChar(CP_UTF8, 0, line, -1, wide, size);
    ct_plugin plugin = {library, CALLTRACE_VERSION, "calltrace_x64dbg.host", "x64dbg_plugin", fail};
    ct_host_line(&plugin, wide);
    HeapFree(GetProcessHeap(), 0, wide);
}

/* Scripts and other plugins run commands on threads of their own. */
bool ct_run(const char *line, ct_take *take)
{
    if (!TryEnterCriticalSection(&running))
        return false;
    taken_by = take;
    run(line);
    taken_by = NULL;
    if (DbgIsDebugging())
        GuiUpdateAllViews(); /* code, comments and threads may have changed */
    LeaveCriticalSection(&running);
    return true;
}

/* The debugger splits lines at commas, we at blanks: argv[0] is the whole line. */
static bool command(int argc, char **argv)
{
    (void)argc;
    bool done = ct_run(argv[0] + strcspn(argv[0], " "), NULL);
    if (!done)
        ct_print_note("calltrace: another command is still running: wait for it, or cancel it in the menu\n");
    return done;
}

/* What each start by the menu has, in the debugger's settings. */
static const char options_key[] = "StartOptions";

static void ask_options(void)
{
    static char text[GUI_MAX_LINE_SIZE], title[GUI_MAX_LINE_SIZE + 64];
    text[0] = 0;
    BridgeSettingGet(command_name, options_key, text);
    snprintf(title, sizeof title, "Options of each start by the menu, now: %s", text[0] ? text : "none");
    if (GuiGetLineWindow(title, text))
        BridgeSettingSet(command_name, options_key, text);
}

static bool append(char *line, const char *text)
{
    size_t size = strlen(line);
    if (size + strlen(text) >= LINE_SIZE) {
        ct_print_note("calltrace: that is longer than a command of the debugger may be\n");
        return false;
    }
    strcpy(line + size, text);
    return true;
}

static bool append_options(char *line)
{
    static char text[GUI_MAX_LINE_SIZE];
    if (!BridgeSettingGet(command_name, options_key, text) || !text[0])
        return true;
    return append(line, text) && append(line, " ");
}

static bool append_last(char *line)
{
    char words[CT_STATE_TEXT], trace[CT_STATE_TEXT];
    if (ct_state_last(words, trace))
        return append(line, words);
    ct_print_note("calltrace: this program has not been recorded yet\n");
    return false;
}

static bool append_selected(char *line, selected what)
{
    char name[MAX_MODULE_SIZE], text[MAX_MODULE_SIZE + 16];
    SELECTIONDATA selection;
    if (what == LAST)
        return append_last(line);
    if (!GuiSelectionGet(GUI_DISASSEMBLY, &selection) || (what == MODULE && !DbgGetModuleAt(selection.start, name))) {
        ct_print_note("calltrace: nothing is selected in the disassembly that this could be done with\n");
        return false;
    }
    uint64_t leads_to = what == API ? DbgGetBranchDestination(selection.start) : 0;
    if (what == MODULE)
        snprintf(text, sizeof text, "-m \"%s\" ", name);
    else
        snprintf(text, sizeof text, "0x%llx ", (unsigned long long)(leads_to ? leads_to : selection.start));
    return append(line, text);
}

static bool append_typed(char *line)
{
    static char typed[GUI_MAX_LINE_SIZE];
    typed[0] = 0;
    return GuiGetLineWindow(line, typed) && append(line, typed);
}

/* On the window's thread, which must not wait for a command. */
static void on_menu_entry(CBTYPE type, void *info)
{
    (void)type;
    const menu_entry *entry = &menu[((PLUG_CB_MENUENTRY *)info)->hEntry % MENU_SIZE];
    char line[LINE_SIZE];
    if (!entry->line) {
        if (entry->asks)
            ask_options();
        else
            InterlockedExchange(&interrupted, 1);
        return;
    }
    snprintf(line, sizeof line, "%s", entry->line);
    bool starts = strcmp(line, start_line) == 0 && !entry->asks && entry->rest != LAST;
    if ((!starts || append_options(line)) && (entry->rest == NOTHING || append_selected(line, entry->rest)) &&
        (!entry->asks || append_typed(line)))
        DbgCmdExec(line);
}

CT_EXPORT bool pluginit(PLUG_INITSTRUCT *init)
{
    init->sdkVersion = PLUG_SDKVERSION;
    init->pluginVersion = 1;
    strcpy(init->pluginName, command_name);
    handle = init->pluginHandle;
    _plugin_registercallback(handle, CB_MENUENTRY, on_menu_entry);
    engine_register(handle);
    state_register(handle);
    _plugin_registerexprfunction(handle, "calltrace.hits", 1, ask_hits, NULL);
    _plugin_registerexprfunction(handle, "calltrace.traced", 1, ask_traced, NULL);
    return _plugin_registercommand(handle, command_name, command, false);
}

static void set_icon(int of)
{
    HRSRC found = FindResourceW(library, L"MENU_ICON", (const WCHAR *)RT_RCDATA);
    HGLOBAL loaded = found ? LoadResource(library, found) : NULL;
    if (!loaded)
        return;
    ICONDATA icon = {LockResource(loaded), SizeofResource(library, found)};
    _plugin_menuseticon(of, &icon);
}

CT_EXPORT void plugsetup(PLUG_SETUPSTRUCT *setup)
{
    set_icon(setup->hMenu);
    set_icon(setup->hMenuDisasm);
    for (int i = 0; i < MENU_SIZE; i++) {
        if (!menu[i].title)
            _plugin_menuaddseparator(setup->hMenu);
        else
            _plugin_menuaddentry(setup->hMenu, i, menu[i].title);
        if (menu[i].in_disassembly) /* entries have numbers of their own in each menu */
            _plugin_menuaddentry(setup->hMenuDisasm, i + MENU_SIZE, menu[i].title);
        if (menu[i].title && !menu[i].line && !menu[i].asks)
            _plugin_menuentrysethotkey(handle, i, cancel_keys);
    }
}

/* Nothing to undo: the debugger takes back what was registered, and once Python was loaded, it and this DLL stay. */
CT_EXPORT bool plugstop(void)
{
    return true;
}
