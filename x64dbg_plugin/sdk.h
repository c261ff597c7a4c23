/* What is used of x64dbg's plugin SDK, version 1. The names of its functions are its own; what they import is listed in
 * x64dbg.def and x64bridge.def, of which the import libraries are made. All text is UTF-8. */
#ifndef CALLTRACE_X64DBG_SDK_H
#define CALLTRACE_X64DBG_SDK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <windows.h>

enum { PLUG_SDKVERSION = 1 };

typedef struct {
    int pluginHandle; /* given by the debugger; the rest is told to it */
    int sdkVersion;
    int pluginVersion;
    char pluginName[256];
} PLUG_INITSTRUCT;

typedef struct {
    HWND hwndDlg;
    int hMenu;
    int hMenuDisasm;
    int hMenuDump;
    int hMenuStack;
    int hMenuGraph;
    int hMenuMemmap;
    int hMenuSymmod;
} PLUG_SETUPSTRUCT;

typedef enum { CB_PAUSEDEBUG = 12, CB_DEBUGEVENT = 17, CB_MENUENTRY = 18, CB_STOPPINGDEBUG = 31 } CBTYPE;
typedef void (*CBPLUGIN)(CBTYPE type, void *info);
typedef bool (*CBPLUGINCOMMAND)(int argc, char **argv);

typedef struct {
    DEBUG_EVENT *DebugEvent;
} PLUG_CB_DEBUGEVENT;

typedef struct {
    int hEntry;
} PLUG_CB_MENUENTRY;

typedef struct {
    const void *data;
    uint64_t size;
} ICONDATA;

typedef enum { GUI_DISASSEMBLY = 0 } GUISELECTIONTYPE;

typedef struct {
    uint64_t start, end; /* VA of the first and last byte */
} SELECTIONDATA;

/* x64dbg.dll */
__declspec(dllimport) void _plugin_registercallback(int plugin, CBTYPE type, CBPLUGIN callback);
__declspec(dllimport) bool _plugin_registercommand(int plugin, const char *name, CBPLUGINCOMMAND command,
                                                   bool only_when_debugging);
__declspec(dllimport) void _plugin_logprint(const char *text);
__declspec(dllimport) bool _plugin_menuaddentry(int menu, int entry, const char *title);
__declspec(dllimport) bool _plugin_menuaddseparator(int menu);
__declspec(dllimport) void _plugin_menuseticon(int menu, const ICONDATA *icon);
__declspec(dllimport) void _plugin_menuentrysethotkey(int plugin, int entry, const char *keys);

/* x64bridge.dll */
__declspec(dllimport) bool DbgCmdExec(const char *command); /* by and by, on the debugger's command thread */
__declspec(dllimport) bool GuiSelectionGet(GUISELECTIONTYPE window, SELECTIONDATA *selection);

#endif
