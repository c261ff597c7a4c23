// build: -O2 -shared
/* A DLL to be loaded while its program is traced. */
#include <windows.h>

static volatile unsigned calls;

/* One byte, and no padding near by. */
void plugin_nothing(void);
__asm__(".text\n.fill 200, 1, 0xC3\n.globl plugin_nothing\n.def plugin_nothing; .scl 2; .type 32; .endef\n"
        "plugin_nothing: ret\n.fill 200, 1, 0xC3\n");

__declspec(dllexport) __attribute__((noinline)) unsigned plugin_step(unsigned n)
{
    calls++;
    plugin_nothing();
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
