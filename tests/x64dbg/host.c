/* Starts x64dbg as x64dbg.exe does, from this program's folder. */
#include <stdio.h>
#include <windows.h>

int main(void)
{
    typedef const wchar_t *function(void);
    HMODULE bridge = LoadLibraryW(L"x64bridge.dll");
    function *init = (function *)(UINT_PTR)GetProcAddress(bridge, "BridgeInit");
    function *start = (function *)(UINT_PTR)GetProcAddress(bridge, "BridgeStart");
    const wchar_t *failure = !init || !start ? L"x64bridge.dll cannot be loaded" : init();
    if (!failure)
        failure = start();
    if (failure)
        fwprintf(stderr, L"host: %ls\n", failure);
    return failure ? 3 : 0;
}
