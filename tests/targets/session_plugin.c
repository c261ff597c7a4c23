// build: -O2 -shared
/* A DLL to be loaded while its program is traced. */
#include <windows.h>

static volatile unsigned calls;

__declspec(dllexport) __attribute__((noinline)) unsigned plugin_step(unsigned n)
{
    calls++;
    return n * 2 + 1;
}

__declspec(dllexport) __attribute__((noinline)) unsigned plugin_work(unsigned count)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += plugin_step(i);
    return sum;
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    (void)self;
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH)
        plugin_step(0);
    return TRUE;
}
