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

static const char command_name[] = "calltrace";
/* A menu entry and the line it stands for, in which %s is the address that is selected in the disassembly. */
typedef struct {
    const char *title; /* NULL: a line between entries */
    const char *line;  /* NULL: end of the running command */
} menu_entry;

static const menu_entry plugin_menu[] = {
    {"List of commands", "calltrace help"},
    {NULL, NULL},
    {"Cancel the running command", NULL},
};
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

bool ct_interrupted(void)
{
    return InterlockedExchange(&interrupted, 0) != 0;
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
    LeaveCriticalSection(&running);
    return done;
}

static void on_menu_entry(CBTYPE type, void *info)
{
    (void)type;
    const menu_entry *entry = &plugin_menu[((PLUG_CB_MENUENTRY *)info)->hEntry];
    if (entry->line)
        DbgCmdExec(entry->line);
    else
        InterlockedExchange(&interrupted, 1);
}

CT_EXPORT bool pluginit(PLUG_INITSTRUCT *init)
{
    init->sdkVersion = PLUG_SDKVERSION;
    init->pluginVersion = 1;
    strcpy(init->pluginName, command_name);
    handle = init->pluginHandle;
    _plugin_registercallback(handle, CB_MENUENTRY, on_menu_entry);
    engine_register(handle);
    return _plugin_registercommand(handle, command_name, command, false);
}

CT_EXPORT void plugsetup(PLUG_SETUPSTRUCT *setup)
{
    for (int i = 0; i < (int)(sizeof plugin_menu / sizeof *plugin_menu); i++) {
        if (plugin_menu[i].title)
            _plugin_menuaddentry(setup->hMenu, i, plugin_menu[i].title);
        else
            _plugin_menuaddseparator(setup->hMenu);
        if (plugin_menu[i].title && !plugin_menu[i].line)
            _plugin_menuentrysethotkey(handle, i, cancel_keys);
    }
}

/* Nothing to undo: the debugger takes back what was registered, and once Python was loaded, it and this DLL stay. */
CT_EXPORT bool plugstop(void)
{
    return true;
}
