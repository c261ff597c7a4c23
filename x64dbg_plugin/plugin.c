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
/* What completes the line of a menu entry. */
typedef enum {
    NOTHING,
    ADDRESS, /* selected in the disassembly */
    MODULE,  /* that this address is in */
    TYPED,   /* what its user types when he is asked */
    LAST,    /* the words with which the target was recorded last */
    OPTIONS, /* of each start by the menu: to be typed now, and kept */
} completion;

/* A menu entry and the line it stands for. */
typedef struct {
    bool in_disassembly; /* in the disassembly's context menu, too? */
    const char *title;   /* NULL: a line between entries */
    const char *line;    /* NULL: none, it is done here */
    completion rest;
} menu_entry;

static const char start_line[] = "calltrace start "; /* to which the settings belong */
static const menu_entry menu[] = {
    {true, "Start on this module", "calltrace start ", MODULE},
    {true, "Trace this function", "calltrace start ", ADDRESS},
    {false, "Start with options...", "calltrace start ", TYPED},
    {false, "Start as last time", "calltrace start ", LAST},
    {false, "Stop", "calltrace stop", NOTHING},
    {false, NULL, NULL, NOTHING},
    {false, "Stacks", "calltrace stacks", NOTHING},
    {false, "Tree", "calltrace tree", NOTHING},
    {false, "Top", "calltrace top", NOTHING},
    {true, "Callers of this", "calltrace callers ", ADDRESS},
    {true, "Callees of this", "calltrace callees ", ADDRESS},
    {false, "Export...", "calltrace export ", TYPED},
    {false, NULL, NULL, NOTHING},
    {false, "Settings...", NULL, OPTIONS},
    {false, "Cancel the running command", NULL, NOTHING},
    {false, "Help", "calltrace help", NOTHING},
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

void ct_print(const char *text)
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
        ct_print(bytes);
}

static bool run(const char *line)
{
    int size = MultiByteToWideChar(CP_UTF8, 0, line, -1, NULL, 0);
    WCHAR *wide = HeapAlloc(GetProcessHeap(), 0, sizeof *wide * (size_t)size);
    if (!wide)
        return false;
    MultiByteToWideChar(CP_UTF8, 0, line, -1, wide, size);
    ct_plugin plugin = {library, CALLTRACE_VERSION, "calltrace_x64dbg.host", "x64dbg_plugin", fail};
    ct_host_line(&plugin, wide);
    HeapFree(GetProcessHeap(), 0, wide);
    return true;
}

/* The debugger splits lines at commas, we at blanks: argv[0] is the whole line. */
static bool command(int argc, char **argv)
{
    (void)argc;
    /* Scripts and other plugins run commands on threads of their own. */
    if (!TryEnterCriticalSection(&running)) {
        ct_print("calltrace: another command is still running: wait for it, or cancel it in the menu\n");
        return false;
    }
    const char *rest = argv[0] + strcspn(argv[0], " ");
    bool done = run(rest);
    if (DbgIsDebugging())
        GuiUpdateAllViews(); /* code, comments and threads may have changed */
    LeaveCriticalSection(&running);
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

static void add_options(char *line)
{
    static char text[GUI_MAX_LINE_SIZE];
    size_t size = strlen(line);
    if (BridgeSettingGet(command_name, options_key, text) && text[0])
        snprintf(line + size, LINE_SIZE - size, "%s ", text);
}

/* Append what completes a line; false if there is nothing to be had. */
static bool complete(char *line, const menu_entry *entry)
{
    static char typed[GUI_MAX_LINE_SIZE];
    char name[MAX_MODULE_SIZE];
    size_t size = strlen(line);
    SELECTIONDATA selection;
    if (entry->rest == TYPED) {
        typed[0] = 0;
        if (!GuiGetLineWindow(entry->line, typed))
            return false;
        snprintf(line + size, LINE_SIZE - size, "%s", typed);
    } else if (entry->rest == LAST) {
        static char words[CT_STATE_TEXT], trace[CT_STATE_TEXT];
        if (!ct_state_last(words, trace)) {
            ct_print("calltrace: this program has not been recorded yet\n");
            return false;
        }
        snprintf(line + size, LINE_SIZE - size, "%s", words);
    } else if (entry->rest != NOTHING) {
        if (!GuiSelectionGet(GUI_DISASSEMBLY, &selection) ||
            (entry->rest == MODULE && !DbgGetModuleAt(selection.start, name))) {
            ct_print("calltrace: nothing is selected in the disassembly that this could be done with\n");
            return false;
        }
        if (entry->rest == MODULE)
            snprintf(line + size, LINE_SIZE - size, "-m \"%s\"", name);
        else
            snprintf(line + size, LINE_SIZE - size, "0x%llx", (unsigned long long)selection.start);
    }
    return true;
}

/* On the window's thread, which must not wait for a command. */
static void on_menu_entry(CBTYPE type, void *info)
{
    (void)type;
    const menu_entry *entry = &menu[((PLUG_CB_MENUENTRY *)info)->hEntry % MENU_SIZE];
    char line[LINE_SIZE];
    if (!entry->line) {
        if (entry->rest == OPTIONS)
            ask_options();
        else
            InterlockedExchange(&interrupted, 1);
        return;
    }
    snprintf(line, sizeof line, "%s", entry->line);
    if (strcmp(line, start_line) == 0 && entry->rest != TYPED && entry->rest != LAST)
        add_options(line);
    if (complete(line, entry))
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
        if (menu[i].title && !menu[i].line && menu[i].rest == NOTHING)
            _plugin_menuentrysethotkey(handle, i, cancel_keys);
    }
}

/* Nothing to undo: the debugger takes back what was registered, and once Python was loaded, it and this DLL stay. */
CT_EXPORT bool plugstop(void)
{
    return true;
}
