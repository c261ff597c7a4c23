// build: -shared -O2 -fno-inline -fno-ipa-cp -fno-optimize-sibling-calls
/* A DLL that calls back whoever loaded it; see plugin_host.c. */
#include <windows.h>

static volatile long attached;

static void prepare(long change)
{
    attached += change;
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    (void)self;
    (void)reserved;
    if (reason == DLL_PROCESS_ATTACH)
        prepare(1);
    else if (reason == DLL_PROCESS_DETACH)
        prepare(-1);
    return TRUE;
}

__declspec(dllexport) long plugin_apply(long (*visit)(long), long count)
{
    long sum = attached;
    for (long i = 0; i < count; i++)
        sum += visit(i);
    return sum;
}
