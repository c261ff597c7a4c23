// build: -O2 -shared
/* A DLL that cannot be loaded: its start fails. */
#include <windows.h>

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    (void)self;
    (void)reserved;
    return reason != DLL_PROCESS_ATTACH;
}
