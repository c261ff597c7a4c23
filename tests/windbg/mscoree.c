/* A .NET runtime that can do nothing: pykd asks for one when it is loaded, and Wine has none. */
#include <windows.h>

static HRESULT STDMETHODCALLTYPE refuse(void)
{
    return E_NOTIMPL;
}

static void *table[32]; /* more than the methods of ICLRMetaHost */
static struct {
    void **table;
} object = {table};

__declspec(dllexport) HRESULT WINAPI CLRCreateInstance(REFIID class, REFIID id, void **out)
{
    (void)class, (void)id;
    for (size_t at = 0; at < sizeof table / sizeof *table; at++)
        table[at] = (void *)refuse;
    *out = &object;
    return S_OK;
}
