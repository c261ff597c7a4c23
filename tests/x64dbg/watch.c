/* A plugin that tells gui.c of each stop for its user: the window is told later, from another thread. */
#include "sdk.h"

#include <stdio.h>
#include <string.h>

static HANDLE stopped;

static void on_stop(CBTYPE type, void *info)
{
    (void)type, (void)info;
    SetEvent(stopped);
}

__declspec(dllexport) bool pluginit(PLUG_INITSTRUCT *init)
{
    char name[64];
    snprintf(name, sizeof name, "x64dbg-stopped-%lu", GetCurrentProcessId());
    stopped = OpenEventA(EVENT_MODIFY_STATE, FALSE, name);
    init->sdkVersion = PLUG_SDKVERSION;
    init->pluginVersion = 1;
    strcpy(init->pluginName, "watch");
    _plugin_registercallback(init->pluginHandle, CB_PAUSEDEBUG, on_stop);
    return stopped != NULL;
}
